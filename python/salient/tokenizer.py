"""Tokenizers of model directories, used as the fast tokenizers of transformers are.

    tokenizer = AutoTokenizer.from_pretrained("path/to/model")
    batch = tokenizer(["one text", "another"], padding=True, return_tensors="np")
    tokenizer.batch_decode(batch.input_ids, skip_special_tokens=True)

Ids, lengths and masks are those of transformers 5 for the same directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Protocol, overload

import numpy as np

from . import _core, _hub, _tokenizer_files
from ._arguments import unknown_argument, warn_user
from ._batch import Array, BatchEncoding, to_ids, to_tensors
from ._files import Scratch
from ._special_tokens import named_tokens, plain_tokens, read_settings, token_text
from ._tokenizer_options import Layout, checked_side, checked_texts, make_layout, refuse, sort_options, special_frame

__all__ = ["Array", "AutoTokenizer", "BatchEncoding", "Encoder", "Tokenizer", "as_tokenizer"]

NO_LIMIT = int(1e30)  # what transformers calls the length of a model that states none
_SAVING_WITHOUT_EFFECT = ("legacy_format", "filename_prefix", "save_jinja_files")


class Encoder(Protocol):
    """What calibration and evaluation need of a tokenizer."""

    def encode(self, text: str, add_special_tokens: bool = True) -> Sequence[int]: ...


class AutoTokenizer:
    """Opens the tokenizer of a model directory or of an id of the hub."""

    def __init__(self) -> None:
        raise OSError("AutoTokenizer is not made but asked: AutoTokenizer.from_pretrained(path)")

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        use_fast: bool = True,
        trust_remote_code: bool = False,
        subfolder: str = "",
        **options: Any,
    ) -> Tokenizer:
        """The tokenizer of a directory that holds tokenizer.json, or of an id of the hub.

        Options: revision, cache_dir, token, local_files_only and force_download for the hub; padding_side ("left",
        "right"), truncation_side, model_max_length (tokens), bos_token, eos_token, pad_token, unk_token and others
        instead of what the files say. There is one implementation, and no code of a repository is run: use_fast and
        trust_remote_code change nothing.

        Errors: FileNotFoundError; salient.FormatError; NotImplementedError naming a component that is not there;
        TypeError for unknown options; ValueError for a special token that is not in the vocabulary.
        """
        download, settings = sort_options(options)
        directory = _hub.find_model(pretrained_model_name_or_path, weights=False, **download)
        name = os.fspath(pretrained_model_name_or_path)
        return Tokenizer(os.path.join(directory, subfolder) if subfolder else directory, name_or_path=name, **settings)


class _NamedToken:
    """A special token by name, as text: ``tokenizer.pad_token``."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, tokenizer: None, owner: type) -> _NamedToken: ...
    @overload
    def __get__(self, tokenizer: Tokenizer, owner: type) -> str | None: ...
    def __get__(self, tokenizer: Tokenizer | None, owner: type) -> _NamedToken | str | None:
        return self if tokenizer is None else tokenizer.special_tokens_map.get(self._name)

    def __set__(self, tokenizer: Tokenizer, token: Any) -> None:
        tokenizer.name_token(self._name, None if token is None else token_text(token))


