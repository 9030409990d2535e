"""Calibration data: whatever the incumbents accept, as sequences of token ids.

Two policies. ``calibration_sequences`` is that of llm-compressor: each sample is a sequence of its own, cut to a
length. ``calibration_blocks`` is that of AutoAWQ: samples are joined and cut into blocks of one length.

Data may be
  - a path: .txt (one long text), .jsonl (a row for each line), with `pyarrow` .parquet, with `datasets` .json, .csv, or
    a directory;
  - a name: "pileval", "wikitext", "c4", "open_platypus", "gsm8k", "cnn_dailymail", or "owner/name" of the hub, through
    the package `datasets`;
  - a list of texts, of lists, arrays or tensors of ids, or of mappings with a text column or "input_ids", beside which
    "attention_mask" says what is padding and "token_mask" which tokens count (0: seen, but left out of statistics);
  - a Dataset, a DatasetDict (with ``split``) or an IterableDataset of `datasets`;
  - a DataLoader, or any iterable of batches or rows; padding goes by "attention_mask".
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np

from ._arguments import warn_user
from ._batch import to_ids
from ._datasets import Source, is_dataset_dict, open_name, pick_split, shuffled
from ._ids import Ids
from ._masks import marked
from ._tokenizer_options import special_frame
from ._values import check_positive, shorten, token_limit

_AWQ_SEED = 42  # with which AutoAWQ shuffles a data set of the hub
_CHAT_COLUMNS = ("messages", "conversations", "conversation")


def calibration_sequences(
    data: Any,
    *,
    tokenizer: Any,
    max_seq_length: int | None = None,
    num_samples: int | None = None,
    text_column: str = "text",
    split: str | None = None,
    config_name: str | None = None,
    shuffle_seed: int | None = None,
    concatenate: bool = False,
    add_special_tokens: bool = True,
    preprocess: Callable[[Any], Any] | str | None = None,
    streaming: bool | None = None,
    load_options: Mapping[str, Any] | None = None,
    use_loss_mask: bool = False,
) -> list[Ids]:
    """Samples as llm-compressor takes them: each an array [tokens] of its own, nothing padded.

    A text gets its special tokens and is cut to ``max_seq_length`` tokens, at most the tokenizer's model_max_length;
    special tokens behind the text are kept. Ids are cut only. ``concatenate`` joins the samples and cuts them into
    sequences of exactly ``max_seq_length``; what fills none is left out, unless it is all there is. (llm-compressor
    cuts each sample before it joins them, and so loses the rest of long ones; here they are joined whole.) A .txt file
    is always joined, without special tokens. Samples without a token are left out.

    ``num_samples`` at most: with ``shuffle_seed`` drawn at random, the same for the same seed on any machine (a
    permutation by NumPy's default_rng); without it the longest, longest first, so that neighbours that become a batch
    are of like length. Of an iterable without a length the first ones; a stream of `datasets` is shuffled in a buffer.
    Batches of a DataLoader are all used.

    ``split`` and ``config_name`` are of names and, the former, of data sets with several splits.
    ``preprocess``, a function or "file.py:function", gets each row as a mapping and returns what to change in it.
    ``load_options`` go to datasets.load_dataset.

    Tokens that a row's "token_mask", or with ``use_loss_mask`` its "loss_mask", says 0 of are marked (see _masks).

    Errors: ValueError naming the row and the value; FileNotFoundError; NotImplementedError for conversations.
    """
    check_positive(max_seq_length=max_seq_length, num_samples=num_samples)
    source = _open(data, split=split, config_name=config_name, streaming=streaming, **dict(load_options or {}))
    reader = _Reader(source, TextEncoder(tokenizer), text_column, add_special_tokens, _function(preprocess))
    reader.use_loss_mask = use_loss_mask
    limit = _limit(max_seq_length, tokenizer)
    if max_seq_length is not None and limit != max_seq_length:
        reader.warning = f"max_seq_length={max_seq_length}: texts are cut to {limit} tokens, the tokenizer's limit"
    if concatenate or source.joined:
        if limit is None:
            raise ValueError(f"{source.name}: to join samples max_seq_length is needed")
        return _joined(reader, limit, num_samples, shuffle_seed)
    return _separate(reader, max_seq_length, limit, num_samples, shuffle_seed)


def calibration_blocks(
    data: Any = "pileval",
    *,
    tokenizer: Any,
    max_calib_samples: int = 128,
    max_calib_seq_len: int = 512,
    split: str | None = "train",
    text_column: str = "text",
) -> list[Ids]:
    """Blocks as AutoAWQ makes them: arrays [max_calib_seq_len], at most ``max_calib_samples``.

    Up to ``max_calib_samples`` samples that are not empty, texts without white space around them and with their special
    tokens, are joined and cut; what fills no block is left out, unless it is all there is. Data sets of the hub are
    shuffled with AutoAWQ's seed, 42. AutoAWQ drops every sample longer than ``max_calib_seq_len``, and with it most
    of the text of many data sets; here such samples are kept.

    Errors: as calibration_sequences.
    """
    check_positive(max_calib_samples=max_calib_samples, max_calib_seq_len=max_calib_seq_len)
    by_name = isinstance(data, (str, os.PathLike))
    if by_name and data == "pileval":
        split = None  # there is one only, and AutoAWQ takes it whatever is asked for
    source = _open(data, split=split)
    if by_name and hasattr(source.rows, "shuffle"):
        source = Source(shuffled(source.rows, _AWQ_SEED), source.name, source.template, source.joined)
    reader = _Reader(source, TextEncoder(tokenizer), text_column, strip=True)
    samples = islice(chain.from_iterable(map(reader.read, _enumerate(source.rows))), max_calib_samples)
    return _windows(samples, max_calib_seq_len, max_calib_samples, reader)


@dataclass
class _Reader:
    """Turns rows into sequences of ids that are not cut yet."""

    source: Source
    encoder: TextEncoder
    text_column: str
    add_special_tokens: bool = True
    preprocess: Callable[[Any], Any] | None = None
    strip: bool = False
    limit: int | None = None  # to which texts are cut
    warning: str = ""  # to be given when there is a text
    use_loss_mask: bool = False
    told_of_loss_mask: bool = False

    def read(self, numbered: tuple[int, Any]) -> list[Ids]:
        """The sequences of a row: none when it is empty, several when it is a batch."""
        index, row = numbered
        where = f"{self.source.name}: row {index}"
        if self.preprocess is not None:
            row = self._preprocessed(row, where)
        if isinstance(row, Mapping):
            return self._read_mapping(row, where)
        if isinstance(row, str):
            return self._encode(row)
        if _is_batched(self.source.rows) and isinstance(row, (list, tuple)) and len(row) != 1:
            raise ValueError(f"{where}: a batch of {len(row)} parts without names: one with 'input_ids' is expected")
        return id_sequences(row, None, where)

    def _preprocessed(self, row: Any, where: str) -> Any:
        assert self.preprocess is not None
        before = dict(row) if isinstance(row, Mapping) else {self.text_column: row}
        after = self.preprocess(before)
        if not isinstance(after, Mapping):
            raise ValueError(f"{where}: the preprocessing function must return a mapping, not {type(after).__name__}")
        return {**before, **after}

    def _read_mapping(self, row: Mapping[str, Any], where: str) -> list[Ids]:
        if "input_ids" in row:
            return id_sequences(row["input_ids"], row.get("attention_mask"), where, self._token_mask(row, where))
        if self.source.template is not None and self.text_column not in row:
            return self._encode(self.source.template(row))
        if self.text_column not in row:
            raise self._missing(row, where)
        text = row[self.text_column]
        if self.text_column in _CHAT_COLUMNS and not isinstance(text, str):
            raise self._chat(self.text_column, where)
        if not isinstance(text, str):
            raise ValueError(f"{where}: column {self.text_column!r} holds {shorten(text)}, not a text")
        return self._encode(text)

    def _token_mask(self, row: Mapping[str, Any], where: str) -> Any:
        """Which tokens count; None for all. The loss mask of data for training is a matter of choice, as there."""
        loss_mask = row.get("loss_mask")
        if self.use_loss_mask:
            if "token_mask" in row and loss_mask is not None:
                raise ValueError(f"{where}: token_mask and loss_mask are two names for one thing; give one of them")
            return row.get("token_mask") if loss_mask is None else loss_mask
        if loss_mask is not None and not self.told_of_loss_mask:
            warn_user(f"{where}: its loss_mask has no effect; use_loss_mask=True leaves the tokens out that it names")
            self.told_of_loss_mask = True
        return row.get("token_mask")

    def _missing(self, row: Mapping[str, Any], where: str) -> Exception:
        for column in _CHAT_COLUMNS:
            if column in row:
                return self._chat(column, where)
        there = ", ".join(map(repr, row)) or "none"
        return ValueError(f"{where}: there is no column {self.text_column!r} and no 'input_ids', only: {there}")

    def _chat(self, column: str, where: str) -> Exception:
        return NotImplementedError(
            f"{where}: column {column!r} holds a conversation, and chat templates follow in a later version; write "
            "conversations out as texts, for example with the tokenizer of transformers, and pass those"
        )

    def _encode(self, text: str) -> list[Ids]:
        if self.warning:
            warn_user(self.warning)
            self.warning = ""
        special = self.add_special_tokens and not self.source.joined
        ids = self.encoder.encode(text.strip() if self.strip else text, special, self.limit)
        return [np.asarray(ids, dtype=np.int32)] if ids else []


class TextEncoder:
    """A tokenizer of any kind as a function from text to ids."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._frame: tuple[list[int], list[int]] | None = None
        self._asked: bool | None = None

    @property
    def _takes_option(self) -> bool:
        """Whether ``encode`` has the argument add_special_tokens, found by asking once."""
        if self._asked is None:
            try:
                self._tokenizer.encode("a", add_special_tokens=False)
                self._asked = True
            except TypeError:
                self._asked = False
        return self._asked

    def encode(self, text: str, special: bool, limit: int | None) -> list[int]:
        """At most ``limit`` ids, those at the tokenizer's truncation_side left out; special tokens around the text
        are among them."""
        ids = self._plain(text, special)
        if limit is None or len(ids) <= limit:
            return ids
        head, tail = self._special_frame() if special else ([], [])
        room = limit - len(head) - len(tail)
        if room < 1:
            return ids[:limit]
        inner = ids[len(head) : len(ids) - len(tail)]
        is_left = getattr(self._tokenizer, "truncation_side", "right") == "left"
        return head + (inner[len(inner) - room :] if is_left else inner[:room]) + tail

    def _special_frame(self) -> tuple[list[int], list[int]]:
        if self._frame is None:
            self._frame = special_frame(self._plain) if self._takes_option else ([], [])
        return self._frame

    def _plain(self, text: str, special: bool) -> list[int]:
        options = {"add_special_tokens": special} if self._takes_option else {}
        ids = self._tokenizer.encode(text, **options)
        return [int(token_id) for token_id in getattr(ids, "ids", ids)]


def _limit(max_seq_length: int | None, tokenizer: Any) -> int | None:
    """To how many tokens a text is cut; None for not at all."""
    return min((limit for limit in (max_seq_length, token_limit(tokenizer)) if limit is not None), default=None)


def _open(data: Any, *, split: str | None, **options: Any) -> Source:
    """Errors: ValueError for nothing, TypeError for what holds no rows."""
    if isinstance(data, (str, os.PathLike)):
        return open_name(data, split=split, **options)
    name = "calibration data"
    if is_dataset_dict(data):
        return Source(pick_split(data, split, type(data).__name__), name)
    if isinstance(data, Mapping):
        return Source([data], name)
    if hasattr(data, "column_names"):
        return Source(data, name)
    if getattr(data, "ndim", None) == 1:
        data = [data]
    if not hasattr(data, "__iter__") and not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise TypeError(
            f"{name}: a path, a name, a list of texts or of ids, or a data set is expected, not {type(data).__name__}"
        )
    if hasattr(data, "__len__") and len(data) == 0:
        raise ValueError(f"{name}: the {type(data).__name__} is empty")
    if isinstance(data, (list, tuple)) and isinstance(data[0], (int, np.integer)):
        raise ValueError(f"{name}: the list begins with the number {data[0]}: a list of lists of ids is expected")
    return Source(data, name)


def _separate(
    reader: _Reader, max_seq_length: int | None, limit: int | None, num_samples: int | None, seed: int | None
) -> list[Ids]:
    reader.limit = limit
    samples = (ids[:max_seq_length] for ids in _samples(reader, seed))
    if seed is not None or not _has_rows(reader.source.rows):
        whole = _is_batched(reader.source.rows)
        return _require_some(list(samples if whole else islice(samples, num_samples)), reader)
    sequences = _require_some(list(samples), reader)
    return sorted(sequences, key=len, reverse=True)[:num_samples]


def _joined(reader: _Reader, window: int, num_samples: int | None, seed: int | None) -> list[Ids]:
    if not reader.source.joined:
        return _windows(_samples(reader, seed), window, num_samples, reader)
    windows = _windows(_samples(reader, None), window, None, reader)
    order = range(len(windows)) if seed is None else np.random.default_rng(seed).permutation(len(windows))
    return [windows[index] for index in order][:num_samples]


def _samples(reader: _Reader, seed: int | None) -> Iterator[Ids]:
    """The sequences of all rows, lazily, in an order that ``seed`` determines."""
    rows = reader.source.rows
    if seed is None:
        return chain.from_iterable(map(reader.read, _enumerate(rows)))
    if _has_rows(rows):
        order = np.random.default_rng(seed).permutation(len(rows))
        return chain.from_iterable(reader.read((int(index), rows[int(index)])) for index in order)
    if hasattr(rows, "shuffle"):
        rows = shuffled(rows, seed)
    return chain.from_iterable(map(reader.read, _enumerate(rows)))


def _windows(samples: Iterable[Ids], window: int, maximum: int | None, reader: _Reader) -> list[Ids]:
    """Samples joined and cut into windows, no more of them read than needed."""
    windows: list[Ids] = []
    rest: Ids = np.empty(0, dtype=np.int32)
    for ids in samples:
        rest = np.concatenate([rest, ids])
        while len(rest) >= window and (maximum is None or len(windows) < maximum):
            windows.append(rest[:window].copy())
            rest = rest[window:]
        if maximum is not None and len(windows) >= maximum:
            break
    if not windows and len(rest):
        windows = [rest]
    return _require_some(windows, reader)


def _enumerate(rows: Any) -> Iterator[tuple[int, Any]]:
    return enumerate(iter(rows))


def _has_rows(rows: Any) -> bool:
    """Whether rows can be asked for by number."""
    return hasattr(rows, "__len__") and hasattr(rows, "__getitem__")


def _is_batched(rows: Any) -> bool:
    return hasattr(rows, "batch_size") and hasattr(rows, "collate_fn")


def id_sequences(ids: Any, mask: Any, where: str, counted: Any = None) -> list[Ids]:
    """The sequences of ids [tokens] or [batch, tokens] without what the mask, of the same shape, calls padding, and
    with those marked that ``counted``, of that shape as well, says 0 of (see _masks)."""
    if isinstance(ids, (list, tuple)) and ids and all(isinstance(part, Mapping) for part in ids):
        raise ValueError(f"{where}: ids are expected, not a list of mappings ({shorten(ids[0])})")
    if isinstance(ids, str) or not (hasattr(ids, "__iter__") or hasattr(ids, "tolist")):
        raise ValueError(f"{where}: token ids are expected, not {shorten(ids)}")
    values = _listed(ids, where)
    kept = None if mask is None else _listed(mask, f"{where}: attention_mask")
    counts = None if counted is None else _listed(counted, f"{where}: token_mask")
    if not values or not isinstance(values[0], list):
        return _sequence(values, {"attention_mask": kept, "token_mask": counts}, where)
    masks = _rows_of_mask("attention_mask", kept, len(values), where)
    token_masks = _rows_of_mask("token_mask", counts, len(values), where)
    rows = zip(values, masks, token_masks, strict=True)
    return list(chain.from_iterable(id_sequences(row, seen, where, own) for row, seen, own in rows))


def _rows_of_mask(name: str, mask: list[Any] | None, rows: int, where: str) -> list[Any]:
    if mask is None:
        return [None] * rows
    if len(mask) != rows:
        raise ValueError(f"{where}: {name} has {len(mask)} rows for {rows} of input_ids")
    return mask


def _listed(values: Any, where: str) -> list[Any]:
    try:
        listed = to_ids(values, where)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if isinstance(listed, int):
        raise ValueError(f"{where}: a list of ids is expected, not the number {listed}")
    return list(listed)


def _sequence(values: list[Any], masks: Mapping[str, list[Any] | None], where: str) -> list[Ids]:
    for name, mask in masks.items():
        if mask is not None and len(mask) != len(values):
            raise ValueError(f"{where}: {name} has {len(mask)} numbers for {len(values)} ids")
    seen, counts = masks["attention_mask"], masks["token_mask"]
    for position, value in enumerate(values):
        if not isinstance(value, int):
            raise ValueError(f"{where}: position {position} holds {shorten(value)}, not an id")
        if not 0 <= value < 2**31:
            raise ValueError(f"{where}: position {position} holds {value}, which is no token id")
    if counts is not None:
        values = marked(values, counts)
    if seen is not None:
        values = [value for value, keep in zip(values, seen, strict=True) if keep]
    return [np.asarray(values, dtype=np.int32)] if values else []


def _require_some(sequences: list[Ids], reader: _Reader) -> list[Ids]:
    if not sequences:
        count = f"none of the {len(reader.source.rows)} rows" if hasattr(reader.source.rows, "__len__") else "no row"
        raise ValueError(f"{reader.source.name}: {count} holds a token")
    return sequences


def _function(preprocess: Callable[[Any], Any] | str | None) -> Callable[[Any], Any] | None:
    """A function itself, or that of "file.py:function". Errors: ValueError."""
    if preprocess is None or callable(preprocess):
        return preprocess
    path, _, name = preprocess.rpartition(":")
    specification = importlib.util.spec_from_file_location("salient_preprocessing", path) if path else None
    if specification is None or specification.loader is None or not os.path.isfile(path):
        raise ValueError(f'preprocessing function {preprocess!r}: "file.py:function" of a file that exists is expected')
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"preprocessing function {preprocess!r}: {path} has no function {name!r}")
    found: Callable[[Any], Any] = function
    return found
