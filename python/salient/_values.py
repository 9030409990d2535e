"""What many functions ask of values: a short form for messages, whole numbers, how many tokens a model takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

__all__ = ["check_positive", "context_length", "shorten", "token_limit"]

_LONGEST: Final = 60  # characters of a value in a message
_NO_LIMIT: Final = 2**31 - 1  # tokenizers without a limit say 1e30
_LENGTH_KEYS: Final = ("n_positions", "max_position_embeddings", "n_ctx")


def shorten(value: object) -> str:
    """The repr of a value, its end left out where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def check_positive(where: str = "", *, least: int = 1, **values: object) -> None:
    """ValueError for the first that is no whole number (of Python or NumPy) of at least `least`; None passes."""
    for name, value in values.items():
        is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if value is not None and not (is_whole and value >= least):  # type: ignore[operator]
            prefix = f"{where}: " if where else ""
            raise ValueError(f"{prefix}{name}={shorten(value)}: a whole number of at least {least} is expected")


def token_limit(tokenizer: object) -> int | None:
    """The tokenizer's model_max_length; None when it states none."""
    limit = getattr(tokenizer, "model_max_length", None)
    return int(limit) if isinstance(limit, (int, float)) and 0 < limit < _NO_LIMIT else None


def context_length(config: Mapping[str, Any], tokenizer: object = None) -> int | None:
    """Tokens of context that a model was made for: what its config.json says, else what its tokenizer says; None when
    neither does."""
    text_config = config.get("text_config") or config
    lengths = (text_config.get(key) for key in _LENGTH_KEYS)
    return next((int(length) for length in lengths if length is not None), token_limit(tokenizer))
