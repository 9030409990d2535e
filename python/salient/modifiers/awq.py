"""What recipes import from llmcompressor.modifiers.awq."""

from salient.modifiers._modifiers import AWQMapping, AWQModifier

__all__ = ["AWQMapping", "AWQModifier"]
