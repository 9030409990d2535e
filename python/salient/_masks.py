"""Sequences of ids with tokens that are read, but not counted.

On the way from rows to sequences a token that does not count stands there as ``~id``, which is below 0: whatever cuts,
joins and sorts sequences then carries the mask along. ``split`` takes the two apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._ids import Ids

__all__ = ["Mask", "count", "marked", "split"]

Mask = npt.NDArray[np.uint8]  # [tokens], 0: the statistics leave the token out


def marked(ids: Sequence[int], counts: Sequence[Any]) -> list[int]:
    """The ids, those that do not count as ``~id``."""
    return [token_id if kept else ~token_id for token_id, kept in zip(ids, counts, strict=True)]


def count(sequences: Sequence[Ids]) -> int:
    """Tokens that count."""
    return sum(int((ids >= 0).sum()) for ids in sequences)


def split(sequences: Sequence[Ids]) -> tuple[list[Ids], list[Mask] | None]:
    """Ids as they are, and a mask for each sequence; None where every token counts."""
    masks = [(ids >= 0).astype(np.uint8) for ids in sequences]
    if all(mask.all() for mask in masks):
        return list(sequences), None
    return [np.where(ids < 0, ~ids, ids).astype(np.int32) for ids in sequences], masks
