"""AutoAWQ's surface: what its scripts call, with what they pass."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import salient
from salient import AutoAWQForCausalLM, AwqConfig, _core, _loading, get_best_device
from salient.models.base import BaseAWQForCausalLM
from salient.quantize.quantizer import AwqQuantizer
from salient.utils import utils

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DEMO = REPOSITORY / "examples" / "demo" / "model"
TEXT = REPOSITORY / "examples" / "demo" / "calibration.txt"
GUIDE = {"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"}
IDS = [[(7 * row + 3 * i) % 3000 + 1 for i in range(64)] for row in range(8)]
SHORT: dict[str, Any] = {"calib_data": IDS, "max_calib_samples": 8, "max_calib_seq_len": 64}


@pytest.fixture(autouse=True)
def scratch(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A folder for temporary models, where a test can see what is left."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("SALIENT_WORK", str(work))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path)
    return work


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo model as AutoAWQ's guide quantizes it."""
    target = tmp_path_factory.mktemp("quantized") / "demo-awq"
    model = AutoAWQForCausalLM.from_pretrained(str(DEMO))
    model.quantize(None, quant_config=GUIDE, **SHORT)
    model.save_quantized(str(target))
    return str(target)


@pytest.fixture
def dense() -> AutoAWQForCausalLM:
    return AutoAWQForCausalLM.from_pretrained(str(DEMO))


def files_of(directory: str | os.PathLike[str]) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in pathlib.Path(directory).iterdir()}


def block_of(directory: str) -> dict[str, Any]:
    block = json.loads((pathlib.Path(directory) / "config.json").read_text())["quantization_config"]
    assert isinstance(block, dict)
    return block


def info_of(directory: str | os.PathLike[str]) -> dict[str, Any]:
    return salient.CausalLM(directory).info


@contextlib.contextmanager
def silence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# ---- loading


def test_config_of_a_directory(quantized: str) -> None:
    assert AwqConfig.from_pretrained(quantized) == AwqConfig()
    assert AwqConfig.from_pretrained(str(DEMO)) == AwqConfig()


def test_the_class_is_not_called() -> None:
    with pytest.raises(EnvironmentError, match="from_pretrained .* or from_quantized"):
        AutoAWQForCausalLM()


def test_handle_says_what_it_is(dense: AutoAWQForCausalLM, quantized: str) -> None:
    assert (dense.is_quantized, dense.model_type, dense.config.model_type) == (False, "llama", "llama")
    loaded = AutoAWQForCausalLM.from_quantized(quantized)
    assert loaded.is_quantized and loaded.quant_config == AwqConfig()
    assert isinstance(loaded, AutoAWQForCausalLM) and isinstance(loaded, BaseAWQForCausalLM)
    assert isinstance(loaded.model, salient.CausalLM)
    assert loaded.eval() is loaded and loaded.to("cpu") is loaded and loaded.to(get_best_device()) is loaded
    assert "AutoAWQForCausalLM" in repr(loaded)


def test_guides_arguments_are_silent(quantized: str) -> None:
    with silence():
        AutoAWQForCausalLM.from_pretrained(str(DEMO), low_cpu_mem_usage=True, use_cache=False, device_map="auto")
        AutoAWQForCausalLM.from_quantized(
            quantized,
            fuse_layers=False,
            use_exllama=False,
            use_exllama_v2=False,
            batch_size=4,
            max_memory={0: "24GB", "cpu": "100GB"},
            offload_folder="offload",
            download_kwargs={"revision": "main"},
        )


@pytest.mark.parametrize("name", ["use_exllama", "use_exllama_v2", "use_marlin", "use_ipex", "use_qbits"])
def test_kernels_are_warned_of_once(quantized: str, name: str) -> None:
    options: dict[str, Any] = {name: True}
    with pytest.warns(UserWarning, match=name) as caught:
        AutoAWQForCausalLM.from_quantized(quantized, **options)
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize("device_map", ["cuda", "cuda:0", {"": 0}, {"model": "cpu", "lm_head": "cuda:1"}])
def test_devices_are_warned_of_once(device_map: object) -> None:
    with pytest.warns(UserWarning, match="device (cuda|0).* is not used") as caught:
        AutoAWQForCausalLM.from_pretrained(str(DEMO), device_map=device_map)
    assert len(caught) == 1


