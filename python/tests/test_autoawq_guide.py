"""docs/coming-from-autoawq.md: its scripts run, and are AutoAWQ's but for the imports."""
from __future__ import annotations

import contextlib
import io
import pathlib
import re
from typing import Any

import pytest

import salient

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "coming-from-autoawq.md"


def snippets() -> list[tuple[str, str]]:
    """(info string, code) of the fenced Python blocks of the page."""
    return re.findall(r"^```(python[^\n]*)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def test_new_scripts_differ_from_the_old_by_their_imports_only() -> None:
    blocks = snippets()
    pairs = [(code, blocks[i + 1]) for i, (info, code) in enumerate(blocks) if info == "python old"]
    assert len(pairs) >= 6
    for old, (info, new) in pairs:
        assert info == "python"
        assert re.sub(r"^from (awq|transformers)\b", "from salient", old, flags=re.MULTILINE) == new


def test_the_guide_runs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SALIENT_WORK", str(tmp_path))
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples", target_is_directory=True)
    names: dict[str, Any] = {"__name__": "guide"}
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        for index, (info, code) in enumerate(snippets()):
            if info == "python":
                exec(compile(code, f"{PAGE.name}, snippet {index}", "exec"), names)
    assert 'saved at "demo-awq"' in said.getvalue()
    assert salient.CausalLM("demo-scaled").info["quantization"] is None
    assert salient.CausalLM("demo-packed").info["quantization"] is not None
