"""Recipes as objects, with the names and keywords of llm-compressor.

from salient.modifiers.awq import AWQModifier
from salient.modifiers.quantization import QuantizationModifier

recipe = [AWQModifier(), QuantizationModifier(scheme="W4A16_ASYM", ignore=["lm_head"])]
"""

from salient.modifiers._modifiers import AWQMapping, AWQModifier, Modifier, QuantizationModifier
from salient.modifiers._text import recipe_text

__all__ = ["AWQMapping", "AWQModifier", "Modifier", "QuantizationModifier", "recipe_text"]
