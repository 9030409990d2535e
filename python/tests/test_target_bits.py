"""oneshot(target_bits=...), a number of bits for each linear, oneshot(effort=...), and the order of columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import salient
from salient import oneshot
from salient.modifiers.awq import AWQModifier
from salient.modifiers.quantization import QuantizationArgs, QuantizationModifier, QuantizationScheme

MODEL = Path(__file__).resolve().parents[2] / "examples/demo/model"


def nearest() -> QuantizationModifier:
    return QuantizationModifier(scheme="W4A16", ignore=["lm_head"])


def quantized(**arguments: Any) -> salient.CausalLM:
    ids = np.random.default_rng(0).integers(1, 3000, (6, 48)).tolist()
    return oneshot(**{"model": MODEL, "dataset": ids, "max_seq_length": 48, "progress": False, **arguments})


def test_target_bits_are_kept_and_reported(tmp_path: Path) -> None:
    model = quantized(recipe=[AWQModifier(), nearest()], target_bits=3.5, output_dir=tmp_path / "out")
    bits = model.report["bits"]
    assert bits["target_bits"] == 3.5 and 3.2 < bits["mean_bits"] <= 3.5
    widths = {name: unit["num_bits"] for unit in bits["units"] for name in unit["linears"]}
    assert len(widths) == 28 and len(set(widths.values())) > 1
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    for group in config["config_groups"].values():
        assert {widths[name] for name in group["targets"]} == {group["weights"]["num_bits"]}
    in_recipe = (
        "AWQModifier: {}\nQuantizationModifier: {scheme: W4A16, ignore: [lm_head]}\nsalient: {target_bits: 3.5}\n"
    )
    assert quantized(recipe=in_recipe).report["bits"]["mean_bits"] <= 3.5


def test_effort_says_what_the_recipe_leaves_open() -> None:
    assert "rounding nearest" in quantized(recipe=[AWQModifier(), nearest()], effort="fast").report["method"]
    assert "rounding matched" in quantized(recipe=[AWQModifier(), nearest()], effort="best").report["method"]
    with pytest.raises(ValueError, match=r"effort: \"bset\" is unknown; did you mean \"best\""):
        quantized(recipe=[AWQModifier(), nearest()], effort="bset")
    with pytest.raises(ValueError, match="effort fast is for AWQ"):
        quantized(recipe=nearest(), dataset=None, effort="fast")
    named = {"salient": {"rounding": "nearest", "propagate_error": True}}
    with pytest.raises(ValueError, match=r"effort best stands beside recipe\.json, which names rounding and propagate"):
        quantized(recipe=[AWQModifier(), nearest(), named], effort="best")
    scaled = {"salient": {"result": "scaled"}}
    with pytest.raises(ValueError, match="effort default is for integers, but the result is scaled"):
        quantized(recipe=[AWQModifier(), nearest(), scaled], effort="default")


def test_target_bits_that_cannot_be_reached_are_refused() -> None:
    with pytest.raises(ValueError, match=r"target_bits is 1\.5; .* take 2\.1250 to 8\.1250 bits"):
        quantized(recipe=[AWQModifier(), nearest()], target_bits=1.5)
    with pytest.raises(ValueError, match="target_bits chooses numbers of bits by errors measured"):
        quantized(recipe=nearest(), dataset=None, target_bits=4.5)
    with pytest.raises(ValueError, match="autoawq-gemm holds 4-bit codes only"):
        quantized(recipe=[AWQModifier(), nearest()], target_bits=4.5, format="autoawq-gemm")


def test_actorder_none_is_the_strongest_first_and_false_as_they_stand(tmp_path: Path) -> None:
    def written(name: str, section: dict[str, Any] | None = None, **said: Any) -> tuple[bytes, str]:
        args = QuantizationArgs(num_bits=4, symmetric=False, group_size=128, **said)
        groups = {"group_0": QuantizationScheme(targets=["Linear"], weights=args)}
        recipe: list[Any] = [AWQModifier(n_grid=3), QuantizationModifier(ignore=["lm_head"], config_groups=groups)]
        quantized(recipe=recipe + ([{"salient": section}] if section else []), output_dir=tmp_path / name)
        return (tmp_path / name / "model.safetensors").read_bytes(), (tmp_path / name / "recipe.yaml").read_text()

    left_out, unsaid = written("left_out"), written("none", actorder=None)
    strongest, plain = written("weight", actorder="weight"), written("false", actorder=False)
    assert left_out == unsaid and unsaid[0] == strongest[0] != plain[0]
    assert "actorder" not in unsaid[1] and "actorder: weight" in strongest[1] and "actorder: false" in plain[1]
    quantized(recipe=plain[1], output_dir=tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == plain[0]
    nearest = {"rounding": "nearest"}  # which has no order
    assert written("nearest", nearest)[0] == written("nearest_false", nearest, actorder=False)[0]
    with pytest.raises(ValueError, match="actorder is the order of compensated rounding, but the rounding is nearest"):
        written("refused", nearest, actorder="weight")
