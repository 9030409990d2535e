"""oneshot: llm-compressor's entry point. A model and a recipe in, a quantized model out."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Literal

import numpy as np

from salient import _core
from salient._arguments import reject_unknown, warn_user
from salient._files import Scratch, check_target, model_target
from salient._hub import find_model
from salient._loading import stored_dtype
from salient._oneshot_arguments import ARGUMENTS, checked_arguments, one_of
from salient._oneshot_data import calibration_job, check_data_arguments
from salient._oneshot_files import open_log, stored_tokenizer
from salient._progress import progress as progress_bar
from salient._report import Report
from salient.model import CausalLM, model_handle
from salient.modifiers._text import recipe_text

__all__ = ["Report", "oneshot"]

_PIPELINES = (None, "independent", "sequential", "basic", "datafree")
_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}


def oneshot(
    model: Any,
    config_name: str | None = None,
    tokenizer: Any = None,
    processor: Any = None,
    precision: str = "auto",
    tie_word_embeddings: bool = True,
    trust_remote_code_model: bool = False,
    save_compressed: bool = True,
    model_revision: str = "main",
    recipe: Any = None,
    recipe_args: list[str] | None = None,
    clear_sparse_session: bool = False,
    stage: str | None = None,
    dataset: Any = None,
    dataset_config_name: str | None = None,
    dataset_path: str | os.PathLike[str] | None = None,
    splits: str | list[str] | dict[str, str] | None = None,
    batch_size: int = 1,
    data_collator: str | Callable[..., Any] = "truncation",
    num_calibration_samples: int | None = 512,
    shuffle_calibration_samples: bool = True,
    max_seq_length: int | None = None,
    pad_to_max_length: bool = False,
    text_column: str = "text",
    concatenate_data: bool = False,
    streaming: bool = False,
    overwrite_cache: bool = False,
    preprocessing_num_workers: int | None = None,
    dataloader_num_workers: int = 0,
    min_tokens_per_module: float | None = None,
    moe_calibrate_all_experts: bool | None = None,
    pipeline: str | None = "independent",
    tracing_ignore: list[str] | None = None,
    sequential_targets: list[str] | None = None,
    sequential_offload_device: str = "cpu",
    quantization_aware_calibration: bool = True,
    sequential_prefetch: bool = False,
    output_dir: str | os.PathLike[str] | None = None,
    log_dir: str | os.PathLike[str] | None = None,
    *,
    preprocessing_func: str | Callable[[Any], Any] | None = None,
    remove_columns: str | list[str] | None = None,
    raw_kwargs: dict[str, Any] | None = None,
    dvc_data_repository: str | None = None,
    use_loss_mask: bool = False,
    propagate_error: bool | None = None,
    sequential_targets_per_subgraph: int = 1,
    seed: int = 42,
    format: str | None = None,
    effort: Literal["fast", "default", "best"] | None = None,
    target_bits: float | None = None,
    device: str = "cpu",
    overwrite: bool = True,
    shard_size: int | str | None = None,
    max_shard_size: int | str | None = None,
    max_memory: int | str | None = None,
    work: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool | Callable[[int, int, float, float], None] = True,
    **unknown: Any,
) -> CausalLM:
    """Quantizes a model by a recipe. The handle that is returned is the quantized model from then on.

    model: a path, an id of the hub, a handle (which is returned) or a model of transformers (which stays as it is).
    recipe: modifiers, a document as dict, YAML or JSON as text, or a file of such. dataset: a file, texts, token ids,
    a data set of the datasets package or its name, a torch DataLoader; "self", a list of {"data": one of these,
    "weight": 0.7}; None: the recipe's. Ids whose "token_mask" (with use_loss_mask "loss_mask") is 0 do not count.
    num_calibration_samples: sequences at most, None for all. max_seq_length: tokens of each at most, None for as many
    as the model takes. What is not here: docs/coming-from-llm-compressor.md. output_dir: where the model is written
    when whole, in place of one there unless overwrite=False. None: a temporary one, until save_pretrained. log_dir:
    gets the recipe and the report. format: "pack-quantized" or "autoawq-gemm". effort: "fast", "default" or "best",
    where the recipe leaves it open. target_bits: bits per weight at most, in the mean of linears of 2 to 8. device:
    "cpu", "cuda", "cuda:N" or "auto". shard_size (or max_shard_size): bytes per file, or "5GB". progress: False for no
    bar, or a function of layers done, layers, seconds elapsed and left (NaN until known). max_memory: resident bytes,
    or "4GiB". work: keeps finished layers; resume=True goes on there. Errors: ValueError, NotImplementedError for what
    cannot be run; OSError; MemoryError with the smallest max_memory."""
    given = dict(locals())
    reject_unknown("oneshot", given.pop("unknown"), ARGUMENTS)
    return _run(given)


def _run(given: Mapping[str, Any]) -> CausalLM:
    """Everything that can be wrong is noticed before data is fetched."""
    given = checked_arguments(given)
    text, source, said = _checked_recipe(given)
    given = _with_recipe(given, said)
    check_data_arguments(given, said)
    files = _files(given)
    if given["output_dir"] is not None:
        check_target(given["output_dir"], overwrite=given["overwrite"])
    handle = _handle(given)
    _check_model(given, handle)
    settings = _settings(given, said, text, source)
    _core.check(model=handle.directory, sequences=[np.zeros(1, dtype=np.int32)], **settings)
    with open_log(given["log_dir"], text) as log, stored_tokenizer(given, handle) as tokenizer:
        if said["needs_data"]:
            settings |= calibration_job(given, handle, said)
        handle.report = _quantize(handle, {**settings, **files}, given, tokenizer)
        log(json.dumps(handle.report, indent=2))
    for warning in handle.report["warnings"]:
        warn_user(f"oneshot: {warning}")
    return handle


def _handle(given: Mapping[str, Any]) -> CausalLM:
    model = given["model"]
    handle = model_handle(_at_revision(model, given["model_revision"]))
    is_own = isinstance(model, (str, os.PathLike, CausalLM)) or getattr(model, "model", None) is handle
    if not is_own:
        kind = type(model).__name__
        warn_user(f"oneshot: the model that oneshot returns is the quantized one; the {kind} given stays dense")
    return handle


def _settings(given: Mapping[str, Any], said: Mapping[str, Any], text: str, source: str) -> dict[str, Any]:
    """The arguments of _core.oneshot, but for data and files."""
    settings = {"recipe": text, "recipe_source": source}
    settings |= {name: given[name] for name in ("format", "effort", "target_bits", "device")}
    if not said["needs_data"]:
        return settings
    calibration = {"propagate_error": "propagate_error", "calibrate_all_experts": "moe_calibrate_all_experts"}
    return settings | {name: given[argument] for name, argument in calibration.items()}


def _checked_recipe(given: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Text, what to call it, and what it says beside how to quantize."""
    if given["pipeline"] not in _PIPELINES:
        known = ", ".join(str(pipeline) for pipeline in _PIPELINES)
        raise ValueError(f"oneshot: pipeline={given['pipeline']!r} is none of {known}")
    if given["recipe"] is None:
        raise ValueError("oneshot: recipe is missing; it says what becomes integers, and how")
    text, source = recipe_text(given["recipe"], given["stage"])
    return text, source, json.loads(_core.read_recipe(text, source))


