"""AwqConfig under the names of transformers and of AutoAWQ."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from salient import AwqConfig
from salient._config import as_awq_config, check_agreement, loading_config
from salient._fusing import SequenceLimit

GUIDE = {"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"}


def test_config_has_the_names_of_transformers() -> None:
    config = AwqConfig(bits=4, group_size=64, zero_point=True, version="GEMM")
    assert config.to_dict() == {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 64,
        "zero_point": True,
        "version": "gemm",
        "backend": "autoawq",
        "do_fuse": False,
        "fuse_max_seq_len": None,
        "modules_to_fuse": None,
        "modules_to_not_convert": None,
        "exllama_config": None,
    }
    assert AwqConfig.from_dict(config.to_dict()) == config


def test_config_has_the_names_of_autoawq() -> None:
    config = AwqConfig.from_dict(GUIDE)
    assert (config.w_bit, config.q_group_size, config.zero_point, config.version) == (4, 128, True, "gemm")
    assert config.to_transformers_dict()["bits"] == 4
    assert AwqConfig.from_dict({}) == AwqConfig()
    assert AwqConfig(w_bit=8, q_group_size=32).bits == 8


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"version": "gem"}, ValueError, "'gem' is none of gemm"),
        ({"backend": "vllm"}, ValueError, "'vllm' is none of autoawq"),
        ({"group_sise": 64}, TypeError, "did you mean 'group_size'"),
        ({"do_fuse": True}, ValueError, "fuse_max_seq_len"),
        ({"modules_to_fuse": {"mlp": []}, "fuse_max_seq_len": 8}, ValueError, "lacks hidden_size"),
        ({"do_fuse": "yes", "fuse_max_seq_len": 8}, ValueError, "do_fuse='yes' is neither True nor False"),
        ({"fuse_max_seq_len": 0}, ValueError, "fuse_max_seq_len=0: a whole number of at least 1"),
        ({"modules_to_not_convert": "visual"}, TypeError, "write a list"),
        ({"quant_method": "gptq"}, ValueError, "'gptq' is none of awq"),
        ({"bits": "4"}, ValueError, "bits='4': a whole number of at least 1"),
        ({"q_group_size": 64.0}, ValueError, "q_group_size=64.0: a whole number of at least 1"),
        ({"group_size": 0}, ValueError, "group_size=0: a whole number of at least 1"),
        ({"zero_point": "False"}, ValueError, "zero_point='False' is neither True nor False"),
        ({"bits": 8, "w_bit": 4}, TypeError, "w_bit 4 contradicts bits 8"),
        ({"version": "gemm", "format": "gemv"}, TypeError, "format 'gemv' contradicts version 'gemm'"),
    ],
)
def test_config_refuses(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        AwqConfig(**arguments)


FUSING = {
    "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "layernorm": ["input_layernorm", "post_attention_layernorm", "norm"],
    "mlp": ["gate_proj", "up_proj", "down_proj"],
    "use_alibi": False,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 64,
}


def test_modules_to_fuse_turn_fusing_on() -> None:
    config = AwqConfig(modules_to_fuse={**FUSING, "max_seq_len": 8, "rope_theta": 1e4}, fuse_max_seq_len=8)
    assert config.do_fuse and config.fuses() and config.sequence_limit("x") == SequenceLimit(8, "fuse_max_seq_len")
    assert AwqConfig(modules_to_fuse={**FUSING, "attention": [], "mlp": []}, fuse_max_seq_len=8).do_fuse


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"atention": []}, "modules_to_fuse has no key 'atention'; did you mean 'attention'"),
        ({"attention": "q_proj"}, r"modules_to_fuse\['attention'\]='q_proj' is no list of names"),
        ({"attention": ["q_proj", "k_proj"]}, r"modules_to_fuse\['attention'\] has 2 names; 0 or 4 are expected"),
        ({"mlp": ["gate_proj", 3, "down_proj"]}, "is no list of names"),
        ({"mlp": ["up_proj", "down_proj"]}, "has 2 names; 0 or 3 are expected"),
        ({"layernorm": [""]}, "is no list of names"),
        ({"use_alibi": 0}, r"modules_to_fuse\['use_alibi'\]=0 is neither True nor False"),
        ({"hidden_size": None}, r"modules_to_fuse\['hidden_size'\]=0: a whole number of at least 1"),
        ({"num_attention_heads": 4.0}, "a whole number of at least 1"),
        ({"rope_theta": "large"}, "is no base of angles"),
    ],
)
def test_modules_to_fuse_are_checked(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        AwqConfig(modules_to_fuse={**FUSING, **change}, fuse_max_seq_len=8)


def test_modules_to_fuse_are_a_mapping_of_all_keys() -> None:
    wrong: Any = ["q_proj"]
    with pytest.raises(ValueError, match="modules_to_fuse is a list, not a dict"):
        AwqConfig(modules_to_fuse=wrong, fuse_max_seq_len=8)
    for key in FUSING:
        rest = {name: value for name, value in FUSING.items() if name != key}
        with pytest.raises(ValueError, match=f"modules_to_fuse lacks {key}"):
            AwqConfig(modules_to_fuse=rest, fuse_max_seq_len=8)


def test_what_is_not_said_fuses() -> None:
    assert AwqConfig().fuses() and AwqConfig(bits=4).fuses() and AwqConfig(do_fuse=True, fuse_max_seq_len=8).fuses()
    assert not AwqConfig(do_fuse=False).fuses()
    assert not loading_config({"bits": 4, "do_fuse": False}).fuses()
    assert loading_config({"quant_method": "gptq"}).fuses() and loading_config(None).fuses()


def test_fuse_max_seq_len_needs_do_fuse() -> None:
    with pytest.warns(UserWarning, match="m: fuse_max_seq_len 8 has no effect without do_fuse=True"):
        assert AwqConfig(fuse_max_seq_len=8).sequence_limit("m") is None


def test_config_refuses_contradictions() -> None:
    with pytest.raises(TypeError, match="w_bit 8 contradicts bits 4"):
        AwqConfig.from_dict({"bits": 4, "w_bit": 8})


def test_only_what_was_given_can_contradict_a_checkpoint() -> None:
    stored = {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "GEMM"}
    agreeing: list[Any] = [
        AwqConfig(bits=4, fuse_max_seq_len=512, do_fuse=True),
        AwqConfig(q_group_size=64),
        {"bits": 4, "version": "gemm"},
    ]
    contradicting: list[tuple[Any, str]] = [
        (AwqConfig(4, 128), "group_size=128, config.json 64"),
        (AwqConfig(group_size=32), "group_size=32"),
        (AwqConfig(zero_point=False), "zero_point=False"),
        ({"w_bit": 8}, "bits=8"),
        ({"quant_method": "gptq", "bits": 4}, "quant_method='gptq'"),
    ]
    for wanted in agreeing:
        check_agreement("m", stored, wanted)
    for wanted, text in contradicting:
        with pytest.raises(ValueError, match=text):
            check_agreement("m", stored, wanted)
    with pytest.raises(ValueError, match="the weights are dense"):
        check_agreement("m", None, AwqConfig())


def test_a_copy_knows_what_was_given() -> None:
    config = as_awq_config(AwqConfig(group_size=64))
    assert config.said() == {"group_size": 64}
    config.bits = 8
    assert config.said() == {"bits": 8, "group_size": 64}


def test_config_of_a_model_quantized_otherwise(tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "compressed-tensors"}}')
    with pytest.raises(ValueError, match="is quantized by compressed-tensors, which is no AwqConfig's"):
        AwqConfig.from_pretrained(tmp_path)


def test_transformers_config_is_taken() -> None:
    transformers = pytest.importorskip("transformers")
    config = as_awq_config(transformers.AwqConfig(bits=4, group_size=64))
    assert (config.bits, config.group_size, config.version) == (4, 64, "gemm")
    assert loading_config(transformers.AwqConfig(bits=4)).fuses()
