"""Writes small files with the safetensors package (0.8.0) for tests/checkpoint.

Every tensor's values follow from its type and index (see `values`), so that the test can recompute them.
Run: python make_checkpoint_goldens.py   (needs torch, safetensors)
"""

import json
import pathlib

import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.uint8, torch.bool]


def values(dtype: torch.dtype, rows: int, columns: int) -> torch.Tensor:
    index = torch.arange(rows * columns)
    if dtype == torch.bool:
        flat = index % 3 == 0
    elif dtype.is_floating_point:
        flat = (index.double() * 0.37 - 2.5).to(torch.float32)
    else:
        flat = index * 7 % 120
    return flat.reshape(rows, columns).to(dtype)


def main() -> None:
    tensors = {str(dtype).removeprefix("torch."): values(dtype, 3, 5) for dtype in DTYPES}
    tensors["scalar"] = torch.tensor(1.5)
    tensors["empty"] = torch.zeros(0, 4)
    save_file(tensors, HERE / "types.safetensors", metadata={"format": "pt", "who": "tëst"})

    sharded = HERE / "sharded"
    sharded.mkdir(exist_ok=True)
    (sharded / "config.json").write_text('{"model_type": "llama"}\n')
    shards = {
        "model-00001-of-00002.safetensors": ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"],
        "model-00002-of-00002.safetensors": ["lm_head.weight"],
    }
    weight_map = {}
    for number, (file, names) in enumerate(shards.items()):
        save_file(
            {name: values(torch.bfloat16, 4 + number, 6) for name in names}, sharded / file, metadata={"format": "pt"}
        )
        weight_map |= {name: file for name in names}
    index = {"metadata": {"total_size": (4 * 6 * 2 + 5 * 6) * 2}, "weight_map": weight_map}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    main()