class _NamedId:
    """A special token by name, as id: ``tokenizer.pad_token_id``."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name.removesuffix("_id")

    @overload
    def __get__(self, tokenizer: None, owner: type) -> _NamedId: ...
    @overload
    def __get__(self, tokenizer: Tokenizer, owner: type) -> int | None: ...
    def __get__(self, tokenizer: Tokenizer | None, owner: type) -> _NamedId | int | None:
        if tokenizer is None:
            return self
        token = tokenizer.special_tokens_map.get(self._name)
        return None if token is None else tokenizer.core.token_to_id(token)

    def __set__(self, tokenizer: Tokenizer, token_id: int | None) -> None:
        tokenizer.name_token(self._name, None if token_id is None else tokenizer.core.id_to_token(token_id))


class Tokenizer:
    """The tokenizer of a model directory; made by ``AutoTokenizer.from_pretrained``.

    ``padding_side``, ``truncation_side`` ("left", "right"), ``model_max_length`` (tokens) and the special tokens may
    be set. ``core`` is the compiled tokenizer, ``directory`` where its files lay when they were read, ``name_or_path``
    what the user called it, ``owner`` whatever is to live as long as the tokenizer, as a temporary directory.
    """

    is_fast = True
    model_input_names = ("input_ids", "attention_mask")

    bos_token, eos_token, unk_token = _NamedToken(), _NamedToken(), _NamedToken()
    sep_token, pad_token, cls_token, mask_token = _NamedToken(), _NamedToken(), _NamedToken(), _NamedToken()
    bos_token_id, eos_token_id, unk_token_id = _NamedId(), _NamedId(), _NamedId()
    sep_token_id, pad_token_id, cls_token_id, mask_token_id = _NamedId(), _NamedId(), _NamedId(), _NamedId()

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        name_or_path: str | None = None,
        owner: object = None,
        **settings: Any,
    ) -> None:
        """``settings`` stand above those of tokenizer_config.json. Errors: as AutoTokenizer.from_pretrained."""
        self.directory = os.fspath(directory)
        self.name_or_path = self.directory if name_or_path is None else name_or_path
        self.owner = owner
        self.core = _core.Tokenizer.from_directory(self.directory)
        self._files = _tokenizer_files.read(self.directory)
        self._stored = read_settings(self.directory, self._files)
        self._vocabulary: dict[str, int] | None = None
        self._frame: tuple[list[int], list[int]] | None = None
        given = plain_tokens(settings)
        if not given["extra_special_tokens"]:
            del given["extra_special_tokens"]
        merged = {**self._stored, **given}
        self._stored_tokens = self._known(named_tokens(self._stored))
        self._named = dict(self._stored_tokens)
        for name, token in settings.items():
            if name in ("add_bos_token", "add_eos_token"):
                setattr(self, name, token)
            elif name.endswith("_token"):
                self.name_token(name, None if token is None else token_text(token))
        self.extra_special_tokens: list[str] = merged["extra_special_tokens"]
        self.padding_side: str = checked_side("padding_side", merged.get("padding_side", "right"))
        self.truncation_side: str = checked_side("truncation_side", merged.get("truncation_side", "right"))
        limit = merged.get("model_max_length")
        self.model_max_length: int = NO_LIMIT if limit is None else int(limit)
        self.chat_template: Any = merged.get("chat_template")

    # ---- what it is

    def __len__(self) -> int:
        """Number of tokens, added ones included."""
        return self.core.vocab_size

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return (
            f"Tokenizer(name_or_path={self.name_or_path!r}, tokens={len(self)}, model_max_length="
            f"{self.model_max_length}, padding_side={self.padding_side!r}, special_tokens={self.special_tokens_map})"
        )

    def __getattr__(self, name: str) -> Any:
        """Special tokens that a model names itself, like ``image_token`` and ``image_token_id``."""
        named = self.__dict__.get("_named", {})
        if name in named:
            return named[name]
        if name.endswith("_id") and name[:-3] in named:
            return self.core.token_to_id(named[name[:-3]])
        raise AttributeError(f"Tokenizer has no attribute {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "core": None, "owner": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.core = _tokenizer_files.compiled(self._files)

    @cached_property
    def vocab_size(self) -> int:
        """Number of tokens of the base vocabulary, added ones left out; ``len`` counts them too."""
        return len(_tokenizer_files.base_vocabulary(self._files))

    @property
    def special_tokens_map(self) -> dict[str, str]:
        return dict(self._named)

    @property
    def additional_special_tokens(self) -> list[str]:
        return self.extra_special_tokens

    @property
    def all_special_tokens(self) -> list[str]:
        return list(dict.fromkeys([*self._named.values(), *self.extra_special_tokens]))

    @property
    def all_special_ids(self) -> list[int | None]:
        return [self._token_id(token) for token in self.all_special_tokens]

    @property
    def add_bos_token(self) -> bool:
        """Whether ``bos_token`` begins every text; tokenizer.json says it, and it cannot be set otherwise."""
        return self.bos_token_id in self._special_frame()[0]

    @add_bos_token.setter
    def add_bos_token(self, value: bool) -> None:
        self._refuse_frame("add_bos_token", value)

    @property
    def add_eos_token(self) -> bool:
        """Whether ``eos_token`` ends every text; tokenizer.json says it, and it cannot be set otherwise."""
        return self.eos_token_id in self._special_frame()[1]

    @add_eos_token.setter
    def add_eos_token(self, value: bool) -> None:
        self._refuse_frame("add_eos_token", value)

    def _refuse_frame(self, name: str, value: bool) -> None:
        if bool(value) != getattr(self, name):
            raise NotImplementedError(f"{name}={value!r}: tokenizer.json says what stands around a text")

    def name_token(self, name: str, token: str | None) -> None:
        """Gives a special token its name ("pad_token"); None takes it away.

        Errors: ValueError for a token that is not in the vocabulary: the model has no row for it.
        """
        if token is None:
            self._named.pop(name, None)
            return
        if self.core.token_to_id(token) is None:
            raise ValueError(
                f"{self.name_or_path}: {name} {token!r} is none of the {len(self)} tokens of the vocabulary"
            )
        self._named[name] = token

    def add_special_tokens(self, special_tokens_dict: dict[str, Any], **_: Any) -> int:
        """Names tokens of the vocabulary, {"pad_token": "<pad>"}; gives the number of new ones, 0.

        Errors: NotImplementedError for tokens that the vocabulary lacks.
        """
        for name, given in special_tokens_dict.items():
            for token in given if isinstance(given, (list, tuple)) else [given]:
                self._require_known(token_text(token), name)
        for name, given in special_tokens_dict.items():
            if isinstance(given, (list, tuple)):
                self.extra_special_tokens = [token_text(token) for token in given]
            else:
                self.name_token(name, token_text(given))
        return 0

    def _known(self, tokens: dict[str, str]) -> dict[str, str]:
        """Those that the vocabulary holds."""
        return {name: token for name, token in tokens.items() if self.core.token_to_id(token) is not None}

    def _require_known(self, token: str, name: str) -> None:
        if self.core.token_to_id(token) is None:
            raise NotImplementedError(
                f"{self.name_or_path}: {name} {token!r} would be a new token, and new tokens cannot be added: name one "
                "of the vocabulary"
            )

    def get_vocab(self) -> dict[str, int]:
        """Every token and its id."""
        if self._vocabulary is None:
            vocabulary = dict(_tokenizer_files.base_vocabulary(self._files))
            for token in [*_tokenizer_files.added_tokens(self._files), *self.all_special_tokens]:
                token_id = self.core.token_to_id(token)
                if token_id is not None:
                    vocabulary[token] = token_id
            self._vocabulary = vocabulary
        return dict(self._vocabulary)

    # ---- text to ids

    def __call__(
        self,
        text: str | Sequence[str],
        text_pair: None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: Any = None,
        return_attention_mask: bool | None = None,
        return_token_type_ids: bool | None = None,
        return_special_tokens_mask: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        **unsupported: Any,
    ) -> BatchEncoding:
        """Ids of a text or of several.

        padding: False, True or "longest" (of the batch), "max_length". truncation: True to ``max_length``, which is
        ``model_max_length`` unless given; where ``max_length`` is given without padding, it is on. Special tokens
        around the text are kept when it is truncated. return_tensors: None (lists), "np", "pt" (torch where it is
        installed, otherwise an ``Array``); int64 [batch, tokens].

        Errors: ValueError when there is no padding token or a value is none of those named; TypeError for what is no
        text; NotImplementedError for pairs of texts, split words and offsets.
        """
        refuse(text_pair, unsupported)
        texts = checked_texts(text)
        layout = self._layout(padding, truncation, max_length, pad_to_multiple_of, padding_side)
        rows = [self._cut(ids, layout, add_special_tokens) for ids in self.core.encode_batch(texts, False)]
        columns: dict[str, list[Any]] = {"input_ids": [head + ids + tail for head, ids, tail in rows]}
        if return_token_type_ids:
            columns["token_type_ids"] = [[0] * len(row) for row in columns["input_ids"]]
        if return_attention_mask is not False:
            columns["attention_mask"] = [[1] * len(row) for row in columns["input_ids"]]
        if return_special_tokens_mask:
            columns["special_tokens_mask"] = [[1] * len(h) + [0] * len(i) + [1] * len(t) for h, i, t in rows]
        self._pad_columns(columns, layout)
        lengths = [len(row) for row in columns["input_ids"]]
        if isinstance(text, str) and return_tensors is None:
            columns = {name: column[0] for name, column in columns.items()}
        encoding = to_tensors(BatchEncoding(columns), return_tensors)
        if return_length:
            encoding["length"] = lengths
        return encoding

    def encode(
        self,
        text: str,
        text_pair: None = None,
        add_special_tokens: bool = True,
        *,
        return_tensors: Any = None,
        **options: Any,
    ) -> Any:
        """The ids of one text: a list, or with ``return_tensors`` an array or tensor [1, tokens].
        Options and errors: as calling the tokenizer."""
        encoding = self(
            text, text_pair, add_special_tokens=add_special_tokens, return_tensors=return_tensors, **options
        )
        return encoding["input_ids"]

    def tokenize(self, text: str, pair: None = None, add_special_tokens: bool = False, **options: Any) -> list[str]:
        """The tokens of a text as the vocabulary spells them."""
        ids = self.encode(text, pair, add_special_tokens, **options)
        return [self.core.id_to_token(token_id) for token_id in ids]

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens stand around a text."""
        refuse(pair or None, {})
        head, tail = self._special_frame()
        return len(head) + len(tail)

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: Any = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Pads what was encoded before: a batch as a dict of lists, or a list of dicts of one text each.
        Arguments and errors: as calling the tokenizer."""
        if not isinstance(encoded_inputs, dict):
            names = list(encoded_inputs[0]) if encoded_inputs else []
            encoded_inputs = {name: [row[name] for row in encoded_inputs] for name in names}
        columns = {name: to_ids(column, name) for name, column in encoded_inputs.items()}
        if "input_ids" not in columns:
            raise ValueError(f"pad: input_ids are expected, but there is only: {', '.join(columns) or 'nothing'}")
        single = bool(columns["input_ids"]) and isinstance(columns["input_ids"][0], int)
        if single:
            columns = {name: [column] for name, column in columns.items()}
        if return_attention_mask is not False:
            columns.setdefault("attention_mask", [[1] * len(row) for row in columns["input_ids"]])
        self._pad_columns(columns, self._layout(padding, None, max_length, pad_to_multiple_of, padding_side))
        if single:
            columns = {name: column[0] for name, column in columns.items()}
        return to_tensors(BatchEncoding(columns), return_tensors)

    def _layout(
        self, padding: Any, truncation: Any, max_length: int | None, multiple: int | None, padding_side: str | None
    ) -> Layout:
        return make_layout(
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            multiple=multiple,
            padding_side=self.padding_side if padding_side is None else padding_side,
            model_max_length=self.model_max_length,
            has_padding_token=self.pad_token_id is not None,
        )

    def _cut(self, ids: list[int], layout: Layout, add_special: bool) -> tuple[list[int], list[int], list[int]]:
        """Special tokens before, the ids that there is room for, special tokens behind."""
        head, tail = self._special_frame() if add_special else ([], [])
        if layout.truncate_to is None:
            return head, ids, tail
        room = layout.truncate_to - len(head) - len(tail)
        if room < 0:
            raise ValueError(
                f"max_length={layout.truncate_to}: {len(head) + len(tail)} special tokens alone stand around each text"
            )
        if len(ids) > room:
            ids = (
                ids[:room]
                if checked_side("truncation_side", self.truncation_side) == "right"
                else ids[len(ids) - room :]
            )
        return head, ids, tail

    def _special_frame(self) -> tuple[list[int], list[int]]:
        if self._frame is None:
            self._frame = special_frame(self.core.encode)
        return self._frame

    def _pad_columns(self, columns: dict[str, list[Any]], layout: Layout) -> None:
        length = layout.padded_length(len(row) for row in columns["input_ids"])
        if length is None:
            return
        fillers = {"input_ids": self.pad_token_id, "special_tokens_mask": 1}
        for name, column in columns.items():
            if column and not isinstance(column[0], list):
                continue
            for index, row in enumerate(column):
                filler = [fillers.get(name, 0)] * (length - len(row))
                column[index] = filler + row if layout.padding_side == "left" else row + filler

    # ---- ids to text

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **_: Any,
    ) -> Any:
        """The text of ids (a number, a list, an array or tensor [tokens]); of a batch [batch, tokens] a list of texts.

        clean_up_tokenization_spaces has no effect on byte-pair tokenizers, as in transformers 5.
        """
        if clean_up_tokenization_spaces:
            warn_user("clean_up_tokenization_spaces has no effect on byte-pair tokenizers")
        ids = to_ids(token_ids)
        if isinstance(ids, int):
            ids = [ids]
        if ids and isinstance(ids[0], list):
            return [self._decode(row, skip_special_tokens) for row in ids]
        return self._decode(ids, skip_special_tokens)

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False, **options: Any) -> list[str]:
        """The texts of several sequences of ids."""
        texts = self.decode(sequences, skip_special_tokens, **options)
        return [texts] if isinstance(texts, str) and len(sequences) else list(texts)

    def _decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        for index, token_id in enumerate(ids):
            if not 0 <= token_id < 2**31:
                raise ValueError(f"decode: id {token_id} at position {index} is no token's")
        return self.core.decode(np.asarray(ids, dtype=np.int32), skip_special_tokens)

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """How the vocabulary spells an id, or each of several; None for an id that is no token's."""
        ids = to_ids(ids)
        if isinstance(ids, int):
            return self._spelling(ids)
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return [self._spelling(token_id) for token_id in ids if token_id not in skipped]

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
        """The id of a token, or of each of several; that of ``unk_token``, or None, for what is no token."""
        if isinstance(tokens, str):
            return self._token_id(tokens)
        return [self._token_id(token) for token in tokens]

    def convert_tokens_to_string(self, tokens: Iterable[str]) -> str:
        """The text of tokens."""
        return self._decode([i for i in map(self._token_id, tokens) if i is not None], skip_special_tokens=False)

    def _token_id(self, token: str) -> int | None:
        token_id = self.core.token_to_id(token)
        return self.unk_token_id if token_id is None else token_id

    def _spelling(self, token_id: int) -> str | None:
        try:
            return self.core.id_to_token(token_id)
        except (IndexError, TypeError):  # no token, or no 32-bit number
            return None

    # ---- files

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *, push_to_hub: bool = False, **options: Any
    ) -> tuple[str, ...]:
        """Writes the files that the tokenizer was read from, with what was set since, into a directory and gives their
        paths. Each file appears whole or not at all; other files are not touched.

        Options: legacy_format, filename_prefix=None and save_jinja_files are accepted and change nothing; repo_id
        and those of ``push_to_hub`` with push_to_hub=True.
        """
        if options.get("filename_prefix"):
            raise NotImplementedError("save_pretrained: filename_prefix: files keep the names by which they are found")
        options = {name: value for name, value in options.items() if name not in _SAVING_WITHOUT_EFFECT}
        repo_id = options.pop("repo_id", None) or os.path.basename(os.path.abspath(save_directory))
        if options and not push_to_hub:
            known = (*_SAVING_WITHOUT_EFFECT, "push_to_hub")
            raise unknown_argument("save_pretrained", next(iter(options)), known)
        upload = _hub.push_options("save_pretrained", options)
        paths = _tokenizer_files.write(self._files, os.fspath(save_directory), self._changes())
        if push_to_hub:
            self.push_to_hub(repo_id, **upload)
        return paths

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads the tokenizer's files; options: token, private, commit_message, commit_description, revision,
        create_pr. Gives the address of the commit.

        Errors: NotImplementedError without huggingface_hub; OSError; TypeError for unknown options.
        """
        upload = _hub.push_options("push_to_hub", options)
        scratch = Scratch()
        try:
            self.save_pretrained(scratch.path)
            return _hub.push(scratch.path, repo_id, **upload)
        finally:
            scratch.remove()

    def _changes(self) -> dict[str, Any]:
        """Settings that differ from what the files say."""
        stored = {name: None for name in self._named} | self._stored_tokens
        changes: dict[str, Any] = {
            name: self._named.get(name) for name, token in stored.items() if token != self._named.get(name)
        }
        defaults = {"padding_side": "right", "truncation_side": "right", "model_max_length": NO_LIMIT}
        for name, default in defaults.items():
            if getattr(self, name) != self._stored.get(name, default):
                changes[name] = getattr(self, name)
        if self.chat_template != self._stored.get("chat_template"):
            changes["chat_template"] = self.chat_template
        if self.extra_special_tokens != self._stored["extra_special_tokens"]:
            changes["extra_special_tokens"] = self.extra_special_tokens
        return changes

    def apply_chat_template(self, *_: Any, **__: Any) -> Any:
        """Not there yet. Errors: NotImplementedError."""
        raise NotImplementedError(
            "apply_chat_template: chat templates follow in a later version; write the prompt out as text, or use the "
            "tokenizer of transformers, which is accepted everywhere"
        )


def as_tokenizer(tokenizer: Any, model_directory: str | os.PathLike[str]) -> Any:
    """Something with ``encode(text, add_special_tokens=...)``.

    None is the tokenizer of ``model_directory``; a path or id is opened; a Tokenizer, or any other object that encodes
    (one of transformers), is used itself, so that ids are exactly its own; of a processor it is the tokenizer inside.

    Errors: those of AutoTokenizer.from_pretrained; TypeError for anything else.
    """
    if tokenizer is None:
        return Tokenizer(model_directory)
    if isinstance(tokenizer, (str, os.PathLike)):
        return AutoTokenizer.from_pretrained(tokenizer)
    inner = getattr(tokenizer, "tokenizer", None)
    for candidate in (tokenizer, inner):
        if callable(getattr(candidate, "encode", None)):
            return candidate
    raise TypeError(f"tokenizer: a path, None or an object with encode is expected, not {type(tokenizer).__name__}")
