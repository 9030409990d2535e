"""What AWQ's loaders say about fusing: do_fuse, fuse_max_seq_len and modules_to_fuse of AwqConfig."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from salient._arguments import nearest_name
from salient._values import check_positive
from salient.generation import GenerationOptions

_LENGTHS = ("max_new_tokens", "max_length", "generation_config")
_SIZES = ("hidden_size", "num_attention_heads", "num_key_value_heads")


@dataclass(frozen=True)
class SequenceLimit:
    """Tokens of prompt and answer together that `generate` accepts, and the argument that said so."""

    tokens: int
    name: str = "max_seq_len"

    def check(self, prompt: int, new: int) -> None:
        if prompt + new > self.tokens:
            raise ValueError(
                f"generate: {prompt} tokens of the prompt and {new} new ones are more than {self.name} {self.tokens}"
            )

    def fit(self, settings: GenerationOptions, prompt: int, options: Mapping[str, Any]) -> GenerationOptions:
        """For a prompt of so many tokens; new ones that the caller's `options` do not ask for are no more than fit."""
        new = settings.new_tokens(prompt)
        if prompt >= self.tokens or not options.keys().isdisjoint(_LENGTHS):
            self.check(prompt, new)
        return replace(settings, max_new_tokens=min(new, self.tokens - prompt))


def _check_size(where: str, value: object) -> None:
    given: dict[str, Any] = {where: 0 if value is None else value}
    check_positive(**given)


def _check_bool(where: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{where}={value!r} is neither True nor False")


def _check_base(where: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f"{where}={value!r} is no base of angles")


def _names_of(*counts: int) -> Callable[[str, object], None]:
    """A list of names; with `counts` of so many."""

    def check(where: str, value: object) -> None:
        if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) and name for name in value):
            raise ValueError(f"{where}={value!r} is no list of names of modules")
        if counts and len(value) not in counts:
            raise ValueError(f"{where} has {len(value)} names; {' or '.join(map(str, counts))} are expected")

    return check


# transformers needs the first seven; max_seq_len it writes into the mapping itself, rope_theta its fusing reads.
_NEEDED: Mapping[str, Callable[[str, object], None]] = {
    **dict.fromkeys(_SIZES, _check_size),
    "mlp": _names_of(0, 3),  # gate, up, down
    "attention": _names_of(0, 4),  # q, k, v, o
    "layernorm": _names_of(),
    "use_alibi": _check_bool,
}
_KNOWN = {**_NEEDED, "max_seq_len": _check_size, "rope_theta": _check_base}


def check_modules_to_fuse(where: str, modules: object) -> None:
    """Holds a mapping against what transformers makes of one. `where` leads every message.

    Raises:
        ValueError: it is no mapping, a key is missing or not known, or a value cannot be what its key says.
    """
    if not isinstance(modules, Mapping):
        raise ValueError(f"{where}: modules_to_fuse is a {type(modules).__name__}, not a dict")
    for key in modules:
        if key not in _KNOWN:
            raise ValueError(f"{where}: modules_to_fuse has no key {key!r}{nearest_name(str(key), _KNOWN)}")
    missing = [key for key in _NEEDED if key not in modules]
    if missing:
        raise ValueError(f"{where}: modules_to_fuse lacks {', '.join(missing)}")
    for key, value in modules.items():
        _KNOWN[key](f"{where}: modules_to_fuse[{key!r}]", value)


def check_sizes_to_fuse(where: str, modules: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Holds the sizes of a checked mapping against a model's config.json.

    Raises:
        ValueError: one is not the model's.
    """
    text: Mapping[str, Any] = config.get("text_config") or config
    for name in _SIZES:
        have = text.get(name, text.get("num_attention_heads") if name == "num_key_value_heads" else None)
        if have is not None and modules[name] != have:
            raise ValueError(f"{where}: modules_to_fuse says {name}={modules[name]!r}, config.json {have!r}")
