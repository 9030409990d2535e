"""What oneshot makes of the arguments that name data and tokenizers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from salient._oneshot_arguments import ARGUMENTS
from salient._oneshot_data import collated, data_of, sequence_length, tokenizer_of


def given_data(**arguments: Any) -> dict[str, Any]:
    defaults = {name: argument.default for name, argument in ARGUMENTS.items()}
    return {**defaults, **arguments}


def test_data_of() -> None:
    assert data_of(given_data(dataset="custom", dataset_path="d")) == data_of(given_data(dataset_path="d")) == "d"
    assert data_of(given_data(dataset=["a"])) == ["a"]
    with pytest.raises(ValueError, match="both name calibration data"):
        data_of(given_data(dataset="wikitext", dataset_path="d"))


def test_the_tokenizer_of_a_processor() -> None:
    class Processor:
        tokenizer = "inner"

    assert tokenizer_of(given_data(processor=Processor())) == "inner"
    assert tokenizer_of(given_data(tokenizer="t")) == "t" and tokenizer_of(given_data()) is None


def test_a_length_nobody_bounds() -> None:
    assert sequence_length(None, {}, object()) == 2048
    assert sequence_length(None, {"max_position_embeddings": 64}, object()) == 64


def rows_of(*lengths: int) -> list[Any]:
    return [np.arange(length, dtype=np.int32) for length in lengths]


def test_truncation_cuts_a_batch_to_its_shortest() -> None:
    rows = rows_of(5, 3, 4)
    lengths = {
        ("truncation", 1): [5, 3, 4],
        ("truncation", 2): [3, 3, 4],
        ("truncation", 8): [3, 3, 3],
        ("padding", 8): [5, 3, 4],
    }
    for (collator, size), expected in lengths.items():
        left = collated(rows, given_data(data_collator=collator, batch_size=size))
        assert [len(row) for row in left] == expected


def test_a_collator_of_the_caller_is_called() -> None:
    def pad(batch: list[dict[str, Any]]) -> dict[str, Any]:
        longest = max(len(example["input_ids"]) for example in batch)
        return {
            key: np.array([example[key] + [0] * (longest - len(example[key])) for example in batch])
            for key in ("input_ids", "attention_mask")
        }

    left = collated(rows_of(5, 3), given_data(data_collator=pad, batch_size=2))
    assert [row.tolist() for row in left] == [row.tolist() for row in rows_of(5, 3)]
