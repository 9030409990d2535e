"""Make the demo texts: training, calibration and evaluation, all disjoint.

The text comes from the grammar beside this script and from one seed, so every
run writes the same bytes.  A document is written as the end-of-text token
followed by its text; this is also the form in which the model is trained.
"""

from __future__ import annotations

import argparse
import pathlib
import random

from grammar import document

END_OF_TEXT = "<|endoftext|>"
ROOT = pathlib.Path(__file__).resolve().parents[2]


def split(rng: random.Random, size: int, seen: set[str]) -> list[str]:
    """Documents of about `size` bytes in all, none of which is in `seen`."""
    documents, total = [], 0
    while total < size:
        text = document(rng)
        if text in seen:
            continue
        seen.add(text)
        documents.append(text)
        total += len(text.encode()) + len(END_OF_TEXT) + 1
    return documents


def write(path: pathlib.Path, documents: list[str]) -> None:
    """Write the documents, each behind an end-of-text token."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{END_OF_TEXT}{item}\n" for item in documents)
    path.write_bytes(text.encode())
    print(f"{path}: {len(documents)} documents, {len(text.encode())} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=20240601)
    parser.add_argument("--small-kb", type=int, default=200, help="size of calibration and evaluation text")
    parser.add_argument("--train-mb", type=float, default=30.0, help="size of the training text")
    parser.add_argument("--demo", type=pathlib.Path, default=ROOT / "examples" / "demo")
    parser.add_argument("--train", type=pathlib.Path, default=ROOT / "build" / "demo" / "train.txt")
    args = parser.parse_args()

    rng = random.Random(args.seed)
    seen: set[str] = set()
    write(args.demo / "evaluation.txt", split(rng, args.small_kb * 1000, seen))
    write(args.demo / "calibration.txt", split(rng, args.small_kb * 1000, seen))
    write(args.train, split(rng, int(args.train_mb * 1e6), seen))


if __name__ == "__main__":
    main()
