"""Token ids as they come from users: lists, arrays, tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from salient._batch import Array

__all__ = ["Ids", "id_masks", "id_rows", "like", "one_row", "pad_rows"]

Ids = npt.NDArray[np.int32]  # [tokens]


def id_rows(prompt: Any) -> tuple[list[Ids], bool]:
    """The rows of [batch, tokens], and whether it was only [tokens]."""
    if prompt is None:
        raise ValueError("generate: input_ids are missing")
    if isinstance(prompt, Mapping):
        raise TypeError("generate: pass an encoding as **inputs, or its input_ids")
    array = _as_array("generate: input_ids", prompt)
    if array.ndim not in (1, 2) or array.shape[0] == 0:
        raise ValueError(f"generate: input_ids [batch, tokens] or [tokens] are expected, not {list(array.shape)}")
    return [np.ascontiguousarray(row, dtype=np.int32) for row in np.atleast_2d(array)], array.ndim == 1


def id_masks(attention_mask: Any, rows: list[Ids], padding: int | None) -> list[npt.NDArray[np.bool_]]:
    """Which ids of each row count; without a mask those that are not `padding`, if that is one."""
    if attention_mask is None:
        return [np.ones(len(row), dtype=bool) if padding is None else row != padding for row in rows]
    masks = np.atleast_2d(_as_array("generate: attention_mask", attention_mask)) != 0
    if masks.shape != (len(rows), len(rows[0])):
        expected = [len(rows), len(rows[0])]
        raise ValueError(f"generate: attention_mask {list(masks.shape)} does not fit input_ids {expected}")
    return list(masks)


def one_row(ids: Any) -> Ids:
    """[tokens] of [tokens] or [1, tokens]."""
    array = _as_array("ids", ids)
    if array.ndim == 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 1:
        raise ValueError(f"ids [tokens] or [1, tokens] are expected, not {list(array.shape)}")
    return np.ascontiguousarray(array, dtype=np.int32)


def pad_rows(rows: Iterable[npt.NDArray[Any]], filler: int) -> npt.NDArray[np.int64]:
    """int64 [rows, longest], filled up on the right."""
    rows = list(rows)
    padded = np.full((len(rows), max(len(row) for row in rows)), filler, dtype=np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded


def like(prompt: Any, ids: npt.NDArray[Any]) -> Any:
    """torch's where the prompt was."""
    if type(prompt).__module__.partition(".")[0] == "torch":
        import torch

        return torch.from_numpy(ids)
    return ids.view(Array)


def _as_array(what: str, ids: Any) -> npt.NDArray[Any]:
    try:
        array = ids.detach().cpu().numpy() if hasattr(ids, "detach") else np.asarray(ids)
    except ValueError:
        raise ValueError(f"{what}: rows of different lengths; pad them (tokenizer(..., padding=True))") from None
    if array.dtype.kind in "US":
        raise TypeError(f'{what}: texts are encoded first: tokenizer(texts, padding=True, return_tensors="np")')
    if array.size and array.dtype.kind not in "iub":
        raise ValueError(f"{what}: whole numbers are expected, not {array.dtype}")
    if array.size and (array.min() < 0 or array.max() > np.iinfo(np.int32).max):
        raise ValueError(
            f"{what}: ids from 0 to {np.iinfo(np.int32).max} are expected, not {array.min()} to {array.max()}"
        )
    return array
