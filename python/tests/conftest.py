"""What several test files share."""

from __future__ import annotations

import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def workplace(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """An empty folder to work in, with the repository's examples and tests in it as the docs expect them."""
    for name in ("examples", "python"):
        (tmp_path / name).symlink_to(ROOT / name, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / ".datasets"))
    return tmp_path


@pytest.fixture(scope="session")
def demo_model() -> str:
    return str(ROOT / "examples/demo/model")
