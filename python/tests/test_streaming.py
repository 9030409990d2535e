"""Streamers: whole words as they come, the same text in the end, and the same work for each token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import salient
from salient.tokenizer import Tokenizer

STORY = "Once upon a time, there was a river.\nIt was  long."
FOREIGN = "今天天气很好。 東京タワー, naïve 🙂 ok"


class Shown(salient.TextStreamer):
    """Remembers instead of printing."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.pieces: list[str] = []
        self.ended = 0

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.pieces.append(text)
        self.ended += stream_end


class Elsewhere:
    """A tokenizer that is none of Salient's."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.longest = tokenizer, 0

    def decode(self, ids: list[int], **options: Any) -> str:
        self.longest = max(self.longest, len(ids))
        return str(self.tokenizer.decode(ids, **options))


class Stripping(Elsewhere):
    """Leaves out the space at the beginning, as tokenizers of sentencepiece do."""

    def decode(self, ids: list[int], **options: Any) -> str:
        return super().decode(ids, **options).removeprefix(" ")


@pytest.fixture(scope="module")
def tokenizer(demo_model: str) -> Tokenizer:
    return Tokenizer(demo_model)


def streamed(streamer: Any, ids: list[int]) -> Any:
    for token in ids:
        streamer.put(np.array([token]))
    streamer.end()
    return streamer


@pytest.mark.parametrize("kind", [lambda tokenizer: tokenizer, Elsewhere, Stripping])
@pytest.mark.parametrize("text", [STORY, FOREIGN, STORY * 20, "", " ", "a\n\nb"])
def test_the_pieces_are_the_text(tokenizer: Tokenizer, kind: Any, text: str) -> None:
    used = kind(tokenizer)
    ids = tokenizer.encode(text)
    assert "".join(streamed(Shown(used), ids).pieces) == (used.decode(ids) if ids else "")


@pytest.mark.parametrize("kind", [lambda tokenizer: tokenizer, Elsewhere])
def test_words_are_shown_whole(tokenizer: Tokenizer, kind: Any) -> None:
    pieces = streamed(Shown(kind(tokenizer)), tokenizer.encode(STORY)).pieces
    assert pieces[:4] == ["Once ", "upon ", "a ", "time, "] and "river.\n" in pieces
    assert all(piece[-1] in " \n" for piece in pieces[:-1])


@pytest.mark.parametrize("kind", [lambda tokenizer: tokenizer, Elsewhere])
def test_text_without_spaces_is_shown_at_once(tokenizer: Tokenizer, kind: Any) -> None:
    assert streamed(Shown(kind(tokenizer)), tokenizer.encode("今天天気タワー")).pieces == [*"今天天気タワー", ""]


def test_the_prompt_is_left_out(tokenizer: Tokenizer) -> None:
    streamer = Shown(tokenizer, skip_prompt=True)
    for _ in range(2):
        streamer.put(np.array([tokenizer.encode("Once upon")]))
        streamed(streamer, tokenizer.encode(" a time"))
    assert "".join(streamer.pieces) == " a time" * 2 and streamer.ended == 2


def test_special_tokens_are_left_out_if_asked(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("one river"), 0]
    assert "".join(streamed(Shown(tokenizer, skip_special_tokens=True), ids).pieces) == "one river"
    assert "".join(streamed(Shown(tokenizer), ids).pieces) == "one river<|endoftext|>"


def test_work_does_not_grow_with_the_text(tokenizer: Tokenizer) -> None:
    used = Elsewhere(tokenizer)
    streamed(Shown(used), tokenizer.encode(STORY * 40))
    assert used.longest <= 16


def test_bytes_that_never_become_a_character(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("🙂")[:1] * 9
    for used in (tokenizer, Elsewhere(tokenizer)):
        assert "".join(streamed(Shown(used), ids).pieces) == tokenizer.decode(ids)


def test_it_prints(tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]) -> None:
    streamed(salient.TextStreamer(tokenizer), tokenizer.encode("one river"))
    assert capsys.readouterr().out == "one river\n"


def test_one_text_only(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="one text, not a batch of 2"):
        salient.TextStreamer(tokenizer).put(np.zeros((2, 3), np.int64))


def test_it_goes_where_objects_go(tokenizer: Tokenizer) -> None:
    first, second = salient.TextStreamer(tokenizer), salient.TextStreamer(tokenizer)
    assert {first: 1}[first] == 1 and first != second


@pytest.mark.parametrize("text", [STORY, "one river\nand 天 another"])
def test_it_shows_what_that_of_transformers_shows(tokenizer: Tokenizer, text: str) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    theirs_tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer.directory)

    class Theirs(transformers.TextStreamer):  # type: ignore[misc, name-defined]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.pieces: list[str] = []

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            self.pieces.append(text)

    ids = tokenizer.encode(text)
    theirs = [piece for piece in streamed(Theirs(theirs_tokenizer), ids).pieces if piece]
    for used in (tokenizer, theirs_tokenizer):
        assert [piece for piece in streamed(Shown(used), ids).pieces if piece] == theirs
