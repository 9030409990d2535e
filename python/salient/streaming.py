"""Text that is shown while it is being made."""

from __future__ import annotations

from typing import Any, Protocol

from salient import _core
from salient._batch import to_ids
from salient.tokenizer import Tokenizer

__all__ = ["TextStreamer"]

# Scripts that put no spaces between words: CJK ideographs, kana, and punctuation of full width.
_WITHOUT_SPACES = (
    (0x3000, 0x30FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF00, 0xFFEF),
    (0x20000, 0x323AF),
)
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # stands for the beginning of a character
_LONGEST_BEGINNING = 3  # bytes of a character of four
_KEPT = 8  # ids that tell how the next one is written


class TextStreamer:
    """Prints a text while it is being made, in whole words, as the class of that name of transformers does.

    tokenizer: of Salient or of transformers. skip_prompt: leave the prompt out. decode_kwargs: of the tokenizer's
    decode, as skip_special_tokens=True.
    """

    def __init__(self, tokenizer: Any, skip_prompt: bool = False, **decode_kwargs: Any) -> None:
        self.tokenizer = tokenizer
        self.skip_prompt = skip_prompt
        self.decode_kwargs = decode_kwargs
        self._pieces: _Pieces | None = None
        self._held = ""
        self._is_prompt = True

    def put(self, value: Any) -> None:
        """Takes the ids of the prompt [1, tokens], then each new one [1]. Errors: ValueError for several texts."""
        ids = _one_text(value)
        is_prompt, self._is_prompt = self._is_prompt, False
        if is_prompt and self.skip_prompt:
            return
        if self._pieces is None:
            self._pieces = _pieces(self.tokenizer, self.decode_kwargs)
        self._held += "".join([self._pieces.push(token) for token in ids])
        self._show(_whole_words(self._held))

    def end(self) -> None:
        """Shows what is left, and is ready for another text."""
        text = self._held + ("" if self._pieces is None else self._pieces.finish())
        self._pieces, self._held, self._is_prompt = None, "", True
        self.on_finalized_text(text, stream_end=True)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Shows what will not change any more; subclasses may do something else with it."""
        print(text, end="\n" if stream_end else "", flush=True)

    def _show(self, end: int) -> None:
        text, self._held = self._held[:end], self._held[end:]
        if text:
            self.on_finalized_text(text)


def _one_text(value: Any) -> list[int]:
    ids = to_ids(value, "TextStreamer")
    if isinstance(ids, int):
        return [ids]
    if not ids or not isinstance(ids[0], list):
        return list(ids)
    if len(ids) > 1:
        raise ValueError(f"TextStreamer shows one text, not a batch of {len(ids)}")
    return list(ids[0])


def _whole_words(text: str) -> int:
    """Characters up to the last space, or all where a word cannot go on."""
    if text.endswith("\n") or (text and any(first <= ord(text[-1]) <= last for first, last in _WITHOUT_SPACES)):
        return len(text)
    return max(text.rfind(" "), text.rfind("\n")) + 1


class _Pieces(Protocol):
    """Ids one by one into text."""

    def push(self, token: int, /) -> str: ...
    def finish(self) -> str: ...


def _pieces(tokenizer: Any, decode_kwargs: dict[str, Any]) -> _Pieces:
    if isinstance(tokenizer, Tokenizer):
        return _core.TextStream(tokenizer.core, bool(decode_kwargs.get("skip_special_tokens", False)))
    return _DecodedPieces(tokenizer, decode_kwargs)


class _DecodedPieces:
    """By a tokenizer that decodes whole texts only: it is given the last few ids, not all of them."""

    def __init__(self, tokenizer: Any, decode_kwargs: dict[str, Any]) -> None:
        self._tokenizer, self._kwargs = tokenizer, decode_kwargs
        self._ids: list[int] = []
        self._shown = 0  # characters of their text

    def push(self, token: int) -> str:
        self._ids.append(token)
        text = self._text(self._ids)
        piece = text[self._shown : _finished(text)]
        self._shown += len(piece)
        if len(self._ids) >= 2 * _KEPT:
            self._forget(text)
        return piece

    def finish(self) -> str:
        text = self._text(self._ids)[self._shown :]
        self._ids, self._shown = [], 0
        return text

    def _forget(self, text: str) -> None:
        """Drops ids whose text no longer matters; not where the last ones alone would be written differently."""
        kept = self._ids[-_KEPT:]
        tail = self._text(kept)
        pending = len(text) - self._shown
        if len(tail) > pending and text.endswith(tail.lstrip(f" {_UNFINISHED}")):
            self._ids, self._shown = kept, len(tail) - pending

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, **self._kwargs)) if ids else ""


def _finished(text: str) -> int:
    """Characters before what may be the beginning of another one."""
    end = len(text)
    while end > max(len(text) - _LONGEST_BEGINNING, 0) and text[end - 1] == _UNFINISHED:
        end -= 1
    return end
