"""Where AutoAWQ keeps the class that quantizes."""

from salient.quantize.quantizer import AwqQuantizer

__all__ = ["AwqQuantizer"]
