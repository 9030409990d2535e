"""Perplexity of the demo model: dense, rounded to nearest, and with AWQ scales.

Weights of all linear layers are quantized to 4 bits with a zero point per
group.  The AWQ scales are searched for the mappings norm -> q, k, v;
norm -> gate, up; and up -> down.  The o projection is rounded to nearest in
both cases, as the value heads are grouped.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer

from llama import Llama
from make_text import ROOT
from tokens import encode, windows

STEPS = 20


def load(folder: pathlib.Path) -> Llama:
    """The trained model in fp32."""
    model = Llama(json.loads((folder / "config.json").read_text()))
    state = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
    model.load_state_dict(state)
    return model.eval()


@torch.no_grad()
def perplexity(model: Llama, data: np.ndarray) -> float:
    """Perplexity per token; the first token of each window is not predicted."""
    total = 0.0
    batches = torch.from_numpy(data).split(8)
    for batch in batches:
        logits = model(batch[:, :-1])
        total += F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum").item()
    return math.exp(total / (data.shape[0] * (data.shape[1] - 1)))


def round_weight(weight: torch.Tensor, group: int, bits: int = 4) -> torch.Tensor:
    """Round to nearest with a scale and a zero point per group of a row."""
    grouped = weight.reshape(weight.shape[0], -1, group)
    low = grouped.amin(-1, keepdim=True).clamp(max=0)
    high = grouped.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / (2**bits - 1)).clamp(min=1e-8)
    zero = torch.round(-low / scale)
    level = torch.clamp(torch.round(grouped / scale) + zero, 0, 2**bits - 1)
    return ((level - zero) * scale).reshape(weight.shape)


class Inputs:
    """Gram matrix and mean magnitude of what goes into a linear layer."""

    def __init__(self, size: int):
        self.gram = torch.zeros(size, size)
        self.magnitude = torch.zeros(size)
        self.rows = 0

    def add(self, x: torch.Tensor) -> None:
        x = x.flatten(0, -2)
        self.gram += x.T @ x
        self.magnitude += x.abs().sum(0)
        self.rows += len(x)


@torch.no_grad()
def collect(model: Llama, data: np.ndarray) -> list[dict[str, Inputs]]:
    """The inputs of every layer's q, gate and down projections."""
    hidden, inner = model.config["hidden_size"], model.config["intermediate_size"]
    found, hooks = [], []
    for layer in model.model.layers:
        sizes = {"qkv": (layer.self_attn.q_proj, hidden), "gate_up": (layer.mlp.gate_proj, hidden),
                 "down": (layer.mlp.down_proj, inner)}
        found.append({name: Inputs(size) for name, (_, size) in sizes.items()})
        for name, (linear, _) in sizes.items():
            hooks.append(linear.register_forward_pre_hook(
                lambda _module, args, inputs=found[-1][name]: inputs.add(args[0])))
    for batch in torch.from_numpy(data).split(8):
        model(batch)
    for hook in hooks:
        hook.remove()
    return found


def weight_mean(weights: list[torch.Tensor], group: int) -> torch.Tensor:
    """Mean over the rows of each weight's share of its group's largest."""
    weight = torch.cat(weights).abs()
    grouped = weight.reshape(weight.shape[0], -1, group)
    return (grouped / (grouped.amax(-1, keepdim=True) + 1e-6)).reshape(weight.shape).mean(0)


def output_error(rounded: list[torch.Tensor], weights: list[torch.Tensor], gram: torch.Tensor) -> float:
    """Squared error of the layer outputs over the calibration text."""
    return sum((((r - w) @ gram) * (r - w)).sum().item() for r, w in zip(rounded, weights))


def search(weights: list[torch.Tensor], inputs: Inputs, group: int) -> tuple[list[torch.Tensor], float]:
    """The weights rounded under the best scale, and their error as a share of plain rounding's."""
    x_mean = inputs.magnitude / inputs.rows
    w_mean = weight_mean(weights, group)
    plain = [round_weight(weight, group) for weight in weights]
    plain_error = output_error(plain, weights, inputs.gram)
    best, best_error = plain, plain_error
    for step in range(STEPS):
        ratio = step / STEPS
        scale = (x_mean**ratio / (w_mean ** (1 - ratio) + 1e-4)).clamp(min=1e-4)
        scale = scale / (scale.max() * scale.min()).sqrt()
        rounded = [round_weight(weight * scale, group) / scale for weight in weights]
        error = output_error(rounded, weights, inputs.gram)
        if error < best_error:
            best, best_error = rounded, error
    return best, best_error / plain_error


@torch.no_grad()
def quantize(model: Llama, group: int, inputs: list[dict[str, Inputs]] | None) -> list[float]:
    """Quantize in place, with AWQ scales if the calibration inputs are given."""
    shares = []
    for index, layer in enumerate(model.model.layers):
        attention, mlp = layer.self_attn, layer.mlp
        mappings = {"qkv": [attention.q_proj, attention.k_proj, attention.v_proj],
                    "gate_up": [mlp.gate_proj, mlp.up_proj], "down": [mlp.down_proj], "o": [attention.o_proj]}
        for name, linears in mappings.items():
            weights = [linear.weight.data for linear in linears]
            if inputs is None or name == "o":
                rounded = [round_weight(weight, group) for weight in weights]
            else:
                rounded, share = search(weights, inputs[index][name], group)
                shares.append(share)
            for linear, value in zip(linears, rounded):
                linear.weight.data.copy_(value)
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=pathlib.Path, default=ROOT / "examples" / "demo")
    parser.add_argument("--model", type=pathlib.Path, default=None)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--groups", type=int, nargs="+", default=[64, 128, 256])
    args = parser.parse_args()
    torch.set_num_threads(2)
    folder = args.model or args.demo / "model"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = {}
    for name in ("calibration", "evaluation"):
        stream = encode(tokenizer, (args.demo / f"{name}.txt").read_text(encoding="utf-8"))
        texts[name] = windows(stream, args.window)
    model = load(folder)
    dense = perplexity(model, texts["evaluation"])
    print(f"dense {dense:.4f} over {texts['evaluation'].size} tokens")
    inputs = collect(model, texts["calibration"])
    for group in args.groups:
        for name, given in (("rtn", None), ("awq", inputs)):
            model = load(folder)
            shares = quantize(model, group, given)
            value = perplexity(model, texts["evaluation"])
            note = f", layer error {np.mean(shares):.3f} of plain rounding" if shares else ""
            print(f"group {group} {name} {value:.4f} ({100 * (value / dense - 1):+.2f} %){note}")


if __name__ == "__main__":
    main()
