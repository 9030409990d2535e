"""Texts that have begun, to their ends: one as somebody watches it, several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from salient import _core
from salient._arguments import warn_user
from salient._ids import Ids
from salient.generation import FinishedText, GenerationOptions, Streamer, stops

__all__ = ["BegunText", "Maker"]


@dataclass(frozen=True)
class BegunText:
    """before: all ids in front of the new ones, with padding. prompt: of these the last, without."""

    before: npt.NDArray[np.int64]
    prompt: Ids
    stream: _core.TokenStream


@dataclass(frozen=True)
class Maker:
    """tokenizer: there where strings stop the texts."""

    settings: GenerationOptions
    context_length: int
    tokenizer: _core.Tokenizer | None
    streamer: Streamer | None

    def finish(self, texts: Sequence[BegunText]) -> list[FinishedText]:
        """Several share passes, and none of them is left to be saved."""
        if len(texts) > 1:
            stop_strings = [stop.encode("utf-8", "surrogatepass") for stop in self.settings.stop_strings]
            _core.finish_together(
                [text.stream for text in texts],
                tokenizer=self.tokenizer,
                stop_strings=stop_strings,
                **self.settings.batch_limits(),
            )
        return [self._finished(text, alone=len(texts) == 1) for text in texts]

    def _finished(self, text: BegunText, *, alone: bool) -> FinishedText:
        """With the token that ended it."""
        if alone and (self.streamer is not None or self.tokenizer is not None):
            new, stopped = self._watched_ids(text)
        else:
            new, stopped = [int(one) for one in text.stream.rest()], False
        reason = "stop_text" if stopped else text.stream.finish_reason
        ended = [] if text.stream.stop_token is None else [text.stream.stop_token]
        if reason == "context_limit":
            warn_user(f"generate: the text ends where the model's context of {self.context_length} tokens does")
        if self.streamer is not None:
            if ended:
                self.streamer.put(np.array(ended, dtype=np.int64))
            self.streamer.end()
        ids = np.concatenate([text.before, np.array([*new, *ended], dtype=np.int64)])
        return FinishedText(ids, text.stream, reason)

    def _watched_ids(self, text: BegunText) -> tuple[list[int], bool]:
        """Token by token, until a stop string stands in the text; whether one does."""
        decoder = None if self.tokenizer is None else _core.TextStream(self.tokenizer, False)
        if self.streamer is not None:
            self.streamer.put(text.prompt.astype(np.int64)[None])
        new: list[int] = []
        so_far = ""
        while stops(so_far, self.settings.stop_strings) is None and (token := text.stream.next()) is not None:
            new.append(token)
            if decoder is not None:
                so_far += decoder.push(token)
            if self.streamer is not None:
                self.streamer.put(np.array([token], dtype=np.int64))
        return new, stops(so_far, self.settings.stop_strings) is not None
