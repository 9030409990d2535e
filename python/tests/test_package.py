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
    with pytest.warns(UserWarning, match="model and against are both"):
        result = salient.perplexity(demo_model, TEXT, against=demo_model, max_windows=2)
    assert result.mean_kl == 0 and result.same_top == 1
    assert result.reference is not None and result.reference.perplexity == result.perplexity


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        ("short", {}, "not enough for one window of 512"),
        ("short", {"window": 1}, "perplexity: window=1: a whole number of at least 2"),
        ("short", {"window": -1}, "perplexity: window=-1"),
        ("short", {"window": 512.5}, "perplexity: window=512.5"),
        ("short", {"max_windows": -1}, "perplexity: max_windows=-1: a whole number of at least 1"),
        ([[1, 10**6]], {}, "vocabulary"),
        ([1] * 600, {"window": 600}, "window 0: a sequence of 600 tokens is longer than the model.s 512"),
        ([[1] * 600, [1] * 4], {}, "window 0: a sequence of 600 tokens"),
        ([1, 2.7], {}, "whole numbers are expected, not 2.7"),
        ([[1, 2], "text"], {}, "texts and ids are mixed"),
        ([{"content": "text"}], {}, "no text in column 'text' and no 'input_ids', only: 'content'"),
        ([], {}, "no text"),
    ],
)
def test_perplexity_refuses(demo_model: str, data: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        salient.perplexity(demo_model, data, **options)


@pytest.mark.parametrize("data", ["no/such/evaluation.txt", "evaluation texts.jsonl", "no/such/evaluation"])
def test_perplexity_of_a_mistyped_file(demo_model: str, data: str) -> None:
    for name in (data, pathlib.Path(data)):
        with pytest.raises(FileNotFoundError, match=data):
            salient.perplexity(demo_model, name)


@pytest.mark.parametrize("data", [b"some text", 5, None])
def test_perplexity_of_neither_text_nor_ids(demo_model: str, data: Any) -> None:
    with pytest.raises(TypeError, match=f"texts or token ids are expected, not {type(data).__name__}"):
        salient.perplexity(demo_model, data)


def test_perplexity_of_what_a_tokenizer_returns(demo_model: str) -> None:
    model = salient.load(demo_model)
    text = TEXT.read_text()[:3000]
    by_text = salient.perplexity(model, text, window=100)
    for kind in (None, "np", "pt"):
        encoding = model.tokenizer(text, return_tensors=kind, add_special_tokens=False)
        assert salient.perplexity(model, encoding, window=100) == by_text
        assert salient.perplexity(model, encoding["input_ids"], window=100) == by_text
    padded = model.tokenizer([text[:400], text[:200]], padding=True, return_tensors="np")
    plain = [model.tokenizer.encode(text[:400]), model.tokenizer.encode(text[:200])]
    assert salient.perplexity(model, padded) == salient.perplexity(model, plain)
    rows = [{"input_ids": ids} for ids in plain]
    assert salient.perplexity(model, rows, max_windows=1) == salient.perplexity(model, plain[:1])


def test_perplexity_of_rows_of_a_data_set(demo_model: str) -> None:
    texts = [TEXT.read_text()[:2000], TEXT.read_text()[2000:3000]]
    by_rows = salient.perplexity(demo_model, [{"story": text} for text in texts], text_column="story", window=100)
    assert by_rows == salient.perplexity(demo_model, texts, window=100)


def test_perplexity_of_ids_needs_no_tokenizer(demo_model: str, tmp_path: pathlib.Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(os.path.join(demo_model, name))
    assert salient.perplexity(tmp_path, [[1, 2, 3]]) == salient.perplexity(demo_model, [[1, 2, 3]])


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
