"""Where calibration data comes from: files, data sets of the hub by name, objects of the `datasets` package."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from ._hub import cause_of, is_repository_id

_INSTEAD = "pass a text file (.txt, .jsonl), a list of texts or a list of lists of token ids instead"
_FILES_OF_DATASETS = {".json": "json", ".csv": "csv"}
_STREAM_BUFFER = 10_000  # rows of a stream among which a shuffle draws

Row = Mapping[str, Any]


@dataclass(frozen=True)
class KnownDataset:
    """A data set that the incumbents know by a short name."""

    repository: str
    config: str | None = None
    split: str | None = None
    template: Callable[[Row], str] | None = None  # writes the text of a row
    streams: bool = False  # too large to be fetched whole


def _platypus(row: Row) -> str:
    task, context = row["instruction"], row.get("input") or ""
    head = "Below is an instruction that describes a task"
    tail = "Write a response that appropriately completes the request."
    if context:
        prompt = (
            f"{head}, paired with an input that provides further context. {tail}\n\n### Instruction:\n{task}\n\n"
            f"### Input:\n{context}\n\n### Response:\n"
        )
    else:
        prompt = f"{head}. {tail}\n\n### Instruction:\n{task}\n\n### Response:\n"
    return prompt + (row.get("output") or "")


def _gsm8k(row: Row) -> str:
    return f"Question: {row['question']}\nAnswer:" + (f" {row['answer']}" if row.get("answer") else "")


def _cnn_dailymail(row: Row) -> str:
    return f"Article:\n{row['article']}\n\n### Summarization:\n{row['highlights']}\n"


_KNOWN = {
    "pileval": KnownDataset("mit-han-lab/pile-val-backup", split="validation"),
    "wikitext": KnownDataset("Salesforce/wikitext", config="wikitext-2-raw-v1"),
    "c4": KnownDataset("allenai/c4", config="en", streams=True),
    "open_platypus": KnownDataset("garage-bAInd/Open-Platypus", template=_platypus),
    "gsm8k": KnownDataset("openai/gsm8k", config="main", template=_gsm8k),
    "cnn_dailymail": KnownDataset("abisee/cnn_dailymail", config="3.0.0", template=_cnn_dailymail),
}
_CHATS = {
    "ultrachat_200k": "HuggingFaceH4/ultrachat_200k",
    "ultrachat": "HuggingFaceH4/ultrachat_200k",
    "perfectblend": "mlabonne/open-perfectblend",
}


@dataclass(frozen=True)
class Source:
    """Rows (texts, lists of ids, or mappings), and how messages name where they come from."""

    rows: Any
    name: str
    template: Callable[[Row], str] | None = None
    joined: bool = False  # one long text, to be cut into windows
    options: dict[str, Any] = field(default_factory=dict)


def open_name(
    name: str | os.PathLike[str],
    *,
    split: str | None = None,
    config_name: str | None = None,
    streaming: bool | None = None,
    **options: Any,
) -> Source:
    """A file or directory, one of the short names, or an id of the hub; ``options`` go to datasets.load_dataset.

    Errors: FileNotFoundError when there is neither, saying what was tried and what to pass instead; ValueError when
    `datasets` refuses the configuration or the split; NotImplementedError for chats.
    """
    path = os.fspath(name)
    if os.path.exists(path):
        return _open_path(path, split)
    short = path.lower().replace("-", "_")
    if short in _CHATS or path in _CHATS.values():
        raise NotImplementedError(
            f'calibration data "{path}": conversations need a chat template, and chat templates follow in a later '
            "version; write them out as texts, for example with the tokenizer of transformers, and pass those"
        )
    if isinstance(name, os.PathLike) or (short not in _KNOWN and _looks_like_file(path)):
        raise FileNotFoundError(f'calibration data "{path}": there is no such file; {_INSTEAD}')
    known = _KNOWN.get(short) or _by_repository(path)
    split = split or known.split
    if streaming is None:
        streaming = known.streams and "[" not in (split or "")
    arguments = {"name": config_name or known.config, "split": split, "streaming": streaming, **options}
    rows = _load(path, known.repository, {key: value for key, value in arguments.items() if value is not None})
    return Source(pick_split(rows, split, path), f'calibration data "{path}"', known.template)


def _by_repository(path: str) -> KnownDataset:
    for known in _KNOWN.values():
        if known.repository == path:
            return KnownDataset(path, config=known.config, template=known.template, streams=known.streams)
    return KnownDataset(path)


def _looks_like_file(path: str) -> bool:
    suffix = os.path.splitext(path)[1].lower()
    return not is_repository_id(path) or suffix in (".txt", ".jsonl", ".parquet", *_FILES_OF_DATASETS)


def _open_path(path: str, split: str | None) -> Source:
    name = f"calibration data {path}"
    suffix = os.path.splitext(path)[1].lower()
    if os.path.isdir(path):
        rows = _load(path, path, {"split": split} if split else {}, from_disk=_is_saved_dataset(path))
        return Source(pick_split(rows, split, path), name)
    if suffix in _FILES_OF_DATASETS:
        return Source(_load(path, _FILES_OF_DATASETS[suffix], {"data_files": path, "split": "train"}), name)
    if suffix == ".parquet":
        return Source(_read_parquet(path), name)
    if suffix == ".jsonl":
        return Source(_read_lines(path), name)
    return Source([_read_text(path)], name, joined=True)


def _is_saved_dataset(path: str) -> bool:
    return any(os.path.isfile(os.path.join(path, file)) for file in ("state.json", "dataset_dict.json"))


def _read_text(path: str) -> str:
    with open(path, "rb") as file:
        content = file.read()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is no UTF-8 text") from None


def _read_lines(path: str) -> list[Any]:
    """The values of a .jsonl file. Errors: ValueError naming the line."""
    rows = []
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}: line {number}: {error}") from None
    return rows


class _Table:
    """Rows of a table of pyarrow, made one by one when they are asked for."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self.column_names: list[str] = list(table.column_names)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return {name: self._table.column(name)[index].as_py() for name in self.column_names}


