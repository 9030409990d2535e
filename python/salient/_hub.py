"""Ids of the Hugging Face hub: directories behind them, and uploads. huggingface_hub is needed only for ids."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from ._arguments import reject_unknown

CONFIGURATION_FILES = ("*.json", "*.jinja", "*.txt", "tokenizer.model")
MODEL_FILES = (*CONFIGURATION_FILES, "*.safetensors")

DOWNLOAD_OPTIONS = frozenset({"revision", "cache_dir", "token", "local_files_only", "force_download"})
PUSH_OPTIONS = frozenset({"token", "private", "commit_message", "commit_description", "revision", "create_pr"})
# Of the push_to_hub of transformers, and without effect here.
_PUSH_WITHOUT_EFFECT = frozenset({"use_temp_dir", "safe_serialization", "max_shard_size"})

_REPOSITORY_ID = re.compile(r"(?:\w[\w.-]*/)?\w[\w.-]*")


def find_model(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    weights: bool = True,
) -> str:
    """The local directory of a model.

    A directory is returned as it is named; anything else is looked up as an id of the hub, "owner/name", of which the
    safetensors, JSON and tokenizer files are fetched (without ``weights`` only the latter two).

    Errors: FileNotFoundError when there is neither, in a sentence with the cause; ValueError for a file.
    """
    path = os.fspath(model)
    if os.path.isdir(path):
        return path
    if os.path.exists(path):
        raise ValueError(f"{path} is a file: a model is the directory that holds its config.json")
    if isinstance(model, os.PathLike) or not is_repository_id(path):
        raise FileNotFoundError(f"{path}: there is no such directory{_nearest_parent(path)}")
    hub = _import_hub(f"{path}: there is no such directory, and to fetch it from the Hugging Face hub")
    try:
        return str(
            hub.snapshot_download(
                path,
                revision=revision,
                cache_dir=cache_dir,
                token=token,
                local_files_only=local_files_only,
                force_download=force_download,
                allow_patterns=list(MODEL_FILES if weights else CONFIGURATION_FILES),
            )
        )
    except Exception as error:
        raise FileNotFoundError(
            f"{path}: there is no such directory, and the Hugging Face hub did not give it: {cause_of(error)}"
        ) from error


def push(
    directory: str | os.PathLike[str],
    repo_id: str,
    *,
    token: str | bool | None = None,
    private: bool | None = None,
    commit_message: str = "Upload with salient",
    commit_description: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    allow_patterns: Sequence[str] | None = None,
) -> str:
    """Uploads the files of ``directory`` to the repository ``repo_id``, made if there is none; gives the address of
    the commit.

    Errors: NotImplementedError without huggingface_hub; FileNotFoundError when there is no such directory; OSError
    when the hub refuses or cannot be reached.
    """
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"{os.fspath(directory)}: there is no such directory to upload to {repo_id}")
    hub = _import_hub(f"{repo_id}: to upload to the Hugging Face hub", NotImplementedError)
    try:
        api = hub.HfApi(token=token)
        repository = api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository.repo_id,
            folder_path=os.fspath(directory),
            commit_message=commit_message,
            commit_description=commit_description,
            revision=revision,
            create_pr=create_pr,
            allow_patterns=None if allow_patterns is None else list(allow_patterns),
        )
    except Exception as error:
        raise OSError(f"{repo_id}: the Hugging Face hub did not take the upload: {cause_of(error)}") from error
    return str(getattr(commit, "commit_url", commit))


def push_options(where: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``push`` among the arguments of somebody's push_to_hub, to be called before there is anything to upload.

    Errors: NotImplementedError for tags of a model card; TypeError for unknown arguments.
    """
    if options.get("tags"):
        raise NotImplementedError(f"{where}: tags={options['tags']!r}: no model card is written")
    reject_unknown(where, options, PUSH_OPTIONS | _PUSH_WITHOUT_EFFECT | {"tags"})
    return {name: value for name, value in options.items() if name in PUSH_OPTIONS}


def is_repository_id(name: str) -> bool:
    """Whether the hub could know a name: "name" or "owner/name", unlike "./name", "/a/name" and "a/b/name"."""
    return len(name) <= 96 and _REPOSITORY_ID.fullmatch(name) is not None and "--" not in name and ".." not in name


def cause_of(error: BaseException) -> str:
    """An exception in one line: its class, the first line of its text, and where it began if that is elsewhere."""
    summary = _summary(error)
    root = error
    while (earlier := root.__cause__ or root.__context__) is not None:
        root = earlier
    return summary if root is error else f"{summary} ({_summary(root)})"


def _summary(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def _nearest_parent(path: str) -> str:
    """What exists of a path, so that a mistyped part is seen."""
    parent = os.path.dirname(os.path.abspath(path))
    while not os.path.isdir(parent):
        parent = os.path.dirname(parent)
    return f" ({parent} exists, but holds no {os.path.relpath(os.path.abspath(path), parent)!r})"


def _import_hub(purpose: str, refusal: type[Exception] = FileNotFoundError) -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise refusal(f"{purpose} huggingface_hub must be installed: pip install huggingface_hub") from error
    module: ModuleType = huggingface_hub
    return module
