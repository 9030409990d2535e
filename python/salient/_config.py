"""AwqConfig: what AutoAWQ and transformers call the description of an AWQ checkpoint."""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from salient._arguments import unknown_argument

_VERSIONS = ("gemm", "gemv", "gemv_fast", "marlin", "exllama", "exllamav2", "ipex", "llm-awq")
# Of transformers 4 ("autoawq", "llm-awq") and 5, where the word names a kernel.
_BACKENDS = (
    *("autoawq", "llm-awq", "auto", "auto_trainable", "machete", "marlin", "exllama_v2", "exllama_v1"),
    *("gemm", "gemm_triton", "gemv", "gemv_fast", "torch_awq", "torch_fused_awq"),
)
_FUSING_KEYS = (
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "mlp",
    "attention",
    "layernorm",
    "use_alibi",
)
_LOADING_KEYS = ("version", "do_fuse", "modules_to_fuse", "fuse_max_seq_len", "exllama_config")
# transformers renamed `version` to `format` in 2026; AutoAWQ's own class has the names with w_ and q_.
_OTHER_NAMES = {"w_bit": "bits", "q_group_size": "group_size", "format": "version"}


def _word(value: object, known: Sequence[str], name: str) -> str:
    """The word that `value` (a str or an enumeration of one, in any case) stands for."""
    text = str(value.value if isinstance(value, enum.Enum) else value).lower()
    if text not in known:
        raise ValueError(f"AwqConfig: {name} {text!r} is none of {', '.join(known)}")
    return text