def test_other_directions_without_effect_warn(dense: AutoAWQForCausalLM) -> None:
    with pytest.warns(UserWarning, match="safetensors=False"):
        AutoAWQForCausalLM.from_pretrained(str(DEMO), safetensors=False)
    with pytest.warns(UserWarning, match="cuda:0 is not used"):
        assert dense.to("cuda:0") is dense
    with pytest.warns(UserWarning, match="cuda is not used"):
        assert dense.cuda() is dense
    assert dense.cpu() is dense and dense.half() is dense


@pytest.mark.parametrize("dtype", ["auto", "float16", "bfloat16", np.float16, None])
def test_dtypes_that_are_taken(dtype: object) -> None:
    with silence():
        AutoAWQForCausalLM.from_pretrained(str(DEMO), torch_dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", np.float32])
def test_a_dtype_that_changes_nothing(dtype: object) -> None:
    with pytest.warns(UserWarning, match="torch_dtype float32 has no effect: weights stay as they are stored"):
        AutoAWQForCausalLM.from_pretrained(str(DEMO), torch_dtype=dtype)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"torch_dtype": "float64"}, NotImplementedError, "torch_dtype float64 is not supported"),
        ({"torch_dtype": np.int8}, NotImplementedError, "torch_dtype int8 is not supported"),
        ({"max_memory": {"cpu": "1MB"}}, MemoryError, r"max_memory allows the processor 1000000"),
        ({"device_map": "everywhere"}, ValueError, "'everywhere' is not known, nor one of auto"),
        ({"low_cpu_mem_usag": True}, TypeError, "did you mean 'low_cpu_mem_usage'"),
        ({"subfolder": "awq"}, NotImplementedError, "subfolder 'awq'"),
        ({"model_type": "opt"}, ValueError, "model_type 'opt' contradicts"),
        ({"download_kwargs": {"revison": "main"}}, TypeError, "did you mean 'revision'"),
    ],
)
def test_from_pretrained_refuses(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        AutoAWQForCausalLM.from_pretrained(str(DEMO), **arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"max_memory": {"cpu": "1MB"}}, MemoryError, r"take \d+ bytes, max_memory allows the processor 1000000"),
        ({"max_memory": {"cpu": "much"}}, ValueError, "much"),
        ({"max_memory": {"cpu": 1.5}}, ValueError, "1.5 is no size"),
        ({"max_memory": {"gpu": "1GB"}}, ValueError, "'gpu', which is no device"),
        ({"max_seq_len": 0}, ValueError, "max_seq_len=0: a whole number of at least 1"),
        ({"quant_filename": "model.pt"}, FileNotFoundError, "'model.pt' is not in"),
        ({"quant_filename": "config.json"}, NotImplementedError, "reads all safetensors"),
        ({"fuse_layer": True}, TypeError, "did you mean 'fuse_layers'"),
        ({"fuse_layers": 1}, ValueError, "fuse_layers=1 is neither True nor False"),
        ({"fuse_max_seq_len": 0}, ValueError, "fuse_max_seq_len=0: a whole number of at least 1"),
    ],
)
def test_from_quantized_refuses(quantized: str, arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        AutoAWQForCausalLM.from_quantized(quantized, **arguments)


def test_from_quantized_takes_the_only_file(quantized: str) -> None:
    assert AutoAWQForCausalLM.from_quantized(quantized, "model.safetensors").is_quantized


def test_from_quantized_refuses_dense_weights() -> None:
    with pytest.raises(ValueError, match="are not quantized; from_pretrained loads them"):
        AutoAWQForCausalLM.from_quantized(str(DEMO))


def test_no_such_model() -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        AutoAWQForCausalLM.from_pretrained("./nowhere/at/all")


def test_every_unused_argument_says_why() -> None:
    assert all(unused.reason for unused in _loading.UNUSED.values())


def test_helpers() -> None:
    assert get_best_device() == "cpu" and utils.get_best_device is get_best_device
    utils.clear_memory(np.zeros(3))


# ---- quantize


def test_quantize_writes_autoawqs_layout(quantized: str) -> None:
    block = block_of(quantized)
    assert (block["quant_method"], block["version"], block["bits"], block["group_size"]) == ("awq", "gemm", 4, 128)
    assert info_of(quantized)["quantization"] is not None


def test_quantize_gives_the_bytes_of_the_command_line(tmp_path: pathlib.Path, dense: AutoAWQForCausalLM) -> None:
    program = shutil.which("salient", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    if program is None:
        pytest.skip("the program salient is not installed")
    (tmp_path / "quant_config.json").write_text(json.dumps(GUIDE))
    dense.quantize(None, GUIDE, calib_data=str(TEXT), max_calib_samples=4, max_calib_seq_len=128)
    subprocess.run(
        [
            *(program, "quantize", DEMO, "-o", tmp_path / "shell"),
            *("--recipe", tmp_path / "quant_config.json"),
            *("--data", TEXT, "--num-calibration-samples", "4", "--max-seq-length", "128"),
        ],
        check=True,
        capture_output=True,
    )
    assert files_of(dense.model.directory) == files_of(tmp_path / "shell")


def test_configs_of_all_kinds_mean_the_same(quantized: str, tmp_path: pathlib.Path) -> None:
    for config in (None, {}, AwqConfig(), AwqConfig().to_dict(), {"bits": 4, "group_size": 128}):
        model = AutoAWQForCausalLM.from_pretrained(str(DEMO))
        model.quantize(None, config, **SHORT)
        model.save_quantized(tmp_path / "again")
        assert files_of(tmp_path / "again")["model.safetensors"] == files_of(quantized)["model.safetensors"]


@pytest.mark.parametrize(
    ("config", "error", "text"),
    [
        ({**GUIDE, "version": "GEMV"}, NotImplementedError, "GEMM is"),
        ({**GUIDE, "version": "GEMV_FAST"}, NotImplementedError, "GEMM is"),
        ({**GUIDE, "version": "Marlin"}, NotImplementedError, "GEMM is"),
        ({**GUIDE, "zero_point": False}, ValueError, "zero for every group"),
        ({**GUIDE, "w_bit": 3}, (ValueError, NotImplementedError), "3"),
        ({**GUIDE, "w_bits": 4}, TypeError, "did you mean 'w_bit'"),
        ({**GUIDE, "q_group_size": 100}, (ValueError, NotImplementedError), "100"),
        ({**GUIDE, "modules_to_not_convert": ["k_projj"]}, ValueError, "matches no module"),
        (17, TypeError, "int is neither a dict nor an AwqConfig"),
    ],
)
def test_quantize_refuses_configs(
    dense: AutoAWQForCausalLM, scratch: pathlib.Path, config: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        dense.quantize(None, config, **SHORT)
    assert not dense.is_quantized and list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"calib_dat": IDS}, "did you mean 'calib_data'"),
        ({"apply_clipping": True}, "did you mean 'apply_clip'"),
    ],
)
def test_quantize_refuses_unknown_arguments(dense: AutoAWQForCausalLM, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        dense.quantize(None, GUIDE, **arguments)


def test_settings_are_checked_before_data_is_fetched(dense: AutoAWQForCausalLM) -> None:
    with pytest.raises(NotImplementedError, match="GEMM is"):
        dense.quantize(None, {**GUIDE, "version": "GEMV"}, calib_data="no/such-data")
    with pytest.raises(ValueError, match="matches no module"):
        dense.quantize(None, GUIDE, modules_to_not_convert=["gate"], calib_data="no/such-data")
    with pytest.raises(TypeError, match="'visual' is a str"):
        dense.quantize(None, GUIDE, modules_to_not_convert="visual", calib_data="no/such-data")


def test_quantize_refuses_what_is_quantized(quantized: str) -> None:
    model = AutoAWQForCausalLM.from_pretrained(quantized)
    assert model.is_quantized
    with pytest.raises((ValueError, NotImplementedError), match="quantized"):
        model.quantize(None, GUIDE, **SHORT)


def test_settings_reach_the_core(monkeypatch: pytest.MonkeyPatch, dense: AutoAWQForCausalLM) -> None:
    asked: dict[str, Any] = {}

    def oneshot(**options: Any) -> str:
        asked.update(options)
        shutil.copytree(DEMO, options["output"], dirs_exist_ok=True)
        return json.dumps({"warnings": []})

    monkeypatch.setattr(_core, "oneshot", oneshot)
    dense.quantize(
        None,
        GUIDE,
        duo_scaling=False,
        apply_clip=False,
        export_compatible=True,
        n_parallel_calib_samples=4,
        max_chunk_memory=1 << 20,
        modules_to_not_convert=["down_proj"],
        propagate_error=False,
        **SHORT,
    )
    assert (asked["duo_scaling"], asked["apply_clip"], asked["scaled_only"]) == (False, False, True)
    assert (asked["propagate_error"], asked["max_seq_length"]) == (False, 64)
    assert json.loads(asked["recipe"])["modules_to_not_convert"] == ["down_proj"]
    assert asked["recipe_source"] == "quant_config.json"
    assert [list(ids) for ids in asked["sequences"]] == IDS


def test_stopping_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, dense: AutoAWQForCausalLM, scratch: pathlib.Path
) -> None:
    class Stop:
        def update(self, done: int) -> None:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def progress(*_: object, **__: object) -> Iterator[Stop]:
        yield Stop()

    monkeypatch.setattr("salient.quantize.quantizer.progress", progress)
    with pytest.raises(KeyboardInterrupt):
        dense.quantize(None, GUIDE, **SHORT)
    assert not dense.is_quantized and dense.model.directory == str(DEMO)
    assert list(scratch.iterdir()) == []


