"""oneshot after a crash, and under a cap on memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import salient
from salient import oneshot
from salient.modifiers.awq import AWQModifier
from salient.modifiers.quantization import QuantizationModifier

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "examples/demo/model"
NEAREST = QuantizationModifier(scheme="W4A16", ignore=["lm_head"])
SEARCHED = [AWQModifier(n_grid=3), QuantizationModifier(scheme="W4A16_ASYM", ignore=["lm_head"])]


def run(output: Path, **arguments: Any) -> salient.CausalLM:
    sequences = [[(7 * row + 3 * i) % 3000 for i in range(48)] for row in range(6)]
    said: dict[str, Any] = {"recipe": SEARCHED, "dataset": sequences, "max_seq_length": 48, "progress": False}
    return oneshot(MODEL, output_dir=output, shuffle_calibration_samples=False, **{**said, **arguments})


def weights(directory: Path) -> bytes:
    return (directory / "model.safetensors").read_bytes()


def test_a_stopped_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    work, output = tmp_path / "work", tmp_path / "out"

    def stop(done: int, *_: object) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(output, work=work, progress=stop)
    assert not output.exists()
    with pytest.raises(ValueError, match="the work directory is not empty"):
        run(output, work=work)
    with pytest.raises(ValueError, match="the work directory holds another job: the recipe changed"):
        run(output, work=str(work), resume=True, recipe=NEAREST, dataset=None)
    handle = run(output, work=work, resume=True)
    assert handle.report["resumed_layers"] == 2
    run(tmp_path / "undisturbed")
    assert weights(output) == weights(tmp_path / "undisturbed") and not work.exists()


def test_resume_needs_a_work_directory(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="resume needs the work directory"):
        run(tmp_path / "out", resume=True)
    assert list(tmp_path.iterdir()) == []


def test_a_cap_that_nothing_fits_under_names_one_that_does(tmp_path: Path) -> None:
    with pytest.raises(MemoryError, match="the smallest cap that would do is") as caught:
        run(tmp_path / "out", max_memory="10MB")
    assert list(tmp_path.iterdir()) == []
    least = re.search(r"is (\d+MiB)", str(caught.value))
    assert least is not None
    run(tmp_path / "out", max_memory=least[1])
    assert (tmp_path / "out/config.json").exists()
