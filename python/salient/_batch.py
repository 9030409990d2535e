"""What a tokenizer returns: dicts of ids, as lists, NumPy arrays, torch tensors, or arrays that take their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ._values import shorten


class _Size(int):
    """An element count that can also be called, as ``tensor.size()`` and ``tensor.size(dim)`` are."""

    _shape: tuple[int, ...]

    def __new__(cls, count: int, shape: tuple[int, ...]) -> _Size:
        size = super().__new__(cls, count)
        size._shape = shape
        return size

    def __call__(self, dim: int | None = None) -> Any:
        return self._shape if dim is None else self._shape[dim]


class Array(np.ndarray[Any, np.dtype[Any]]):
    """A NumPy array of ids with the methods of a torch tensor that scripts call on ids.

    Ids lie in the host's memory and are read there, whichever device computes: ``to``, ``cuda`` and ``cpu`` give the
    array itself.
    """

    @property
    def device(self) -> Literal["cpu"]:
        return "cpu"

    @property
    def size(self) -> _Size:
        return _Size(int(np.prod(self.shape, dtype=np.int64)), self.shape)

    def to(self, *_: object, **__: object) -> Array:
        return self

    def cuda(self, *_: object, **__: object) -> Array:
        return self

    def cpu(self, *_: object, **__: object) -> Array:
        return self

    def detach(self) -> Array:
        return self

    def numpy(self) -> npt.NDArray[Any]:
        """The same memory as a plain NumPy array."""
        return self.view(np.ndarray)

    def dim(self) -> int:
        return self.ndim

    def numel(self) -> int:
        return int(self.size)

    def unsqueeze(self, dim: int) -> Array:
        return np.expand_dims(self, dim).view(Array)


class BatchEncoding(dict[str, Any]):
    """Encoded texts: ``input_ids`` and ``attention_mask``, each [batch, tokens] or, for one text as lists, [tokens].

    A dict that also gives its values as attributes; a slice gives every value's part of it.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"BatchEncoding has no {name!r}, only {', '.join(self)}") from None

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return {name: value[key] for name, value in self.items()}
        return super().__getitem__(key)

    def to(self, device: Any, *, non_blocking: bool = False) -> BatchEncoding:
        """Moves torch tensors to ``device``, unless that is CUDA and torch has none: Salient reads ids on the host.
        Arrays stay as they are. Gives the encoding itself."""
        if self._torch_has(device):
            for name, value in self.items():
                if callable(getattr(value, "to", None)):
                    self[name] = value.to(device, non_blocking=non_blocking)
        return self

    @staticmethod
    def _torch_has(device: Any) -> bool:
        if not (isinstance(device, int) or str(device).startswith("cuda")):
            return True
        torch = import_torch()
        return torch is not None and bool(torch.cuda.is_available())


def import_torch() -> Any:
    """The module, or None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch


def to_tensors(encoding: BatchEncoding, return_tensors: Any) -> BatchEncoding:
    """Lists into what ``return_tensors`` names: None (lists), "np" or "pt".

    Errors: NotImplementedError for tensors of other libraries; ValueError for rows of different lengths.
    """
    kind = getattr(return_tensors, "value", return_tensors)
    if kind is None:
        return encoding
    if kind in ("tf", "jax", "flax", "mlx"):
        raise NotImplementedError(f'return_tensors="{kind}": only "np" and "pt" are there; convert what "np" gives')
    if kind not in ("np", "pt"):
        raise ValueError(f'return_tensors={kind!r}: one of None (lists), "np" and "pt" is expected')
    return BatchEncoding((name, _tensor(name, rows, kind)) for name, rows in encoding.items())


def _tensor(name: str, rows: Sequence[Any], kind: str) -> Any:
    lengths = {len(row) for row in rows if isinstance(row, (list, tuple))}
    if len(lengths) > 1:
        raise ValueError(
            f"{name}: rows of {min(lengths)} to {max(lengths)} tokens make no tensor: pass padding=True, and "
            "truncation=True where max_length is to hold"
        )
    array = np.asarray(rows, dtype=np.int64)
    if kind == "np":
        return array
    torch = import_torch()
    return array.view(Array) if torch is None else torch.from_numpy(array)


def to_ids(ids: Any, what: str = "ids") -> Any:
    """Ids of any kind (number, list, array, tensor, an encoding) as an int or as lists of int.

    Errors: TypeError for what holds other things than whole numbers.
    """
    if isinstance(ids, dict):
        ids = ids["input_ids"]
    if isinstance(ids, (str, bytes, bytearray)):
        raise TypeError(f"{what}: whole numbers are expected, not the text {shorten(ids)}")
    if callable(getattr(ids, "tolist", None)):
        ids = ids.tolist()
    if isinstance(ids, list) and set(map(type, ids)) <= {int}:
        return ids
    if isinstance(ids, (bool, float)) or ids is None:
        raise TypeError(f"{what}: whole numbers are expected, not {ids!r}")
    if isinstance(ids, int):
        return ids
    try:
        return [to_ids(item, what) for item in ids]
    except TypeError:
        if hasattr(ids, "__iter__"):
            raise
        raise TypeError(f"{what}: whole numbers are expected, not {shorten(ids)}") from None
