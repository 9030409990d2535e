"""What recipes import from llmcompressor.modifiers.transform.awq."""

from salient.modifiers._modifiers import AWQMapping, AWQModifier

__all__ = ["AWQMapping", "AWQModifier"]
