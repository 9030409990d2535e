"""The parts below a run: one matrix as integers, and how files hold it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from salient import _core
from salient._core import QuantizedWeight, Tensor
from salient._values import shorten

__all__ = ["QuantizedWeight", "Tensor", "pack", "quantize_weight", "unpack"]


def quantize_weight(
    weight: Any, args: Any = None, *, scale_dtype: str = "bfloat16", clip: Any = None, **more: Any
) -> QuantizedWeight:
    """Rounds a matrix to nearest.

    weight: float32, float16 or bfloat16 [out, in], of NumPy, torch or anything with DLPack. args: QuantizationArgs, a
    dict of such, or keywords (num_bits=4, symmetric=False, group_size=128; 2 to 8 bits). scale_dtype: the type in which
    scales are stored, and to which they are rounded before the codes are made ("float32", "float16", "bfloat16").
    clip: float [out, groups], the largest |weight| of each group.

    With scale = (max - min) / (2^num_bits - 1), 0 forced into the range, and zero = round(-min / scale):
    code = clamp(round(weight / scale) + zero, 0, 2^num_bits - 1). Symmetric: scale = 2 max|w| / (2^num_bits - 1).

    Errors: ValueError for a shape or a number that does not fit, NotImplementedError for what cannot be stored,
    TypeError for args that are none.
    """
    return _core.quantize_weight(_contiguous(weight), _args_json(args, more), scale_dtype, _contiguous(clip))


def pack(weight: QuantizedWeight, format: str = "pack-quantized") -> dict[str, Tensor]:
    """What a file of `format` ("pack-quantized", "autoawq-gemm") holds for one linear, by the ends of tensors' names:
    weight_packed int32 [out, ceil(in * num_bits / 32)], weight_scale [out, groups], weight_zero_point, weight_shape; or
    qweight int32 [in, out / 8], qzeros int32 [groups, out / 8], scales float16 [groups, out].

    Errors: NotImplementedError when the format has no room for the scheme.
    """
    return _core.pack(weight, format)


def unpack(
    tensors: Mapping[str, Any], format: str = "pack-quantized", args: Any = None, **more: Any
) -> QuantizedWeight:
    """The inverse of `pack`; tensors of NumPy, torch or `pack`. args: as in `quantize_weight`.

    Errors: salient.FormatError for tensors that do not fit together.
    """
    arrays = {name: _contiguous(tensor) for name, tensor in tensors.items()}
    return _core.unpack(arrays, format, _args_json(args, more))


def _args_json(args: Any, more: Mapping[str, Any]) -> str:
    values = {} if args is None else args
    if callable(getattr(args, "model_dump", None)):
        values = args.model_dump()
    if not isinstance(values, Mapping):
        raise TypeError(f"args: QuantizationArgs or a mapping is expected, not {shorten(args)}")
    return json.dumps({**{key: value for key, value in values.items() if value is not None}, **more}, default=_plain)


def _plain(value: object) -> Any:
    """A number of NumPy as one of Python."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"args: a number or a text is expected, not {shorten(value)}")


def _contiguous(array: Any) -> Any:
    if array is None or isinstance(array, Tensor):
        return array
    if hasattr(array, "detach"):  # torch
        return array.detach().cpu().contiguous()
    return np.ascontiguousarray(array) if isinstance(array, (np.ndarray, list, tuple)) else array
