"""Calibration data that is no single data set: several mixed by weight, and text that the model makes up."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import _core
from ._arguments import warn_user
from ._ids import Ids
from ._progress import progress as progress_bar
from ._values import shorten

__all__ = ["SELF", "draw_self", "is_self", "mixed", "mixture_of"]

SELF = "self"
_KEYS = frozenset({"data", "weight", "text_column", "split", "config_name"})


def is_self(data: object) -> bool:
    """Whether the model itself is to make the text up; a file of that name is "./self"."""
    return isinstance(data, str) and data == SELF


def draw_self(model: str, *, num_samples: int, max_seq_length: int, seed: int, progress: object = True) -> list[Ids]:
    """``num_samples`` sequences of ``max_seq_length`` ids drawn from the model in this directory, which is in memory
    meanwhile. The same for the same seed and processor."""
    if progress is not True:
        return _core.sample_self(model, num_samples, max_seq_length, seed)
    with progress_bar(num_samples * max_seq_length, "sampling", unit="token") as bar:
        return _core.sample_self(model, num_samples, max_seq_length, seed, lambda done, _: bar.update(done))


def mixture_of(data: object, text_column: str = "text") -> list[dict[str, Any]] | None:
    """The parts of a list of ``{"data": ..., "weight": 0.7, "text_column": ..., "split": ..., "config_name": ...}``,
    all but the first optional; None for other data, rows with a text column "data" among it.

    Errors: ValueError for a weight that is not above 0.
    """
    if not isinstance(data, (list, tuple)) or not data or text_column == "data":
        return None
    if not all(isinstance(part, Mapping) and "data" in part and part.keys() <= _KEYS for part in data):
        return None
    for part in data:
        weight = part.get("weight", 1)
        if not isinstance(weight, numbers.Real) or isinstance(weight, bool) or not 0 < float(weight) < math.inf:
            raise ValueError(f"calibration data {shorten(part['data'])}: weight={weight!r} is no number above 0")
    return [dict(part) for part in data]


def mixed(
    parts: Sequence[Mapping[str, Any]], num_samples: int, read: Callable[[Mapping[str, Any], int, int], list[Ids]]
) -> list[Ids]:
    """``num_samples`` sequences of all parts in proportion to their weights, evenly mixed. ``read`` gives at most so
    many of one part, which is told by its number too. A part that has fewer gives what it has, with a warning.

    Errors: ValueError for a part whose weight asks for none; those of ``read``.
    """
    counts = _core.shares_of(num_samples, [float(part.get("weight", 1)) for part in parts])
    sequences = []
    for index, (part, count) in enumerate(zip(parts, counts, strict=True)):
        name = shorten(part["data"])
        if count == 0:
            raise ValueError(
                f"calibration data {name}: its weight {part.get('weight', 1)} gives it none of {num_samples} "
                "sequences; give it more weight, or take more sequences"
            )
        found = read(part, index, count)[:count]
        if len(found) < count:
            warn_user(f"calibration data {name}: {len(found)} sequences, where its weight asks for {count}")
        sequences.append(found)
    places = [((j + 0.5) / len(part), i, j) for i, part in enumerate(sequences) for j in range(len(part))]
    return [sequences[i][j] for _, i, j in sorted(places)]
