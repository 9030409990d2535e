"""Models: a handle on a directory, which generates, scores, is quantized and saved."""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from salient import _core, _hub
from salient._arguments import unknown_argument
from salient._config import check_agreement, loading_config
from salient._devices import device_of, full_name, is_accelerator, runs_on_gpu
from salient._files import Scratch
from salient._files import save_directory as write_directory
from salient._fusing import SequenceLimit, check_sizes_to_fuse
from salient._ids import Ids, id_masks, id_rows, like, one_row, pad_rows
from salient._loading import Running, check_dtype, check_memory, checked_running, located, placed
from salient._making import BegunText, Maker
from salient.generation import (
    GenerationOptions,
    HeldText,
    Streamer,
    generation_options,
    generation_output,
)
from salient.tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

__all__ = ["AutoModelForCausalLM", "CausalLM", "Config", "inspect", "load", "model_handle"]

_LOG = logging.getLogger("salient")
_ASKING_NOTHING = ("use_cache", "return_dict", "token_type_ids")  # of a call


class Config(dict[str, Any]):
    """config.json as a dict whose entries are attributes as well."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"config.json has no {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self:
            raise AttributeError(f"config.json has no {name!r}")
        del self[name]

    def to_dict(self) -> dict[str, Any]:
        return copy.deepcopy(dict(self))


@dataclass
class CausalLMOutput:
    """What calling a model gives."""

    logits: Any


class CausalLM:
    """A model directory, dense or quantized. Its weights are read when they are first needed.

        model = salient.load("path/to/model")
        model.generate("Once upon a time", max_new_tokens=64)

    Attributes:
        name_or_path: what the user called it.
        directory: where its files lie.
        report: of the run that quantized it; None of a model that was opened.
        sequence_limit: tokens of prompt and answer together that `generate` accepts; None: what the model can.

    running: device, activations ("fp32", exact; the commands that run a model: "int16"), lm_head, packed_weights,
    fuse_layers, kv_cache_dtype ("fp32"; the commands that run a model: "fp16") and kernel, as `load` has them.

    Errors: FileNotFoundError; salient.FormatError; ValueError for an unknown device, activations, lm_head or kernel;
    NotImplementedError for a GPU where there is none.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name_or_path: str | None = None,
        **running: Unpack[Running],
    ) -> None:
        self.directory = os.fspath(path)
        self.name_or_path = self.directory if name_or_path is None else name_or_path
        self.report: Any = None
        self._running = checked_running(type(self).__name__, running)
        self.sequence_limit: SequenceLimit | None = None
        self._owner: Scratch | None = None
        self.info  # an unreadable model is told of here, not when it is first used

    # ---- what it is

    @cached_property
    def info(self) -> dict[str, Any]:
        """What the directory holds: architecture, parameters, bytes, layers, quantization, ..."""
        return dict(json.loads(_core.inspect(self.directory)))

    @cached_property
    def config(self) -> Config:
        """config.json; changes are saved with the model, and change nothing else."""
        return Config(self._stored_config())

    @cached_property
    def tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer(self.directory)
        tokenizer.owner = self._owner
        return tokenizer

    @cached_property
    def _json_words(self) -> _core.JsonWords:
        return _core.JsonWords(self.tokenizer.core)

    @cached_property
    def core(self) -> _core.Model:
        """The loaded weights."""
        return _core.Model(self.directory, on_note=lambda text: _LOG.info("%s", text), **self._running)

    @property
    def device(self) -> str:
        """Where it runs, or will once its weights are read: "cpu", "cuda:0"."""
        device = self._running.get("device", "auto")
        core = self.__dict__.get("core")
        on_gpu = runs_on_gpu(device) if core is None else core.device.startswith("cuda")
        return full_name(device) if on_gpu else "cpu"

    def num_parameters(self) -> int:
        return int(self.info["parameters"])

    def _stored_config(self) -> dict[str, Any]:
        return dict(json.loads(Path(self.directory, "config.json").read_text(encoding="utf-8")))

    def __repr__(self) -> str:
        info = self.info
        size = f"{info['parameters'] / 1e6:.1f}M parameters, {info['bytes'] / 2**20:.1f} MiB"
        return f"{type(self).__name__}({info['architecture']}, {size}, {_scheme_text(info)}, {self.device})"

    def adopt(self, directory: str | os.PathLike[str], owner: Scratch | None) -> None:
        """From now on the model is what lies there; `owner` keeps a temporary directory as long as anybody uses it."""
        self.directory, self._owner = os.fspath(directory), owner
        for name in ("info", "config", "tokenizer", "core", "_json_words"):
            self.__dict__.pop(name, None)

    # ---- running

    def generate(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        *,
        inputs: Any = None,
        streamer: Streamer | None = None,
        **options: Any,
    ) -> Any:
        """Continues a prompt or a batch of them.

        input_ids (or inputs): int [batch, tokens] or [tokens], of NumPy, torch or lists; or a text, of which the new
        text is returned. attention_mask: like input_ids, 0 where there is padding. streamer: of Salient or of
        transformers, for one prompt. options, spelled as in transformers: max_new_tokens (256), max_length,
        min_new_tokens, do_sample, temperature, top_k, top_p, min_p, repetition_penalty, num_return_sequences,
        eos_token_id, pad_token_id, stop_strings, seed (none: numpy.random draws one), generation_config;
        sequence_bias, bad_words_ids and suppress_tokens, of single tokens; return_dict_in_generate. As in vLLM:
        logit_bias {id: bias}; logprobs, how many of the likeliest tokens to tell of beside the drawn one. As in
        OpenAI's interface: response_format={"type": "json_object"}, with which the text is one object of JSON.
        Speculation, which changes no text: assistant_model, a model of the same vocabulary or its path, with
        num_assistant_tokens (5); or prompt_lookup_num_tokens. Several texts share passes; as in vLLM, max_num_seqs
        (16) bounds how many are in the making, max_num_batched_tokens (512) the tokens of a pass, kv_cache_memory_bytes
        ("4GiB"; 1 GiB, or what the largest text needs) what all remember. batch_invariant: whether each text is bit by
        bit the one that it is alone; None: on the CPU, not on a GPU, where that takes smaller passes.
        Salient's own: save_state, a file to leave what the model
        remembers in; load_state, such a file, whose tokens the prompt follows (it may be empty).

        Returns ids [batch * num_return_sequences, longest] of prompts as they came and what follows them, shorter
        ones padded on the right: torch's if the prompt was, else int64 of NumPy. With return_dict_in_generate a
        GenerationOutput that holds them as `sequences`.

        Errors: ValueError for a prompt that is empty, beyond the context or not in the vocabulary, for values
        that make no sense, and for a state or an assistant_model that do not fit the model; salient.FormatError for a
        damaged state; FileNotFoundError and IsADirectoryError, before the text, where save_state cannot lie;
        NotImplementedError for what transformers has and Salient has not, and for speculation with linear attention;
        TypeError for unknown arguments. KeyboardInterrupt stops it.
        """
        if inputs is not None and input_ids is not None:
            raise ValueError("generate: input_ids and inputs are two names of one thing; give one of them")
        prompt = inputs if input_ids is None else input_ids
        settings = self._settings(options)
        if isinstance(prompt, str):
            more = (streamer, attention_mask, settings.logprobs)
            if any(one is not None for one in more) or settings.num_return_sequences > 1:
                raise ValueError("generate: of a text only the text that follows is given; pass ids for anything more")
            return "".join(self._text_after(prompt, settings, options))
        rows, is_flat = id_rows(prompt)
        settings = self._bounded(settings, len(rows[0]), options)
        masks = id_masks(attention_mask, rows, settings.padding())
        count = settings.num_return_sequences
        if streamer is not None and len(rows) * count > 1:
            raise ValueError(f"generate: a streamer shows one text, not {len(rows) * count}")
        if settings.save_state is not None and len(rows) * count > 1:
            raise ValueError(f"generate: save_state is for one text, not for {len(rows) * count}")
        begun: list[BegunText] = []
        for index, (row, mask) in enumerate(zip(rows, masks)):
            begun += self._begun(row, mask, settings, first=index * count)
        tokenizer = self.tokenizer.core if settings.stop_strings else None
        texts = Maker(settings, self.core.context_length, tokenizer, streamer).finish(begun)
        if settings.save_state is not None:
            texts[0].text.save_state(settings.save_state)
        result = pad_rows([text.ids for text in texts], self._filler(settings))
        sequences = like(prompt, result[0] if is_flat and len(texts) == 1 else result)
        return generation_output(sequences, texts, settings) if settings.return_dict_in_generate else sequences

    def stream(self, prompt: str, **options: Any) -> Iterator[str]:
        """The text that follows `prompt`, piece by piece as it is made. Options and errors: as `generate`;
        save_state is written behind the last piece, so who stops earlier gets no file."""
        if not isinstance(prompt, str):
            raise TypeError(
                f"stream: a text is expected, not {type(prompt).__name__}; generate takes ids and a streamer"
            )
        settings = self._settings(options)
        if settings.num_return_sequences > 1 or settings.logprobs is not None:
            raise ValueError("stream: num_return_sequences and logprobs are for generate")
        return self._text_after(prompt, settings, options)

    def __call__(self, input_ids: Any = None, attention_mask: Any = None, **options: Any) -> CausalLMOutput:
        """One pass over a batch, as a model of transformers does it: ``.logits`` float32 [batch, tokens, vocab], zeros
        where there is padding; torch's if the ids were.

        Errors: NotImplementedError for more than logits (labels, caches, hidden states).
        """
        for name, value in options.items():
            if value is not None and value is not False and name not in _ASKING_NOTHING:
                raise NotImplementedError(f"calling the model gives logits; {name} is not supported")
        rows, _ = id_rows(input_ids)
        logits = np.zeros((len(rows), len(rows[0]), int(self.info["vocab_size"])), dtype=np.float32)
        for index, (row, mask) in enumerate(zip(rows, id_masks(attention_mask, rows, None))):
            logits[index, mask] = self.core.logits(np.ascontiguousarray(row[mask]))
        return CausalLMOutput(like(input_ids, logits))

    def logits(self, ids: Any, last: int = 0) -> npt.NDArray[np.float32]:
        """Logits float32 [tokens, vocab] of the token after each position of ids [tokens] or [1, tokens]; with `last`
        above 0 only of the last so many positions.

        Errors: ValueError for ids that are none of the vocabulary or more than the context holds.
        """
        return self.core.logits(one_row(ids), last)

    def score(self, ids: Any, first: int = 1) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Log-probability (nats) of each of ids[first:] given all before it, and whether no token was likelier."""
        return self.core.score(one_row(ids), first)

    def _text_after(self, prompt: str, settings: GenerationOptions, options: Mapping[str, Any]) -> Iterator[str]:
        """In pieces, none of which reaches into a stop string. `options`: what the caller said."""
        ids = self._prompt_ids(prompt, is_first=settings.load_state is None)
        settings = self._bounded(settings, len(ids), options)
        decoder = _core.TextStream(self.tokenizer.core)
        tokens = self._start(ids, settings, length=len(ids))
        for one in tokens.prompt:
            decoder.push(int(one))
        held = HeldText(settings.stop_strings)
        while not held.stopped and (token := tokens.next()) is not None:
            if piece := held.add(decoder.push(token)):
                yield piece
        if piece := held.add(decoder.finish()) + held.rest():
            yield piece
        if settings.save_state is not None:
            tokens.save_state(settings.save_state)

    def _prompt_ids(self, prompt: str, *, is_first: bool) -> Ids:
        """`is_first`: it begins the text, and does not follow a state."""
        ids = self.tokenizer.core.encode(prompt, add_special_tokens=is_first)
        if is_first and not ids and self.core.bos_token_id is not None:
            ids = [self.core.bos_token_id]
        return np.array(ids, dtype=np.int32)

    def _begun(
        self, row: Ids, mask: npt.NDArray[np.bool_], settings: GenerationOptions, *, first: int
    ) -> list[BegunText]:
        """num_return_sequences of them; the prompt is run once."""
        prompt = row[mask]
        text = self._start(prompt, settings, length=len(row), index=first)
        later = range(first + 1, first + settings.num_return_sequences)
        streams = [text, *(text.fork(int(settings.sampling(index)["seed"])) for index in later)]
        before = np.concatenate([text.prompt[: len(text.prompt) - len(prompt)], row]).astype(np.int64)
        return [BegunText(before, prompt, stream) for stream in streams]

    def _start(self, prompt: Ids, settings: GenerationOptions, *, length: int, index: int = 0) -> _core.TokenStream:
        """`length`: of the prompt with its padding. `index`: of the text among those of one call."""
        text = self.core.start(
            prompt,
            max_new_tokens=settings.new_tokens(length),
            min_new_tokens=settings.least_new_tokens(length),
            stop_token_ids=list(self._end_tokens(settings)),
            logit_bias=settings.biases(),
            logprobs=settings.logprobs,
            num_assistant_tokens=settings.proposals(),
            assistant=None if settings.assistant_model is None else settings.assistant_model.core,
            load_state=settings.load_state,
            json_words=self._json_words if settings.wants_json() else None,
            **settings.sampling(index),
        )
        if self.sequence_limit is not None:  # with load_state there is more before than the prompt
            self.sequence_limit.check(len(text.prompt), settings.new_tokens(length))
        return text

    def _bounded(self, settings: GenerationOptions, prompt: int, options: Mapping[str, Any]) -> GenerationOptions:
        """As the sequence limit lets a prompt of so many tokens go on, where the caller said `options`."""
        return settings if self.sequence_limit is None else self.sequence_limit.fit(settings, prompt, options)

    def _settings(self, options: dict[str, Any]) -> GenerationOptions:
        """With the handle of the assistant, so that its weights are read once."""
        settings = generation_options(self.directory, dict(options))
        if settings.assistant_model is None:
            return settings
        assistant = model_handle(settings.assistant_model)
        if not _core.same_vocabulary(self.tokenizer.core, assistant.tokenizer.core):
            raise ValueError(
                f"generate: assistant_model {assistant.name_or_path} has another vocabulary than the model"
            )
        return replace(settings, assistant_model=assistant)

    def _end_tokens(self, settings: GenerationOptions) -> Sequence[int]:
        return self.core.eos_token_ids if settings.eos_token_id is None else settings.eos_token_id

    def _filler(self, settings: GenerationOptions) -> int:
        if settings.pad_token_id is not None:
            return settings.pad_token_id
        candidates = [self.config.get("pad_token_id"), *self._end_tokens(settings)]
        return next((one for one in candidates if isinstance(one, int)), 0)

    # ---- saving

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        max_shard_size: int | str = "5GB",
        safe_serialization: bool = True,
        save_compressed: bool = True,
        push_to_hub: bool = False,
        **options: Any,
    ) -> None:
        """Writes the model directory, whole or not at all; what a model directory there holds besides is kept.

        max_shard_size: the largest file, in bytes or as "5GB". options: of `push_to_hub`.

        Errors: NotImplementedError for safe_serialization=False (pickled weights) and save_compressed=False
        (dequantized ones); ValueError when something stands there that is no model; OSError.
        """
        if not safe_serialization:
            raise NotImplementedError("save_pretrained: safe_serialization=False: pickled weights are not written")
        if not save_compressed and self.info["quantization"] is not None:
            raise NotImplementedError(
                "save_pretrained: save_compressed=False: quantized weights are written as integers"
            )
        if options and not push_to_hub:
            raise unknown_argument("save_pretrained", next(iter(options)), ("max_shard_size", "push_to_hub"))
        changed = self.config.to_dict() != self._stored_config()
        config = json.dumps(self.config.to_dict(), indent=2) + "\n" if changed else None
        write_directory(self.directory, save_directory, max_shard_size, config=config)
        if push_to_hub:
            name = os.path.basename(os.path.abspath(save_directory))
            _hub.push(save_directory, options.pop("repo_id", name), **_hub.push_options("save_pretrained", options))

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads the model directory; options: token, private, commit_message, revision, create_pr, max_shard_size.
        Gives the address of the commit. Errors: NotImplementedError without huggingface_hub; OSError."""
        saving = {name: options.pop(name) for name in ("max_shard_size", "safe_serialization") if name in options}
        pushing = _hub.push_options("push_to_hub", options)
        scratch = Scratch()
        try:
            directory = os.path.join(scratch.path, "model")
            self.save_pretrained(directory, **saving)
            return _hub.push(directory, repo_id, **pushing)
        finally:
            scratch.remove()

    # ---- what torch's modules have

    @property
    def generation_config(self) -> Config:
        """What generation_config.json says; arguments of `generate` count more."""
        path = Path(self.directory, "generation_config.json")
        return Config(json.loads(path.read_text(encoding="utf-8")) if path.exists() else {})

    def get_memory_footprint(self) -> int:
        """Bytes of the weights."""
        return int(self.info["bytes"])

    def eval(self) -> Self:
        """The model itself: it is never trained."""
        return self

    def to(self, *where: Any, **options: Any) -> Self:
        """The model itself, which from now on runs there; its weights are read anew when they are needed. It stays
        where it is, and a warning says so, where an accelerator is named that is not there."""
        for place in (*where, options.get("device")):
            name = str(place).lower()
            if name == "cpu" or is_accelerator(name):
                self._move(device_of("to", name))
        return self

    def _move(self, device: str) -> None:
        if device in ("auto", self.device):
            return
        self._running = checked_running("to", {**self._running, "device": device})  # type: ignore[typeddict-item]
        self.__dict__.pop("core", None)

    def cuda(self, device: Any = None) -> Self:
        return self.to("cuda" if device is None else device)

    def cpu(self) -> Self:
        return self.to("cpu")

    def half(self) -> Self:
        return self

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        device_map: Any = None,
        torch_dtype: Any = "auto",
        dtype: Any = "auto",
        quantization_config: Any = None,
        activations: str = "fp32",
        packed_weights: str | os.PathLike[str] | None = None,
        kernel: str = "auto",
        **options: Any,
    ) -> Self:
        """A model from a directory or an id of the hub, dense or quantized.

        device_map: a GPU ("cuda", "cuda:1", 1, or a mapping to one) where there is one, "cpu", or "auto":
        a GPU if there is one, else the CPU; a warning where another device is named.
        torch_dtype, dtype: change nothing, which a warning says unless they are "auto" or the checkpoint's; weights
        stay as they are stored, sums are float32. quantization_config: an AwqConfig or dict, which must agree with
        what the checkpoint says; its do_fuse=False leaves linears apart, its fuse_max_seq_len bounds `generate`, its
        version and backend name the kernels of a GPU. activations, packed_weights, kernel: as `load`. options:
        revision, cache_dir, token, local_files_only, force_download for the hub; max_memory, of which the entry "cpu"
        must hold the weights; for others see ``UNUSED`` in salient._loading.

        Errors: FileNotFoundError; salient.FormatError; NotImplementedError; TypeError for an unknown option;
        ValueError when quantization_config contradicts the checkpoint.
        """
        where = "from_pretrained"
        max_memory = options.pop("max_memory", None)
        known = (
            *("device_map", "torch_dtype", "dtype", "quantization_config", "max_memory"),
            *("activations", "packed_weights", "kernel"),
        )
        loading = loading_config(quantization_config)
        running = placed(where, options, device_map, loading.kernel if kernel == "auto" else kernel)
        directory = located(where, pretrained_model_name_or_path, options, known=known)
        check_memory(where, directory, max_memory)
        model = cls(
            directory,
            activations=activations,
            packed_weights=packed_weights,
            fuse_layers=loading.fuses(),
            name_or_path=os.fspath(pretrained_model_name_or_path),
            **running,
        )
        stored = str(model.config.get("dtype") or model.config.get("torch_dtype"))
        check_dtype(where, torch_dtype if dtype == "auto" else dtype, (stored,))
        if quantization_config is not None:
            check_agreement(model.name_or_path, model.config.get("quantization_config"), quantization_config)
        if loading.modules_to_fuse:
            check_sizes_to_fuse(where, loading.modules_to_fuse, model.config)
        model.sequence_limit = loading.sequence_limit(where)
        return model