def _with_recipe(given: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, and where they are left at their defaults what the recipe says."""
    names = (
        "num_calibration_samples",
        "max_seq_length",
        "moe_calibrate_all_experts",
        "text_column",
        "concatenate_data",
        "shuffle_calibration_samples",
        "seed",
    )
    open_ones = [name for name in names if given[name] == ARGUMENTS[name].default and said.get(name) is not None]
    return {**given, **{name: said[name] for name in open_ones}}


def _at_revision(model: Any, revision: str) -> Any:
    if revision == "main" or not isinstance(model, (str, os.PathLike)):
        return model
    return find_model(model, revision=revision)


def _check_model(given: Mapping[str, Any], handle: CausalLM) -> None:
    """What would have other weights than the checkpoint's, or take its place."""
    dtype = stored_dtype(handle.config)
    wanted = str(given["precision"] or "auto").removeprefix("torch.")
    if _DTYPES.get(wanted, wanted) not in ("auto", dtype):
        reason = f"the checkpoint is {dtype}, and weights that stay dense keep their type"
        raise NotImplementedError(f"oneshot: precision={wanted!r} is not supported; {reason}")
    if not given["tie_word_embeddings"] and handle.config.get("tie_word_embeddings"):
        raise NotImplementedError("oneshot: tie_word_embeddings=False is not supported; the checkpoint ties them")
    output = given["output_dir"]
    if output is not None and os.path.realpath(output) == os.path.realpath(handle.directory):
        raise ValueError(f"oneshot: output_dir={os.fspath(output)!r} is where the model is read from; name another")


def _files(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of _core.oneshot that say how much files and memory may hold, and where layers are kept."""
    size = one_of(given, "shard_size", "max_shard_size")
    files: dict[str, Any] = {"shard_size": _core.parse_byte_size(str(5_000_000_000 if size is None else size))}
    if given["max_memory"] is not None:
        files["max_memory"] = _core.parse_byte_size(str(given["max_memory"]))
    if given["work"] is not None:
        files["work"] = os.fspath(given["work"])
    return files | {"resume": bool(given["resume"])}


def _quantize(handle: CausalLM, job: dict[str, Any], given: Mapping[str, Any], tokenizer: str | None) -> Report:
    """Writes the quantized model, with the files of `tokenizer` beside it, and makes the handle stand for it."""
    output = given["output_dir"]
    if output is not None:
        with model_target(output, overwrite=given["overwrite"]) as fresh:
            report = _write(handle, fresh, job, given["progress"], tokenizer)
        handle.adopt(output, None)
        return report
    scratch = Scratch()
    fresh = os.path.join(scratch.path, "model")
    try:
        report = _write(handle, fresh, job, given["progress"], tokenizer)
        handle.adopt(fresh, scratch)
    except BaseException:
        if handle.directory != fresh:
            scratch.remove()
        raise
    return report


def _write(handle: CausalLM, output: str, job: dict[str, Any], progress: Any, tokenizer: str | None) -> Report:
    with ExitStack() as stack:
        report = _core.oneshot(model=handle.directory, output=output, progress=_reporter(progress, stack), **job)
    if tokenizer is not None:
        shutil.copytree(tokenizer, output, dirs_exist_ok=True)
    return Report(json.loads(report))


def _reporter(progress: Any, stack: ExitStack) -> Callable[[int, int, float, float], None] | None:
    """Of True a bar, which is opened with the first finished layer and closed with the stack."""
    if progress is False or progress is None:
        return None
    if callable(progress):
        return progress  # type: ignore[no-any-return]
    bars: list[Any] = []

    def show(done: int, total: int, elapsed: float, left: float) -> None:
        if not bars:
            bars.append(stack.enter_context(progress_bar(total, "quantizing", unit="layer")))
        bars[0].update(done)

    return show
