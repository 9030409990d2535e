"""Names of devices and kernels: what becomes of them without a GPU, and what models are asked for with one."""

from __future__ import annotations

import logging
import pathlib
import warnings
from typing import Any

import numpy as np
import pytest

import salient
from salient import AutoAWQForCausalLM, AutoModelForCausalLM, AwqConfig, CausalLM, _core, _devices
from salient._config import check_agreement, loading_config
from salient.modifiers.quantization import QuantizationModifier

without_gpu = pytest.mark.skipif(_devices.has_gpu(), reason="there is a GPU")
KERNELS = ("auto", "gemm", "GEMV", "gemv_fast", "marlin", "exllama", "exllamav2")
NEAREST = QuantizationModifier(targets="Linear", scheme="W4A16", ignore=["lm_head"])


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory, demo_model: str) -> str:
    target = tmp_path_factory.mktemp("quantized") / "demo"
    salient.oneshot(demo_model, recipe=NEAREST, format="autoawq-gemm", output_dir=target, progress=False)
    return str(target)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """As if there were a GPU: how models are to run on it."""
    running: list[dict[str, Any]] = []
    monkeypatch.setattr(_devices, "_why_no_gpu", lambda: "")
    monkeypatch.setattr(_core, "check_running", lambda **given: running.append(given))
    return running


def notes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "salient"]


# ---- kernels


@pytest.mark.parametrize("kernel", KERNELS)
def test_names_of_kernels_are_known(demo_model: str, kernel: str) -> None:
    assert CausalLM(demo_model, kernel=kernel).num_parameters() > 0


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_another_kernel_is_refused_with_the_names(demo_model: str, device: str) -> None:
    with pytest.raises(ValueError, match=r'kernel "triton" is not known \(auto, gemm, marlin, .*exllamav2'):
        salient.load(demo_model, device=device, kernel="triton")
    with pytest.raises(ValueError, match='kernel "triton"'):
        AutoModelForCausalLM.from_pretrained(demo_model, kernel="triton")
    with pytest.raises(TypeError, match="did you mean 'kernel'"):
        AutoModelForCausalLM.from_pretrained(demo_model, kernels="gemm")


def test_the_logger_is_told_what_becomes_of_a_kernel(demo_model: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "salient")
    salient.load(demo_model, device="cpu", kernel="marlin")
    assert notes(caplog) == ["kernel marlin: of no effect, the CPU has its own"]
    caplog.clear()
    salient.load(demo_model, device="cpu")
    assert notes(caplog) == []


def test_kernels_change_nothing_on_the_cpu(quantized: str) -> None:
    exact, other = (salient.load(quantized, device="cpu", kernel=kernel).logits([5, 9, 2]) for kernel in KERNELS[:2])
    np.testing.assert_array_equal(exact, other)


@pytest.mark.parametrize(
    ("config", "kernel"),
    [
        (None, "auto"),
        (AwqConfig(), "auto"),
        (AwqConfig(bits=4, group_size=128), "auto"),
        (AwqConfig(version="gemm"), "gemm"),
        (AwqConfig(version="GEMV"), "gemv"),
        (AwqConfig(format="gemv_fast"), "gemv_fast"),
        (AwqConfig(version="exllama", exllama_config={"version": 2}), "exllama"),
        ({"version": "marlin"}, "marlin"),
        (AwqConfig(version="ipex"), "auto"),
        (AwqConfig(backend="exllama_v2"), "exllama_v2"),
        (AwqConfig(version="gemv", backend="machete"), "machete"),
        (AwqConfig(version="gemv", backend="autoawq"), "gemv"),
        (AwqConfig(backend="gemm_triton"), "gemm"),
        (AwqConfig(backend="torch_awq"), "auto"),
        (AwqConfig.of_checkpoint({"quant_method": "awq", "bits": 4, "version": "gemm"}), "auto"),
        ({"quant_method": "gptq", "version": "gemv"}, "auto"),
    ],
)
def test_a_config_names_kernels(config: Any, kernel: str) -> None:
    assert loading_config(config).kernel == kernel


def test_every_word_of_a_config_is_a_kernel(demo_model: str) -> None:
    from salient._config import _BACKENDS, _VERSIONS

    for word in _VERSIONS:
        CausalLM(demo_model, kernel=AwqConfig(version=word).kernel)
    for word in _BACKENDS:
        CausalLM(demo_model, kernel=AwqConfig(backend=word).kernel)


def test_a_named_version_is_a_kernel_and_no_contradiction(quantized: str, asked: list[dict[str, Any]]) -> None:
    check_agreement("m", {"quant_method": "awq", "bits": 4, "version": "gemm"}, AwqConfig(version="exllama"))
    config = AwqConfig(bits=4, version="exllama")
    AutoModelForCausalLM.from_pretrained(quantized, quantization_config=config)
    AutoModelForCausalLM.from_pretrained(quantized, quantization_config=config, kernel="gemv")
    AutoModelForCausalLM.from_pretrained(quantized, quantization_config=AwqConfig.from_pretrained(quantized))
    assert [running["kernel"] for running in asked] == ["exllama", "gemv", "auto"]


