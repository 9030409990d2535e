"""Perplexity of an interpolated trigram over the demo model's own tokens.

The trigram is counted on the training text with interpolated Kneser-Ney
smoothing (one absolute discount per order) and read on evaluation.txt, every
token of which is predicted from the two tokens before it.
"""

from __future__ import annotations

import argparse
import math
import pathlib

import numpy as np
from tokenizers import Tokenizer

from make_text import ROOT
from tokens import encode


class Table:
    """Counts by integer key."""

    def __init__(self, keys: np.ndarray):
        self.keys, self.counts = np.unique(keys, return_counts=True)

    def get(self, keys: np.ndarray) -> np.ndarray:
        """The counts of the keys, 0 for those not seen."""
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, self.counts[places], 0)

    def discount(self) -> float:
        """The usual estimate of the absolute discount."""
        once, twice = (self.counts == 1).sum(), (self.counts == 2).sum()
        return once / max(once + 2 * twice, 1)


def discounted(count, total, kinds, discount, lower):
    """An interpolated probability; unseen contexts fall through to the lower order."""
    total = np.maximum(total, 1e-9)
    seen = np.maximum(count - discount, 0) / total + discount * kinds / total * lower
    return np.where(kinds > 0, seen, lower)


def trigram_perplexity(train: np.ndarray, test: np.ndarray, vocab: int) -> float:
    """Perplexity per token of the test stream."""
    pairs = train[:-1] * vocab + train[1:]
    triples = Table(pairs[:-1] * vocab + train[2:])
    contexts = Table(pairs[:-1])
    context_kinds = Table(triples.keys // vocab)
    # lower orders count in how many different contexts something was seen
    tails = Table(triples.keys % (vocab * vocab))
    heads = Table(triples.keys // vocab % vocab)
    head_kinds = Table(tails.keys // vocab)
    words = Table(tails.keys % vocab)

    first, second, third = test[:-2], test[1:-1], test[2:]
    unigram = discounted(words.get(third), words.counts.sum(), len(words.keys), words.discount(), 1 / vocab)
    bigram = discounted(tails.get(second * vocab + third), heads.get(second), head_kinds.get(second),
                        tails.discount(), unigram)
    context = first * vocab + second
    trigram = discounted(triples.get(context * vocab + third), contexts.get(context), context_kinds.get(context),
                         triples.discount(), bigram)
    return math.exp(-np.log(trigram).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=pathlib.Path, default=ROOT / "build" / "demo" / "train.txt")
    parser.add_argument("--demo", type=pathlib.Path, default=ROOT / "examples" / "demo")
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.demo / "model" / "tokenizer.json"))
    train = encode(tokenizer, args.train.read_text(encoding="utf-8"))
    test = encode(tokenizer, (args.demo / "evaluation.txt").read_text(encoding="utf-8"))
    vocab = tokenizer.get_vocab_size()
    print(f"vocabulary {vocab}, trigram perplexity {trigram_perplexity(train, test, vocab):.4f}")


if __name__ == "__main__":
    main()