def _read_parquet(path: str) -> _Table:
    """Errors: NotImplementedError without pyarrow; ValueError for a file that is no parquet."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise NotImplementedError(
            f"{path}: to read .parquet the package pyarrow must be installed (pip install pyarrow); or {_INSTEAD}"
        ) from error
    try:
        return _Table(parquet.read_table(path))
    except ArrowException as error:
        raise ValueError(f"{path}: {error}") from error


def _load(name: str, repository: str, arguments: dict[str, Any], *, from_disk: bool = False) -> Any:
    datasets = _import_datasets(name, repository)
    try:
        if from_disk:
            return datasets.load_from_disk(repository)
        return datasets.load_dataset(repository, **arguments)
    except ValueError as error:
        raise ValueError(f'calibration data "{name}": {cause_of(error)}') from error
    except Exception as error:
        raise FileNotFoundError(
            f'calibration data "{name}": there is no such file, and datasets could not load {repository} '
            f"({cause_of(error)}); {_INSTEAD}"
        ) from error


def _import_datasets(name: str, repository: str) -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise FileNotFoundError(
            f'calibration data "{name}": to load {repository} the package datasets must be installed (pip install '
            f"datasets); or {_INSTEAD}"
        ) from error
    module: ModuleType = datasets
    return module


def is_dataset_dict(data: Any) -> bool:
    """Whether this is a DatasetDict: splits by name, each with columns."""
    return isinstance(data, dict) and bool(data) and all(hasattr(part, "column_names") for part in data.values())


def pick_split(data: Any, split: str | None, name: str) -> Any:
    """The rows of a split of a DatasetDict, "train" or "train[:64]"; anything else is given back as it is.

    Without ``split`` it is "train", or the only one. Errors: ValueError with the splits that there are.
    """
    if not is_dataset_dict(data):
        return data
    there = ", ".join(map(str, data))
    if split is None:
        split = "train" if "train" in data or len(data) > 1 else next(iter(data))
    base, _, part = split.partition("[")
    if base not in data:
        raise ValueError(f'calibration data "{name}": there is no split {base!r}, only: {there}')
    return data[base] if not part else _slice(data[base], split, name)


def _slice(dataset: Any, split: str, name: str) -> Any:
    import datasets

    base = split.partition("[")[0]
    if not hasattr(dataset, "__len__"):
        raise ValueError(f'calibration data "{name}": split {split!r}: a stream has no parts, only {base!r}')
    try:
        parts = datasets.ReadInstruction.from_spec(split).to_absolute({base: len(dataset)})
    except (ValueError, AssertionError) as error:
        raise ValueError(f'calibration data "{name}": split {split!r}: {error}') from error
    indices = [i for part in parts for i in range(part.from_ or 0, len(dataset) if part.to is None else part.to)]
    return dataset.select(indices)


def shuffled(rows: Any, seed: int) -> Any:
    """The rows of a data set in another order, as its own ``shuffle`` makes it; a stream draws from a buffer."""
    if hasattr(rows, "__len__"):
        return rows.shuffle(seed=seed)
    return rows.shuffle(seed=seed, buffer_size=_STREAM_BUFFER)
