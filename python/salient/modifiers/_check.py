"""Objects of a recipe are checked when they are made, by the reader of recipe files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from salient import _core
from salient.modifiers._text import json_text

if TYPE_CHECKING:
    from salient.modifiers._fields import Fields

# What stands in for the modifier that is not there yet.
_SOME_QUANTIZATION = {"QuantizationModifier": {"scheme": "W4A16_ASYM"}}
_SOME_AWQ = {"AWQModifier": {"bits": 4}}
_FRAMES = {
    "QuantizationArgs": ": QuantizationModifier: config_groups: group_0: weights",
    "QuantizationScheme": ": QuantizationModifier: config_groups: group_0",
    "AWQModifier": ": AWQModifier",
    "QuantizationModifier": ": QuantizationModifier",
}
_SAYS_HOW = ("scheme", "config_groups", "bits", "symmetric", "group_size")


def check_args(args: Fields) -> None:
    _check("QuantizationArgs", [_group({"targets": ["Linear"], "weights": args})])


def check_group(scheme: Fields) -> None:
    _check("QuantizationScheme", [_group(scheme)])


def check_awq(modifier: Fields, fields: dict[str, Any]) -> None:
    complete = any(fields.get(key) is not None for key in (*_SAYS_HOW, "ignore", "targets"))
    _check("AWQModifier", [{"AWQModifier": modifier}, *([] if complete else [_SOME_QUANTIZATION])])


def check_quantization(modifier: Fields, fields: dict[str, Any]) -> None:
    complete = any(fields.get(key) is not None for key in _SAYS_HOW)
    _check("QuantizationModifier", [*([] if complete else [_SOME_AWQ]), {"QuantizationModifier": modifier}])


def _group(scheme: object) -> dict[str, Any]:
    return {"QuantizationModifier": {"config_groups": {"group_0": scheme}}}


def _check(name: str, document: list[dict[str, Any]]) -> None:
    source = f"{name}.json"
    try:
        _core.read_recipe(json_text(document), source)
    except (ValueError, NotImplementedError) as error:
        raise type(error)(_without_frame(str(error), name)) from None


def _without_frame(message: str, name: str) -> str:
    """Of the path in front only what the user wrote, not the recipe that was put around the object."""
    return re.sub(rf"{name}\.json(\[\d\])?({_FRAMES[name]}(?=: ))?", name, message, count=1)
