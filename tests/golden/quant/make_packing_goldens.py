"""Packs random codes, zeros and scales with the real packages, for tests/quant/packing_test.cc.

Each file holds one linear as the package stores it, beside the logical `codes` u8 [out, in], `zeros` u8 [out, groups]
and `scales`. Run once with each environment; a run skips the package that its environment lacks:
    compressed-tensors 0.19:                        python make_packing_goldens.py
    autoawq 0.2.9, torch 2.6, transformers 4.51.3:  python make_packing_goldens.py
"""

import importlib.util
import pathlib

import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent


def random_parts(out: int, columns: int, groups: int, dtype: torch.dtype, bits: int = 4) -> tuple:
    torch.manual_seed(out * 1000 + columns)
    codes = torch.randint(0, 2**bits, (out, columns), dtype=torch.int32)
    zeros = torch.randint(0, 2**bits, (out, groups), dtype=torch.int32)
    # Powers of two times a few bits: (code - zero) * scale is exact, so the packages find the same codes again.
    scales = (torch.randint(32, 64, (out, groups)).float() / 4096).to(dtype)
    return codes, zeros, scales


def keep(name: str, tensors: dict, codes, zeros, scales) -> None:
    logical = {"codes": codes.to(torch.uint8), "zeros": zeros.to(torch.uint8), "logical_scales": scales}
    save_file({k: v.contiguous().clone() for k, v in (tensors | logical).items()}, HERE / f"packing_{name}.safetensors")


def compressed_tensors(
    name: str, out: int, columns: int, group: int, symmetric: bool, dtype=torch.bfloat16, bits: int = 4
) -> None:
    """`group` is a number of columns, -1 for a row ("channel") or 0 for the matrix ("tensor")."""
    from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    width = columns if group <= 0 else group
    middle = 2 ** (bits - 1)
    codes, zeros, scales = random_parts(out, columns, columns // width, dtype, bits)
    if group == 0:
        zeros, scales = zeros[:1].repeat(out, 1), scales[:1].repeat(out, 1)
    if symmetric:
        zeros.fill_(middle)
    weight = (codes - zeros.repeat_interleave(width, dim=1)).to(dtype) * scales.repeat_interleave(width, dim=1)
    kind = {"strategy": "group", "group_size": group}
    if group <= 0:
        kind = {"strategy": "channel" if group == -1 else "tensor"}
    scheme = QuantizationScheme(
        targets=["Linear"], weights=QuantizationArgs(num_bits=bits, type="int", symmetric=symmetric, **kind)
    )
    grid = {"weight_scale": scales, "weight_zero_point": (zeros - middle).to(torch.int8)}
    if group == 0:
        grid = {key: value[0] for key, value in grid.items()}
    state = {"weight": weight} | grid
    keep(name, PackedQuantizationCompressor.compress(state, scheme), codes, zeros, scales)


def autoawq(name: str, out: int, columns: int, group: int) -> None:
    from awq.modules.linear.gemm import WQLinear_GEMM

    width = columns if group == -1 else group
    codes, zeros, scales = random_parts(out, columns, columns // width, torch.float16)
    linear = torch.nn.Linear(columns, out, bias=False).half()
    shifted = (codes - zeros.repeat_interleave(width, dim=1)).half()
    linear.weight.data = shifted * scales.repeat_interleave(width, dim=1)
    packed = WQLinear_GEMM.from_linear(
        linear, 4, width, scales=scales.t().contiguous(), zeros=zeros.t().contiguous().half()
    )
    keep(name, dict(packed.state_dict()), codes, zeros, scales)


def main() -> None:
    if importlib.util.find_spec("compressed_tensors"):
        compressed_tensors("ct_channel_12x20", 12, 20, -1, symmetric=False)
        compressed_tensors("ct_channel_sym_5x33", 5, 33, -1, symmetric=True, dtype=torch.float16)
        compressed_tensors("ct_group_12x64", 12, 64, 32, symmetric=False)
        compressed_tensors("ct_group_sym_16x64", 16, 64, 32, symmetric=True)
        compressed_tensors("ct_tensor_7x21", 7, 21, 0, symmetric=False)
        compressed_tensors("ct_tensor_sym_5x33", 5, 33, 0, symmetric=True)
        # f32, where 8 bits times the bits of a scale are still exact.
        wide = {"dtype": torch.float32, "bits": 8}
        compressed_tensors("ct_8_bits_group_sym_6x48", 6, 48, 16, symmetric=True, **wide)
        compressed_tensors("ct_8_bits_group_12x64", 12, 64, 32, symmetric=False, **wide)
        compressed_tensors("ct_8_bits_channel_13x21", 13, 21, -1, symmetric=False, **wide)
        compressed_tensors("ct_8_bits_tensor_7x18", 7, 18, 0, symmetric=False, **wide)
        compressed_tensors("ct_8_bits_tensor_sym_5x19", 5, 19, 0, symmetric=True, **wide)
        # Codes that begin in one word and end in the next, rows and columns that fill no whole words.
        for bits in (2, 3, 5, 6, 7):
            other = {"dtype": torch.float32, "bits": bits}
            compressed_tensors(f"ct_{bits}_bits_group_37x64", 37, 64, 32, symmetric=False, **other)
            compressed_tensors(f"ct_{bits}_bits_channel_13x45", 13, 45, -1, symmetric=False, **other)
            compressed_tensors(f"ct_{bits}_bits_group_sym_6x48", 6, 48, 16, symmetric=True, **other)
            compressed_tensors(f"ct_{bits}_bits_tensor_7x35", 7, 35, 0, symmetric=False, **other)
    if importlib.util.find_spec("awq"):
        autoawq("awq_group_32x64", 32, 64, 32)
        autoawq("awq_group_96x64", 96, 64, 64)
        autoawq("awq_channel_64x40", 64, 40, -1)


if __name__ == "__main__":
    main()
