"""Continue a prompt with the demo model, loaded the way any Llama checkpoint is."""

from __future__ import annotations

import argparse
import pathlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from make_text import ROOT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "examples" / "demo" / "model")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--greedy", action="store_true")
    parser.add_argument("prompts", nargs="*", default=["Once upon a time", "Dear Nora,", "On Friday Milo the baker"])
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    torch.manual_seed(args.seed)
    for prompt in args.prompts:
        tokens = tokenizer(prompt, return_tensors="pt")
        choice = {"do_sample": False, "temperature": None, "top_p": None} if args.greedy else {}
        out = model.generate(**tokens, **choice)
        print(tokenizer.decode(out[0], skip_special_tokens=True) + "\n---")


if __name__ == "__main__":
    main()
