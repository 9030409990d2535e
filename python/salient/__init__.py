"""Salient quantizes large language models to 2- to 8-bit weights with AWQ, and runs them.

from salient import AutoAWQForCausalLM, AutoTokenizer      # as scripts for AutoAWQ have it
from salient import oneshot                                # as scripts for LLM Compressor have it
import salient; model = salient.load("path/to/model")      # Salient's own
"""

from salient._config import AwqConfig
from salient._core import FormatError, get_num_threads, set_num_threads, version
from salient._oneshot import oneshot
from salient.evaluate import Perplexity, perplexity
from salient.model import AutoModelForCausalLM, CausalLM, inspect, load
from salient.models import AutoAWQForCausalLM
from salient.streaming import TextStreamer
from salient.tokenizer import AutoTokenizer, Tokenizer
from salient.utils.utils import get_best_device
from salient.weights import QuantizedWeight, Tensor, pack, quantize_weight, unpack

__version__: str = version
FormatError.__module__ = "salient"  # where users find it

__all__ = [
    "AutoAWQForCausalLM",
    "AutoModelForCausalLM",
    "AutoTokenizer",
    "AwqConfig",
    "CausalLM",
    "FormatError",
    "Perplexity",
    "QuantizedWeight",
    "Tensor",
    "TextStreamer",
    "Tokenizer",
    "__version__",
    "get_best_device",
    "get_num_threads",
    "inspect",
    "load",
    "oneshot",
    "pack",
    "perplexity",
    "quantize_weight",
    "set_num_threads",
    "unpack",
]
