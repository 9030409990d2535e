"""What the classes that users fill in with keywords have in common: nearest names, repr, model_dump."""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Any, TypeVar

from salient._arguments import reject_unknown

T = TypeVar("T")


class Fields:
    """Base of dataclasses with keywords. Their values are plain: enums are kept as their strings."""

    def __new__(cls: type[T], *args: object, **keywords: object) -> T:
        reject_unknown(cls.__name__, keywords, field_names(cls))
        return object.__new__(cls)

    def __repr__(self) -> str:
        said = (f"{field.name}={getattr(self, field.name)!r}" for field in self._said())
        return f"{type(self).__name__}({', '.join(said)})"

    def model_dump(self, *, exclude_none: bool = False, exclude_defaults: bool = False) -> dict[str, Any]:
        """The fields as plain dicts, lists and values; without those that are None or as they were on request."""
        fields = self._said() if exclude_defaults else _fields(type(self))
        values = {field.name: getattr(self, field.name) for field in fields}
        options = {"exclude_none": exclude_none, "exclude_defaults": exclude_defaults}
        return {key: _dumped(value, options) for key, value in values.items() if not (exclude_none and value is None)}

    def _said(self) -> list[dataclasses.Field[Any]]:
        """The fields that differ from their defaults."""
        return [field for field in _fields(type(self)) if getattr(self, field.name) != _default(field)]


def field_names(cls: type) -> list[str]:
    return [field.name for field in _fields(cls)]


def _fields(cls: type) -> list[dataclasses.Field[Any]]:
    return list(dataclasses.fields(cls))


def plain(value: object) -> object:
    """The string of an enum, anything else as it is."""
    return value.value if isinstance(value, Enum) else value


def _default(field: dataclasses.Field[Any]) -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _dumped(value: object, options: dict[str, bool]) -> object:
    if isinstance(value, Fields):
        return value.model_dump(**options)
    if isinstance(value, dict):
        return {key: _dumped(item, options) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_dumped(item, options) for item in value]
    return value
