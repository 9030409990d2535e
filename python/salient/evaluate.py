"""How well a model predicts text, and how far it is from another."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from salient import _core
from salient._arguments import warn_user
from salient._data import TextEncoder, id_sequences
from salient._ids import Ids
from salient._progress import progress as progress_bar
from salient._values import check_positive
from salient.model import CausalLM, model_handle
from salient.tokenizer import Tokenizer, as_tokenizer

__all__ = ["Perplexity", "perplexity"]

_LONGEST_NAME = 1024  # characters of a path


@dataclass(frozen=True)
class Perplexity:
    """perplexity = exp(mean_loss), mean_loss in nats over `predictions` tokens. Against a reference also the mean
    KL divergence KL(reference || model) in nats, how often both prefer the same token, and the reference's own."""

    perplexity: float
    mean_loss: float
    predictions: int
    mean_kl: float | None = None
    same_top: float | None = None
    reference: Perplexity | None = None

    def __float__(self) -> float:
        return self.perplexity


def perplexity(
    model: Any,
    data: str | os.PathLike[str] | Sequence[Any],
    *,
    against: Any = None,
    tokenizer: Any = None,
    window: int = 512,
    max_windows: int | None = None,
    text_column: str = "text",
    progress: bool = False,
) -> Perplexity:
    """Perplexity of `model` (a path, an id or a loaded one) on text.

    data: a .txt or .jsonl file; a text, several, or a data set with the column `text_column`; token ids [tokens] or of
    several sequences, or what a tokenizer returns. Text is joined and cut into windows of `window` tokens (at least 2),
    of which each is predicted from its second token on; a rest is left out. So is one sequence of ids; several are
    windows as they are. max_windows: use the first so many. against: the model it was made from; adds mean_kl,
    same_top and reference. tokenizer: that of the model unless given.

    Errors: ValueError for too little text, windows beyond the context, ids that are not in the vocabulary, or
    vocabularies of two sizes; TypeError for what is neither text nor ids; FileNotFoundError, also for a text that looks
    like the name of a file. KeyboardInterrupt stops it.
    """
    check_positive("perplexity", max_windows=max_windows)
    check_positive("perplexity", least=2, window=window)
    handle = model_handle(model)
    reference = None if against is None else model_handle(against)
    if reference is not None and reference.directory == handle.directory:
        warn_user(f"perplexity: model and against are both what lies in {handle.directory}")
    opened = partial(_tokenizer_of, handle, tokenizer)
    windows = _windows(data, opened, int(window), max_windows, text_column)
    directory = "" if reference is None else reference.directory
    if not progress:
        return _result(json.loads(_core.measure(handle.directory, windows, directory)))
    with progress_bar(100, "evaluating", unit="%") as bar:
        report = _core.measure(
            handle.directory, windows, directory, lambda step, steps: bar.update(100 * step // steps)
        )
    return _result(json.loads(report))


def _tokenizer_of(model: CausalLM, tokenizer: Any) -> Any:
    return model.tokenizer if tokenizer is None else as_tokenizer(tokenizer, model.directory)


def _result(report: dict[str, Any]) -> Perplexity:
    reference = report.pop("reference", None)
    return Perplexity(**report, reference=None if reference is None else Perplexity(**reference))


def _windows(data: Any, tokenizer: Callable[[], Any], window: int, maximum: int | None, text_column: str) -> list[Ids]:
    path = _path_of(data)
    if path is not None:
        opened = tokenizer()
        if isinstance(opened, Tokenizer):
            return _core.read_windows(opened.core, path, text_column, window, maximum)
        return _encoded(_core.read_texts(path, text_column), opened, window)[:maximum]
    rows = _rows(data)
    texts = [row for row in (_text_of(row, text_column) for row in rows) if row is not None]
    if texts and len(texts) < len(rows):
        raise ValueError("perplexity: texts and ids are mixed; give either")
    if texts:
        return _encoded(texts, tokenizer(), window)[:maximum]
    is_flat = bool(rows) and isinstance(rows[0], (int, np.integer))
    sequences = _sequences(data if is_flat else rows)
    if len(sequences) == 1 and (is_flat or len(sequences[0]) > window):
        return _cut(sequences[0], window)[:maximum]
    return sequences[:maximum]


def _path_of(data: Any) -> str | None:
    """Of a file. A text that looks like one is taken for it, so that a mistyped path is not evaluated itself."""
    if isinstance(data, os.PathLike):
        return str(os.fspath(data))
    if not isinstance(data, str) or "\n" in data or len(data) > _LONGEST_NAME:
        return None
    is_name = data.endswith((".txt", ".jsonl")) or (os.sep in data and not any(map(str.isspace, data)))
    return data if is_name or os.path.isfile(data) else None


def _rows(data: Any) -> list[Any]:
    """Errors: TypeError for what holds neither texts nor ids."""
    if isinstance(data, (str, Mapping)):
        return [data]
    if isinstance(data, (bytes, bytearray)) or not hasattr(data, "__iter__"):
        raise TypeError(f"perplexity: a file, texts or token ids are expected, not {type(data).__name__}")
    return list(data)


def _text_of(row: Any, text_column: str) -> str | None:
    """None for ids. Errors: ValueError for a mapping with neither."""
    if not isinstance(row, Mapping) or "input_ids" in row:
        return row if isinstance(row, str) else None
    if not isinstance(text := row.get(text_column), str):
        there = ", ".join(map(repr, row)) or "nothing"
        raise ValueError(f"perplexity: there is no text in column {text_column!r} and no 'input_ids', only: {there}")
    return text


def _sequences(rows: Any) -> list[Ids]:
    """Of ids, or of encodings; what their attention_mask calls padding is left out."""
    if not any(isinstance(row, Mapping) for row in rows):
        return id_sequences(rows, None, "perplexity")
    parts = (id_sequences(row["input_ids"], row.get("attention_mask"), "perplexity") for row in rows)
    return [ids for part in parts for ids in part]


def _encoded(texts: Sequence[str], tokenizer: Any, window: int) -> list[Ids]:
    """Texts joined and cut."""
    encode = TextEncoder(tokenizer).encode
    return _cut(np.array([one for text in texts for one in encode(text, False, None)], dtype=np.int32), window)


def _cut(ids: Ids, window: int) -> list[Ids]:
    if len(ids) < window:
        raise ValueError(f"perplexity: the text has {len(ids)} tokens, not enough for one window of {window}")
    return [ids[begin : begin + window] for begin in range(0, len(ids) - window + 1, window)]
