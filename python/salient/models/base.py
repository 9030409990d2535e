"""BaseAWQForCausalLM: what a model of AutoAWQ can do."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from salient._arguments import unknown_argument, warn_user
from salient._config import AwqConfig, as_awq_config, module_names
from salient._fusing import SequenceLimit, check_modules_to_fuse, check_sizes_to_fuse
from salient._loading import check_dtype, check_filename, check_memory, located, note_unused, placed
from salient._values import check_positive
from salient.model import CausalLM
from salient.models._names import parts_present
from salient.quantize.quantizer import AwqQuantizer

if TYPE_CHECKING:
    from typing_extensions import Self

_OWN_MAPPINGS = "get_layers_for_scaling"
_OWN_ARGUMENTS = frozenset({"device", "propagate_error"})  # of quantize
_LAYOUT_DTYPES = ("float16", "bfloat16")  # what stays dense becomes float16 in AutoAWQ's layout


class BaseAWQForCausalLM:
    """A language model to quantize, save and run, with the methods of AutoAWQ.

    A subclass may name parts of the model that stay dense, beside those of a quant_config::

        class VisionAWQForCausalLM(BaseAWQForCausalLM):
            modules_to_not_convert = ["visual"]

    Attributes:
        model: the handle below: ``model.generate``, ``model.config``, ``model.save_pretrained``, ``model.logits``.
        config: that of the model.
        model_type: the family's name in it.
        quantizer: what the last `quantize` used; ``quantizer.report`` tells what it found.
    """

    modules_to_not_convert: ClassVar[Sequence[str]] = ()

    model: CausalLM
    quantizer: AwqQuantizer | None

    def __init__(
        self,
        model: CausalLM,
        model_type: str | None = None,
        is_quantized: bool = False,
        config: object = None,
        quant_config: AwqConfig | None = None,
        processor: object = None,
    ) -> None:
        self._hold(model, quant_config)
        if is_quantized and not self.is_quantized:
            raise ValueError(f"is_quantized=True, but the weights in {model.directory} are dense")
        if config is not None and config is not model.config:
            raise ValueError("config is that of the model; change model.config instead")
        self._check_model_type(model_type)
        self.processor = processor

    def _hold(self, model: CausalLM, quant_config: AwqConfig | None = None) -> None:
        self.model = model
        self._named_config = None if quant_config is None else (model.directory, quant_config)
        self.quantizer = None
        self.processor = None

    def _check_model_type(self, model_type: str | None) -> None:
        if model_type is not None and model_type != self.model_type:
            config = f"the config.json of {self.model.name_or_path}"
            raise ValueError(f"model_type {model_type!r} contradicts {config}, which says {self.model_type!r}")

    # ---- loading

    @classmethod
    def from_pretrained(
        cls,
        model_path: str | os.PathLike[str],
        model_type: str | None = None,
        torch_dtype: object = "auto",
        trust_remote_code: bool = True,
        safetensors: bool = True,
        device_map: object = "auto",
        download_kwargs: Mapping[str, Any] | None = None,
        low_cpu_mem_usage: bool = True,
        use_cache: bool = False,
        activations: str = "fp32",
        packed_weights: str | os.PathLike[str] | None = None,
        kernel: str = "auto",
        **model_init_kwargs: Any,
    ) -> Self:
        """A model to quantize, from a directory or an id of the hub. Its weights are read when they are needed.

        Args:
            model_path: directory with config.json and safetensors, or "owner/name".
            model_type: has to be that of config.json where it is given.
            torch_dtype: "auto", float16 or bfloat16; a warning for float32, which changes nothing.
            device_map: a GPU ("cuda", "cuda:1", 1, or a mapping to one) where there is one, "cpu", or "auto" and its
                like: a GPU if there is one, else the processor; a warning where another device is named.
            download_kwargs: for the hub (``revision``, ``token``, ``cache_dir``, ...); also among the last arguments.
            activations, packed_weights, kernel: as ``salient.load`` has them, for `generate`, before and behind
                `quantize`.
            trust_remote_code, safetensors, low_cpu_mem_usage, use_cache, model_init_kwargs: see ``UNUSED`` in
                salient._loading.

        Raises:
            FileNotFoundError: no such model.
            NotImplementedError: another torch_dtype.
            TypeError: an unknown argument.
        """
        where = f"{cls.__name__}.from_pretrained"
        extras = dict(model_init_kwargs)
        check_dtype(where, extras.pop("dtype", torch_dtype), _LAYOUT_DTYPES)
        max_memory = extras.pop("max_memory", None)
        running: Any = placed(where, extras, device_map, kernel)
        running |= {"activations": activations, "packed_weights": packed_weights}
        directory = cls._find(where, model_path, safetensors, download_kwargs, extras)
        check_memory(where, directory, max_memory)
        handle = cls._wrap(CausalLM(directory, name_or_path=os.fspath(model_path), **running))
        handle._check_model_type(model_type)
        return handle

    @classmethod
    def from_quantized(
        cls,
        model_path: str | os.PathLike[str],
        model_type: str | None = None,
        model_filename: str = "",
        max_seq_len: int | None = None,
        torch_dtype: object = "float16",
        trust_remote_code: bool = True,
        safetensors: bool = True,
        fuse_layers: bool = True,
        use_exllama: bool = False,
        use_exllama_v2: bool = False,
        use_ipex: bool = False,
        device_map: object = "balanced",
        max_memory: Mapping[int | str, int | str] | None = None,
        offload_folder: str | None = None,
        download_kwargs: Mapping[str, Any] | None = None,
        activations: str = "fp32",
        packed_weights: str | os.PathLike[str] | None = None,
        fuse_max_seq_len: int | None = None,
        modules_to_fuse: Mapping[str, Any] | None = None,
        kernel: str = "auto",
        **config_kwargs: Any,
    ) -> Self:
        """A quantized model to run, from a directory or an id of the hub.

        Args:
            model_path, model_type, torch_dtype, device_map, download_kwargs: as in `from_pretrained`.
            model_filename: the name of the only safetensors file, or nothing.
            max_seq_len: tokens of prompt and answer together that `generate` accepts; None: what the model can.
            max_memory: the weights must fit the entry "cpu" ("100GB"); other devices' are not used.
            fuse_layers: whether linears that read one input (q, k and v; gate and up) are one product; the result is
                the same, bit by bit.
            fuse_max_seq_len: transformers' name of max_seq_len, which counts more where both are given.
            modules_to_fuse: transformers' mapping, checked in shape and sizes; Salient finds what to fuse by itself.
            activations, packed_weights, kernel: as ``salient.load`` has them.
            use_exllama, use_exllama_v2, use_marlin (among the last arguments): on a GPU, the kernel of that name;
                elsewhere without effect, which a warning says of True.
            use_ipex, offload_folder, config_kwargs: see ``UNUSED`` in salient._loading.

        Raises:
            ValueError: the weights are not quantized, modules_to_fuse is no mapping for them, or is given with
                fuse_layers=False.
            MemoryError: the weights are larger than max_memory["cpu"].
            FileNotFoundError, NotImplementedError, TypeError: as in `from_pretrained`.
        """
        where = f"{cls.__name__}.from_quantized"
        extras = dict(config_kwargs)
        check_dtype(where, extras.pop("dtype", torch_dtype), _LAYOUT_DTYPES)
        note_unused(where, {"use_ipex": use_ipex})
        extras |= {"use_exllama": use_exllama, "use_exllama_v2": use_exllama_v2}
        running: Any = placed(where, extras, device_map, kernel)
        running |= {"activations": activations, "packed_weights": packed_weights, "fuse_layers": fuse_layers}
        limit = _sequence_limit(where, max_seq_len, extras.pop("max_new_tokens", None), fuse_max_seq_len)
        _check_fusing(where, fuse_layers, modules_to_fuse)
        directory = cls._find(where, model_path, safetensors, download_kwargs, extras)
        check_filename(where, directory, model_filename)
        check_memory(where, directory, max_memory)
        handle = cls._wrap(CausalLM(directory, name_or_path=os.fspath(model_path), **running))
        handle._check_model_type(model_type)
        if not handle.is_quantized:
            raise ValueError(f"{where}: the weights in {directory} are not quantized; from_pretrained loads them")
        if modules_to_fuse:
            check_sizes_to_fuse(where, modules_to_fuse, handle.config)
        handle.model.sequence_limit = limit
        return handle

    @classmethod
    def _find(
        cls,
        where: str,
        path: str | os.PathLike[str],
        safetensors: bool,
        download_kwargs: Mapping[str, Any] | None,
        extras: Mapping[str, Any],
    ) -> str:
        if not safetensors:
            warn_user(f"{where}: safetensors=False has no effect: Salient reads safetensors only")
        options = {**(download_kwargs or {}), **extras}
        return located(where, path, options, known=_LOADING_ARGUMENTS)

    @classmethod
    def _wrap(cls, model: CausalLM) -> Self:
        handle = cls.__new__(cls)
        handle._hold(model)
        return handle

    # ---- what it is

    @property
    def is_quantized(self) -> bool:
        """Whether the weights are integers, or scaled to become such."""
        return self.model.info["quantization"] is not None or self._is_scaled()

    def _is_scaled(self) -> bool:
        return self.quantizer is not None and self.quantizer.export_compatible and self.quantizer.made_the_model

    @property
    def quant_config(self) -> AwqConfig | None:
        """How it is quantized, or would be by default; None where another description than AutoAWQ's says so."""
        if self._named_config is not None and self._named_config[0] == self.model.directory:
            return self._named_config[1]
        block = self.model.config.get("quantization_config")
        is_awq = block is None or block.get("quant_method", "awq") == "awq"
        return AwqConfig.of_checkpoint(block) if is_awq else None

    @property
    def max_seq_len(self) -> int | None:
        """Tokens of prompt and answer together that `generate` accepts; None: what the model can."""
        return None if self.model.sequence_limit is None else self.model.sequence_limit.tokens

    @max_seq_len.setter
    def max_seq_len(self, tokens: int | None) -> None:
        self.model.sequence_limit = _sequence_limit("max_seq_len", tokens, None, None)

    @property
    def config(self) -> Any:
        """The configuration of the model."""
        return self.model.config

    @property
    def model_type(self) -> str:
        """The family's name in config.json, "llama"."""
        return str(self.config.model_type)

    @property
    def device(self) -> str:
        """Where it runs: "cpu", "cuda:0"."""
        return self.model.device

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"

    def to(self, device: object = None, *args: object, **options: object) -> Self:
        """The model itself, which from now on runs there; see ``CausalLM.to``."""
        self.model.to(device, *args, **options)
        return self

    def cuda(self, device: object = None) -> Self:
        """As ``to("cuda")``."""
        self.model.cuda(device)
        return self

    def cpu(self) -> Self:
        """As ``to("cpu")``."""
        self.model.cpu()
        return self

    def half(self) -> Self:
        return self

    def eval(self) -> Self:
        """The model itself: it is never anything but evaluated."""
        return self

    # ---- quantization

    def quantize(
        self,
        tokenizer: Any = None,
        quant_config: Mapping[str, Any] | AwqConfig | None = None,
        calib_data: str | os.PathLike[str] | Sequence[Any] = "pileval",
        split: str = "train",
        text_column: str = "text",
        duo_scaling: bool | str = True,
        export_compatible: bool = False,
        apply_clip: bool = True,
        n_parallel_calib_samples: int | None = None,
        max_calib_samples: int = 128,
        max_calib_seq_len: int = 512,
        max_chunk_memory: int = 1 << 30,
        quantizer_cls: type[AwqQuantizer] = AwqQuantizer,
        modules_to_not_convert: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Quantizes the model into a temporary directory, from which `save_quantized` takes it.

        Args:
            tokenizer: of Salient or of transformers; None is that of the model's directory.
            quant_config: ``{"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"}``, which are the
                defaults too, or an AwqConfig.
            calib_data: "pileval" or another name of the hub, a .txt or .jsonl file, texts, or lists of token ids.
            split, text_column: where to look in a data set.
            duo_scaling: whether scales look at weights too; "both" tries either.
            export_compatible: scale and clip, but leave the weights dense, for other quantizers or until `pack`.
            apply_clip: whether to search for the largest weight of each group.
            max_calib_samples: texts or lists at most.
            max_calib_seq_len: tokens of a block; the samples are joined and cut into such.
            n_parallel_calib_samples, max_chunk_memory: without effect; memory is bounded by one layer.
            quantizer_cls: AwqQuantizer or a subclass.
            modules_to_not_convert: stay dense beside those of quant_config and of the class.
            kwargs: ``propagate_error``, Salient's own: calibrate each layer on the quantized outputs of those before it
                (True, the default) or on the original ones (False, as AutoAWQ does); and ``device``: what computes,
                "cpu" (the default), "cuda", "cuda:N" or "auto".

        Raises:
            ValueError, NotImplementedError: the settings make no sense, or not for this model.
            TypeError: an unknown argument or key.
            KeyboardInterrupt: stopped; the model is as it was.
        """
        where = f"{type(self).__name__}.quantize"
        self._check_subclass(where)
        if quantizer_cls is AwqQuantizer and not kwargs.keys() <= _OWN_ARGUMENTS:
            unknown = next(name for name in kwargs if name not in _OWN_ARGUMENTS)
            raise unknown_argument(where, unknown, _QUANTIZE_ARGUMENTS)
        config = as_awq_config(quant_config)
        config.modules_to_not_convert = self._dense_modules(config, modules_to_not_convert)
        quantizer = quantizer_cls(
            self,
            self.model,
            tokenizer,
            config.w_bit,
            config.q_group_size,
            config.zero_point,
            config.version,
            calib_data,
            split,
            text_column,
            duo_scaling,
            modules_to_not_convert=config.modules_to_not_convert,
            export_compatible=export_compatible,
            apply_clip=apply_clip,
            n_parallel_calib_samples=n_parallel_calib_samples,
            max_calib_samples=max_calib_samples,
            max_calib_seq_len=max_calib_seq_len,
            max_chunk_memory=max_chunk_memory,
            **kwargs,
        )
        try:
            quantizer.quantize()
        finally:  # though it be stopped behind its last step
            if quantizer.made_the_model:
                self.quantizer, self._named_config = quantizer, (self.model.directory, config)

    def _check_subclass(self, where: str) -> None:
        if hasattr(self, _OWN_MAPPINGS):
            raise NotImplementedError(
                f"{where}: {type(self).__name__}.{_OWN_MAPPINGS} would not be called: Salient finds what to smooth in "
                "the model by itself; for mappings of your own use salient.oneshot with AWQModifier(mappings=...)"
            )

    def _dense_modules(self, config: AwqConfig, more: Sequence[str] | None) -> list[str] | None:
        """Those of the class only where the model has such; what the user names has to be there."""
        named = [*(config.modules_to_not_convert or []), *(module_names(more) or [])]
        of_class = parts_present(self.model.directory, self.modules_to_not_convert)
        return list(dict.fromkeys([*named, *of_class])) or None

    def pack(self) -> None:
        """Rounds to nearest what ``quantize(..., export_compatible=True)`` has scaled.

        Raises:
            ValueError: the model has not been quantized so.
        """
        if self.quantizer is None or not self._is_scaled():
            raise ValueError("pack: nothing to pack; it follows quantize(..., export_compatible=True)")
        config = self.quant_config
        self.quantizer.pack()
        self.quantizer.export_compatible = False
        self._named_config = None if config is None else (self.model.directory, config)

    # ---- saving

    def save_quantized(
        self, save_dir: str | os.PathLike[str], safetensors: bool = True, shard_size: int | str = "5GB"
    ) -> None:
        """Writes the model directory, whole or not at all; of what stands there another model's weights go, and files
        that are not written anew, as a README, stay.

        Args:
            shard_size: the largest file, in bytes or as "5GB".

        Raises:
            ValueError: the model has not been quantized.
            NotImplementedError: safetensors=False.
            ValueError: a file stands there, or a config.json that is no model's.
        """
        if not self.is_quantized:
            raise ValueError(f"save_quantized: {self.model.name_or_path} has not been quantized; call quantize first")
        if not safetensors:
            raise NotImplementedError("save_quantized: safetensors=False: pickled weights are not written")
        self.model.save_pretrained(save_dir, max_shard_size=shard_size)

    def push_to_hub(self, repo_id: str, **options: Any) -> Any:
        """Uploads the model as it is now; see ``CausalLM.push_to_hub``."""
        return self.model.push_to_hub(repo_id, **options)

    # ---- running

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Continues prompts; see ``CausalLM.generate``.

        Returns:
            Token ids [batch, prompt + new].

        Raises:
            ValueError: prompt and new tokens are more than `max_seq_len`; and what ``CausalLM.generate`` raises.
        """
        return self.model.generate(*args, **kwargs)


def _sequence_limit(
    where: str, max_seq_len: int | None, max_new_tokens: int | None, fuse_max_seq_len: int | None
) -> SequenceLimit | None:
    """transformers' name counts most, AutoAWQ's older one more than today's, as there."""
    name, limit = "max_seq_len", max_seq_len
    if max_new_tokens is not None:
        name, limit = "max_new_tokens", max_new_tokens
        warn_user(f"{where}: max_new_tokens is an older name of max_seq_len and is taken for it")
    if fuse_max_seq_len is not None:
        name, limit = "fuse_max_seq_len", fuse_max_seq_len
    given: dict[str, Any] = {name: limit}
    check_positive(where, **given)
    return None if limit is None else SequenceLimit(int(limit), name)


def _check_fusing(where: str, fuse_layers: object, modules_to_fuse: Mapping[str, Any] | None) -> None:
    if not isinstance(fuse_layers, bool):
        raise ValueError(f"{where}: fuse_layers={fuse_layers!r} is neither True nor False")
    if not modules_to_fuse:
        return
    if not fuse_layers:
        raise ValueError(f"{where}: modules_to_fuse says what to fuse, fuse_layers=False that nothing is")
    check_modules_to_fuse(where, modules_to_fuse)


def _keyword_names(function: Any) -> tuple[str, ...]:
    code = function.__code__
    return tuple(code.co_varnames[1 : code.co_argcount])


_LOADING_ARGUMENTS = (
    *_keyword_names(BaseAWQForCausalLM.from_quantized.__func__),  # type: ignore[attr-defined]
    "dtype",
)
_QUANTIZE_ARGUMENTS = (*_keyword_names(BaseAWQForCausalLM.quantize), *sorted(_OWN_ARGUMENTS))
