"""oneshot: llm-compressor's entry point. A model and a recipe in, a quantized model out."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from salient import _core
from salient._arguments import reject_unknown
from salient._hub import find_model
from salient._oneshot_arguments import ARGUMENTS, check_arguments, one_of
from salient._oneshot_data import calibration_job, tokenizer_of
from salient._progress import progress as progress_bar
from salient.model import CausalLM, model_handle, scratch_directory
from salient.modifiers._text import recipe_text

__all__ = ["Report", "oneshot"]

_PIPELINES = (None, "independent", "sequential", "basic", "datafree")
_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}


class Report(dict[str, Any]):
    """What a run did: layers, quantized_linears, calibration_tokens, bytes_before, bytes_after, seconds, warnings."""

    def __repr__(self) -> str:
        before, after = (self.get(key, 0) / 2**20 for key in ("bytes_before", "bytes_after"))
        linears, tokens = self.get("quantized_linears", 0), self.get("calibration_tokens", 0)
        size = f"{before:.1f} MiB -> {after:.1f} MiB"
        return f"Report({linears} linears quantized on {tokens} tokens, {size}, {self.get('seconds', 0):.1f} s)"


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
    format: str | None = None,
    overwrite: bool = True,
    shard_size: int | str | None = None,
    max_shard_size: int | str | None = None,
    progress: bool | Callable[[int, int, float, float], None] = True,
    **unknown: Any,
) -> CausalLM:
    """Quantizes a model by a recipe. The handle that is returned is the quantized model from then on.

    model: a path, an id of the hub, a handle of Salient (which is returned itself) or a model of transformers (which
    stays as it is). recipe: modifiers, a document as dict, YAML or JSON as text, or the path of such a file. dataset: a
    file, texts, token ids, a data set of the datasets package or its name, a torch DataLoader; None without AWQ.
    num_calibration_samples: sequences at most, None for all. max_seq_length: tokens per sequence at most, None for as
    many as the model takes. min_tokens_per_module: share of all tokens, 0 to 1, below which an expert takes the
    statistics of all tokens; for moe_calibrate_all_experts=False. That and propagate_error: None for what the recipe
    says, else True.

    output_dir: where the model is written when it is whole; a model directory or an empty one there is replaced unless
    overwrite=False. None: a temporary directory, until save_pretrained. log_dir: gets a file with the recipe and the
    report. format: "pack-quantized" or "autoawq-gemm". shard_size (or max_shard_size): bytes per file, or "5GB".
    progress: False for no bar, or a function of layers done, layers, seconds elapsed and seconds left.

    Errors: ValueError and NotImplementedError for what makes no sense or cannot be run; FileNotFoundError; OSError. A
    UserWarning for arguments that change nothing. KeyboardInterrupt leaves nothing behind.
    """
    given = dict(locals())
    reject_unknown("oneshot", given.pop("unknown"), ARGUMENTS)
    return _run(given)


def _run(given: Mapping[str, Any]) -> CausalLM:
    check_arguments(given)
    text, source, said = _checked_recipe(given)
    given = _with_recipe(given, said)
    handle = model_handle(_at_revision(given["model"], given["model_revision"]))
    _check_model(given, handle.config.to_dict())
    job = {
        "recipe": text,
        "recipe_source": source,
        "format": given["format"],
        **calibration_job(given, handle, said["needs_data"]),
    }
    job |= {"shard_size": _shard_size(given), "overwrite": given["overwrite"]}
    handle.report = _quantize(handle, job, given)
    if given["log_dir"] is not None:
        _write_log(Path(given["log_dir"]), text, handle.report)
    return handle


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
    names = ("num_calibration_samples", "max_seq_length")
    open_ones = [name for name in names if given[name] == ARGUMENTS[name].default and said[name] is not None]
    return {**given, **{name: said[name] for name in open_ones}}


def _at_revision(model: Any, revision: str) -> Any:
    if revision == "main" or not isinstance(model, (str, os.PathLike)):
        return model
    return find_model(model, revision=revision)


def _check_model(given: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """What would have other weights than the checkpoint's."""
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "auto")
    wanted = str(given["precision"] or "auto").removeprefix("torch.")
    if _DTYPES.get(wanted, wanted) not in ("auto", dtype):
        reason = f"the checkpoint is {dtype}, and weights that stay dense keep their type"
        raise NotImplementedError(f"oneshot: precision={wanted!r} is not supported; {reason}")
    if not given["tie_word_embeddings"] and config.get("tie_word_embeddings"):
        raise NotImplementedError("oneshot: tie_word_embeddings=False is not supported; the checkpoint ties them")


def _shard_size(given: Mapping[str, Any]) -> int:
    size = one_of(given, "shard_size", "max_shard_size")
    return _core.parse_byte_size(str(5_000_000_000 if size is None else size))


def _quantize(handle: CausalLM, job: dict[str, Any], given: Mapping[str, Any]) -> Report:
    with _output(given["output_dir"]) as directory, ExitStack() as stack:
        report = _core.oneshot(
            model=handle.directory, output=directory, progress=_reporter(given["progress"], stack), **job
        )
        _save_tokenizer(tokenizer_of(given), directory)
    handle.adopt(directory, temporary=given["output_dir"] is None)
    return Report(json.loads(report))


@contextmanager
def _output(output_dir: str | os.PathLike[str] | None) -> Iterator[str]:
    """The directory to write; one that nobody has named is removed again when the work fails."""
    directory = scratch_directory() if output_dir is None else os.fspath(output_dir)
    try:
        yield directory
    except BaseException:
        if output_dir is None:
            shutil.rmtree(directory, ignore_errors=True)
        raise


def _save_tokenizer(tokenizer: Any, directory: str) -> None:
    """A model from memory has no tokenizer files to carry along; that of the caller belongs to it."""
    if hasattr(tokenizer, "save_pretrained") and not os.path.exists(os.path.join(directory, "tokenizer.json")):
        tokenizer.save_pretrained(directory)


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


def _write_log(directory: Path, recipe: str, report: Report) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    name = time.strftime("oneshot_%Y-%m-%d_%H-%M-%S.log")
    (directory / name).write_text(f"{recipe}\n\n{json.dumps(report, indent=2)}\n", encoding="utf-8")
