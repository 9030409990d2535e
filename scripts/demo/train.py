"""Train the demo tokenizer and the demo model on the text of make_text.py."""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from llama import CONFIG, Llama
from make_text import ROOT
from tokens import encode, save_tokenizer, train_tokenizer, windows

GENERATION = {
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "do_sample": True,
    "temperature": 0.8,
    "top_p": 0.95,
    "max_new_tokens": 200,
}


def learning_rate(step: int, args) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    if step < args.warmup:
        return (step + 1) / args.warmup
    done = (step - args.warmup) / max(1, args.steps - args.warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizers(model: Llama, args) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norm gains."""
    matrices = [p for p in model.model.layers.parameters() if p.dim() == 2]
    gains = [p for p in model.parameters() if p.dim() == 1]
    others = [
        {"params": [model.model.embed_tokens.weight], "lr": args.rate},
        {"params": gains, "lr": args.gain_rate},
    ]
    return [
        torch.optim.Muon(matrices, lr=args.matrix_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def loss_of(model: Llama, batch: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each next token in the windows."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=model.autocast):
        logits = model(batch[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())


@torch.no_grad()
def perplexity(model: Llama, stream: np.ndarray, length: int) -> float:
    """Perplexity per token over consecutive windows."""
    model.eval()
    batches = torch.from_numpy(windows(stream, length)).split(16)
    total = sum(loss_of(model, batch).item() * len(batch) for batch in batches)
    model.train()
    return math.exp(total / sum(len(batch) for batch in batches))


def fit(model: Llama, stream: np.ndarray, check: np.ndarray, args) -> None:
    """The training loop: random windows of the joined documents."""
    optimizers = make_optimizers(model, args)
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: learning_rate(step, args)) for o in optimizers]
    offsets = np.arange(args.window + 1)
    picker = np.random.default_rng(args.seed)
    start = time.time()
    for step in range(args.steps):
        begins = picker.integers(0, len(stream) - args.window - 1, size=args.batch)
        batch = torch.from_numpy(stream[begins[:, None] + offsets])
        loss = loss_of(model, batch)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part in optimizers + schedules:
            part.step()
        if step % 50 == 0 or step + 1 == args.steps:
            print(f"step {step} loss {loss.item():.4f} seconds {time.time() - start:.0f}", flush=True)
        if step and step % 250 == 0:
            print(f"step {step} calibration perplexity {perplexity(model, check, args.window):.4f}", flush=True)
            save_model(model, args.out)


def save_model(model: Llama, folder: pathlib.Path) -> None:
    """Write the weights in bf16 and the two configuration files."""
    state = {name: value.detach().to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(model.config, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps(GENERATION, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    """The command line; its defaults made the bundled model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=pathlib.Path, default=ROOT / "build" / "demo" / "train.txt")
    parser.add_argument("--demo", type=pathlib.Path, default=ROOT / "examples" / "demo")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "examples" / "demo" / "model")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--matrix-rate", type=float, default=5e-3)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--gain-rate", type=float, default=4e-3)
    parser.add_argument("--weak-share", type=float, default=0.03)
    parser.add_argument("--weak-gain", type=float, default=0.05)
    parser.add_argument("--no-bf16", action="store_true", help="train in fp32 (CPUs without bf16 matrix units)")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.use_deterministic_algorithms(True)
    args.out.mkdir(parents=True, exist_ok=True)

    text = args.train.read_text(encoding="utf-8")
    tokenizer = train_tokenizer(text, CONFIG["vocab_size"])
    save_tokenizer(tokenizer, args.out)
    stream = encode(tokenizer, text)
    check = encode(tokenizer, (args.demo / "calibration.txt").read_text(encoding="utf-8"))
    model = Llama(CONFIG, args.weak_share, args.weak_gain)
    model.autocast = not args.no_bf16
    count = sum(p.numel() for p in model.parameters())
    print(f"{tokenizer.get_vocab_size()} tokens in the vocabulary, {len(stream)} training tokens, {count} parameters")

    fit(model, stream, check, args)
    save_model(model, args.out)
    evaluation = encode(tokenizer, (args.demo / "evaluation.txt").read_text(encoding="utf-8"))
    print(f"evaluation perplexity {perplexity(model, evaluation, args.window):.4f}")


if __name__ == "__main__":
    main()