@pytest.mark.parametrize(
    ("name", "kernel"), [("use_exllama", "exllama"), ("use_exllama_v2", "exllamav2"), ("use_marlin", "marlin")]
)
def test_arguments_of_autoawq_name_kernels_of_a_gpu(
    quantized: str, asked: list[dict[str, Any]], name: str, kernel: str
) -> None:
    named: dict[str, Any] = {name: True}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AutoAWQForCausalLM.from_quantized(quantized, **named)
        AutoAWQForCausalLM.from_quantized(quantized, **{**named, "kernel": "gemv"})
        AutoAWQForCausalLM.from_quantized(quantized, **{name: False})
    assert [running["kernel"] for running in asked] == [kernel, "gemv", "auto"]
    with pytest.warns(UserWarning, match=f"{name}=True has no effect: the kernels are those of the processor"):
        AutoAWQForCausalLM.from_quantized(quantized, device_map="cpu", **named)


# ---- devices


@without_gpu
def test_a_gpu_that_is_not_there_is_refused_with_the_reason(demo_model: str) -> None:
    reason = _core.why_no_gpu()
    for device in ("cuda", "cuda:1"):
        with pytest.raises(NotImplementedError) as refusal:
            salient.load(demo_model, device=device)
        assert reason in str(refusal.value)
        with pytest.raises(NotImplementedError):
            CausalLM(demo_model, device=device)
    for device in ("cuda:", "cuda:x", "gpu"):
        with pytest.raises(ValueError, match=r"is not known \(auto, cpu, cuda, cuda:N\)"):
            salient.load(demo_model, device=device)


@without_gpu
@pytest.mark.parametrize("activations", ["fp16", "bf16"])
def test_halves_are_for_a_gpu(demo_model: str, activations: str) -> None:
    with pytest.raises(ValueError, match=f'activations "{activations}" are for a GPU'):
        CausalLM(demo_model, activations=activations)


@without_gpu
def test_without_a_gpu_the_cpu_runs_what_names_one(demo_model: str) -> None:
    with pytest.warns(UserWarning, match="device cuda:0 is not used: cpu computes, there is no GPU: ."):
        model = AutoModelForCausalLM.from_pretrained(demo_model, device_map="cuda:0")
    assert model.device == "cpu" and model.core.device.startswith("cpu: ") and model.device == "cpu"
    assert model.to("cpu") is model and salient.get_best_device() == "cpu"


@without_gpu
def test_quantizing_on_a_gpu_that_is_not_there(demo_model: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(NotImplementedError, match="CUDA|cuda|GPU"):
        salient.oneshot(demo_model, recipe=NEAREST, device="cuda", output_dir=tmp_path / "out", progress=False)
    dense = AutoAWQForCausalLM.from_pretrained(demo_model)
    with pytest.raises(NotImplementedError, match="CUDA|cuda|GPU"):
        dense.quantize(None, None, calib_data=[[5, 6, 7] * 30], device="cuda")
    assert not (tmp_path / "out").exists() and not dense.is_quantized


def test_quantizing_refuses_what_is_no_device(demo_model: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match='device "tpu" is not known'):
        salient.oneshot(demo_model, recipe=NEAREST, device="tpu", output_dir=tmp_path / "out", progress=False)


@pytest.mark.parametrize(
    ("device_map", "device"),
    [
        (None, "auto"),
        ("auto", "auto"),
        ("balanced", "auto"),
        ("cpu", "cpu"),
        ("cuda", "cuda:0"),
        ("CUDA:1", "cuda:1"),
        (1, "cuda:1"),
        ({"": 0}, "cuda:0"),
        ({"": "cpu"}, "cpu"),
        ({"": "auto"}, "auto"),
        ({}, "auto"),
        ({"model": "cpu", "lm_head": "cuda:1"}, "cuda:1"),
    ],
)
def test_where_a_gpu_is_a_device_map_names_it(
    demo_model: str, asked: list[dict[str, Any]], device_map: object, device: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models: list[Any] = [
            AutoModelForCausalLM.from_pretrained(demo_model, device_map=device_map),
            AutoAWQForCausalLM.from_pretrained(demo_model, device_map=device_map),
        ]
    assert [running["device"] for running in asked] == [device] * 2
    assert {model.device for model in models} == {"cuda:0" if device == "auto" else device}


@pytest.mark.parametrize(
    ("device_map", "text"),
    [
        ("mps", "device mps is not used: cuda:0 computes"),
        ({"a": 0, "b": 1}, "device 1 is not used: all of a model runs on one device, cuda:0"),
    ],
)
def test_one_gpu_runs_all_of_a_model(
    demo_model: str, asked: list[dict[str, Any]], device_map: object, text: str
) -> None:
    with pytest.warns(UserWarning, match=text) as caught:
        AutoModelForCausalLM.from_pretrained(demo_model, device_map=device_map)
    assert len(caught) == 1 and asked[0]["device"] == ("auto" if device_map == "mps" else "cuda:0")


def test_models_move_between_devices(demo_model: str, asked: list[dict[str, Any]]) -> None:
    model = AutoAWQForCausalLM.from_pretrained(demo_model, device_map="cpu", kernel="gemv")
    assert model.device == "cpu" and salient.get_best_device() == "cuda:0"
    core = model.model.core
    assert model.to("cpu").model.core is core
    assert model.cuda() is model and model.device == "cuda:0"
    assert model.cuda(1).device == "cuda:1" and model.to("cuda:1").device == "cuda:1"
    assert model.to(dtype="float16").half().eval().device == "cuda:1"
    assert model.cpu() is model and model.device == "cpu" and model.model.core is not core
    assert [running["device"] for running in asked] == ["cpu", "cuda:0", "cuda:1", "cpu"]
    assert all(running["kernel"] == "gemv" for running in asked)
