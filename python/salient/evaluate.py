"""How well a model predicts text, and how far it is from another."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from salient import _core
from salient._batch import to_ids
from salient._progress import progress as progress_bar
from salient.model import model_handle
from salient.tokenizer import Tokenizer, as_tokenizer

__all__ = ["Perplexity", "perplexity"]


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

    data: a .txt or .jsonl file, a text, several, or token ids [tokens] or of several sequences. Text is joined and cut
    into windows of `window` tokens, of which each is predicted from its second token on; a rest is left out. Ids
    that are several sequences are windows as they are. against: the model it was made from; adds mean_kl, same_top and
    reference. tokenizer: that of the model unless given.

    Errors: ValueError for too little text, ids that are not in the vocabulary, or vocabularies of two sizes;
    FileNotFoundError. KeyboardInterrupt stops it.
    """
    handle = model_handle(model)
    reference = None if against is None else model_handle(against)
    windows = _windows(data, as_tokenizer(tokenizer, handle.directory), window, text_column)[:max_windows]
    directory = "" if reference is None else reference.directory
    if not progress:
        return _result(json.loads(_core.measure(handle.directory, windows, directory)))
    with progress_bar(100, "evaluating", unit="%") as bar:
        report = _core.measure(
            handle.directory, windows, directory, lambda step, steps: bar.update(100 * step // steps)
        )
    return _result(json.loads(report))


def _result(report: dict[str, Any]) -> Perplexity:
    reference = report.pop("reference", None)
    return Perplexity(**report, reference=None if reference is None else Perplexity(**reference))


def _windows(data: Any, tokenizer: Any, window: int, text_column: str) -> list[npt.NDArray[np.int32]]:
    if isinstance(data, os.PathLike) or (isinstance(data, str) and os.path.isfile(data)):
        if isinstance(tokenizer, Tokenizer):
            return _core.read_windows(tokenizer.core, os.fspath(data), text_column, window)
        data = _core.read_texts(os.fspath(data), text_column)
    if isinstance(data, str):
        data = [data]
    texts = list(data)
    if texts and isinstance(texts[0], str):
        ids = [one for text in texts for one in tokenizer.encode(text, add_special_tokens=False)]
    elif texts and isinstance(first := to_ids(texts[0]), int):
        ids = [first, *(int(one) for one in texts[1:])]
    else:
        return [np.array(to_ids(one), dtype=np.int32) for one in texts]
    return _cut(ids, window)


def _cut(ids: list[int], window: int) -> list[npt.NDArray[np.int32]]:
    if window < 2:
        raise ValueError(f"perplexity: a window of {window} tokens predicts nothing")
    if len(ids) < window:
        raise ValueError(f"perplexity: the text has {len(ids)} tokens, not enough for one window of {window}")
    array = np.array(ids, dtype=np.int32)
    return [array[begin : begin + window] for begin in range(0, len(ids) - window + 1, window)]
