"""One matrix as integers, and arrays in and out without copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import salient
from salient.modifiers.quantization import QuantizationArgs

SCHEME = {"num_bits": 4, "symmetric": False, "group_size": 64}


def matrix(rows: int = 16, columns: int = 256) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)


def rounded(weight: np.ndarray[Any, Any], bits: int, group: int) -> np.ndarray[Any, Any]:
    """Asymmetric rounding in NumPy, scales float32."""
    top = 2**bits - 1
    groups = weight.reshape(weight.shape[0], -1, group)
    low, high = np.minimum(groups.min(-1, keepdims=True), 0), np.maximum(groups.max(-1, keepdims=True), 0)
    scale = ((high - low) / np.float32(top)).astype(np.float32)
    zero = np.clip(np.rint(-low / scale), 0, top)
    codes = np.clip(np.rint(groups / scale) + zero, 0, top)
    return ((codes - zero) * scale).reshape(weight.shape)


@pytest.mark.parametrize("bits", range(2, 9))
def test_rounding_is_the_formula(bits: int) -> None:
    integers = salient.quantize_weight(matrix(), num_bits=bits, symmetric=False, group_size=32, scale_dtype="float32")
    np.testing.assert_allclose(integers.dequantize(), rounded(matrix(), bits, 32), atol=1e-6)
    assert integers.codes.shape == (16, 256) and integers.scales.shape == (16, 8) and integers.zeros is not None
    by_hand = (integers.codes.astype(np.float32) - np.repeat(integers.zeros, 32, 1)) * np.repeat(integers.scales, 32, 1)
    np.testing.assert_array_equal(by_hand, integers.dequantize())


def test_arguments_as_object_dict_and_keywords_are_the_same() -> None:
    given = [
        salient.quantize_weight(matrix(), QuantizationArgs(**SCHEME, strategy="group")),
        salient.quantize_weight(matrix(), SCHEME),
    ]
    keywords = salient.quantize_weight(matrix(), **SCHEME)
    for one in given:
        np.testing.assert_array_equal(one.codes, keywords.codes)
    assert repr(keywords) == "QuantizedWeight([16, 256], int4 asymmetric, group 64)"


def test_numbers_of_numpy_are_numbers() -> None:
    given = {"num_bits": np.int64(4), "symmetric": np.False_, "group_size": np.int32(64)}
    np.testing.assert_array_equal(
        salient.quantize_weight(matrix(), given).codes, salient.quantize_weight(matrix(), SCHEME).codes
    )


def test_clip_bounds_the_range() -> None:
    clip = np.full((16, 4), 0.5, dtype=np.float32)
    integers = salient.quantize_weight(matrix(), SCHEME, clip=clip)
    assert np.abs(integers.dequantize()).max() < 0.52
    with pytest.raises(ValueError, match=r"\[16, 4\], got \[4, 16\]"):
        salient.quantize_weight(matrix(), SCHEME, clip=clip.T.copy())


@pytest.mark.parametrize("name", ["pack-quantized", "autoawq-gemm"])
def test_packings_are_inverses(name: str) -> None:
    integers = salient.quantize_weight(matrix(), SCHEME, scale_dtype="float16")
    tensors = salient.pack(integers, name)
    again = salient.unpack({key: np.asarray(tensor) for key, tensor in tensors.items()}, name, SCHEME)
    for one in (again, salient.unpack(tensors, name, SCHEME)):
        np.testing.assert_array_equal(one.codes, integers.codes)
        np.testing.assert_array_equal(one.dequantize(), integers.dequantize())


@pytest.mark.parametrize("group", [{"group_size": 32}, {"group_size": -1}, {"strategy": "tensor"}])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", range(2, 9))
def test_every_width_is_packed_without_gaps(bits: int, symmetric: bool, group: dict[str, Any]) -> None:
    scheme = {"num_bits": bits, "symmetric": symmetric, **group}
    integers = salient.quantize_weight(matrix(), scheme, scale_dtype="float32")
    assert int(integers.codes.max()) < 2**bits
    tensors = salient.pack(integers)
    words = np.asarray(tensors["weight_packed"])
    assert words.shape == (16, 256 * bits // 32)
    spread = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little").reshape(16, 256, bits)
    np.testing.assert_array_equal((spread << np.arange(bits)).sum(-1), integers.codes)
    again = salient.unpack(tensors, args=scheme)
    np.testing.assert_array_equal(again.dequantize(), integers.dequantize())
    if bits != 4:
        with pytest.raises(NotImplementedError, match="4-bit codes only"):
            salient.pack(integers, "autoawq-gemm")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: salient.quantize_weight(matrix(), num_bits=9), ValueError, "num_bits is 9"),
        (lambda: salient.quantize_weight(matrix(), num_bit=4), ValueError, "num_bit"),
        (lambda: salient.quantize_weight(matrix(), 4), TypeError, "args: QuantizationArgs or a mapping .* not 4"),
        (lambda: salient.quantize_weight(matrix(), num_bits=object()), TypeError, "args: a number or a text"),
        (lambda: salient.quantize_weight(matrix(4, 100), SCHEME), ValueError, "100 columns"),
        (lambda: salient.quantize_weight(matrix()[0], SCHEME), ValueError, r"\[256\]"),
        (lambda: salient.quantize_weight(np.zeros((4, 64), np.int32), SCHEME), ValueError, "int32"),
        (lambda: salient.quantize_weight("weights", SCHEME), ValueError, "str"),
        (lambda: salient.quantize_weight(np.full((4, 64), np.nan, np.float32), SCHEME), ValueError, "nan|finite"),
        (lambda: salient.quantize_weight(matrix(), SCHEME, scale_dtype="int8"), ValueError, "int8"),
        (lambda: salient.pack(salient.quantize_weight(matrix(), SCHEME), "gguf"), ValueError, "gguf"),
        (lambda: salient.unpack({"weight": matrix()}, "pack-quantized", SCHEME), ValueError, '"weight"'),
        (lambda: salient.unpack({}, "pack-quantized", SCHEME), salient.FormatError, "weight_packed"),
    ],
)
def test_refusals(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_tensors_share_their_memory_with_numpy() -> None:
    tensor = salient.pack(salient.quantize_weight(matrix(), SCHEME))["weight_packed"]
    first, second = np.asarray(tensor), np.from_dlpack(tensor)
    assert first.ctypes.data == second.ctypes.data == tensor.numpy().ctypes.data
    assert (tensor.dtype, tensor.shape, tensor.nbytes) == ("int32", first.shape, first.nbytes)
    del tensor
    assert first.sum() == second.sum()


def test_bfloat16_becomes_float32_in_numpy() -> None:
    scales = salient.quantize_weight(matrix(), SCHEME).scales
    assert scales.dtype == "bfloat16" and np.asarray(scales).dtype == np.float32
    assert np.asarray(scales, dtype=np.float64).dtype == np.float64
    assert repr(scales) == "Tensor([16, 4], bfloat16)"


def test_half_precision_and_strided_arrays_are_taken() -> None:
    half = matrix().astype(np.float16)
    np.testing.assert_array_equal(
        salient.quantize_weight(half, SCHEME).codes, salient.quantize_weight(half.astype(np.float32), SCHEME).codes
    )
    wide = np.asfortranarray(matrix())
    np.testing.assert_array_equal(
        salient.quantize_weight(wide, SCHEME).codes, salient.quantize_weight(matrix(), SCHEME).codes
    )


def test_read_only_arrays_are_taken() -> None:
    weight = matrix()
    weight.flags.writeable = False
    assert salient.quantize_weight(weight, SCHEME).shape == (16, 256)


def test_torch_takes_and_gives_bfloat16() -> None:
    torch = pytest.importorskip("torch")
    weight = torch.from_numpy(matrix()).to(torch.bfloat16)
    integers = salient.quantize_weight(weight, SCHEME)
    np.testing.assert_array_equal(integers.codes, salient.quantize_weight(weight.float().numpy(), SCHEME).codes)
    scales = torch.from_dlpack(integers.scales)
    assert scales.dtype == torch.bfloat16 and torch.equal(scales.float(), torch.from_numpy(np.asarray(integers.scales)))
