"""What recipes import from llmcompressor.modifiers.quantization, and the classes that they hand to it."""

from salient.modifiers._modifiers import QuantizationModifier
from salient.modifiers._schemes import (
    ActivationOrdering,
    QuantizationArgs,
    QuantizationScheme,
    QuantizationStrategy,
    QuantizationType,
)

__all__ = [
    "ActivationOrdering",
    "QuantizationArgs",
    "QuantizationModifier",
    "QuantizationScheme",
    "QuantizationStrategy",
    "QuantizationType",
]


def __getattr__(name: str) -> object:
    if name == "GPTQModifier":
        raise AttributeError(
            "GPTQModifier: Salient has no such modifier; for its rounding write the recipe [AWQModifier(mappings=[]), "
            'QuantizationModifier(...), {"salient": {"rounding": "compensated"}}]'
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
