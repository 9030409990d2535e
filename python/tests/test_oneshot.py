"""oneshot: every argument, the bytes it writes, and the page for those who come from llm-compressor."""

from __future__ import annotations

import gc
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import salient
from salient import _core, oneshot
from salient._oneshot import Report
from salient._oneshot_arguments import ARGUMENTS
from salient.modifiers.awq import AWQModifier
from salient.modifiers.quantization import (
    QuantizationArgs,
    QuantizationModifier,
    QuantizationScheme,
    QuantizationStrategy,
    QuantizationType,
)

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "examples/demo/model"
TEXT = ROOT / "examples/demo/calibration.txt"
PAGE = ROOT / "docs/coming-from-llm-compressor.md"
WINDOW, SAMPLES = 64, 8

NEAREST = QuantizationModifier(scheme="W4A16", ignore=["lm_head"])
GUIDE_YAML = """\
default_stage:
  default_modifiers:
    AWQModifier: {}
    QuantizationModifier:
      ignore: [lm_head]
      config_groups:
        group_0:
          targets: [Linear]
          weights: {num_bits: 4, type: int, dynamic: false, symmetric: false, strategy: group, group_size: 128}
"""


def guide_recipe() -> list[Any]:
    return [
        AWQModifier(bits=4, symmetric=False),
        QuantizationModifier(
            ignore=["lm_head"],
            config_groups={
                "group_0": QuantizationScheme(
                    targets=["Linear"],
                    weights=QuantizationArgs(
                        num_bits=4,
                        type=QuantizationType.INT,
                        dynamic=False,
                        symmetric=False,
                        strategy=QuantizationStrategy.GROUP,
                        group_size=128,
                    ),
                )
            },
        ),
    ]


def windows() -> list[list[int]]:
    tokenizer = _core.Tokenizer.from_directory(str(MODEL))
    read = _core.read_windows(tokenizer, str(TEXT), window=WINDOW, maximum=SAMPLES)
    return [window.tolist() for window in read]


def run(**arguments: Any) -> salient.CausalLM:
    """A small run; `arguments` count more."""
    said: dict[str, Any] = {
        "model": MODEL,
        "dataset": windows(),
        "max_seq_length": WINDOW,
        "shuffle_calibration_samples": False,
        "progress": False,
    }
    return oneshot(**{**said, **arguments})


def weights(directory: str | os.PathLike[str]) -> bytes:
    return (Path(directory) / "model.safetensors").read_bytes()


def tensors(directory: str | os.PathLike[str]) -> dict[str, bytes]:
    """By name, in whatever order a file holds them."""
    content = weights(directory)
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    places = {name: slice(*(start + offset for offset in entry["data_offsets"])) for name, entry in header.items()}
    return {name: content[place] for name, place in places.items()}


@pytest.fixture(scope="module")
def guide_output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("guide") / "out"
    run(recipe=guide_recipe(), output_dir=output)
    return output


class Captured(Exception):
    """Raised in the place of the work."""


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """What _core.oneshot would be called with."""
    caught: dict[str, Any] = {}

    def capture(**arguments: Any) -> str:
        caught.update(arguments)
        raise Captured

    def call(**arguments: Any) -> dict[str, Any]:
        monkeypatch.setattr(_core, "oneshot", capture)
        caught.clear()
        with pytest.raises(Captured):
            run(**{"recipe": guide_recipe(), **arguments})
        return dict(caught)

    return call


# ---- the table and the signature


