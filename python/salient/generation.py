"""How a prompt is continued: the arguments of `generate`, spelled as in transformers."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from salient import _core
from salient._arguments import unknown_argument, warn_user
from salient._loading import bytes_of

__all__ = ["GenerationOptions", "GenerationOutput", "Streamer", "TokenLogprobs", "generation_options"]

DEFAULT_NEW_TOKENS = 256
_BANNED = -math.inf

# Arguments of transformers' generate with the one value that is the same as leaving them out, and what holds instead.
_FIXED: dict[str, tuple[tuple[Any, ...], str]] = {
    "num_beams": ((1, None), "beam search is not supported; sampling and greedy search are"),
    "num_beam_groups": ((1, None), "beam search is not supported"),
    "penalty_alpha": ((None, 0, 0.0), "contrastive search is not supported"),
    "length_penalty": ((1, 1.0, None), "it steers beam search, which is not supported"),
    "early_stopping": ((False, None), "it steers beam search, which is not supported"),
    "no_repeat_ngram_size": ((0, None), "it is not supported; repetition_penalty is"),
    "encoder_repetition_penalty": ((1, 1.0, None), "it is not supported; repetition_penalty is"),
    "force_words_ids": ((None,), "it is not supported"),
    "typical_p": ((1, 1.0, None), "it is not supported; top_k, top_p and min_p are"),
    "epsilon_cutoff": ((0, 0.0, None), "it is not supported; min_p is"),
    "eta_cutoff": ((0, 0.0, None), "it is not supported; min_p is"),
    "logits_processor": ((None, []), "functions on logits are not called"),
    "stopping_criteria": ((None, []), "it is not supported; stop_strings and a streamer are"),
    "prefix_allowed_tokens_fn": ((None,), "functions on logits are not called"),
    "output_scores": ((False, None), "logits are not kept; logprobs, logits and score give numbers"),
    "output_logits": ((False, None), "logits are not kept; logprobs, logits and score give numbers"),
    "output_attentions": ((False, None), "attention weights are never formed"),
    "output_hidden_states": ((False, None), "hidden states are not kept"),
    "begin_suppress_tokens": ((None, []), "it is not supported"),
    "guidance_scale": ((None, 1, 1.0), "guidance by a second prompt is not supported"),
    "forced_bos_token_id": ((None,), "it is not supported"),
    "forced_eos_token_id": ((None,), "it is not supported"),
    "max_time": ((None,), "it is not supported; a streamer that raises ends the text"),
    "negative_prompt_ids": ((None,), "it is not supported"),
    "past_key_values": ((None,), "caches are not handed around"),
    "inputs_embeds": ((None,), "the model takes ids"),
}
# Those that change nothing here, whatever they say.
_WITHOUT_EFFECT = (
    "use_cache",
    "token_type_ids",
    "synced_gpus",
    "tokenizer",
    "cache_implementation",
    "use_model_defaults",
    "bos_token_id",
    "decoder_start_token_id",
)


@dataclass(frozen=True)
class GenerationOptions:
    """What counts for one text after defaults, generation_config.json and arguments are put together."""

    max_new_tokens: int | None = None
    max_length: int | None = None
    min_new_tokens: int = 0
    min_length: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    num_return_sequences: int = 1
    eos_token_id: tuple[int, ...] | None = None
    pad_token_id: int | None = None
    stop_strings: tuple[str, ...] = ()
    seed: int | None = None
    logit_bias: Mapping[int, float] | None = None
    sequence_bias: Any = None
    suppress_tokens: Sequence[int] = ()
    bad_words_ids: Sequence[Sequence[int]] = ()
    logprobs: int | None = None
    return_dict_in_generate: bool = False
    prompt_lookup_num_tokens: int | None = None
    assistant_model: Any = None
    num_assistant_tokens: int = 5
    response_format: Mapping[str, Any] | None = None
    load_state: str | os.PathLike[str] | None = None
    save_state: str | os.PathLike[str] | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    kv_cache_memory_bytes: int | str | None = None
    batch_invariant: bool | None = None

    def new_tokens(self, prompt: int) -> int:
        """Tokens to add to a prompt of so many."""
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        if self.max_length is None:
            return DEFAULT_NEW_TOKENS
        if self.max_length <= prompt:
            raise ValueError(f"generate: the prompt has {prompt} tokens already, max_length is {self.max_length}")
        return self.max_length - prompt

    def least_new_tokens(self, prompt: int) -> int:
        """Before which no end token is drawn, behind a prompt of so many."""
        return max(self.min_new_tokens, self.min_length - prompt)

    def padding(self) -> int | None:
        """The id that stands for nothing in a prompt without a mask, as transformers has it."""
        ends = self.eos_token_id or ()
        return None if self.pad_token_id in ends else self.pad_token_id

    def biases(self) -> dict[int, float]:
        """What is added to the logits of which token."""
        biases = {int(token): float(bias) for token, bias in (self.logit_bias or {}).items()}
        for token, bias in _token_biases("sequence_bias", self.sequence_bias):
            biases[token] = biases.get(token, 0.0) + bias
        for token, bias in _token_biases("bad_words_ids", self.bad_words_ids):
            biases[token] = bias
        return {**biases, **{int(token): _BANNED for token in self.suppress_tokens}}

    def wants_json(self) -> bool:
        return self.response_format is not None and self.response_format["type"] == "json_object"

    def batch_limits(self) -> dict[str, Any]:
        """Of _core.finish_together."""
        given = {name: getattr(self, name) for name in _BATCH_LIMITS}
        if given["kv_cache_memory_bytes"] is not None:
            given["kv_cache_memory_bytes"] = _cache_bytes(given["kv_cache_memory_bytes"])
        return {name: v if isinstance(v, bool) else int(v) for name, v in given.items() if v is not None}

    def proposals(self) -> int:
        """Tokens to propose before each pass; 0 without speculation."""
        if self.assistant_model is not None:
            return self.num_assistant_tokens
        return self.prompt_lookup_num_tokens or 0

    def sampling(self, index: int = 0) -> dict[str, Any]:
        """Arguments of _core.Model.start for text number `index` of a call. Without a seed numpy.random draws one."""
        shared = {"repetition_penalty": self.repetition_penalty}
        if not self.do_sample:
            return {"temperature": 0.0, **shared}
        seed = int(np.random.randint(2**31)) if self.seed is None else (self.seed + index) % 2**64
        filters = {"top_k": self.top_k, "top_p": self.top_p, "min_p": self.min_p}
        return {"temperature": self.temperature, "seed": seed, **filters, **shared}


class TokenLogprobs(NamedTuple):
    """Natural logarithms of what probability the model gave, by the softmax of its own logits."""

    token: int
    logprob: float
    top: dict[int, float]  # of the likeliest tokens there, likeliest first


@dataclass
class GenerationOutput:
    """What `generate` gives with return_dict_in_generate=True; lists have an entry for each text.

    sequences: as `generate` gives them without. finish_reasons: "stop_token", "stop_text", "complete" (what
    response_format asks for is there), "max_tokens" or "context_limit". logprobs: of each new token, the one that
    ended the text left out; None unless asked for. proposed_tokens, accepted_tokens: by speculation.
    """

    sequences: Any
    finish_reasons: list[str]
    logprobs: list[list[TokenLogprobs]] | None
    proposed_tokens: list[int]
    accepted_tokens: list[int]


@dataclass
class FinishedText:
    """Ids of prompt and answer, where they came from, and why it ended."""

    ids: npt.NDArray[np.int64]
    text: _core.TokenStream
    reason: str


def generation_output(sequences: Any, texts: Sequence[FinishedText], settings: GenerationOptions) -> GenerationOutput:
    logprobs = None
    if settings.logprobs is not None:
        logprobs = [[TokenLogprobs(*one) for one in each.text.logprobs()] for each in texts]
    return GenerationOutput(
        sequences,
        [each.reason for each in texts],
        logprobs,
        [each.text.proposed_tokens for each in texts],
        [each.text.accepted_tokens for each in texts],
    )


def _bias_items(given: Any) -> list[tuple[Sequence[int], float]]:
    """Of transformers' sequence_bias: {(id, ...): bias} or [[[id, ...], bias], ...]."""
    items = given.items() if isinstance(given, Mapping) else (given or ())
    return [(ids, float(bias)) for ids, bias in items]


