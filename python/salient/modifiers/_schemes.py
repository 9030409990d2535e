"""How weights become integers, in the words of compressed_tensors.quantization.

The classes take the keywords of compressed-tensors 0.19. A value that makes no sense is refused when the object is
made, and so is what Salient cannot do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from salient.modifiers._check import check_args, check_group
from salient.modifiers._fields import Fields, plain


class QuantizationType(str, Enum):
    """The numbers that weights become; equal to their strings. Salient writes INT."""

    INT = "int"
    FLOAT = "float"


class QuantizationStrategy(str, Enum):
    """Which weights share a scale; equal to their strings. Salient writes TENSOR, CHANNEL and GROUP."""

    TENSOR = "tensor"
    CHANNEL = "channel"
    GROUP = "group"
    BLOCK = "block"
    TOKEN = "token"
    TENSOR_GROUP = "tensor_group"
    ATTN_HEAD = "attn_head"


class ActivationOrdering(str, Enum):
    """In which order compensated rounding takes the columns: WEIGHT (STATIC is the same), the strongest first."""

    WEIGHT = "weight"
    STATIC = "static"
    GROUP = "group"
    DYNAMIC = "dynamic"


class DynamicType(str, Enum):
    """Scales that are found anew for every input. Weights have none."""

    LOCAL = "local"


@dataclass(kw_only=True, repr=False)
class QuantizationArgs(Fields):
    """How the weights of a group of linears are stored.

    num_bits: 2 to 8. group_size: columns that share a scale (16, 32, 64, 128 or 256), -1 for a whole row. strategy:
    follows from group_size where it is left out (none: one scale for the matrix). Enums are kept as their strings.
    ValueError for values that make no sense, NotImplementedError for those that Salient does not write.
    """

    num_bits: int = 8
    type: QuantizationType | str = "int"
    symmetric: bool = True
    group_size: int | None = None
    strategy: QuantizationStrategy | str | None = None
    block_structure: list[int] | str | None = None
    dynamic: DynamicType | bool | str = False
    actorder: ActivationOrdering | bool | str | None = None
    scale_dtype: Any = None
    zp_dtype: Any = None
    observer: str | None = None
    observer_kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("type", "strategy", "dynamic", "actorder"):
            value = plain(getattr(self, name))
            setattr(self, name, value.lower() if isinstance(value, str) else value)
        self.strategy = self.strategy or _strategy_of(self.group_size)
        if not self.dynamic:  # else it is of activations, which are refused by their own name
            check_args(self)

    def model_dump(self, *, exclude_none: bool = False, exclude_defaults: bool = False) -> dict[str, Any]:
        """The fields as plain values. zp_dtype is a word, "torch.int8" where there are zero points."""
        values = super().model_dump(exclude_none=exclude_none, exclude_defaults=exclude_defaults)
        if self.symmetric or exclude_defaults:
            return values
        return {**values, "zp_dtype": str(self.zp_dtype or "torch.int8")}


def _strategy_of(group_size: object) -> str | None:
    """None where the size is no size, which the check of the whole refuses."""
    if group_size is None:
        return "tensor"
    if not isinstance(group_size, int) or group_size == 0 or group_size < -1:
        return None
    return "channel" if group_size == -1 else "group"


@dataclass(kw_only=True, repr=False)
class QuantizationScheme(Fields):
    """A group of linears and how their weights are stored.

    targets: names, "re:" patterns or the class "Linear". weights: a QuantizationArgs or its dict. Activations are not
    quantized: NotImplementedError for input_activations and output_activations.
    """

    targets: list[str]
    weights: QuantizationArgs | None = None
    input_activations: QuantizationArgs | None = None
    output_activations: QuantizationArgs | None = None
    format: str | None = None

    def __post_init__(self) -> None:
        self.format = plain(self.format)  # type: ignore[assignment]
        for name in ("weights", "input_activations", "output_activations"):
            if isinstance(getattr(self, name), dict):
                setattr(self, name, QuantizationArgs(**getattr(self, name)))
        check_group(self)


_PRESETS: dict[str, dict[str, Any]] = {
    **{f"W{bits}A16": {"num_bits": bits, "symmetric": True} for bits in range(2, 9)},
    "W4A16_ASYM": {"num_bits": 4, "symmetric": False},
}


def is_preset_scheme(name: str) -> bool:
    """Whether `name` is a preset that Salient runs: W2A16 to W8A16 or W4A16_ASYM, in any case."""
    return name.upper() in _PRESETS


def preset_name_to_scheme(name: str, targets: Iterable[str]) -> QuantizationScheme:
    """The QuantizationScheme of a preset for `targets`. KeyError: no such preset."""
    if not is_preset_scheme(name):
        raise KeyError(f"{name}: no such preset; Salient runs {', '.join(_PRESETS)}")
    args = QuantizationArgs(type="int", strategy="group", group_size=128, dynamic=False, **_PRESETS[name.upper()])
    return QuantizationScheme(targets=list(targets), weights=args)
