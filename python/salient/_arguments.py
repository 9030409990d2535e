"""What all functions with keywords of other packages say about them: nearest names, warnings."""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Iterable
from typing import Final

__all__ = ["nearest_name", "reject_unknown", "unknown_argument", "warn_user"]

_FEW: Final = 12
_PACKAGE = os.path.join(os.path.dirname(__file__), "")


def warn_user(text: str) -> None:
    """A UserWarning at the line that called into Salient."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, UserWarning, stacklevel=level)


def nearest_name(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'n_grid'?"; of few names all when none is near."""
    names = list(known)
    close = difflib.get_close_matches(name, names, 1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(names)}" if len(names) <= _FEW else ""


def unknown_argument(where: str, name: str, known: Iterable[str]) -> TypeError:
    """The error for an argument that `where` does not have."""
    return TypeError(f"{where}: unknown argument {name!r}{nearest_name(name, known)}")


def reject_unknown(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raises `unknown_argument` for the first name in `given` that is not known."""
    names = list(known)
    for name in given:
        if name not in names:
            raise unknown_argument(where, name, names)
