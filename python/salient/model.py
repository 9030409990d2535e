"""Models: a handle on a directory, which generates, scores, is quantized and saved."""

from __future__ import annotations

import copy
import json
import os
import queue
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from salient import _core, _hub
from salient._arguments import check_device_map, is_accelerator, reject_unknown, unknown_argument
from salient._files import save_directory, scratch_directory
from salient._ids import Ids, id_masks, id_rows, like, one_row, pad_rows
from salient.generation import GenerationOptions, Streamer, generation_options, stops
from salient.tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AutoModelForCausalLM", "CausalLM", "Config", "inspect", "load", "model_handle", "scratch_directory"]

# Arguments of transformers' from_pretrained that change nothing here, whatever they say.
_WITHOUT_EFFECT = frozenset(
    "low_cpu_mem_usage use_safetensors trust_remote_code attn_implementation offload_folder offload_state_dict "
    "use_cache max_memory offload_buffers tp_plan use_kernels".split()
)
_DOWNLOAD = frozenset("revision cache_dir token local_files_only force_download".split())


class Config(dict[str, Any]):
    """config.json as a dict whose entries are attributes as well."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"config.json has no {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        del self[name]

    def to_dict(self) -> dict[str, Any]:
        return copy.deepcopy(dict(self))


class CausalLM:
    """A model directory, dense or quantized. Its weights are read when they are first needed.

        model = salient.load("path/to/model")
        model.generate("Once upon a time", max_new_tokens=64)

    Attributes:
        name_or_path: what the user called it.
        directory: where its files lie.
        report: of the run that quantized it; None of a model that was opened.

    Errors: FileNotFoundError; salient.FormatError; ValueError for an unknown device.
    """

    def __init__(self, path: str | os.PathLike[str], *, device: str = "auto", name_or_path: str | None = None) -> None:
        self.directory = os.fspath(path)
        self.name_or_path = self.directory if name_or_path is None else name_or_path
        self.report: Any = None
        self._device = _checked_device(device)
        self._cleanup: Any = None
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
        return Tokenizer(self.directory)

    @cached_property
    def core(self) -> _core.Model:
        """The loaded weights."""
        return _core.Model(self.directory, self._device)

    @property
    def device(self) -> str:
        return "cpu"

    def num_parameters(self) -> int:
        return int(self.info["parameters"])

    def _stored_config(self) -> dict[str, Any]:
        return dict(json.loads(Path(self.directory, "config.json").read_text(encoding="utf-8")))

    def __repr__(self) -> str:
        info = self.info
        size = f"{info['parameters'] / 1e6:.1f}M parameters, {info['bytes'] / 1e6:.1f} MB"
        return f"{type(self).__name__}({info['architecture']}, {size}, {_scheme_text(info)}, {self.device})"

    def adopt(self, directory: str | os.PathLike[str], *, temporary: bool) -> None:
        """From now on the model is what lies there; a temporary directory is removed with the handle."""
        previous = self._cleanup
        self.directory = os.fspath(directory)
        self._cleanup = weakref.finalize(self, shutil.rmtree, self.directory, True) if temporary else None
        for name in ("info", "config", "tokenizer", "core"):
            self.__dict__.pop(name, None)
        if previous is not None:
            previous()

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
        do_sample, temperature, top_k, top_p, min_p, repetition_penalty, num_return_sequences, eos_token_id,
        pad_token_id, stop_strings, seed (none: numpy.random draws one), generation_config.

        Returns ids [batch * num_return_sequences, longest] of prompts as they came and what follows them, shorter
        ones padded on the right: torch's if the prompt was, else int64 of NumPy.

        Errors: ValueError for a prompt that is empty, beyond the context or not in the vocabulary, and for values
        that make no sense; NotImplementedError for what transformers has and Salient has not; TypeError for unknown
        arguments. KeyboardInterrupt stops it.
        """
        prompt = inputs if input_ids is None else input_ids
        settings = generation_options(self.directory, dict(options))
        if isinstance(prompt, str):
            return self._continue_text(prompt, settings, streamer)
        rows, is_flat = id_rows(prompt)
        masks = id_masks(attention_mask, rows)
        if streamer is not None and len(rows) * settings.num_return_sequences > 1:
            raise ValueError(f"generate: a streamer shows one text, not {len(rows) * settings.num_return_sequences}")
        texts = []
        for row, mask in zip(rows, masks):
            for _ in range(settings.num_return_sequences):
                texts.append(np.concatenate([row, self._new_ids(row[mask], settings, streamer)]))
        result = pad_rows(texts, self._filler(settings))
        return like(prompt, result[0] if is_flat and len(texts) == 1 else result)

    def stream(self, prompt: str, **options: Any) -> Iterator[str]:
        """The text that follows `prompt`, piece by piece as it is made. Options and errors: as `generate`."""
        settings = generation_options(self.directory, dict(options))
        pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
        stopped = threading.Event()

        def show(piece: str) -> bool:
            pieces.put(piece)
            return not stopped.is_set()

        def work() -> None:
            try:
                self._text_after(prompt, settings, show)
                pieces.put(None)
            except BaseException as error:  # comes out in the thread that reads the pieces
                pieces.put(error)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            stopped.set()
            worker.join()

    def logits(self, ids: Any, last: int = 0) -> npt.NDArray[np.float32]:
        """Logits float32 [tokens, vocab] of the token after each position of ids [tokens] or [1, tokens]; with `last`
        above 0 only of the last so many positions.

        Errors: ValueError for ids that are none of the vocabulary or more than the context holds.
        """
        return self.core.logits(one_row(ids), last)

    def score(self, ids: Any, first: int = 1) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Log-probability (nats) of each of ids[first:] given all before it, and whether no token was likelier."""
        return self.core.score(one_row(ids), first)

    def _continue_text(self, prompt: str, settings: GenerationOptions, streamer: Streamer | None) -> Any:
        if streamer is not None or settings.num_return_sequences > 1:
            raise ValueError("generate: a streamer or num_return_sequences is for a prompt of ids; stream() gives text")
        return self._text_after(prompt, settings, lambda piece: True)

    def _text_after(self, prompt: str, settings: GenerationOptions, show: Callable[[str], bool]) -> str:
        """Also in pieces, to `show`, which may end it by False; no piece reaches into a stop string."""
        ids = self._prompt_ids(prompt)
        decoder = _core.TextStream(self.tokenizer.core)
        for one in ids:
            decoder.push(int(one))
        shown = _ShownText(settings.stop_strings, show)
        self._run(ids, settings, lambda token: shown.add(decoder.push(token)))
        if not shown.stopped:
            shown.add(decoder.finish())
        shown.finish()
        return shown.text

    def _prompt_ids(self, prompt: str) -> Ids:
        ids = self.tokenizer.core.encode(prompt)
        bos = json.loads(self.core.info())["bos_token_id"]
        if not ids and bos is not None:
            ids = [bos]
        return np.array(ids, dtype=np.int32)

    def _new_ids(self, prompt: Ids, settings: GenerationOptions, streamer: Streamer | None) -> npt.NDArray[np.int64]:
        """What follows the prompt, the token that ended it included."""
        decoder = _core.TextStream(self.tokenizer.core, False) if settings.stop_strings else None
        text = ""

        def on_token(token: int) -> bool:
            nonlocal text
            if streamer is not None:
                streamer.put(np.array([token], dtype=np.int64))
            if decoder is None:
                return True
            text += decoder.push(token)
            return stops(text, settings.stop_strings) is None

        if streamer is not None:
            streamer.put(prompt.astype(np.int64)[None])
        result = self._run(prompt, settings, None if streamer is None and decoder is None else on_token)
        if streamer is not None:
            streamer.end()
        ended = [] if result["stop_token"] is None else [result["stop_token"]]
        return np.array([*result["tokens"].tolist(), *ended], dtype=np.int64)

    def _run(self, prompt: Ids, settings: GenerationOptions, on_token: Callable[[int], bool] | None) -> dict[str, Any]:
        return self.core.generate(
            prompt,
            max_new_tokens=settings.new_tokens(len(prompt)),
            stop_token_ids=list(self._end_tokens(settings)),
            on_token=on_token,
            **settings.sampling(),
        )

    def _end_tokens(self, settings: GenerationOptions) -> Sequence[int]:
        if settings.eos_token_id is not None:
            return settings.eos_token_id
        return list(json.loads(self.core.info())["eos_token_ids"])

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
        _save(self, save_directory, max_shard_size)
        if push_to_hub:
            name = os.path.basename(os.path.abspath(save_directory))
            _hub.push(save_directory, options.pop("repo_id", name), **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads the model directory; options: token, private, commit_message, revision, create_pr, max_shard_size.
        Gives the address of the commit. Errors: NotImplementedError without huggingface_hub; OSError."""
        size = options.pop("max_shard_size", "5GB")
        options.pop("safe_serialization", None)
        with tempfile.TemporaryDirectory(dir=os.environ.get("SALIENT_WORK") or None) as parent:
            directory = os.path.join(parent, "model")
            self.save_pretrained(directory, max_shard_size=size)
            return _hub.push(directory, repo_id, **options)

    # ---- what torch's modules have

    def eval(self) -> Self:
        """The model itself: it is never trained."""
        return self

    def to(self, *where: Any, **options: Any) -> Self:
        """The model itself, which stays on the CPU; a warning says so where another device is named."""
        for place in (*where, options.get("device")):
            if is_accelerator(str(place)):
                check_device_map("to", str(place))
        return self

    def cuda(self, device: Any = None) -> Self:
        return self.to("cuda")

    def cpu(self) -> Self:
        return self

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
        **options: Any,
    ) -> Self:
        """A model from a directory or an id of the hub, dense or quantized.

        device_map: anything; the model runs on the CPU, and a warning says so where another device is named.
        torch_dtype, dtype: change nothing; weights stay as they are stored, sums are float32. quantization_config: an
        AwqConfig or dict, which must agree with what the checkpoint says. options: revision, cache_dir, token,
        local_files_only, force_download for the hub; those that steer torch's memory change nothing.

        Errors: FileNotFoundError; salient.FormatError; NotImplementedError; TypeError for an unknown option;
        ValueError when quantization_config contradicts the checkpoint.
        """
        known = _WITHOUT_EFFECT | _DOWNLOAD
        reject_unknown(
            "from_pretrained", options, known | {"device_map", "torch_dtype", "dtype", "quantization_config"}
        )
        check_device_map("from_pretrained", device_map)
        download = {name: value for name, value in options.items() if name in _DOWNLOAD}
        directory = _hub.find_model(pretrained_model_name_or_path, **download)
        model = cls(directory, name_or_path=os.fspath(pretrained_model_name_or_path))
        if quantization_config is not None:
            _check_quantization(model, quantization_config)
        return model