def test_the_table_has_every_argument_with_its_default() -> None:
    parameters = {
        name: parameter.default
        for name, parameter in inspect.signature(oneshot).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    parameters["model"] = None
    assert parameters == {name: argument.default for name, argument in ARGUMENTS.items()}


def test_parameters_agree_with_llm_compressor() -> None:
    peer = inspect.signature(pytest.importorskip("llmcompressor").oneshot).parameters
    own = inspect.signature(oneshot).parameters
    positional = [name for name, p in peer.items() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    assert [name for name, p in own.items() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD] == positional
    differing = {name for name in positional if own[name].default != peer[name].default}
    assert differing == {"moe_calibrate_all_experts", "tracing_ignore"}  # the recipe may say; nothing is traced


OTHER_VALUES: dict[str, Any] = {
    "config_name": "other",
    "trust_remote_code_model": True,
    "save_compressed": False,
    "recipe_args": ["bits=4"],
    "clear_sparse_session": True,
    "pad_to_max_length": True,
    "overwrite_cache": True,
    "preprocessing_num_workers": 4,
    "dataloader_num_workers": 2,
    "remove_columns": ["id"],
    "dvc_data_repository": "dvc://data",
    "tracing_ignore": ["create_causal_mask"],
    "sequential_targets": ["LlamaDecoderLayer"],
    "sequential_targets_per_subgraph": 2,
    "sequential_offload_device": "cuda:1",
    "sequential_prefetch": True,
    "quantization_aware_calibration": False,
}


def test_every_argument_that_does_not_work_is_tried() -> None:
    assert set(OTHER_VALUES) == {name for name, argument in ARGUMENTS.items() if argument.other != "works"}


@pytest.mark.parametrize("name", [name for name, argument in ARGUMENTS.items() if argument.other == "refused"])
def test_what_would_change_the_result_is_refused(name: str) -> None:
    with pytest.raises(NotImplementedError, match=f"^oneshot: {name}=.* is not supported; "):
        run(recipe=NEAREST, **{name: OTHER_VALUES[name]})


@pytest.mark.parametrize("name", [name for name, argument in ARGUMENTS.items() if argument.other == "no effect"])
def test_what_changes_nothing_is_accepted_with_a_warning(name: str, job: Callable[..., dict[str, Any]]) -> None:
    silent = job()
    with pytest.warns(UserWarning, match=f"^oneshot: {name}=.* has no effect: "):
        warned = job(**{name: OTHER_VALUES[name]})
    assert np.array_equal(warned.pop("sequences"), silent.pop("sequences"))
    assert {**warned, "output": ""} == {**silent, "output": ""}


def test_defaults_are_silent(job: Callable[..., dict[str, Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        job(recipe_args=[], raw_kwargs={}, remove_columns=None)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"recipee": 1}, TypeError, "oneshot: unknown argument 'recipee'; did you mean 'recipe'"),
        ({"recipe": None}, ValueError, "oneshot: recipe is missing"),
        ({"recipe": "AWQModifer: {}"}, ValueError, "AWQModifer.* did you mean"),
        ({"pipeline": "parallel"}, ValueError, "pipeline='parallel' is none of None, independent"),
        ({"precision": "float16"}, NotImplementedError, "precision='float16' .* the checkpoint is bfloat16"),
        ({"tie_word_embeddings": False}, NotImplementedError, "tie_word_embeddings=False"),
        ({"tokenizer": "a", "processor": "b"}, ValueError, "tokenizer and processor are two names"),
        ({"shard_size": 1, "max_shard_size": "1MB"}, ValueError, "shard_size and max_shard_size are two names"),
        ({"dataset_path": "x.json"}, ValueError, "dataset and dataset_path both name"),
        ({"splits": {"train": "train"}}, ValueError, "splits=.* is neither a split"),
        ({"batch_size": 0}, ValueError, "batch_size=0: a whole number of at least 1"),
        ({"num_calibration_samples": "4"}, ValueError, "num_calibration_samples='4': a whole number of at least 1"),
        ({"max_seq_length": True}, ValueError, "max_seq_length=True: a whole number of at least 1"),
        ({"progress": "yes"}, ValueError, "progress='yes' is neither True nor False"),
        ({"preprocessing_func": "nowhere.py:f", "dataset": ["a"]}, Exception, "nowhere.py"),
        ({"data_collator": "stack"}, ValueError, "data_collator='stack' is neither"),
        ({"min_tokens_per_module": 2, "moe_calibrate_all_experts": False}, ValueError, "no share of the tokens"),
        ({"model": "nowhere/at/all"}, FileNotFoundError, "nowhere/at/all"),
        ({"pipeline": "datafree"}, ValueError, 'pipeline="datafree" excludes AWQ'),
        ({"dataset": None}, ValueError, "AWQ needs calibration data: name a dataset"),
    ],
)
def test_refusals(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run(**{"recipe": guide_recipe(), **arguments})


# ---- what the work is given


def test_the_job(job: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = job(output_dir="out", format="autoawq-gemm", max_shard_size="1MB", overwrite=False)
    assert [row.tolist() for row in given["sequences"]] == windows()
    assert all(row.dtype == np.int32 for row in given["sequences"])
    assert (given["format"], given["shard_size"]) == ("autoawq-gemm", 1_000_000)
    assert Path(given["output"]).parent.parent == Path.cwd() and not Path(given["output"]).parent.exists()
    assert given["model"] == str(MODEL) and given["max_seq_length"] == WINDOW and given["progress"] is None
    assert given["num_samples"] == SAMPLES
    assert given["propagate_error"] is None and given["calibrate_all_experts"] is None


def test_memory_and_work_reach_the_work(job: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    given = job(max_memory="1GiB", work=tmp_path / "work", resume=True)
    assert (given["max_memory"], given["work"], given["resume"]) == (2**30, str(tmp_path / "work"), True)
    assert job(max_memory=10**9)["max_memory"] == 10**9
    assert "max_memory" not in job() and "work" not in job() and job()["resume"] is False


def test_calibration_options_reach_the_work(job: Callable[..., dict[str, Any]]) -> None:
    given = job(propagate_error=False, moe_calibrate_all_experts=False, min_tokens_per_module=0.1)
    assert given["propagate_error"] is False and given["calibrate_all_experts"] is False
    assert given["min_tokens_per_expert"] == np.ceil(0.1 * WINDOW * SAMPLES)
    with pytest.warns(UserWarning, match="min_tokens_per_module=0.1 has no effect"):
        assert job(min_tokens_per_module=0.1)["min_tokens_per_expert"] is None


def test_num_calibration_samples_and_lengths(job: Callable[..., dict[str, Any]]) -> None:
    assert len(job(num_calibration_samples=3)["sequences"]) == 3
    assert len(job(num_calibration_samples=None)["sequences"]) == SAMPLES
    assert {len(row) for row in job(max_seq_length=16)["sequences"]} == {16}
    assert job(max_seq_length=None)["max_seq_length"] == 512
    with pytest.warns(UserWarning, match="max_seq_length=9000, but the model takes 512"):
        assert job(max_seq_length=9000)["max_seq_length"] == 512


def test_shuffling_is_repeatable(job: Callable[..., dict[str, Any]]) -> None:
    first, second = (job(shuffle_calibration_samples=True, num_calibration_samples=4)["sequences"] for _ in range(2))
    assert np.array_equal(first, second)
    assert [row.tolist() for row in first] != windows()[:4]


def test_texts_columns_and_preprocessing(job: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    rows = [{"story": "Once upon a time"}, {"story": "One day in spring"}]
    plain = job(dataset=rows, text_column="story")["sequences"]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    from_file = job(dataset="json", dataset_path=path, text_column="story")["sequences"]
    shouted = job(dataset=rows, text_column="story", preprocessing_func=lambda row: {"story": row["story"].upper()})
    assert len(plain) == 2 and all(np.array_equal(one, other) for one, other in zip(plain, from_file, strict=True))
    assert not np.array_equal(shouted["sequences"][0], plain[0])
    joined = job(dataset=rows, text_column="story", concatenate_data=True, max_seq_length=4)["sequences"]
    assert {len(row) for row in joined} == {4}


def test_data_free(job: Callable[..., dict[str, Any]]) -> None:
    rounding = QuantizationModifier(scheme="W4A16")
    assert "sequences" not in job(recipe=rounding) and "sequences" not in job(recipe=rounding, dataset=None)
    assert "sequences" not in job(recipe=rounding, pipeline="datafree")


def test_what_the_recipe_says_of_its_data_counts_unless_arguments_do(job: Callable[..., dict[str, Any]]) -> None:
    recipe = [*guide_recipe(), {"salient": {"num_calibration_samples": 3, "max_seq_length": 32}}]
    by_recipe = job(recipe=recipe, num_calibration_samples=512, max_seq_length=None)
    assert (by_recipe["num_samples"], by_recipe["max_seq_length"]) == (3, 32)
    by_argument = job(recipe=recipe, num_calibration_samples=2, max_seq_length=48)
    assert (by_argument["num_samples"], by_argument["max_seq_length"]) == (2, 48)


# ---- errors come before work


class FetchedError(Exception):
    """Data would have been fetched."""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_dir": "there", "overwrite": False}, "exists already"),
        ({"output_dir": "there/file"}, "is a file"),
        ({"log_dir": "there/file"}, "log_dir='there/file' is a file"),
        ({"model": "quantized"}, "quantized"),
        ({"recipe": GUIDE_YAML.replace("lm_head", "lm_hed")}, "lm_hed"),
        ({"format": "gguf"}, 'format "gguf" is unknown'),
        ({"shard_size": "big"}, "big"),
        ({"max_memory": "0"}, '"0" is no size'),
        ({"splits": 7}, "splits=7 is neither"),
        ({"data_collator": "stack"}, "data_collator='stack'"),
        ({"min_tokens_per_module": -1}, "no share"),
    ],
)
def test_what_is_wrong_is_told_before_data_is_fetched(
    arguments: dict[str, Any], message: str, guide_output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*_: object, **__: object) -> None:
        raise FetchedError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("salient._oneshot_data.calibration_sequences", fetch)
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").touch()
    (tmp_path / "quantized").symlink_to(guide_output)
    with pytest.raises((ValueError, NotImplementedError), match=message):
        run(**{"recipe": guide_recipe(), **arguments})
    with pytest.raises(FetchedError):
        run(recipe=guide_recipe())


def test_a_tokenizer_that_cannot_be_saved_is_told_of_before_the_work(tmp_path: Path) -> None:
    class Unsaved:
        encode = salient.AutoTokenizer.from_pretrained(str(MODEL)).encode

        def save_pretrained(self, directory: str) -> None:
            raise OSError("no room")

    shutil.copytree(MODEL, tmp_path / "bare", ignore=lambda *_: ["tokenizer.json", "tokenizer_config.json"])
    with pytest.raises(OSError, match="no room"):
        run(model=tmp_path / "bare", tokenizer=Unsaved(), recipe=guide_recipe(), output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_log_that_cannot_be_finished_costs_no_result(tmp_path: Path) -> None:
    def finished(done: int, total: int, elapsed: float, left: float) -> None:
        if done == total:
            shutil.rmtree(tmp_path / "log")

    with pytest.warns(UserWarning, match="the log .* is incomplete"):
        run(recipe=NEAREST, dataset=None, output_dir=tmp_path / "out", log_dir=tmp_path / "log", progress=finished)
    assert (tmp_path / "out/model.safetensors").exists()


def test_numbers_of_numpy(job: Callable[..., dict[str, Any]]) -> None:
    given = job(num_calibration_samples=np.int64(4), max_seq_length=np.int32(16), batch_size=np.int64(1))
    assert len(given["sequences"]) == 4 and type(given["max_seq_length"]) is int


def test_experts_as_the_recipe_says(job: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    read = _core.read_recipe
    said = {"moe_calibrate_all_experts": False}
    monkeypatch.setattr(_core, "read_recipe", lambda *text: json.dumps({**json.loads(read(*text)), **said}))
    recipe = [*guide_recipe(), {"salient": said}]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert job(recipe=recipe, min_tokens_per_module=0.5)["min_tokens_per_expert"] == WINDOW * SAMPLES // 2
    with pytest.warns(UserWarning, match="has no effect"):
        given = job(recipe=recipe, min_tokens_per_module=0.5, moe_calibrate_all_experts=True)
    assert given["min_tokens_per_expert"] is None


# ---- whole runs


def test_the_recipe_of_the_guide_gives_the_bytes_of_the_program(guide_output: Path, tmp_path: Path) -> None:
    beside = Path(sys.executable).with_name("salient")
    program = str(beside) if beside.exists() else shutil.which("salient")
    if program is None:
        pytest.skip("the program salient is not installed")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(GUIDE_YAML)
    data = ["--data", str(TEXT), "--num-calibration-samples", str(SAMPLES), "--max-seq-length", str(WINDOW)]
    command = [program, "quantize", str(MODEL), "-o", str(tmp_path / "out"), "--recipe", str(recipe), *data]
    subprocess.run(command, check=True, capture_output=True)
    assert weights(guide_output) == weights(tmp_path / "out")


def test_text_gives_the_bytes_of_objects(guide_output: Path, tmp_path: Path) -> None:
    run(recipe=GUIDE_YAML, output_dir=tmp_path / "text")
    (tmp_path / "recipe.yaml").write_text(GUIDE_YAML)
    run(recipe=tmp_path / "recipe.yaml", output_dir=tmp_path / "file")
    assert weights(guide_output) == weights(tmp_path / "text") == weights(tmp_path / "file")


def test_the_record_of_a_run_gives_its_bytes_again(guide_output: Path, tmp_path: Path) -> None:
    run(recipe=guide_output / "recipe.yaml", output_dir=tmp_path / "again")
    assert weights(guide_output) == weights(tmp_path / "again")


def test_a_handle_becomes_the_quantized_model(tmp_path: Path) -> None:
    model = salient.AutoModelForCausalLM.from_pretrained(str(MODEL), device_map="auto", torch_dtype="auto")
    assert run(model=model, recipe=NEAREST, dataset=None, output_dir=tmp_path / "out") is model
    assert Path(model.directory) == tmp_path / "out"
    assert model.config.to_dict()["quantization_config"]["quant_method"] == "compressed-tensors"


def test_without_output_dir_the_weights_wait_for_save_pretrained(guide_output: Path, tmp_path: Path) -> None:
    model = run(recipe=guide_recipe())
    assert model.directory != str(MODEL)
    model.save_pretrained(tmp_path / "saved", save_compressed=True)
    assert tensors(tmp_path / "saved") == tensors(guide_output)
    scratch = Path(model.directory)
    assert scratch.exists()
    del model
    gc.collect()
    assert not scratch.exists()


def test_the_tokenizer_of_the_caller_is_saved_where_the_model_has_none(tmp_path: Path) -> None:
    shutil.copytree(MODEL, tmp_path / "bare", ignore=lambda *_: ["tokenizer.json", "tokenizer_config.json"])
    tokenizer = salient.AutoTokenizer.from_pretrained(str(MODEL))
    run(model=tmp_path / "bare", tokenizer=tokenizer, recipe=guide_recipe(), output_dir=tmp_path / "out")
    assert (tmp_path / "out/tokenizer.json").exists()
    by_path = run(model=tmp_path / "bare", tokenizer=str(MODEL), recipe=guide_recipe())
    assert by_path.tokenizer.encode("a cat") == tokenizer.encode("a cat")


def test_without_data_weights_are_rounded_to_nearest(tmp_path: Path) -> None:
    alone = run(recipe=NEAREST, dataset=None, output_dir=tmp_path / "alone")
    assert alone.report is not None and alone.report["calibration_tokens"] == 0
    with pytest.raises(ValueError, match="AWQ needs calibration"):
        run(recipe=guide_recipe(), dataset=None, output_dir=tmp_path / "awq")
    assert not (tmp_path / "awq").exists()


def test_the_report(tmp_path: Path) -> None:
    report = run(recipe=guide_recipe(), output_dir=tmp_path / "out", log_dir=tmp_path / "log").report
    assert isinstance(report, Report)
    assert report["calibration_tokens"] == WINDOW * SAMPLES and len(report["layers"]) == 4
    assert re.fullmatch(r"Report\(28 linears quantized on 512 tokens, .* MiB -> .* MiB, .* s\)", repr(report))
    assert report["model"] == str(MODEL) and report["method"].startswith("AWQ: ")
    (log,) = (tmp_path / "log").iterdir()
    assert re.fullmatch(r"oneshot_[\d_-]+\.log", log.name) and "AWQModifier" in log.read_text()


def test_progress_of_the_caller(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    progress = lambda done, total, elapsed, left: seen.append((done, total))  # noqa: E731
    run(recipe=guide_recipe(), output_dir=tmp_path / "out", progress=progress)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_model_is_replaced_and_what_is_none_stays(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "results.csv").write_text("kept")
    for _ in range(2):  # an empty one, then a model
        run(recipe=NEAREST, dataset=None, output_dir=output)
    with pytest.raises(ValueError, match="exists already"):
        run(recipe=NEAREST, dataset=None, output_dir=output, overwrite=False)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/config.json").write_text("{}")
    with pytest.raises(ValueError, match="config.json is no model's"):
        run(recipe=NEAREST, dataset=None, output_dir=tmp_path / "site")
    assert (output / "results.csv").read_text() == "kept" and (tmp_path / "site/config.json").read_text() == "{}"


def test_the_input_is_never_replaced(tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(MODEL, copy)
    with pytest.raises(ValueError, match="is where the model is read from; name another"):
        run(model=copy, recipe=NEAREST, dataset=None, output_dir=copy)
    assert (copy / "model.safetensors").exists()


def test_a_failed_run_leaves_no_scratch_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALIENT_WORK", str(tmp_path))

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(recipe=guide_recipe(), progress=fail)
    assert list(tmp_path.iterdir()) == []


INTERRUPTED = """
import sys
from salient import oneshot
recipe = "AWQModifier: {n_grid: 1000}\\nQuantizationModifier: {scheme: W4A16_ASYM, ignore: [lm_head]}"
started = lambda done, *_: print("layer", done, flush=True)
oneshot(sys.argv[1], recipe=recipe, dataset=sys.argv[2], max_seq_length=512, output_dir=sys.argv[3], progress=started)
"""


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(MODEL), str(TEXT), str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "layer 1\n"
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert errors.rstrip().endswith("KeyboardInterrupt") and process.returncode != 0
    assert time.monotonic() - started < 30
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_transformers_stays_as_it_is(guide_output: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL, dtype="auto")
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    handle = run(model=model, tokenizer=tokenizer, recipe=guide_recipe(), output_dir=tmp_path / "out")
    assert weights(tmp_path / "out") == weights(guide_output)
    assert (tmp_path / "out/tokenizer.json").exists()
    assert handle is not model and not hasattr(model.config, "quantization_config")


class ModelInMemory:
    """What oneshot sees of a model of transformers."""

    config: dict[str, Any] = {}

    def __init__(self, name_or_path: str) -> None:
        self.name_or_path = name_or_path

    def save_pretrained(self, directory: str) -> None:
        for name in ("config.json", "model.safetensors"):
            shutil.copy(MODEL / name, directory)


def test_that_a_model_in_memory_stays_dense_is_told(guide_output: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="that oneshot returns is the quantized one; the ModelInMemory given stays"):
        run(model=ModelInMemory(str(MODEL)), recipe=guide_recipe(), output_dir=tmp_path / "out")
    assert weights(tmp_path / "out") == weights(guide_output)
    assert (tmp_path / "out/tokenizer.json").exists()


@pytest.mark.filterwarnings("ignore:oneshot. the model that")
def test_a_model_without_a_tokenizer_is_told_of() -> None:
    with pytest.raises(ValueError, match="comes without a tokenizer; pass tokenizer=.*no/where"):
        run(model=ModelInMemory("./no/where"), recipe=guide_recipe(), dataset=["Once upon a time"])


def test_a_data_set_of_the_datasets_package(job: Callable[..., dict[str, Any]]) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"input_ids": windows()})
    assert [row.tolist() for row in job(dataset=rows)["sequences"]] == windows()


# ---- the page (its snippets: test_docs.py)


def test_the_page_has_every_argument() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert set(ARGUMENTS) <= named
    for row in rows:
        names, defaults = re.findall(r"`(\w+)`", row.split("|")[1]), re.findall(r"`([^`]+)`", row.split("|")[2])
        shown = defaults * len(names) if len(defaults) == 1 else defaults
        for name, default in zip(names, shown):
            assert json.dumps(ARGUMENTS[name].default) == json.dumps(eval(default)), name
