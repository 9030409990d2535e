"""What becomes of each argument of oneshot that is not simply passed on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from salient._arguments import warn_user
from salient._values import check_positive


@dataclass(frozen=True)
class Argument:
    """The default, and whether another value works, changes nothing or is refused; and why."""

    default: object = None
    other: Literal["works", "no effect", "refused"] = "works"
    why: str = ""

    def is_default(self, value: object) -> bool:
        return value == self.default or (not self.default and not value)


def _inert(default: object, why: str) -> Argument:
    return Argument(default, "no effect", why)


def _refused(default: object, why: str) -> Argument:
    return Argument(default, "refused", why)


ARGUMENTS: dict[str, Argument] = {
    # model
    "model": Argument(),
    "config_name": _refused(None, "is not supported; the config.json of the model is the one that counts"),
    "tokenizer": Argument(),
    "processor": Argument(),
    "precision": Argument("auto"),
    "tie_word_embeddings": Argument(True),
    "trust_remote_code_model": _inert(False, "no code of a model is run"),
    "save_compressed": _refused(True, "is not supported; quantized weights are stored packed"),
    "model_revision": Argument("main"),
    # recipe
    "recipe": Argument(),
    "recipe_args": _refused(None, "is not supported; write the values into the recipe"),
    "clear_sparse_session": _inert(False, "there is no session that a run could leave behind"),
    "stage": Argument(),
    # data
    "dataset": Argument(),
    "dataset_config_name": Argument(),
    "dataset_path": Argument(),
    "splits": Argument(),
    "batch_size": Argument(1),
    "data_collator": Argument("truncation"),
    "num_calibration_samples": Argument(512),
    "shuffle_calibration_samples": Argument(True),
    "max_seq_length": Argument(),
    "pad_to_max_length": _inert(False, "nothing is calibrated on padding"),
    "text_column": Argument("text"),
    "concatenate_data": Argument(False),
    "streaming": Argument(False),
    "overwrite_cache": _inert(False, "processed data sets are not cached"),
    "preprocessing_num_workers": _inert(None, "texts are tokenized in one process"),
    "dataloader_num_workers": _inert(0, "calibration data stands in memory as token ids"),
    "preprocessing_func": Argument(),
    "remove_columns": _inert(None, "only the text column is read"),
    "raw_kwargs": Argument(),
    "dvc_data_repository": _refused(None, "is not supported; fetch the data and pass its path as dataset"),
    "use_loss_mask": Argument(False),
    # calibration
    "min_tokens_per_module": Argument(),
    "moe_calibrate_all_experts": Argument(),
    "pipeline": Argument("independent"),
    "propagate_error": Argument(),
    "tracing_ignore": _inert(None, "nothing is traced"),
    "sequential_targets": _inert(None, "every decoder layer is worked on by itself"),
    "sequential_targets_per_subgraph": _inert(1, "every decoder layer is worked on by itself"),
    "sequential_offload_device": _inert("cpu", "what is not at work waits in main memory"),
    "sequential_prefetch": _inert(False, "there is no second device to fetch to"),
    "quantization_aware_calibration": _inert(True, "llm-compressor itself has retired it"),
    # output
    "output_dir": Argument(),
    "log_dir": Argument(),
    # Salient's own
    "seed": Argument(42),
    "format": Argument(),
    "effort": Argument(),
    "target_bits": Argument(),
    "device": Argument("cpu"),
    "overwrite": Argument(True),
    "shard_size": Argument(),
    "max_shard_size": Argument(),
    "max_memory": Argument(),
    "work": Argument(),
    "resume": Argument(False),
    "progress": Argument(True),
}


_COUNTS = ("batch_size", "num_calibration_samples", "max_seq_length", "seed")


def checked_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, numbers as those of Python. NotImplementedError for what would change the result and cannot;
    UserWarning for what changes nothing; ValueError for values of no use."""
    counts = {name: _count(name, given[name]) for name in _COUNTS}
    if not (isinstance(given["progress"], bool) or given["progress"] is None or callable(given["progress"])):
        raise ValueError(f"oneshot: progress={given['progress']!r} is neither True nor False nor a function")
    for name, argument in ARGUMENTS.items():
        if argument.other == "works" or argument.is_default(given[name]):
            continue
        if argument.other == "refused":
            raise NotImplementedError(f"oneshot: {name}={given[name]!r} {argument.why}")
        warn_user(f"oneshot: {name}={given[name]!r} has no effect: {argument.why}")
    return {**given, **counts}


def _count(name: str, value: Any) -> int | None:
    if value is None and name in ("batch_size", "seed"):
        raise ValueError(f"oneshot: {name}=None: a whole number of at least {int(name != 'seed')} is expected")
    check_positive("oneshot", least=0 if name == "seed" else 1, **{name: value})
    return None if value is None else int(value)


def one_of(given: Mapping[str, Any], *names: str) -> Any:
    """The value of whichever is given of several names for one thing. ValueError: two that differ."""
    values = {name: given[name] for name in names if given[name] is not None}
    if len(values) > 1:
        raise ValueError(f"oneshot: {' and '.join(values)} are two names for one thing; give one of them")
    return next(iter(values.values()), None)


def split_of(splits: object) -> str | None:
    """The split to calibrate on: a string; of a list its first; of a dict its "calibration"."""
    if splits is None or isinstance(splits, str):
        return splits
    if isinstance(splits, (list, tuple)) and all(isinstance(split, str) for split in splits):
        return splits[0] if splits else None
    if isinstance(splits, Mapping) and isinstance(splits.get("calibration"), str):
        return str(splits["calibration"])
    raise ValueError(f'oneshot: splits={splits!r} is neither a split ("train[:512]") nor {{"calibration": split}}')
