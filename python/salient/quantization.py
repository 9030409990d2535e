"""What recipes import from compressed_tensors.quantization."""

from salient.modifiers._schemes import (
    ActivationOrdering,
    DynamicType,
    QuantizationArgs,
    QuantizationScheme,
    QuantizationStrategy,
    QuantizationType,
    is_preset_scheme,
    preset_name_to_scheme,
)

__all__ = [
    "ActivationOrdering",
    "DynamicType",
    "QuantizationArgs",
    "QuantizationScheme",
    "QuantizationStrategy",
    "QuantizationType",
    "is_preset_scheme",
    "preset_name_to_scheme",
]
