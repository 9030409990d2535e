"""What AutoAWQ's and transformers' loaders say of how to run a model: fusing, lengths, arithmetic, packed weights."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

import salient
from salient import AutoAWQForCausalLM, AwqConfig

IDS = [[(7 * row + 3 * i) % 3000 + 1 for i in range(64)] for row in range(8)]


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory, demo_model: str) -> str:
    target = tmp_path_factory.mktemp("quantized") / "demo-awq"
    model = AutoAWQForCausalLM.from_pretrained(demo_model)
    model.quantize(None, None, calib_data=IDS, max_calib_samples=8, max_calib_seq_len=64)
    model.save_quantized(str(target))
    return str(target)


@pytest.mark.parametrize("fuse", [True, False])
def test_fuse_layers_decides_what_is_one_product(quantized: str, fuse: bool) -> None:
    model = AutoAWQForCausalLM.from_quantized(quantized, fuse_layers=fuse)
    assert model.model.core.fuse_layers is fuse
    assert salient.load(quantized, fuse_layers=fuse).core.fuse_layers is fuse
    tokens = model.generate(np.array([[5, 6, 7]]), max_new_tokens=8, do_sample=False)
    unfused = AutoAWQForCausalLM.from_quantized(quantized, fuse_layers=False)
    np.testing.assert_array_equal(tokens, unfused.generate(np.array([[5, 6, 7]]), max_new_tokens=8, do_sample=False))


def test_do_fuse_decides_what_is_one_product(quantized: str) -> None:
    def fuses(config: Any) -> bool:
        return salient.AutoModelForCausalLM.from_pretrained(quantized, quantization_config=config).core.fuse_layers

    assert fuses(None) and fuses(AwqConfig(bits=4)) and fuses(AwqConfig(do_fuse=True, fuse_max_seq_len=64))
    assert not fuses(AwqConfig(do_fuse=False)) and not fuses({"bits": 4, "do_fuse": False})


def test_fuse_max_seq_len_bounds_what_is_generated(quantized: str) -> None:
    config = AwqConfig(bits=4, do_fuse=True, fuse_max_seq_len=16)
    model = salient.AutoModelForCausalLM.from_pretrained(quantized, quantization_config=config)
    message = "14 tokens of the prompt and 3 new ones are more than fuse_max_seq_len 16"
    with pytest.raises(ValueError, match=message):
        model.generate(np.ones((1, 14), np.int64), max_new_tokens=3)
    assert model.generate(np.ones((1, 14), np.int64), max_new_tokens=2, do_sample=False).shape[1] <= 16
    assert model.generate(np.array([[5, 6, 7]])).shape[1] <= 16
    with pytest.raises(ValueError, match="tokens of the prompt and 30 new ones are more than fuse_max_seq_len 16"):
        model.generate("Once upon a time", max_new_tokens=30)
    with pytest.raises(ValueError, match="tokens of the prompt and 30 new ones are more than fuse_max_seq_len 16"):
        list(model.stream("Once upon a time", max_new_tokens=30))
    with pytest.raises(ValueError, match=message):
        AutoAWQForCausalLM.from_quantized(quantized, fuse_max_seq_len=16).generate([1] * 14, max_new_tokens=3)


def test_a_state_counts_for_the_bound(quantized: str, tmp_path: pathlib.Path) -> None:
    model = AutoAWQForCausalLM.from_quantized(quantized, max_seq_len=16)
    model.generate([5] * 12, max_new_tokens=0, save_state=tmp_path / "state")
    with pytest.raises(ValueError, match="13 tokens of the prompt and 4 new ones are more than max_seq_len 16"):
        model.generate([6], max_new_tokens=4, load_state=tmp_path / "state")
    assert len(model.generate([6], max_new_tokens=3, load_state=tmp_path / "state")) <= 16


def fusing_of(config: Any) -> dict[str, Any]:
    return {
        "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
        "layernorm": ["input_layernorm", "post_attention_layernorm", "norm"],
        "mlp": ["gate_proj", "up_proj", "down_proj"],
        "use_alibi": False,
        **{name: config[name] for name in ("hidden_size", "num_attention_heads", "num_key_value_heads")},
    }


def test_modules_to_fuse_are_taken(quantized: str) -> None:
    modules = fusing_of(AutoAWQForCausalLM.from_quantized(quantized).config)
    model = AutoAWQForCausalLM.from_quantized(quantized, modules_to_fuse=modules, fuse_max_seq_len=32)
    assert model.model.core.fuse_layers and model.max_seq_len == 32
    config = AwqConfig(modules_to_fuse=modules, fuse_max_seq_len=32)
    loaded = salient.AutoModelForCausalLM.from_pretrained(quantized, quantization_config=config)
    assert loaded.core.fuse_layers and loaded.generate([5, 6, 7]).shape[0] <= 32


def test_modules_to_fuse_have_to_fit(quantized: str) -> None:
    modules = fusing_of(AutoAWQForCausalLM.from_quantized(quantized).config)
    for change, text in (
        ({"hidden_size": 4096}, "modules_to_fuse says hidden_size=4096, config.json"),
        ({"mpl": []}, "modules_to_fuse has no key 'mpl'; did you mean 'mlp'"),
    ):
        with pytest.raises(ValueError, match=text):
            AutoAWQForCausalLM.from_quantized(quantized, modules_to_fuse={**modules, **change})
    with pytest.raises(ValueError, match="fuse_layers=False that nothing is"):
        AutoAWQForCausalLM.from_quantized(quantized, modules_to_fuse=modules, fuse_layers=False)
    config = AwqConfig(modules_to_fuse={**modules, "num_attention_heads": 64}, fuse_max_seq_len=8)
    with pytest.raises(ValueError, match="num_attention_heads=64, config.json"):
        salient.AutoModelForCausalLM.from_pretrained(quantized, quantization_config=config)


def test_activations_and_packed_weights_reach_the_weights(quantized: str, tmp_path: pathlib.Path) -> None:
    ids = IDS[0]
    exact = AutoAWQForCausalLM.from_quantized(quantized).model.logits(ids)
    options: dict[str, Any] = {"activations": "int8", "packed_weights": tmp_path / "packed"}
    (tmp_path / "packed").mkdir()
    rounded = AutoAWQForCausalLM.from_quantized(quantized, **options).model.logits(ids)
    assert 0 < np.abs(rounded - exact).max() < 0.1 * np.abs(exact).max()
    assert len(list((tmp_path / "packed").iterdir())) == 1
    auto = salient.AutoModelForCausalLM.from_pretrained(quantized, **options)
    again = AutoAWQForCausalLM.from_pretrained(quantized, **options).model
    for model in (auto, again):
        np.testing.assert_array_equal(model.logits(ids), rounded)
    for loader in (AutoAWQForCausalLM.from_quantized, AutoAWQForCausalLM.from_pretrained):
        with pytest.raises(ValueError, match='activations "int4" are not known'):
            loader(quantized, activations="int4")