def _token_biases(name: str, given: Any) -> list[tuple[int, float]]:
    """Of sequence_bias or bad_words_ids. Errors: NotImplementedError for sequences of several tokens."""
    items = _bias_items(given) if name == "sequence_bias" else [(word, _BANNED) for word in given]
    result = []
    for ids, bias in items:
        if len(ids) != 1:
            raise NotImplementedError(f"generate: {name}: {list(ids)}: only single tokens are supported")
        result.append((int(ids[0]), bias))
    return result


_BATCH_LIMITS = ("max_num_seqs", "max_num_batched_tokens", "kv_cache_memory_bytes", "batch_invariant")
_NAMES = tuple(option.name for option in fields(GenerationOptions))
# What no file may ask for: it belongs to one call.
_OF_A_CALL = (
    "assistant_model",
    "load_state",
    "save_state",
    "logprobs",
    "return_dict_in_generate",
    "prompt_lookup_num_tokens",
    "num_assistant_tokens",
    "response_format",
    *_BATCH_LIMITS,
)
_OF_TOKENS = ("sequence_bias", "bad_words_ids")


def generation_options(directory: str, given: dict[str, Any]) -> GenerationOptions:
    """`given` are the arguments of generate; None is as good as absent. What they leave open generation_config.json
    in `directory` says, as in transformers.

    Errors: TypeError for an unknown argument, with the nearest name; NotImplementedError for what transformers has and
    Salient has not; ValueError for values that make no sense.
    """
    config = given.pop("generation_config", None)
    given = {**_checked(_config_arguments(config)), **_checked(given)}
    values = {**_stored(directory), **{name: value for name, value in given.items() if value is not None}}
    if given.get("max_new_tokens") is None and given.get("max_length") is not None:
        values.pop("max_new_tokens", None)
    if values.get("temperature") == 0 and values.get("do_sample"):
        values["do_sample"] = False  # the limit of ever lower temperatures
    for name in ("eos_token_id", "stop_strings"):
        if name in values:
            values[name] = _as_tuple(values[name])
    options = GenerationOptions(**values)
    _check_ranges(options)
    return options


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    known = {}
    for name, value in given.items():
        if name in _NAMES:
            known[name] = value
        elif name in _FIXED:
            neutral, reason = _FIXED[name]
            if not any(value is one or value == one for one in neutral):
                raise NotImplementedError(f"generate: {name}={value!r}: {reason}")
        elif name not in _WITHOUT_EFFECT:
            arguments = (*_NAMES, *_FIXED, "input_ids", "attention_mask", "streamer")
            raise unknown_argument("generate", name, arguments)
    return known