# ---- what stays dense


class Visual(BaseAWQForCausalLM):
    modules_to_not_convert = ["visual", "down_proj"]


class AutoVisual(AutoAWQForCausalLM):
    modules_to_not_convert = ["visual", "down_proj"]


@pytest.mark.parametrize("kind", [Visual, AutoVisual])
def test_a_class_adds_to_the_config(kind: type[BaseAWQForCausalLM]) -> None:
    model = kind.from_pretrained(str(DEMO))
    assert type(model) is kind
    model.quantize(None, {**GUIDE, "modules_to_not_convert": ["up_proj"]}, **SHORT)
    assert model.quant_config is not None
    assert model.quant_config.modules_to_not_convert == ["up_proj", "down_proj"]
    kinds = {name.split(".")[-2] for name in tensors_of(model.model.directory) if name.endswith("qweight")}
    assert kinds == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj"}


def tensors_of(directory: str) -> list[str]:
    return _core.tensor_names(directory)


def test_an_entry_is_whole_words(dense: AutoAWQForCausalLM) -> None:
    with pytest.raises(ValueError, match="matches no module"):
        dense.quantize(None, {**GUIDE, "modules_to_not_convert": ["gate"]}, **SHORT)


def test_parts_of_a_checkpoint(tmp_path: pathlib.Path) -> None:
    from salient.models._names import parts_present

    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes((1 << 60).to_bytes(8, "little"))
    with pytest.raises(salient.FormatError, match="model.safetensors"):
        parts_present(str(tmp_path), ["visual"])
    tensor = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"model.visual.blocks.0.weight": tensor}).encode()
    header += b" " * (-len(header) % 8)
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert parts_present(str(tmp_path), ["visual", "visua", "blocks.0", "gate"]) == ["visual", "blocks.0"]