class AutoModelForCausalLM:
    """Opens models as transformers' class of that name does."""

    def __init__(self) -> None:
        raise OSError("AutoModelForCausalLM is not made but asked: AutoModelForCausalLM.from_pretrained(path)")

    from_pretrained = CausalLM.from_pretrained


def load(
    path: str | os.PathLike[str],
    device: str = "auto",
    *,
    activations: str = "fp32",
    lm_head: str = "auto",
    packed_weights: str | os.PathLike[str] | None = None,
    fuse_layers: bool = True,
    kv_cache_dtype: str = "fp32",
    kernel: str = "auto",
) -> CausalLM:
    """Loads a model directory, dense or quantized, or one of the hub. The logger "salient" is told at level INFO which
    kernels of a GPU run it and why, or why none does where there is a GPU.

    Args:
        device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto": the first GPU that works, else the CPU.
        activations: what quantized linears make of their inputs: "fp32", the default in Python, exact products;
            "int16", the default of the commands that run a model, or "int8", integers with a scale for each group of
            weights, faster. A GPU multiplies "fp16", whichever of these is named, or "bf16".
        lm_head: what becomes of a projection to the vocabulary in floating point: "int8", rounded; "stored", as it is;
            "auto", int8 in quantized models with activations "int8".
        packed_weights: a folder that keeps quantized weights as they are packed for the processor: made by the
            first load, mapped by those that follow. None packs them in memory every time.
        fuse_layers: whether linears that read one input (q, k and v; gate and up) are one product; the result is the
            same, bit by bit.
        kv_cache_dtype: how keys and values of attention are kept: "fp32", the default in Python ("auto"); "fp16", the
            default of the commands that run a model; "bf16", three bits coarser, with the range of fp32; or "int8",
            integers with a scale for each head and position. "float32", "float16" and "bfloat16" are known, too.
        kernel: of quantized weights on a GPU, by the names of AutoAWQ, transformers and vLLM: "auto" (by the number of
            rows), "gemm" or "marlin", "gemv" or "gemv_fast", "exllama", "exllamav2". Every checkpoint has all of them;
            the CPU has its own.

    Errors: FileNotFoundError; salient.FormatError; NotImplementedError for an architecture that is not there, and for a
    GPU where there is none, with what is in its way; ValueError for an unknown device, activations, lm_head,
    kv_cache_dtype or kernel; OSError where packed_weights cannot be written.
    """
    model = CausalLM(
        _hub.find_model(path),
        device=device,
        activations=activations,
        lm_head=lm_head,
        packed_weights=packed_weights,
        fuse_layers=fuse_layers,
        kv_cache_dtype=kv_cache_dtype,
        kernel=kernel,
        name_or_path=os.fspath(path),
    )
    model.core
    return model


