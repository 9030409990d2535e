"""AutoAWQ's helpers that scripts call."""

from __future__ import annotations

import gc

from salient._devices import first_device


def get_best_device() -> str:
    """The device that models run on: "cuda:0" where there is a GPU that works, else "cpu"."""
    return first_device()


def clear_memory(weight: object = None) -> None:
    """Collects what nobody refers to any more; `weight` is among it only when the caller drops it too."""
    del weight
    gc.collect()