class AwqConfig:
    """How an AWQ checkpoint is quantized, and how transformers would load it.

    Takes the place of ``transformers.AwqConfig`` and of AutoAWQ's own class, is accepted as ``quant_config=`` of
    ``quantize`` and as ``quantization_config=`` of ``AutoModelForCausalLM.from_pretrained``.

    Args:
        bits: of a weight (also ``w_bit``).
        group_size: columns that share a scale; -1 is a whole row (also ``q_group_size``).
        zero_point: whether groups have a zero of their own.
        version: the layout, "gemm" (also ``format``). Salient writes and reads "gemm".
        backend: one of transformers' words for kernels; without effect here, like those below.
        do_fuse, fuse_max_seq_len, modules_to_fuse, exllama_config: choose kernels of transformers; kept and checked
            as there, without effect here, where the processor decides.
        modules_to_not_convert: parts of names of modules that stay dense, in whole words.

    Raises:
        ValueError: a word is not known, or fusing is asked for without what it needs.
        TypeError: an argument is not known, or given under two names.
    """

    quant_method = "awq"

    def __init__(
        self,
        bits: int = 4,
        group_size: int = 128,
        zero_point: bool = True,
        version: str = "gemm",
        backend: str = "autoawq",
        do_fuse: bool | None = None,
        fuse_max_seq_len: int | None = None,
        modules_to_fuse: Mapping[str, Any] | None = None,
        modules_to_not_convert: Sequence[str] | None = None,
        exllama_config: Mapping[str, int] | None = None,
        **others: Any,
    ) -> None:
        self.bits = bits
        self.group_size = group_size
        self.zero_point = zero_point
        self.version = _word(version, _VERSIONS, "version")
        self.backend = _word(backend, _BACKENDS, "backend")
        self.do_fuse = bool(modules_to_fuse) if do_fuse is None else do_fuse
        self.fuse_max_seq_len = fuse_max_seq_len
        self.modules_to_fuse = modules_to_fuse
        self.modules_to_not_convert = module_names(modules_to_not_convert)
        self.exllama_config = exllama_config
        for name, value in others.items():
            self._set_other(name, value)
        self._check_fusing()

    def _set_other(self, name: str, value: Any) -> None:
        if name == "quant_method":
            _word(value, ("awq",), name)
        elif name == "format":
            self.version = _word(value, _VERSIONS, name)
        elif name in _OTHER_NAMES:
            setattr(self, _OTHER_NAMES[name], value)
        else:
            known = [*self.__dict__, *_OTHER_NAMES, "quant_method"]
            raise unknown_argument("AwqConfig", name, known)

    def _check_fusing(self) -> None:
        if not self.do_fuse:
            return
        if self.fuse_max_seq_len is None:
            raise ValueError("AwqConfig: do_fuse needs fuse_max_seq_len, the most tokens of prompt and answer together")
        missing = [key for key in _FUSING_KEYS if self.modules_to_fuse is not None and key not in self.modules_to_fuse]
        if missing:
            raise ValueError(f"AwqConfig: modules_to_fuse lacks {', '.join(missing)}")

    @property
    def w_bit(self) -> int:
        """AutoAWQ's name of ``bits``."""
        return self.bits

    @property
    def q_group_size(self) -> int:
        """AutoAWQ's name of ``group_size``."""
        return self.group_size

    @classmethod
    def from_dict(cls, config: Mapping[str, Any] | None = None) -> AwqConfig:
        """From AutoAWQ's quant_config, or from the quantization_config of a config.json.

        Raises:
            TypeError: a key is not known, or stands there under two names with two values.
        """
        found: dict[str, Any] = {}
        for key, value in (config or {}).items():
            name = _OTHER_NAMES.get(key, key)
            if name in found and found[name] != value:
                raise TypeError(f"AwqConfig: {key} {value!r} contradicts {name} {found[name]!r}")
            found[name] = value
        return cls(**found)

    @classmethod
    def from_pretrained(cls, save_dir: str | os.PathLike[str], **download: Any) -> AwqConfig:
        """That of a model directory or an id of the hub; the defaults where the model is dense.

        Raises:
            ValueError: the model is quantized in another manner.
        """
        from salient._hub import find_model

        with open(os.path.join(find_model(save_dir, **download), "config.json"), encoding="utf-8") as file:
            return cls.from_dict(json.load(file).get("quantization_config"))

    def to_dict(self) -> dict[str, Any]:
        """As transformers has it in a config.json."""
        return {"quant_method": self.quant_method, **self.__dict__}

    def to_transformers_dict(self) -> dict[str, Any]:
        """As AutoAWQ writes it into a config.json."""
        return {
            "quant_method": self.quant_method,
            "zero_point": self.zero_point,
            "group_size": self.group_size,
            "bits": self.bits,
            "version": self.version,
            "modules_to_not_convert": self.modules_to_not_convert,
        }

    def get_loading_attributes(self) -> dict[str, Any]:
        """What transformers takes from this object, rather than from the checkpoint, when it loads one."""
        return {key: getattr(self, key) for key in _LOADING_KEYS}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AwqConfig) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]  # mutable, as a dict is

    def __repr__(self) -> str:
        known = [f"{key}={value!r}" for key, value in self.__dict__.items() if value is not None]
        return f"AwqConfig({', '.join(known)})"


def module_names(names: Sequence[str] | None) -> list[str] | None:
    """A list of what modules_to_not_convert names. TypeError for a str, whose letters nobody means."""
    if isinstance(names, str):
        raise TypeError(f"modules_to_not_convert: {names!r} is a str; write a list of them")
    return None if names is None else list(names)


def as_awq_config(config: object) -> AwqConfig:
    """What users pass as ``quant_config``: a dict, an AwqConfig of Salient, transformers or AutoAWQ, or None.

    Raises:
        TypeError: it is none of these.
    """
    if config is None or isinstance(config, Mapping):
        return AwqConfig.from_dict(config)
    if isinstance(config, AwqConfig):
        return AwqConfig.from_dict(config.__dict__)
    to_dict = getattr(config, "to_dict", None)
    if to_dict is None:
        raise TypeError(f"quant_config: {type(config).__name__} is neither a dict nor an AwqConfig")
    # transformers keeps its settings for other formats in the same object.
    known = {*vars(AwqConfig()), *_OTHER_NAMES}
    return AwqConfig.from_dict({name: value for name, value in to_dict().items() if name in known})
