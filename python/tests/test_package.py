"""The package as a whole: types, perplexity, progress, notebooks, independence of torch."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import salient
from salient import _progress

from conftest import ROOT

TEXT = ROOT / "examples/demo/evaluation.txt"


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=600, **options)


def test_version_is_that_of_the_distribution() -> None:
    assert salient.__version__ == importlib.metadata.version("salient")


def test_the_program_comes_with_the_package() -> None:
    program = os.path.join(os.path.dirname(sys.executable), "salient")
    if not os.path.exists(program):
        pytest.skip("the package is not installed, only on the path")
    assert salient.__version__ in run(program, "--version").stdout


def test_neither_torch_nor_transformers_are_imported() -> None:
    code = (
        "import salient, salient.modifiers.awq, sys; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    assert run(sys.executable, "-c", code).stdout == "[]\n"


def test_types_hold(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("mypy")
    use = tmp_path / "use.py"
    use.write_text(
        "import salient\n"
        "from salient.modifiers.awq import AWQModifier\n"
        "model: salient.CausalLM = salient.load('x')\n"
        "ids = model.logits([1, 2])\n"
        "text: float = salient.perplexity(model, 'text').perplexity\n"
        "AWQModifier(duo_scaling='both')\n"
    )
    mypy = (
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file",
        str(ROOT / "pyproject.toml"),
        "--cache-dir",
        str(tmp_path),
    )
    for subject in (("-p", "salient"), (str(use),)):
        checked = run(*mypy, *subject, cwd=tmp_path)
        assert checked.returncode == 0, checked.stdout


def test_the_code_is_laid_out() -> None:
    pytest.importorskip("ruff")
    for command in (["check"], ["format", "--check"]):
        checked = run(sys.executable, "-m", "ruff", *command, "--no-cache", str(ROOT / "python"), cwd=ROOT)
        assert checked.returncode == 0, checked.stdout


# ---- perplexity


def test_perplexity_is_that_of_the_command_line(demo_model: str) -> None:
    program = os.path.join(os.path.dirname(sys.executable), "salient")
    if not os.path.exists(program):
        pytest.skip("the package is not installed, only on the path")
    said = json.loads(run(program, "eval", demo_model, "--text", str(TEXT), "--max-windows", "3", "--json").stdout)
    result = salient.perplexity(demo_model, TEXT, max_windows=3)
    assert (result.perplexity, result.predictions) == (said["perplexity"], said["predictions"])
    assert float(result) == result.perplexity and result.reference is None


def test_perplexity_of_a_file_its_text_and_its_ids(demo_model: str) -> None:
    model = salient.load(demo_model)
    text = TEXT.read_text()[:4000]
    ids = np.array(model.tokenizer.encode(text, add_special_tokens=False))
    windows = [ids[begin : begin + 100] for begin in range(0, len(ids) - 99, 100)]
    by_text = salient.perplexity(model, text, window=100)
    assert by_text == salient.perplexity(model, [text], window=100) == salient.perplexity(model, ids, window=100)
    assert by_text == salient.perplexity(model, windows)
    scores = np.concatenate([model.score(one, 1)[0] for one in windows])
    assert by_text.predictions == len(scores) and by_text.mean_loss == pytest.approx(-scores.mean(), abs=1e-4)


def test_perplexity_against_itself_finds_no_difference(demo_model: str) -> None:
    result = salient.perplexity(demo_model, TEXT, against=demo_model, max_windows=2)
    assert result.mean_kl == 0 and result.same_top == 1
    assert result.reference is not None and result.reference.perplexity == result.perplexity


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        ("short", {}, "not enough for one window of 512"),
        ("short", {"window": 1}, "window of 1"),
        ([[1, 10**6]], {}, "vocabulary"),
        ([], {}, "no text"),
    ],
)
def test_perplexity_refuses(demo_model: str, data: Any, options: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        salient.perplexity(demo_model, data, **options)


# ---- progress


def test_a_bar_without_tqdm_says_how_long_it_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with _progress.progress(30, "quantizing", unit="layer") as bar:
        for done in range(1, 31):
            bar.update(done)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("quantizing: [##                  ] 3/30 layers, 0 s elapsed")
    assert lines[-1].startswith("quantizing: [####################] 30/30 layers")


def test_a_bar_on_a_terminal_rewrites_its_line() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    bar = _progress._PlainBar(2, "evaluating", "step", stream)
    bar.update(1)
    bar.update(2)
    bar.close()
    assert stream.getvalue().count("\r") == 2 and stream.getvalue().endswith("left\n")


def test_tqdm_is_used_where_it_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    with _progress.progress(4, "quantizing", unit="layer") as bar:
        bar.update(4)
    assert "quantizing: 100%" in capsys.readouterr().err


def test_it_works_in_a_notebook(tmp_path: pathlib.Path, demo_model: str) -> None:
    client = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    cells = [
        "import salient",
        f"model = salient.load({demo_model!r}); model",
        "from salient.modifiers.quantization import QuantizationModifier\n"
        f"salient.oneshot(model={demo_model!r}, recipe=[QuantizationModifier(scheme='W4A16')], output_dir='out')",
        "print(model.generate('Once upon a time', max_new_tokens=4))",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [
        [output.get("data", {}).get("text/plain", output.get("text", "")) for output in cell.outputs]
        for cell in notebook.cells
    ]
    assert "LlamaForCausalLM" in shown[1][-1]
    assert "int4 symmetric, group 128" in shown[2][-1]
    assert any("quantizing" in text for text in shown[2])
    assert shown[3][-1].strip() != ""
