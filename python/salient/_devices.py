"""Where a model runs: what names of devices and of kernels, as other packages have them, come to here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from salient import _core
from salient._arguments import warn_user

__all__ = ["device_of", "first_device", "full_name", "has_gpu", "is_accelerator", "runs_on_gpu"]

_PLACEMENTS: Final = ("auto", "balanced", "balanced_low_0", "sequential", "cpu", "disk")
_ACCELERATORS: Final = ("cuda", "mps", "xpu", "npu", "hpu")


@cache
def _why_no_gpu() -> str:
    return _core.why_no_gpu()


def has_gpu() -> bool:
    """Whether there is one that can run models."""
    return not _why_no_gpu()


def first_device() -> str:
    """That of "auto"."""
    return "cuda:0" if has_gpu() else "cpu"


def runs_on_gpu(device: str) -> bool:
    """Whether a model does that is loaded with `device`."""
    return device != "cpu" and has_gpu()


def is_accelerator(device: str) -> bool:
    """Whether it names one: "cuda:0", "0"."""
    return device.isdigit() or device.startswith(_ACCELERATORS)


def full_name(device: str) -> str:
    """ "cuda:1" of "1"; the first GPU of "cuda" and of "auto"."""
    if device.isdigit():
        return f"cuda:{device}"
    return "cuda:0" if device in ("auto", "cuda") else device


def device_of(where: str, device_map: Any) -> str:
    """What `salient.load` calls the device that a device_map names, the first one of a mapping with several; a warning
    where an accelerator is named that does not run it.

    Errors: ValueError for a word that is no device and no way to place a model.
    """
    places = device_map.values() if isinstance(device_map, Mapping) else [device_map]
    names = [str(place).lower() for place in places if place is not None]
    for name in names:
        if name not in _PLACEMENTS and not is_accelerator(name):
            raise ValueError(f"{where}: device {name!r} is not known, nor one of {', '.join(_PLACEMENTS)}")
    accelerators = [name for name in names if is_accelerator(name)]
    chosen = next((full_name(name) for name in accelerators if has_gpu() and full_name(name).startswith("cuda")), None)
    unused = next((name for name in accelerators if full_name(name) != chosen), None)
    if unused is not None:
        warn_user(f"{where}: device {unused} is not used: {_why_not(chosen)}")
    if chosen is not None:
        return chosen
    return "cpu" if names and set(names) <= {"cpu", "disk"} else "auto"


def _why_not(chosen: str | None) -> str:
    if chosen is not None:
        return f"all of a model runs on one device, {chosen}"
    return f"{first_device()} computes" + ("" if has_gpu() else f", there is no GPU: {_why_no_gpu()}")
