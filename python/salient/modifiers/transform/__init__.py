"""What recipes import from llmcompressor.modifiers.transform."""

from salient.modifiers._modifiers import AWQMapping, AWQModifier

__all__ = ["AWQMapping", "AWQModifier"]
