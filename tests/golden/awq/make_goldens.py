"""Makes scale_search.json: AWQ's scale search by its definition, token by token, in double precision with numpy.

The product code computes the same losses from a Gram matrix. Inputs are made here (seeded) and stored with the results.
usage: python3 tests/golden/awq/make_goldens.py        needs: numpy
"""

import json
import pathlib

import numpy as np

TOKENS, COLUMNS, GROUP = 48, 64, 32


def round_f16(x):
    return np.float16(x).astype(np.float64)


def quantize(weight, symmetric):
    """Rounds to nearest on 4-bit grids of GROUP columns, scales stored as float16."""
    out = np.empty_like(weight)
    for row in range(weight.shape[0]):
        for begin in range(0, weight.shape[1], GROUP):
            w = weight[row, begin : begin + GROUP]
            low, high = min(w.min(), 0.0), max(w.max(), 0.0)
            if symmetric:
                scale, zero = round_f16(2 * max(-low, high) / 15), 8.0
            else:
                scale = round_f16((high - low) / 15)
                zero = np.clip(np.rint(-low / scale), 0, 15)
            out[row, begin : begin + GROUP] = (np.clip(np.rint(w / scale) + zero, 0, 15) - zero) * scale
    return out


def loss(x, weights, scale, symmetric):
    """Sum over the linears of the mean squared output error."""
    return sum(np.mean((x @ (quantize(w * scale, symmetric) / scale - w).T) ** 2) for w in weights)


def candidates(duo, n):
    def points(count, with_weights):
        return [(i / (count - 1), with_weights) for i in range(count)]

    return {"false": points(n, False), "true": points(n - 1, True), "both": points(n // 2, False) + points(n - n // 2, True)}[duo]


def search(x, weights, duo, n, symmetric):
    x_mean = np.abs(x).mean(axis=0)
    stacked = np.concatenate(weights)
    groups = np.abs(stacked).reshape(len(stacked), -1, GROUP)
    w_mean = (groups / (groups.max(axis=2, keepdims=True) + 1e-6)).reshape(len(stacked), -1).mean(axis=0)
    ones = np.ones(COLUMNS)
    best = {"loss_identity": loss(x, weights, ones, symmetric), "scales": ones.tolist(), "ratio": 0.0, "duo": False}
    best["loss"] = best["loss_identity"]
    for ratio, with_weights in candidates(duo, n):
        s = x_mean**ratio
        if with_weights:
            s = s / (w_mean ** (1 - ratio) + 1e-4)
        s = np.maximum(s, 1e-4)
        s = s / np.sqrt(s.max() * s.min())
        value = loss(x, weights, s, symmetric)
        if value < best["loss"]:
            best.update(loss=value, scales=s.tolist(), ratio=ratio, duo=with_weights)
    return best


def main():
    rng = np.random.default_rng(20)
    channel_size = np.exp(rng.normal(0, 1.2, COLUMNS))
    x = np.float32(rng.normal(0, 1, (TOKENS, COLUMNS)) * channel_size).astype(np.float64)
    weights = [np.float32(rng.normal(0, 0.05, (rows, COLUMNS))).astype(np.float64) for rows in (12, 8)]
    cases = [
        {"duo_scaling": duo, "n_grid": n, "symmetric": symmetric, **search(x, weights, duo, n, symmetric)}
        for duo, n, symmetric in [("false", 20, False), ("true", 20, False), ("both", 10, False), ("true", 8, True)]
    ]
    golden = {"group_size": GROUP, "x": x.tolist(), "weights": [w.tolist() for w in weights], "cases": cases}
    path = pathlib.Path(__file__).with_name("scale_search.json")
    path.write_text(json.dumps(golden) + "\n")


main()
