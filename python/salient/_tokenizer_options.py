"""The arguments of tokenizers: what they mean, and which are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ._arguments import unknown_argument
from ._hub import DOWNLOAD_OPTIONS
from ._special_tokens import NAMED_TOKENS

_LARGEST_LIMIT = int(1e20)  # a longer model_max_length means that there is none

_NO_PADDING_TOKEN = (
    "padding needs a token to pad with, and this tokenizer names none: set one, as in "
    "tokenizer.pad_token = tokenizer.eos_token"
)
_SETTINGS = frozenset(
    {
        *("padding_side", "truncation_side", "model_max_length", "chat_template", "extra_special_tokens"),
        *("additional_special_tokens", "add_bos_token", "add_eos_token"),
    }
)
_REFUSED = {
    "add_prefix_space": "tokenizer.json says how a text begins",
    "fix_mistral_regex": "texts are cut as tokenizer.json says; save the mended tokenizer with transformers first",
    "gguf_file": "tokenizers are read from tokenizer.json",
    "split_special_tokens": "special tokens in a text are always recognised",
}
_WITHOUT_EFFECT = frozenset(
    {
        *("clean_up_tokenization_spaces", "legacy", "use_fast", "trust_remote_code", "proxies", "resume_download"),
        *("verbose", "config", "from_slow"),
    }
)


def sort_options(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the hub, and settings of the tokenizer."""
    settings = {}
    for name, value in options.items():
        if name in DOWNLOAD_OPTIONS or name in _WITHOUT_EFFECT:
            continue
        if name in _REFUSED:
            if value:
                raise NotImplementedError(f"AutoTokenizer.from_pretrained: {name}={value!r}: {_REFUSED[name]}")
            continue
        if name not in _SETTINGS and not name.endswith("_token"):
            known = [*DOWNLOAD_OPTIONS, *_SETTINGS, *_WITHOUT_EFFECT, *_REFUSED, *NAMED_TOKENS]
            raise unknown_argument("AutoTokenizer.from_pretrained", name, known)
        settings[name] = value
    return {name: options[name] for name in DOWNLOAD_OPTIONS & options.keys()}, settings


@dataclass(frozen=True)
class Layout:
    """How sequences are brought to a length, in tokens."""

    truncate_to: int | None  # None: not at all
    pads: bool
    pad_to: int | None  # None: the longest of the batch
    multiple: int | None
    padding_side: str

    def padded_length(self, lengths: Iterable[int]) -> int | None:
        if not self.pads:
            return None
        length = max(lengths, default=0) if self.pad_to is None else self.pad_to
        return length if self.multiple is None else -(-length // self.multiple) * self.multiple


def make_layout(
    *,
    padding: Any,
    truncation: Any,
    max_length: int | None,
    multiple: int | None,
    padding_side: str,
    model_max_length: int,
    has_padding_token: bool,
) -> Layout:
    """What the arguments of a call ask for. Errors: ValueError."""
    padding, truncation = _padding(padding), _truncation(truncation)
    if max_length is not None and max_length < 0:
        raise ValueError(f"max_length={max_length}: a number of tokens is expected")
    if multiple is not None and multiple < 1:
        raise ValueError(f"pad_to_multiple_of={multiple}: at least 1 is expected")
    truncates = bool(truncation) or (truncation is None and not padding and max_length is not None)
    limit = max_length
    if limit is None and model_max_length <= _LARGEST_LIMIT:
        limit = model_max_length
    pads = padding == "longest" or (padding == "max_length" and limit is not None)
    if pads and not has_padding_token:
        raise ValueError(_NO_PADDING_TOKEN)
    if pads and truncates and limit is not None and multiple and limit % multiple:
        raise ValueError(f"max_length {limit} is no multiple of pad_to_multiple_of {multiple}, and both are asked for")
    return Layout(
        truncate_to=limit if truncates else None,
        pads=pads,
        pad_to=limit if padding == "max_length" else None,
        multiple=multiple,
        padding_side=checked_side("padding_side", padding_side),
    )


def checked_texts(text: Any) -> list[str]:
    """Errors: TypeError, naming what is no text."""
    if isinstance(text, str):
        return [text]
    if not isinstance(text, (list, tuple)) and not hasattr(text, "__iter__"):
        raise TypeError(f"tokenizer: a text or a list of texts is expected, not {type(text).__name__}")
    texts = list(text)
    for index, item in enumerate(texts):
        if not isinstance(item, str):
            raise TypeError(f"tokenizer: item {index} of the list is {type(item).__name__}, not a text")
    return texts


def special_frame(encode: Callable[[str, bool], Sequence[int]]) -> tuple[list[int], list[int]]:
    """The special tokens that ``encode(text, True)`` puts before and behind every text.

    Errors: NotImplementedError when it does more than surround a text.
    """
    bare, whole = list(encode("a", False)), list(encode("a", True))
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    raise NotImplementedError(f"tokenizer: special tokens do not surround a text: {bare} becomes {whole}")


_ARGUMENTS = (
    *("add_special_tokens", "padding", "truncation", "max_length", "pad_to_multiple_of", "padding_side"),
    *("return_tensors", "return_attention_mask", "return_token_type_ids", "return_special_tokens_mask"),
    "return_length",
)
_NOT_SUPPORTED = {
    "text_target": "texts for a decoder of their own",
    "is_split_into_words": "texts split into words",
    "return_overflowing_tokens": "what truncation cuts off",
    "return_offsets_mapping": "positions in the text",
    "split_special_tokens": "special tokens taken for text",
    "stride": "windows that overlap",
}


def refuse(text_pair: Any, options: dict[str, Any]) -> None:
    """Errors: NotImplementedError for options of transformers that are not there, TypeError for others."""
    if text_pair is not None:
        raise NotImplementedError("tokenizer: pairs of texts are not supported: pass a list of texts")
    for name, value in options.items():
        if name not in _NOT_SUPPORTED:
            raise unknown_argument("tokenizer", name, [*_NOT_SUPPORTED, *_ARGUMENTS])
        if value:
            raise NotImplementedError(f"tokenizer: {name}={value!r}: {_NOT_SUPPORTED[name]} are not supported")


def _padding(padding: Any) -> str | None:
    """None, "longest" or "max_length"; ``padding`` may be an enumerator of transformers."""
    padding = getattr(padding, "value", padding)
    if padding in (False, None, "do_not_pad"):
        return None
    if padding not in (True, "longest", "max_length"):
        raise ValueError(f'padding={padding!r}: one of False, True, "longest" and "max_length" is expected')
    return "longest" if padding is True else str(padding)


def _truncation(truncation: Any) -> bool | None:
    """Whether to truncate; None leaves it to the other arguments. May be an enumerator of transformers."""
    truncation = getattr(truncation, "value", truncation)
    if truncation is None:
        return None
    if truncation not in (False, True, "longest_first", "only_first", "do_not_truncate"):
        raise ValueError(f'truncation={truncation!r}: one of False, True and "longest_first" is expected')
    return truncation not in (False, "do_not_truncate")


def checked_side(name: str, side: Any) -> str:
    if side not in ("left", "right"):
        raise ValueError(f'{name}={side!r}: "left" or "right" is expected')
    return str(side)
