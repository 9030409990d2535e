"""What a run of oneshot keeps beside the weights: the caller's tokenizer and a log."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from salient._arguments import warn_user
from salient._files import Scratch
from salient._oneshot_data import has_tokenizer, tokenizer_of
from salient.model import CausalLM
from salient.tokenizer import as_tokenizer

__all__ = ["open_log", "stored_tokenizer"]


@contextmanager
def stored_tokenizer(given: Mapping[str, Any], handle: CausalLM) -> Iterator[str | None]:
    """A directory with the files of the caller's tokenizer, for a model that has none; written before the work, so that
    what fails of it does not take the result along."""
    tokenizer = tokenizer_of(given)
    if tokenizer is None or has_tokenizer(handle.directory):
        yield None
        return
    tokenizer = as_tokenizer(tokenizer, handle.directory)
    if not hasattr(tokenizer, "save_pretrained"):
        yield None
        return
    scratch = Scratch()
    try:
        tokenizer.save_pretrained(scratch.path)
        yield scratch.path
    finally:
        scratch.remove()


@contextmanager
def open_log(log_dir: str | os.PathLike[str] | None, recipe: str) -> Iterator[Callable[[str], None]]:
    """A function that ends a new log file in `log_dir`, which begins with the recipe; without a directory one that does
    nothing. A run that fails leaves no log.

    Errors: ValueError for a file in the directory's place; OSError.
    """
    if log_dir is None:
        yield lambda text: None
        return
    directory = Path(log_dir)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"oneshot: log_dir={os.fspath(log_dir)!r} is a file; a directory is expected")
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / time.strftime("oneshot_%Y-%m-%d_%H-%M-%S.log")
    try:
        path.write_text(f"{recipe}\n", encoding="utf-8")
        yield lambda text: _append(path, f"\n{text}\n")
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _append(path: Path, text: str) -> None:
    """The model is there by now: what goes wrong with its log is only told."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        warn_user(f"oneshot: the log {path} is incomplete: {error}")