def _config_arguments(config: Any) -> dict[str, Any]:
    """Of a GenerationConfig of transformers, a dict, or None; without what says nothing of how to generate."""
    if config is None:
        return {}
    values = config if isinstance(config, dict) else config.to_dict()
    return {name: value for name, value in values.items() if value is not None and name in (*_NAMES, *_FIXED)}


def _stored(directory: str) -> dict[str, Any]:
    """Of generation_config.json; what Salient has not is left out with a warning."""
    path = os.path.join(directory, "generation_config.json")
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        values = json.load(file)
    known = {}
    for name, value in _config_arguments(values).items():
        if name in _OF_A_CALL:
            continue
        try:
            if name in _OF_TOKENS:
                _token_biases(name, value)
            known.update(_checked({name: value}))
        except NotImplementedError as error:
            warn_user(f"{path}: left out: {error}")
    return known


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple, set, frozenset)) else (value,)


_INTEGERS = (
    "max_new_tokens",
    "max_length",
    "min_new_tokens",
    "min_length",
    "top_k",
    "num_return_sequences",
    "pad_token_id",
    "seed",
    "logprobs",
    "prompt_lookup_num_tokens",
    "num_assistant_tokens",
    "max_num_seqs",
    "max_num_batched_tokens",
)
_NUMBERS = ("temperature", "top_p", "min_p", "repetition_penalty")


def _check_types(options: GenerationOptions) -> None:
    if not isinstance(options.do_sample, bool):
        raise TypeError(f"generate: do_sample {options.do_sample!r} is neither True nor False")
    if not isinstance(options.batch_invariant, (bool, type(None))):
        raise TypeError(f"generate: batch_invariant {options.batch_invariant!r} is neither True nor False")
    for token in options.eos_token_id or ():
        if isinstance(token, bool) or not isinstance(token, (int, np.integer)):
            raise TypeError(f"generate: eos_token_id {token!r} is no whole number")
    for text in options.stop_strings:
        if not isinstance(text, str) or not text:
            raise ValueError(f"generate: stop_strings: {text!r} is no text to stop at")
    for names, kinds, word in (
        (_INTEGERS, (int, np.integer), "whole number"),
        (_NUMBERS, (int, float, np.number), "number"),
    ):
        for name in names:
            value = getattr(options, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, kinds)):
                raise TypeError(f"generate: {name} {value!r} is no {word}")