def test_mappings_in_python_are_refused() -> None:
    class Own(BaseAWQForCausalLM):
        @staticmethod
        def get_layers_for_scaling(module: object, input_feat: object, module_kwargs: object) -> list[object]:
            return []

    with pytest.raises(NotImplementedError, match="AWQModifier"):
        Own.from_pretrained(str(DEMO)).quantize(None, GUIDE, **SHORT)


def test_quantizers_of_users(dense: AutoAWQForCausalLM) -> None:
    class Settings(AwqQuantizer):
        def quantize(self) -> None:
            self.apply_clip = False
            super().quantize()

    class Steps(AwqQuantizer):
        def init_quant(self, n_samples: int = 128, max_seq_len: int = 512) -> None: ...

    with pytest.raises(NotImplementedError, match="Steps.init_quant would not be called"):
        dense.quantize(None, GUIDE, quantizer_cls=Steps, **SHORT)
    dense.quantize(None, GUIDE, quantizer_cls=Settings, **SHORT)
    assert dense.quantizer is not None and not dense.quantizer.apply_clip
    assert len(dense.quantizer.report["layers"]) == 4
    assert dense.quantizer.report.to_html().startswith("<!DOCTYPE html>")


# ---- scale now, round later


def test_scaled_weights_stay_dense_until_packed(dense: AutoAWQForCausalLM, tmp_path: pathlib.Path) -> None:
    dense.quantize(None, GUIDE, export_compatible=True, **SHORT)
    dense.save_quantized(tmp_path / "scaled")
    assert info_of(tmp_path / "scaled")["quantization"] is None
    assert files_of(tmp_path / "scaled")["model.safetensors"] != files_of(DEMO)["model.safetensors"]
    dense.pack()
    dense.save_quantized(tmp_path / "packed")
    assert block_of(str(tmp_path / "packed"))["version"] == "gemm"
    with pytest.raises(ValueError, match="nothing to pack"):
        dense.pack()


