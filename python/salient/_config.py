"""AwqConfig: what AutoAWQ and transformers call the description of an AWQ checkpoint."""

from __future__ import annotations

import copy
import enum
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from salient._arguments import unknown_argument, warn_user
from salient._fusing import SequenceLimit, check_modules_to_fuse
from salient._values import check_positive

if TYPE_CHECKING:
    from typing_extensions import Self

_VERSIONS = ("gemm", "gemv", "gemv_fast", "marlin", "exllama", "exllamav2", "ipex", "llm-awq")
# Of transformers 4 ("autoawq", "llm-awq") and 5, where the word names a kernel.
_BACKENDS = (
    *("autoawq", "llm-awq", "auto", "auto_trainable", "machete", "marlin", "exllama_v2", "exllama_v1"),
    *("gemm", "gemm_triton", "gemv", "gemv_fast", "torch_awq", "torch_fused_awq"),
)
_LOADING_KEYS = ("version", "do_fuse", "modules_to_fuse", "fuse_max_seq_len", "exllama_config")
# transformers renamed `version` to `format` in 2026; AutoAWQ's own class has the names with w_ and q_.
_OTHER_NAMES = {"w_bit": "bits", "q_group_size": "group_size", "format": "version"}


# The arguments of AwqConfig in their order, which are its settings.
_SETTINGS = (
    *("bits", "group_size", "zero_point", "version", "backend"),
    *("do_fuse", "fuse_max_seq_len", "modules_to_fuse", "modules_to_not_convert", "exllama_config"),
)
# What a checkpoint says of itself; the others choose how to run it. So does a version that a user names: every kernel
# runs every layout.
_STORED = ("bits", "group_size", "zero_point")
# Words for kernels under which `salient.load` does not know them.
_KERNELS = {
    **dict.fromkeys(("autoawq", "auto_trainable", "torch_awq", "torch_fused_awq", "ipex"), "auto"),
    "gemm_triton": "gemm",
}


def _word(value: object, known: Sequence[str], name: str) -> str:
    """The word that `value` (a str or an enumeration of one, in any case) stands for."""
    text = str(value.value if isinstance(value, enum.Enum) else value).lower()
    if text not in known:
        raise ValueError(f"AwqConfig: {name} {text!r} is none of {', '.join(known)}")
    return text


def _positive(name: str, value: Any) -> int:
    check_positive("AwqConfig", **{name: 0 if value is None else value})
    return int(value)


def _group_size(name: str, value: Any) -> int:
    return -1 if value == -1 else _positive(name, value)


def _truth(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"AwqConfig: {name}={value!r} is neither True nor False")
    return value


# How a value under another name than the setting's own is read.
_READERS: Mapping[str, Callable[[str, Any], object]] = {
    "w_bit": _positive,
    "q_group_size": _group_size,
    "format": lambda name, value: _word(value, _VERSIONS, name),
}


