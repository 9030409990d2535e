"""AutoAWQ's helpers that scripts call."""
from __future__ import annotations

import gc


def get_best_device() -> str:
    """The device that models run on: "cpu"."""
    return "cpu"


def clear_memory(weight: object = None) -> None:
    """Collects what nobody refers to any more. `weight` is taken for the sake of callers; it lives as long as they hold it."""
    del weight
    gc.collect()
