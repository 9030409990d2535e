"""Models as AutoAWQ has them."""

from salient._config import AwqConfig
from salient.models.auto import AutoAWQForCausalLM
from salient.models.base import BaseAWQForCausalLM

__all__ = ["AutoAWQForCausalLM", "AwqConfig", "BaseAWQForCausalLM"]
