"""Which modules a checkpoint holds."""

from __future__ import annotations

from collections.abc import Iterable

from salient import _core


def parts_present(directory: str, parts: Iterable[str]) -> list[str]:
    """Those of `parts` that are whole words of the name of a module in the checkpoint."""
    names = [f".{name}." for name in _core.tensor_names(directory)]
    return [part for part in parts if any(f".{part}." in name for name in names)]
