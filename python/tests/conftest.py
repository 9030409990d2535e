"""What several test files share."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def output_behind_ctrl_c(script: str) -> str:
    """What a script prints behind its first line, "ready", shortly after which it is interrupted. It ends well."""
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output


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