def inspect(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a model directory holds, read from the headers of its files: architecture, parameters, bytes, layers,
    quantization, ... Errors: as `load`."""
    return CausalLM(_hub.find_model(path)).info


def model_handle(model: Any) -> CausalLM:
    """The handle behind whatever stands for a model: a path or an id of the hub, a handle, one of AutoAWQ's classes, or
    a model of transformers, which is saved to a temporary directory.

    Errors: TypeError for anything else.
    """
    if isinstance(model, CausalLM):
        return model
    if isinstance(model, (str, os.PathLike)):
        return CausalLM(_hub.find_model(model), name_or_path=os.fspath(model))
    if isinstance(inner := getattr(model, "model", None), CausalLM):
        return inner
    if callable(getattr(model, "save_pretrained", None)) and hasattr(model, "config"):
        return _saved_handle(model)
    raise TypeError(f"model: a path, an id of the hub or a loaded model is expected, not {type(model).__name__}")


def _saved_handle(model: Any) -> CausalLM:
    """Of a model of transformers; its tokenizer's files are taken from where it came from."""
    name = str(getattr(model, "name_or_path", "") or type(model).__name__)
    scratch = Scratch()
    model.save_pretrained(scratch.path)
    with suppress(FileNotFoundError, ValueError):  # made in memory, perhaps; who needs a tokenizer says there is none
        Tokenizer(_hub.find_model(name, weights=False)).save_pretrained(scratch.path)
    handle = CausalLM(scratch.path, name_or_path=name)
    handle.adopt(scratch.path, scratch)
    return handle


def _scheme_text(info: Mapping[str, Any]) -> str:
    """ "int4 asymmetric, group 128, pack-quantized", or of a dense model its types."""
    quantization = info["quantization"]
    if quantization is None:
        return "dense " + "/".join(sorted(info["dtypes"]))
    texts = []
    for group in quantization["groups"]:
        size = {-1: "per row", 0: "per matrix"}.get(group["group_size"], f"group {group['group_size']}")
        texts.append(f"int{group['num_bits']} {'symmetric' if group['symmetric'] else 'asymmetric'}, {size}")
    return f"{' + '.join(dict.fromkeys(texts))}, {quantization['format']}"