def test_oneshot_quantizes_what_a_handle_stands_for(dense: AutoAWQForCausalLM) -> None:
    recipe = "QuantizationModifier: {scheme: W4A16, ignore: [lm_head]}"
    salient.oneshot(dense, recipe=recipe, progress=False)
    assert dense.is_quantized and dense.quant_config is None
    with pytest.raises(ValueError, match="nothing to pack"):
        dense.pack()


def test_stopped_behind_the_last_step(monkeypatch: pytest.MonkeyPatch, dense: AutoAWQForCausalLM) -> None:
    class Stopped(AwqQuantizer):
        def quantize(self) -> None:
            super().quantize()
            raise KeyboardInterrupt

    config = {**GUIDE, "q_group_size": 64}
    with pytest.raises(KeyboardInterrupt):
        dense.quantize(None, config, export_compatible=True, quantizer_cls=Stopped, **SHORT)
    assert dense.is_quantized and dense.quant_config == AwqConfig.from_dict(config)
    dense.pack()
    assert dense.quant_config == AwqConfig.from_dict(config)


def test_dispatching_changes_nothing(dense: AutoAWQForCausalLM) -> None:
    from salient.offload import dispatch_model
    from salient.utils import dispatch_for_generation

    with silence():
        assert dispatch_model(dense.model) is dense.model and dispatch_for_generation(dense, extra_memory=0) is dense
    with pytest.warns(UserWarning, match="device_memory=.* has no effect"):
        dispatch_model(dense, {0: 1 << 30})


def test_pack_needs_scaled_weights(dense: AutoAWQForCausalLM) -> None:
    with pytest.raises(ValueError, match="export_compatible=True"):
        dense.pack()


# ---- saving


def test_save_before_quantize(dense: AutoAWQForCausalLM, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="call quantize first"):
        dense.save_quantized(tmp_path / "out")


