"""Recipes as text: what users pass as a recipe, as the JSON or YAML that the reader of recipe files takes."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from salient._values import shorten

_OF_OBJECTS = "recipe.json"
_OF_TEXT = "recipe"

# What llm-compressor's modifiers carry along for its training loop.
_BOOKKEEPING = {"index", "group", "start", "end", "update", "initialized_", "finalized_", "started_", "ended_"}


def recipe_text(recipe: object, stage: str | None = None) -> tuple[str, str]:
    """The text of a recipe and the name that stands before what is wrong with it (JSON if it ends in ".json").

    recipe: a modifier or a list of them (of Salient or of llm-compressor, also as dicts {"AWQModifier": {...}}), a
    document as dict, YAML or JSON as text, or the path of a .yaml, .json or .md file (its front matter). stage: only
    the stages of a document whose names begin so. ValueError: nothing of that kind, or no such stage.
    """
    if isinstance(recipe, (str, os.PathLike)):
        text, source = _read(recipe)
        return (_stage_of_text(text, source, stage), source) if stage else (text, source)
    document = _document(recipe)
    return json_text(_stage_of(document, stage) if stage else document), _OF_OBJECTS


def json_text(value: object) -> str:
    """JSON of objects of a recipe: keys that are None are left out, enums and dtypes are their words."""
    return json.dumps(plain_tree(value))


def plain_tree(value: object) -> Any:
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return _plain_members(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain_tree(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    return _plain_object(value)


def _plain_members(value: Mapping[Any, Any]) -> dict[str, Any]:
    members = ((str(plain_tree(key)), plain_tree(item)) for key, item in value.items())
    return {key: item for key, item in members if item is not None}


def _plain_object(value: object) -> Any:
    if type(value).__name__ == "Sentinel":  # llm-compressor's word for "not given"
        return None
    if hasattr(value, "model_dump"):
        return plain_tree(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain_tree({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if hasattr(value, "item") and not hasattr(value, "__len__"):  # numbers of NumPy
        return value.item()
    return str(value)


# ---- objects


def _document(recipe: object) -> Any:
    if isinstance(recipe, Mapping):
        return dict(recipe)
    modifiers = _without_empty(list(_named(recipe)))
    if not modifiers:
        raise ValueError("recipe: has no modifier; it is a list of an AWQModifier and a QuantizationModifier")
    if any("salient" in modifier for modifier in modifiers):
        return _merged(modifiers)
    return modifiers


def _without_empty(modifiers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """llm-compressor's older AWQModifier brings a QuantizationModifier along that says nothing when another does."""
    quantizing = [modifier for modifier in modifiers if "QuantizationModifier" in modifier]
    empty = [modifier for modifier in quantizing if not _says_something(modifier["QuantizationModifier"])]
    return [modifier for modifier in modifiers if len(empty) == len(quantizing) or modifier not in empty]


def _says_something(quantization: Any) -> bool:
    fields = quantization if isinstance(quantization, Mapping) else vars(quantization)
    return any(fields.get(key) for key in ("scheme", "config_groups", "ignore", "kv_cache_scheme", "observer"))


def _merged(modifiers: list[dict[str, Any]]) -> dict[str, Any]:
    """One document, which is where a section "salient" can stand."""
    names = [name for modifier in modifiers for name in modifier]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"recipe: {twice} stands twice; a recipe has one")
    return {name: value for modifier in modifiers for name, value in modifier.items()}


def _named(recipe: object) -> Iterator[dict[str, Any]]:
    """Modifiers as {name: fields}; lists may be nested, as llm-compressor's own older AWQModifier is one."""
    if isinstance(recipe, (list, tuple)):
        for part in recipe:
            yield from _named(part)
    elif isinstance(recipe, Mapping):
        yield dict(recipe)
    elif isinstance(getattr(recipe, "modifiers", None), list):
        yield from _named(recipe.modifiers)  # type: ignore[attr-defined]
    elif hasattr(recipe, "model_dump"):
        yield {type(recipe).__name__: _fields_of(recipe.model_dump())}
    else:
        raise ValueError(f"recipe: {shorten(recipe)} is no modifier; AWQModifier and QuantizationModifier are")


def _fields_of(dumped: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in dumped.items() if value is not None and key not in _BOOKKEEPING}


# ---- text and files


def _read(recipe: str | os.PathLike[str]) -> tuple[str, str]:
    if isinstance(recipe, str) and ("\n" in recipe or not _is_path(recipe)):
        return recipe, _OF_OBJECTS if recipe.lstrip().startswith(("{", "[")) else _OF_TEXT
    path = Path(recipe)
    text = path.read_text(encoding="utf-8")
    return (_front_matter(text, str(path)) if path.suffix.lower() == ".md" else text), str(path)


def _is_path(text: str) -> bool:
    """One line of YAML has a colon behind a key; a name that looks like a file is one even where none is."""
    return os.path.isfile(text) or (text.lower().endswith((".yaml", ".yml", ".json", ".md")) and ": " not in text)


def _front_matter(text: str, source: str) -> str:
    found = re.search(r"^\s*(?:---|\+\+\+)\s*\n(.*?)^(?:---|\+\+\+)\s*$", text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError(f"{source}: has no front matter between --- lines, where a card has its recipe")
    return found.group(1)


# ---- stages


def _stage_of(document: Any, stage: str) -> Any:
    if not isinstance(document, dict):
        raise ValueError(f"stage: {stage!r}, but the recipe is a list of modifiers, which has no stages")
    kept = {name: value for name, value in document.items() if _belongs(name, stage)}
    _check_stage(kept, document, stage)
    return kept


def _belongs(name: str, stage: str) -> bool:
    return name.startswith(stage) or name == "salient"


def _check_stage(kept: Any, names: Any, stage: str) -> None:
    if not any(name != "salient" for name in kept):
        raise ValueError(f"stage: {stage!r} is none of the recipe's, which are {', '.join(names)}")


def _stage_of_text(text: str, source: str, stage: str) -> str:
    """The lines of a YAML document below the keys of the stage; a document in JSON is read whole."""
    if source.endswith(".json") or text.lstrip().startswith(("{", "[")):
        return json.dumps(_stage_of(json.loads(text), stage))
    parts = re.split(r"^(?=[^\s#-])", text, flags=re.MULTILINE)
    named = {part.partition(":")[0].strip("'\" \t"): part for part in parts if not re.match(r"\s*(#|-|$)", part)}
    kept = {name: part for name, part in named.items() if _belongs(name, stage)}
    _check_stage(kept, named, stage)
    return "".join(kept.values())
