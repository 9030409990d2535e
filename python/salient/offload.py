"""What scripts import from compressed_tensors.offload."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, TypeVar

from salient._arguments import warn_user

__all__ = ["dispatch_model"]

Model = TypeVar("Model")


def dispatch_model(
    model: Model,
    device_memory: Mapping[Any, int] | None = None,
    extra_memory: int | None = None,
    no_split_modules: Container[str] | None = None,
) -> Model:
    """The model itself, ready to generate: it stays where it is, and its weights are read when they are needed.

    A UserWarning for device_memory; extra_memory and no_split_modules have nothing to bound or to keep together.
    """
    del extra_memory, no_split_modules
    if device_memory is not None:
        warn_user(f"dispatch_model: device_memory={device_memory!r} has no effect: all of a model runs on one device")
    return model