def test_save_replaces_models_only(quantized: str, tmp_path: pathlib.Path) -> None:
    model = AutoAWQForCausalLM.from_quantized(quantized)
    target = tmp_path / "out"
    model.save_quantized(f"{target}/", shard_size="1MB")
    assert len(list(target.glob("*.safetensors"))) > 1
    model.save_quantized(target)
    assert files_of(target)["model.safetensors"] == files_of(quantized)["model.safetensors"]
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="is no model's"):
        model.save_quantized(tmp_path / "site")
    assert files_of(tmp_path / "site") == {"config.json": b"{}"}


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"safetensors": False}, NotImplementedError, "pickled weights"),
        ({"shard_size": "big"}, ValueError, "big"),
        ({"shard_size": -1}, ValueError, "-1"),
    ],
)
def test_save_refuses(
    quantized: str, tmp_path: pathlib.Path, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        AutoAWQForCausalLM.from_quantized(quantized).save_quantized(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_tokenizer_is_saved_beside_the_weights(quantized: str, tmp_path: pathlib.Path) -> None:
    model = AutoAWQForCausalLM.from_quantized(quantized)
    model.save_quantized(tmp_path / "out")
    tokenizer = salient.AutoTokenizer.from_pretrained(str(DEMO))
    tokenizer.save_pretrained(str(tmp_path / "out"))
    assert salient.AutoTokenizer.from_pretrained(str(tmp_path / "out")).encode("a cat") == tokenizer.encode("a cat")


# ---- running


def test_generate_returns_prompt_and_answer(quantized: str) -> None:
    model = AutoAWQForCausalLM.from_quantized(quantized, max_seq_len=32)
    tokenizer = salient.AutoTokenizer.from_pretrained(quantized)
    inputs = tokenizer("The cat", return_tensors="pt")
    outputs = model.generate(**inputs, max_new_tokens=5)
    assert outputs.shape[0] == 1 and inputs.input_ids.shape[1] < outputs.shape[1] <= inputs.input_ids.shape[1] + 5
    assert list(outputs[0][: inputs.input_ids.shape[1]]) == list(inputs.input_ids[0])


def test_generate_before_quantize(dense: AutoAWQForCausalLM) -> None:
    assert np.asarray(dense.generate(np.array([[5, 6, 7]]), max_new_tokens=2)).shape[0] == 1


@pytest.mark.parametrize(
    ("prompt", "options", "text"),
    [
        ([1] * 30, {"max_new_tokens": 3}, "30 tokens of the prompt and 3 new ones are more than max_seq_len 32"),
        (np.ones((2, 31), np.int64), {"max_new_tokens": 2}, "31 tokens of the prompt"),
        ([[1, 2], [1] * 40], {}, "rows of different lengths"),
        ([[1] * 40, [2] * 40], {}, "40 tokens of the prompt"),
        (5, {}, r"\[batch, tokens\] or \[tokens\] are expected"),
        ([1, 2], {"max_length": 33}, "2 tokens of the prompt and 31 new ones"),
    ],
)
def test_generate_is_bounded(quantized: str, prompt: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        AutoAWQForCausalLM.from_quantized(quantized, max_seq_len=32).generate(prompt, **options)


def test_an_encoding_is_not_a_prompt(quantized: str) -> None:
    with pytest.raises(TypeError, match=r"\*\*inputs"):
        AutoAWQForCausalLM.from_quantized(quantized, max_seq_len=32).generate({"input_ids": [[1, 2]]})


def test_new_tokens_nobody_asked_for_fit(quantized: str) -> None:
    outputs = AutoAWQForCausalLM.from_quantized(quantized, max_seq_len=8).generate(np.array([[5, 6, 7]]))
    assert 3 < outputs.shape[1] <= 8


def test_older_name_of_the_bound(quantized: str) -> None:
    with pytest.warns(UserWarning, match="older name"):
        assert AutoAWQForCausalLM.from_quantized(quantized, max_new_tokens=64).max_seq_len == 64


# ---- the others read it


def test_autoawq_and_transformers_read_what_is_written(quantized: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    gemm = pytest.importorskip("awq.modules.linear.gemm")
    tensors = pytest.importorskip("safetensors.torch").load_file(os.path.join(quantized, "model.safetensors"))
    for name in [name for name in tensors if name.endswith(".qweight")]:
        parts = [tensors.pop(name.replace("qweight", part)) for part in ("qweight", "qzeros", "scales")]
        tensors[name.replace("qweight", "weight")] = gemm.dequantize_gemm(*parts, 4, 128).T.contiguous()
    config = transformers.AutoConfig.from_pretrained(quantized)
    del config.quantization_config
    theirs = transformers.AutoModelForCausalLM.from_config(config, torch_dtype=torch.float32)
    assert theirs.load_state_dict(tensors, strict=False).unexpected_keys == []
    with torch.no_grad():
        expected = theirs.eval()(torch.tensor([IDS[0]])).logits[0].numpy()
    logits = AutoAWQForCausalLM.from_quantized(quantized).model.logits(IDS[0])
    np.testing.assert_allclose(logits, expected, atol=0.02 * np.abs(expected).max())


def test_objects_of_torch_and_transformers_are_taken(quantized: str, tmp_path: pathlib.Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(DEMO))
    model = AutoAWQForCausalLM.from_pretrained(str(DEMO), torch_dtype=torch.float16)
    texts = TEXT.read_text().splitlines()[:16]
    model.quantize(tokenizer, GUIDE, calib_data=texts, max_calib_samples=8, max_calib_seq_len=64)
    model.save_quantized(tmp_path / "out")
    tokenizer.save_pretrained(tmp_path / "out")
    inputs = tokenizer("The cat", return_tensors="pt", return_token_type_ids=False)
    outputs = model.generate(**inputs, max_new_tokens=4)
    assert isinstance(outputs, torch.Tensor) and outputs.shape[1] > inputs.input_ids.shape[1]
    with pytest.warns(UserWarning, match="torch_dtype float32"):
        AutoAWQForCausalLM.from_pretrained(str(DEMO), torch_dtype=torch.float32)
