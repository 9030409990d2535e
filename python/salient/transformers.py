"""Where older guides of LLM Compressor import `oneshot` from."""

from salient._oneshot import oneshot
from salient.model import AutoModelForCausalLM

__all__ = ["AutoModelForCausalLM", "oneshot"]
