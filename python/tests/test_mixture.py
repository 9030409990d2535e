"""Several data sets mixed by weight, text of the model's own, tokens that do not count."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import salient
from salient._data import calibration_blocks, calibration_sequences
from salient._masks import count, split
from salient._mixture import draw_self, is_self, mixed, mixture_of
from salient.modifiers.awq import AWQModifier
from salient.modifiers.quantization import QuantizationModifier

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "examples/demo/model"
TEXT = ROOT / "examples/demo/calibration.txt"
RECIPE = [AWQModifier(n_grid=3), QuantizationModifier(scheme="W4A16_ASYM", ignore=["lm_head"])]


class Letters:
    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [ord(letter) for letter in text]


def rows(data: Any, **options: Any) -> tuple[list[list[int]], list[list[int]] | None]:
    ids, masks = split(calibration_sequences(data, **{"tokenizer": Letters(), "max_seq_length": 8, **options}))
    return [row.tolist() for row in ids], None if masks is None else [mask.tolist() for mask in masks]


def run(**arguments: Any) -> salient.CausalLM:
    said: dict[str, Any] = {
        "model": MODEL,
        "recipe": RECIPE,
        "max_seq_length": 32,
        "num_calibration_samples": 6,
        "progress": False,
    }
    return salient.oneshot(**{**said, **arguments})


def weights(directory: Path) -> bytes:
    return (directory / "model.safetensors").read_bytes()


# ---- masks


def test_masked_tokens_are_kept_apart() -> None:
    data = [{"input_ids": [5, 6, 7], "token_mask": [0, 1, 0]}, {"input_ids": [8]}, "ab"]
    assert rows(data, num_samples=9) == ([[5, 6, 7], [97, 98], [8]], [[0, 1, 0], [1, 1], [1]])
    assert rows([[5, 6]]) == ([[5, 6]], None)
    assert rows([{"input_ids": [0, 0], "token_mask": [0, 1]}]) == ([[0, 0]], [[0, 1]])


def test_padding_and_mask_together() -> None:
    row = {"input_ids": [9, 5, 6, 7], "attention_mask": [0, 1, 1, 1], "token_mask": [1, 0, 1, 1]}
    assert rows([row]) == ([[5, 6, 7]], [[0, 1, 1]])
    batch = {"input_ids": [[5, 6], [7, 9]], "attention_mask": [[1, 1], [1, 0]], "token_mask": [[0, 1], [1, 1]]}
    assert rows([batch]) == ([[5, 6], [7]], [[0, 1], [1]])


def test_masks_are_cut_and_joined_with_their_sequences() -> None:
    data = [{"input_ids": [1, 2, 3], "token_mask": [1, 0, 1]}, {"input_ids": [4, 5, 6], "token_mask": [0, 1, 1]}]
    assert rows(data, max_seq_length=2) == ([[1, 2], [4, 5]], [[1, 0], [0, 1]])
    assert rows(data, max_seq_length=4, concatenate=True) == ([[1, 2, 3, 4]], [[1, 0, 1, 0]])
    ids, masks = split(calibration_blocks(data, tokenizer=Letters(), max_calib_seq_len=3))
    assert masks is not None and [mask.tolist() for mask in masks] == [[1, 0, 1], [0, 1, 1]]
    assert ids[0].tolist() == [1, 2, 3]
    assert count(calibration_sequences(data, tokenizer=Letters(), max_seq_length=8)) == 4


def test_a_loss_mask_counts_when_asked_for() -> None:
    data = [{"input_ids": [5, 6, 7], "loss_mask": [0, 1, 1]}] * 2
    assert rows(data, use_loss_mask=True) == ([[5, 6, 7]] * 2, [[0, 1, 1]] * 2)
    with pytest.warns(UserWarning, match="row 0: its loss_mask has no effect; use_loss_mask=True") as told:
        assert rows(data) == ([[5, 6, 7]] * 2, None)
    assert len(told) == 1
    with pytest.raises(ValueError, match="row 0: token_mask and loss_mask are two names"):
        rows([{"input_ids": [5], "token_mask": [1], "loss_mask": [1]}], use_loss_mask=True)


def test_masks_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="row 0: token_mask has 1 numbers for 2 ids"):
        rows([{"input_ids": [5, 6], "token_mask": [1]}])
    with pytest.raises(ValueError, match="row 0: token_mask has 1 rows for 2 of input_ids"):
        rows([{"input_ids": [[5], [6]], "token_mask": [[1]]}])


def test_a_mask_reaches_the_statistics(tmp_path: Path) -> None:
    ids = np.random.default_rng(1).integers(10, 3000, (6, 32))
    mask = np.ones_like(ids)
    data = [{"input_ids": row.tolist(), "token_mask": own.tolist()} for row, own in zip(ids, mask)]
    plain = run(dataset=list(ids), output_dir=tmp_path / "plain")
    ones = run(dataset=data, output_dir=tmp_path / "ones")
    assert weights(tmp_path / "plain") == weights(tmp_path / "ones")
    assert plain.report["masked_tokens"] == ones.report["masked_tokens"] == 0
    for row in data:
        row["token_mask"] = [0] * 24 + [1] * 8
    masked = run(dataset=data, output_dir=tmp_path / "masked")
    assert (masked.report["calibration_tokens"], masked.report["masked_tokens"]) == (192, 144)
    assert weights(tmp_path / "masked") != weights(tmp_path / "plain")
    for row in data:
        row["token_mask"] = [0] * 32
    with pytest.raises(ValueError, match="leave every token out"):
        run(dataset=data)


# ---- mixtures


def read(part: Mapping[str, Any], index: int, most: int) -> list[Any]:
    return [np.full(2, 10 * index + i, np.int32) for i in range(min(most, part.get("has", 99)))]


def test_parts_are_mixed_by_weight_and_evenly() -> None:
    parts = [{"data": "a", "weight": 0.7}, {"data": "b", "weight": 0.3}]
    assert [int(row[0]) for row in mixed(parts, 10, read)] == [0, 10, 1, 2, 3, 11, 4, 5, 12, 6]
    with pytest.warns(UserWarning, match="'a': 2 sequences, where its weight asks for 7"):
        assert len(mixed([{**parts[0], "has": 2}, parts[1]], 10, read)) == 5
    with pytest.raises(ValueError, match="'b': its weight 0.01 gives it none of 4 sequences"):
        mixed([{"data": "a"}, {"data": "b", "weight": 0.01}], 4, read)


def test_what_a_mixture_is() -> None:
    assert mixture_of([{"data": "a.txt", "weight": 2}, {"data": ["text"], "split": "train"}]) is not None
    for other in (["a.txt"], [{"text": "a"}], [{"data": "a", "text": "b"}], [], "self", None):
        assert mixture_of(other) is None
    assert mixture_of([{"data": "a row"}], text_column="data") is None
    for weight in (0, -1, float("nan"), True, "1"):
        with pytest.raises(ValueError, match="is no number above 0"):
            mixture_of([{"data": "a", "weight": weight}])
    assert is_self("self") and not is_self("./self") and not is_self(["self"])


def test_oneshot_on_a_mixture(tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text((json.dumps({"story": "One day in spring a fox came to the river."}) + "\n") * 9)
    parts = [{"data": TEXT}, {"data": lines, "text_column": "story"}, {"data": "self"}]
    first = run(dataset=parts, output_dir=tmp_path / "first")
    assert 4 * 32 < first.report["calibration_tokens"] < 6 * 32
    run(dataset=parts, output_dir=tmp_path / "second")
    assert weights(tmp_path / "first") == weights(tmp_path / "second")
    run(dataset=parts, seed=7, output_dir=tmp_path / "third")
    assert weights(tmp_path / "first") != weights(tmp_path / "third")
    with pytest.raises(ValueError, match="a mixture needs a number"):
        run(dataset=parts, num_calibration_samples=None)


# ---- text of the model's own


def test_self_is_drawn_by_seed() -> None:
    drawn = draw_self(str(MODEL), num_samples=3, max_seq_length=12, seed=1, progress=False)
    assert [row.shape for row in drawn] == [(12,)] * 3 and drawn[0].dtype == np.int32
    again = draw_self(str(MODEL), num_samples=3, max_seq_length=12, seed=1)
    assert all(np.array_equal(one, other) for one, other in zip(drawn, again, strict=True))
    other = draw_self(str(MODEL), num_samples=3, max_seq_length=12, seed=2)
    assert not all(np.array_equal(one, two) for one, two in zip(drawn, other, strict=True))
    with pytest.raises(ValueError, match="longer than the model's 512 positions"):
        draw_self(str(MODEL), num_samples=1, max_seq_length=600, seed=1)


def test_oneshot_and_quantize_without_data(tmp_path: Path) -> None:
    model = run(dataset="self", output_dir=tmp_path / "out")
    assert model.report["calibration_tokens"] == 6 * 32
    with pytest.raises(ValueError, match='dataset="self" has no end'):
        run(dataset="self", num_calibration_samples=None)
    awq = salient.AutoAWQForCausalLM.from_pretrained(str(MODEL))
    awq.quantize(quant_config={"w_bit": 4}, calib_data="self", max_calib_samples=6, max_calib_seq_len=32)
    assert awq.model.report["calibration_tokens"] == 6 * 32


def test_a_recipe_may_name_its_data(tmp_path: Path) -> None:
    run(dataset=None, recipe=[*RECIPE, {"salient": {"dataset": "self", "seed": 3}}], output_dir=tmp_path / "named")
    run(dataset="self", seed=3, output_dir=tmp_path / "given")
    assert weights(tmp_path / "named") == weights(tmp_path / "given")
    recipe = [*RECIPE, {"salient": {"dataset": "nowhere.txt", "shuffle_calibration_samples": False}}]
    run(dataset=TEXT, recipe=recipe, output_dir=tmp_path / "replaced")
    run(dataset=TEXT, shuffle_calibration_samples=False, output_dir=tmp_path / "plain")
    assert weights(tmp_path / "replaced") == weights(tmp_path / "plain")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        run(dataset=None, recipe=recipe)


# ---- parquet


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"text": ["ab", "cde"], "n": [1, 2]}), path)
    assert rows(path) == ([list(b"cde"), list(b"ab")], None)
    parquet.write_table(pyarrow.table({"input_ids": [[1, 2, 3], [4, 5]], "token_mask": [[0, 1, 1], [1, 1]]}), path)
    assert rows(path) == ([[1, 2, 3], [4, 5]], [[0, 1, 1], [1, 1]])
    path.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"rows\.parquet: "):
        rows(path)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "rows.parquet").write_bytes(b"")
    with pytest.raises(NotImplementedError, match="the package pyarrow must be installed"):
        rows(tmp_path / "rows.parquet")
