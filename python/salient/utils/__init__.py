"""Where AutoAWQ and LLM Compressor keep their helpers."""

from __future__ import annotations

from typing import Any, TypeVar

from salient.offload import dispatch_model

__all__ = ["dispatch_for_generation"]

Model = TypeVar("Model")


def dispatch_for_generation(model: Model, *args: Any, **kwargs: Any) -> Model:
    """The model itself; see `salient.offload.dispatch_model`, which takes the other arguments."""
    return dispatch_model(model, *args, **kwargs)