class AwqConfig:
    """How an AWQ checkpoint is quantized, and how transformers would load it.

    Takes the place of ``transformers.AwqConfig`` and of AutoAWQ's own class, is accepted as ``quant_config=`` of
    ``quantize`` and as ``quantization_config=`` of ``AutoModelForCausalLM.from_pretrained``.

    Args:
        bits: of a weight (also ``w_bit``).
        group_size: columns that share a scale; -1 is a whole row (also ``q_group_size``).
        zero_point: whether groups have a zero of their own.
        version: of what is quantized the layout, "gemm" (also ``format``), which is the one that Salient writes and
            reads; of what is loaded, where it is given, the kernels of a GPU ("gemv", "marlin", "exllama", ...).
        backend: of what is loaded, the kernels of a GPU, which counts more than version; see ``kernel``.
        exllama_config: without effect.
        do_fuse: whether linears that read one input are one product; what is not said leaves it at True, as Salient
            runs every model. modules_to_fuse, where given, says True.
        fuse_max_seq_len: with do_fuse, tokens of prompt and answer together beyond which `generate` raises ValueError.
        modules_to_fuse: which modules transformers would fuse; checked in shape. Salient finds them by itself.
        modules_to_not_convert: parts of names of modules that stay dense, in whole words.

    Raises:
        ValueError: a word is not known, a number is none, or fusing is asked for without what it needs.
        TypeError: an argument is not known, or given under two names with two values.
    """

    quant_method = "awq"
    _given: frozenset[str]
    _stored_version: str | None = None

    def __new__(cls, *args: Any, **keywords: Any) -> Self:
        """Remembers which settings are the user's: only those can contradict a checkpoint."""
        config = super().__new__(cls)
        object.__setattr__(config, "_given", frozenset((*_SETTINGS[: len(args)], *keywords)))
        return config

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
        self.bits = _positive("bits", bits)
        self.group_size = _group_size("group_size", group_size)
        self.zero_point = _truth("zero_point", zero_point)
        self.version = _word(version, _VERSIONS, "version")
        self.backend = _word(backend, _BACKENDS, "backend")
        self.do_fuse = bool(modules_to_fuse) if do_fuse is None else _truth("do_fuse", do_fuse)
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
        elif name in _OTHER_NAMES:
            self._set_by_other_name(name, _READERS[name](name, value))
        else:
            raise unknown_argument("AwqConfig", name, [*_SETTINGS, *_OTHER_NAMES, "quant_method"])

    def _set_by_other_name(self, name: str, value: Any) -> None:
        own = _OTHER_NAMES[name]
        if own in self._given and getattr(self, own) != value:
            raise TypeError(f"AwqConfig: {name} {value!r} contradicts {own} {getattr(self, own)!r}")
        setattr(self, own, value)

    def _check_fusing(self) -> None:
        if self.fuse_max_seq_len is not None:
            _positive("fuse_max_seq_len", self.fuse_max_seq_len)
        if self.modules_to_fuse:
            check_modules_to_fuse("AwqConfig", self.modules_to_fuse)
        if self.do_fuse and self.fuse_max_seq_len is None:
            raise ValueError("AwqConfig: do_fuse needs fuse_max_seq_len, the most tokens of prompt and answer together")

    @property
    def says_fusing(self) -> bool:
        """Whether do_fuse is the user's word, and not the default."""
        return self.do_fuse or "do_fuse" in self._given

    def fuses(self) -> bool:
        """Whether a model loaded with it has its linears fused."""
        return self.do_fuse or not self.says_fusing

    def sequence_limit(self, where: str) -> SequenceLimit | None:
        """What fuse_max_seq_len bounds; a warning where it bounds nothing, as in transformers without do_fuse."""
        if self.fuse_max_seq_len is None:
            return None
        if not self.do_fuse:
            warn_user(f"{where}: fuse_max_seq_len {self.fuse_max_seq_len} has no effect without do_fuse=True")
            return None
        return SequenceLimit(self.fuse_max_seq_len, "fuse_max_seq_len")

    @property
    def kernel(self) -> str:
        """What `salient.load` calls the kernels that backend or, without one, version names; "auto" where neither was
        given. The version that a checkpoint has of itself names none."""
        said = self.said()
        backend = _KERNELS.get(self.backend, self.backend) if "backend" in said else "auto"
        if backend != "auto" or "version" not in said or self.version == self._stored_version:
            return backend
        return _KERNELS.get(self.version, self.version)

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
        return cls(**(config or {}))

    @classmethod
    def of_checkpoint(cls, block: Mapping[str, Any] | None) -> AwqConfig:
        """From the quantization_config of a config.json, of which what other programs keep there too is left out."""
        known = {*_SETTINGS, *_OTHER_NAMES, "quant_method"}
        config = cls.from_dict({name: value for name, value in (block or {}).items() if name in known})
        config._stored_version = config.version
        return config

    @classmethod
    def from_pretrained(cls, save_dir: str | os.PathLike[str], **download: Any) -> AwqConfig:
        """That of a model directory or an id of the hub; the defaults where the model is dense.

        Raises:
            ValueError: the model is quantized in another manner.
        """
        from salient._hub import find_model

        directory = find_model(save_dir, **{"weights": False, **download})
        with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
            block = json.load(file).get("quantization_config") or {}
        method = block.get("quant_method", cls.quant_method)
        if method != cls.quant_method:
            raise ValueError(f"AwqConfig: {os.fspath(save_dir)} is quantized by {method}, which is no AwqConfig's")
        return cls.of_checkpoint(block)

    def to_dict(self) -> dict[str, Any]:
        """As transformers has it in a config.json."""
        return {"quant_method": self.quant_method, **{name: getattr(self, name) for name in _SETTINGS}}

    def said(self) -> dict[str, Any]:
        """Of the settings those that were given or changed: what the user means, not what happens to be the default."""
        own = {_OTHER_NAMES.get(name, name) for name in self._given}
        settings = {name: getattr(self, name) for name in _SETTINGS}
        return {name: value for name, value in settings.items() if name in own or value != _DEFAULTS[name]}

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
        return isinstance(other, AwqConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # mutable, as a dict is

    def __repr__(self) -> str:
        known = [f"{name}={getattr(self, name)!r}" for name in _SETTINGS if getattr(self, name) is not None]
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
        return copy.copy(config)
    to_dict = getattr(config, "to_dict", None)
    if to_dict is None:
        raise TypeError(f"quant_config: {type(config).__name__} is neither a dict nor an AwqConfig")
    # transformers keeps its settings for other formats in the same object.
    return AwqConfig.of_checkpoint(to_dict())


def loading_config(wanted: object) -> AwqConfig:
    """What a quantization_config says of how to load; of another method, and of nothing, nothing. An object of
    transformers does not know which of its settings were said, so there those are that are no default."""
    if wanted is None or _meant(wanted)["quant_method"] != AwqConfig.quant_method:
        return AwqConfig()
    config = as_awq_config(wanted)
    if not isinstance(wanted, (Mapping, AwqConfig)):
        object.__setattr__(config, "_given", frozenset())
        config._stored_version = None
    return config


def check_agreement(where: str, stored: Mapping[str, Any] | None, wanted: object) -> None:
    """Holds the quantization_config that a user gives (an AwqConfig of Salient or transformers, or a dict) against the
    one in config.json. Of an object only what was given counts, or of one that does not know that what is no default.

    Raises:
        ValueError: the weights are dense, or described otherwise.
        TypeError: it is neither.
    """
    if stored is None:
        raise ValueError(f"{where}: quantization_config is given, but the weights are dense; quantize them first")
    values = _meant(wanted)
    for name in ("quant_method", *_STORED):
        have = _stored_value(stored, name)
        if name in values and have is not None and values[name] != have:
            raise ValueError(f"{where}: quantization_config says {name}={values[name]!r}, config.json {have!r}")


def _meant(wanted: object) -> dict[str, Any]:
    values = wanted if isinstance(wanted, Mapping) else getattr(wanted, "to_dict", dict)()
    method = values.get("quant_method", AwqConfig.quant_method)
    method = str(getattr(method, "value", method))
    if method != AwqConfig.quant_method:
        return {"quant_method": method, **(values if isinstance(wanted, Mapping) else {})}
    config = as_awq_config(wanted)
    said = config.said()
    if not isinstance(wanted, (Mapping, AwqConfig)):
        said = {name: value for name, value in said.items() if value != _DEFAULTS[name]}
    return {"quant_method": method, **said}


def _stored_value(stored: Mapping[str, Any], name: str) -> Any:
    """A word in small letters, as AwqConfig has it."""
    others = (other for other, own in _OTHER_NAMES.items() if own == name)
    value = next((stored[key] for key in (name, *others) if key in stored), None)
    return value.lower() if isinstance(value, str) else value


_DEFAULTS = AwqConfig().to_dict()
