"""AWQModifier and QuantizationModifier, the two steps that a recipe is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from salient.modifiers._check import check_awq, check_quantization
from salient.modifiers._fields import Fields
from salient.modifiers._schemes import QuantizationArgs, QuantizationScheme

Groups = dict[str, Any]


class Modifier(Fields):
    """A step of a recipe."""


@dataclass(repr=False)
class AWQMapping(Fields):
    """The output channels of `smooth_layer` are divided by scales, the input columns of `balance_layers` multiplied.

    Entries are names or "re:" patterns. activation_hook_target names a module below the common parent of the balance
    layers whose input is measured instead of theirs.
    """

    smooth_layer: str
    balance_layers: list[str]
    activation_hook_target: str | None = None


@dataclass(kw_only=True, repr=False)
class AWQModifier(Modifier):
    """Scales the input channels of linears so that the weights that matter most are rounded least.

    mappings: AWQMapping objects, their dicts or [[balance layers], smooth layer]; None: what the data flow of the model
    allows. duo_scaling: True, False or "both". n_grid: candidates per mapping, 2 to 1000. apply_clip: search the
    largest weight of each group (None: yes). A QuantizationModifier behind it says how weights are stored; or this
    object itself: by scheme, config_groups, targets and ignore as that one takes them, or by bits, symmetric and
    group_size. ValueError for values that make no sense, NotImplementedError for what Salient does not do.
    """

    mappings: list[Any] | None = None
    offload_device: Any = None
    duo_scaling: bool | Literal["both"] = True
    n_grid: int = 20
    apply_clip: bool | None = None
    bits: int | None = None
    num_bits: int | None = None
    w_bit: int | None = None
    symmetric: bool | None = None
    group_size: int | None = None
    config_groups: Groups | None = None
    targets: str | list[str] | None = None
    ignore: str | list[str] | None = None
    scheme: str | dict[str, Any] | None = None
    kv_cache_scheme: Any = None
    weight_observer: str | None = None
    input_observer: str | None = None
    output_observer: str | None = None
    observer: dict[str, str] | None = None
    bypass_divisibility_checks: bool | None = None
    sequential_targets: list[str] | None = None
    requires_calibration_data: bool = True

    def __post_init__(self) -> None:
        if self.mappings is not None:
            self.mappings = [_mapping(mapping) for mapping in self.mappings]
        self.config_groups = _groups(self.config_groups)
        check_awq(self, vars(self))


@dataclass(kw_only=True, repr=False)
class QuantizationModifier(Modifier):
    """Which linears become integers, and how. Without an AWQModifier before it, it rounds to nearest without data.

    scheme: W2A16 to W8A16 or W4A16_ASYM, or several with their targets. config_groups: name to QuantizationScheme (or
    its dict), instead of scheme. targets: names, "re:" patterns or the class "Linear". ignore: what stays dense.
    ValueError for values that make no sense, NotImplementedError for what Salient does not do (activations, kv caches,
    floats).
    """

    config_groups: Groups | None = None
    targets: str | list[str] = field(default_factory=lambda: ["Linear"])
    ignore: str | list[str] = field(default_factory=list)
    scheme: str | dict[str, Any] | None = None
    kv_cache_scheme: QuantizationArgs | dict[str, Any] | None = None
    weight_observer: str | None = None
    input_observer: str | None = None
    output_observer: str | None = None
    observer: dict[str, str] | None = None
    bypass_divisibility_checks: bool = False
    requires_calibration_data: bool = False

    def __post_init__(self) -> None:
        self.targets = [self.targets] if isinstance(self.targets, str) else self.targets
        self.config_groups = _groups(self.config_groups)
        check_quantization(self, vars(self))


def _mapping(mapping: Any) -> Any:
    if isinstance(mapping, Mapping):
        return AWQMapping(**mapping)
    if isinstance(mapping, Sequence) and not isinstance(mapping, str) and len(mapping) == 2:
        balance, smooth = mapping
        return AWQMapping(smooth, [balance] if isinstance(balance, str) else balance)
    return mapping


def _groups(groups: Any) -> Any:
    if not isinstance(groups, Mapping):
        return groups
    return {name: QuantizationScheme(**group) if isinstance(group, dict) else group for name, group in groups.items()}
