"""Where some guides of LLM Compressor import `oneshot` from."""

from salient._oneshot import oneshot

__all__ = ["oneshot"]
