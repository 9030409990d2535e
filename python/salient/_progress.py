"""Progress bars: tqdm's where it is installed (in notebooks its widget), else a line of our own."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

__all__ = ["Bar", "progress"]


class Bar(Protocol):
    """What shows how much is done."""

    def update(self, done: int) -> None:
        """`done`: of the total, so far."""


class _TqdmBar:
    def __init__(self, total: int, label: str, unit: str) -> None:
        from tqdm.auto import tqdm

        self._bar = tqdm(total=total, desc=label, unit=unit)

    def update(self, done: int) -> None:
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self._bar.close()


class _PlainBar:
    """A line that is rewritten on a terminal, and a line for each tenth elsewhere."""

    def __init__(self, total: int, label: str, unit: str, stream: TextIO | None = None) -> None:
        self._total, self._label, self._unit = total, label, unit
        self._stream = sys.stderr if stream is None else stream
        self._rewrites = self._stream.isatty()
        self._start = time.monotonic()
        self._tenths = 0

    def update(self, done: int) -> None:
        tenths = 10 * done // max(1, self._total)
        if self._rewrites:
            self._stream.write(f"\r\x1b[K{self._text(done)}")
        elif tenths > self._tenths:
            self._stream.write(f"{self._text(done)}\n")
        self._tenths = tenths
        self._stream.flush()

    def close(self) -> None:
        if self._rewrites:
            self._stream.write("\n")
            self._stream.flush()

    def _text(self, done: int) -> str:
        elapsed = time.monotonic() - self._start
        left = elapsed / done * (self._total - done) if done else 0.0
        filled = 20 * done // max(1, self._total)
        bar = "#" * filled + " " * (20 - filled)
        return f"{self._label}: [{bar}] {done}/{self._total} {self._unit}s, {elapsed:.0f} s elapsed, {left:.0f} s left"


@contextmanager
def progress(total: int, label: str, *, unit: str = "step") -> Iterator[Bar]:
    """A bar that is open inside the `with`: ``bar.update(done)``."""
    kind = _TqdmBar if importlib.util.find_spec("tqdm") is not None else _PlainBar
    bar = kind(total, label, unit)
    try:
        yield bar
    finally:
        bar.close()