class AutoModelForCausalLM:
    """Opens models as transformers' class of that name does."""

    def __init__(self) -> None:
        raise OSError("AutoModelForCausalLM is not made but asked: AutoModelForCausalLM.from_pretrained(path)")

    from_pretrained = CausalLM.from_pretrained


def load(path: str | os.PathLike[str], device: str = "auto") -> CausalLM:
    """Loads a model directory, dense or quantized, or one of the hub. device: "auto" or "cpu".

    Errors: FileNotFoundError; salient.FormatError; NotImplementedError for an architecture that is not there.
    """
    model = CausalLM(_hub.find_model(path), device=device, name_or_path=os.fspath(path))
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
    directory = scratch_directory()
    try:
        model.save_pretrained(directory)
        if os.path.isdir(name) and os.path.exists(os.path.join(name, "tokenizer.json")):
            Tokenizer(name).save_pretrained(directory)
        handle = CausalLM(directory, name_or_path=name)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    handle.adopt(directory, temporary=True)
    return handle


class _ShownText:
    """Text on its way to the user: held back as long as it may be the beginning of a stop string."""

    def __init__(self, stop_strings: Sequence[str], show: Callable[[str], bool]) -> None:
        self.text = ""
        self.stopped = False
        self._stop_strings, self._show = stop_strings, show
        self._held = ""

    def add(self, piece: str) -> bool:
        """False once the text is to end."""
        self._held += piece
        end = stops(self._held, self._stop_strings)
        if end is not None:
            self._held, self.stopped = self._held[:end], True
        else:
            end = len(self._held) - self._overlap()
        return self._pass_on(end) and not self.stopped

    def finish(self) -> None:
        self._pass_on(len(self._held))

    def _overlap(self) -> int:
        """Characters at the end that begin a stop string."""
        sizes = range(min(len(self._held), max(map(len, self._stop_strings), default=0)), 0, -1)
        return next((size for size in sizes if any(s.startswith(self._held[-size:]) for s in self._stop_strings)), 0)

    def _pass_on(self, end: int) -> bool:
        piece, self._held = self._held[:end], self._held[end:]
        self.text += piece
        return self._show(piece) if piece else True


def _save(model: CausalLM, target: str | os.PathLike[str], shard_size: int | str) -> None:
    save_directory(model.directory, target, shard_size)
    if model.config != model._stored_config():
        path = Path(target, "config.json")
        fresh = path.with_name(".config.json.new")
        fresh.write_text(json.dumps(model.config.to_dict(), indent=2) + "\n", encoding="utf-8")
        os.replace(fresh, path)


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


def _checked_device(device: str) -> str:
    if device in ("auto", "cpu"):
        return device
    raise ValueError(f"device {device!r} is not known (auto, cpu)")


def _check_quantization(model: CausalLM, wanted: Any) -> None:
    values = wanted if isinstance(wanted, Mapping) else wanted.to_dict()
    stored = model.config.get("quantization_config")
    if stored is None:
        raise ValueError(
            f"{model.name_or_path}: quantization_config is given, but the weights are dense; quantize them first"
        )
    for name in ("quant_method", "bits", "group_size", "zero_point"):
        if name in values and name in stored and values[name] != stored[name]:
            raise ValueError(
                f"{model.name_or_path}: quantization_config says {name}={values[name]!r}, config.json {stored[name]!r}"
            )