def _check_ranges(options: GenerationOptions) -> None:
    _check_types(options)
    for name in ("max_new_tokens", "max_length"):
        value = getattr(options, name)
        if value is not None and value < (0 if name == "max_new_tokens" else 1):
            raise ValueError(f"generate: {name} {value} is no number of tokens")
    if options.seed is not None and not 0 <= options.seed < 2**64:
        raise ValueError(f"generate: seed {options.seed} is not from 0 to 2**64 - 1")
    if options.num_return_sequences < 1:
        raise ValueError(f"generate: num_return_sequences {options.num_return_sequences} is less than 1")
    if options.num_return_sequences > 1 and not options.do_sample:
        raise ValueError("generate: num_return_sequences above 1 needs do_sample=True: greedy texts would be the same")
    if options.logprobs is not None and not options.return_dict_in_generate:
        raise ValueError("generate: logprobs come with return_dict_in_generate=True")
    for name in ("logprobs", "prompt_lookup_num_tokens", "num_assistant_tokens"):
        if (getattr(options, name) or 0) < 0:
            raise ValueError(f"generate: {name} {getattr(options, name)} is negative")
    for name in ("max_num_seqs", "max_num_batched_tokens"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"generate: {name} {getattr(options, name)} is less than 1")
    options.batch_limits()
    if options.assistant_model is not None and options.prompt_lookup_num_tokens:
        raise ValueError("generate: assistant_model and prompt_lookup_num_tokens are two ways to propose tokens")
    if options.assistant_model is not None and options.num_assistant_tokens == 0:
        raise ValueError("generate: assistant_model with num_assistant_tokens 0 would propose nothing")
    if options.load_state is not None and options.max_new_tokens is None and options.max_length is not None:
        raise ValueError("generate: with load_state say max_new_tokens, not max_length")
    options.biases()
    _check_format(options.response_format)
    if options.save_state is not None:
        _check_target(options.save_state)


def _cache_bytes(size: int | str) -> int:
    return bytes_of("generate: kv_cache_memory_bytes", size)


def _check_format(response_format: Any) -> None:
    """OpenAI's response_format. Errors: TypeError for no dict; ValueError for another type or key;
    NotImplementedError for a schema."""
    if response_format is None:
        return
    if not isinstance(response_format, Mapping):
        raise TypeError(f"generate: response_format {response_format!r} is no dict like {{'type': 'json_object'}}")
    kind = response_format.get("type")
    if kind == "json_schema":
        raise NotImplementedError("generate: response_format json_schema is not supported; json_object is")
    if kind not in ("text", "json_object"):
        raise ValueError(f"generate: response_format has the type {kind!r}, not 'text' or 'json_object'")
    if more := [key for key in response_format if key != "type"]:
        raise ValueError(f"generate: response_format has no key {more[0]!r}")


def _check_target(path: str | os.PathLike[str]) -> None:
    """Before the text is made, which may take long. Errors: FileNotFoundError; IsADirectoryError; ValueError for
    any other file that is no saved state."""
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"generate: save_state {os.fspath(path)}: there is no folder {folder}")
    if os.path.isdir(path):
        raise IsADirectoryError(f"generate: save_state {os.fspath(path)}: a folder stands there")
    _core.check_state_target(path)


class Streamer(Protocol):
    """Sees ids as they come, as those of transformers do: first the prompt's [1, tokens], then each new one [1]."""

    def put(self, value: Any) -> None: ...
    def end(self) -> None: ...


def stops(text: str, stop_strings: Sequence[str]) -> int | None:
    """Where the first of `stop_strings` begins in `text`."""
    found = [place for place in (text.find(stop) for stop in stop_strings) if place >= 0]
    return min(found) if found else None


class HeldText:
    """Text on its way to the user: held back as long as it may be the beginning of a stop string."""

    def __init__(self, stop_strings: Sequence[str]) -> None:
        self.stopped = False
        self._stop_strings = stop_strings
        self._held = ""

    def add(self, piece: str) -> str:
        """What may be shown now."""
        if self.stopped:
            return ""
        self._held += piece
        end = stops(self._held, self._stop_strings)
        if end is not None:
            self.stopped = True
            self._held = self._held[:end]
            return self.rest()
        shown = self._held[: len(self._held) - self._overlap()]
        self._held = self._held[len(shown) :]
        return shown

    def rest(self) -> str:
        """What is still held, at the end of the text."""
        rest, self._held = self._held, ""
        return rest

    def _overlap(self) -> int:
        """Characters at the end that begin a stop string."""
        sizes = range(min(len(self._held), max(map(len, self._stop_strings), default=0)), 0, -1)
        return next((size for size in sizes if any(s.startswith(self._held[-size:]) for s in self._stop_strings)), 0)
