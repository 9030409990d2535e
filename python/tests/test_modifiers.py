"""Recipe objects: keywords, checks, repr, dumps, and the text that the reader of recipe files gets."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from salient import _core, quantization
from salient.modifiers import Modifier, awq, recipe_text, transform
from salient.modifiers import quantization as modules
from salient.modifiers.awq import AWQMapping, AWQModifier
from salient.modifiers.quantization import (
    ActivationOrdering,
    QuantizationArgs,
    QuantizationModifier,
    QuantizationScheme,
    QuantizationStrategy,
    QuantizationType,
)


def guide_args(**changes: Any) -> QuantizationArgs:
    said: dict[str, Any] = {
        "num_bits": 4,
        "type": QuantizationType.INT,
        "dynamic": False,
        "symmetric": False,
        "strategy": QuantizationStrategy.GROUP,
        "group_size": 128,
    }
    return QuantizationArgs(**{**said, **changes})


def guide_recipe() -> list[Modifier]:
    scheme = QuantizationScheme(targets=["Linear"], weights=guide_args())
    quantization_modifier = QuantizationModifier(ignore=["lm_head"], config_groups={"group_0": scheme})
    return [AWQModifier(bits=4, symmetric=False), quantization_modifier]


def refuse(recipe: object) -> None:
    _core.read_recipe(*recipe_text(recipe))


# ---- names


def test_every_path_of_llm_compressor_leads_to_the_same_classes() -> None:
    from salient.modifiers.transform import awq as transform_awq

    assert awq.AWQModifier is transform.AWQModifier is transform_awq.AWQModifier
    assert quantization.QuantizationArgs is QuantizationArgs


def test_enums_equal_their_strings() -> None:
    for enum, text in ((QuantizationType.INT, "int"), (QuantizationStrategy.GROUP, "group")):
        assert enum == text
    assert str.__eq__(ActivationOrdering.WEIGHT, "weight")
    assert guide_args() == guide_args(type="int", strategy="group")
    assert guide_args(type="INT").type == "int"


def test_a_modifier_that_does_not_exist_says_what_to_write_instead() -> None:
    assert not hasattr(modules, "GPTQModifier")
    with pytest.raises(AttributeError, match="GPTQModifier: Salient has no such modifier; .*compensated"):
        modules.GPTQModifier  # noqa: B018


# ---- values


@pytest.mark.parametrize(("group_size", "strategy"), [(None, "tensor"), (-1, "channel"), (64, "group")])
def test_the_strategy_follows_from_the_group_size(group_size: int | None, strategy: str) -> None:
    assert QuantizationArgs(num_bits=4, group_size=group_size).strategy == strategy


def test_dicts_become_objects() -> None:
    modifier = QuantizationModifier(
        config_groups={"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 128}}}
    )
    assert modifier.config_groups is not None
    assert modifier.config_groups["group_0"].weights == QuantizationArgs(num_bits=4, group_size=128)
    assert QuantizationModifier(targets="Linear", scheme="W4A16").targets == ["Linear"]


def test_mappings_in_three_spellings_are_one() -> None:
    mapping = AWQMapping("re:.*up_proj$", ["re:.*down_proj$"])
    spellings = [mapping, {"smooth_layer": "re:.*up_proj$", "balance_layers": ["re:.*down_proj$"]}]
    spellings.append([["re:.*down_proj$"], "re:.*up_proj$"])
    assert [AWQModifier(mappings=[each]).mappings for each in spellings] == [[mapping]] * 3
    assert AWQModifier(mappings=[]).mappings == []


def test_a_repr_evaluates_back() -> None:
    recipe = [*guide_recipe(), AWQModifier(mappings=[AWQMapping("a", ["b"], activation_hook_target="c")], n_grid=5)]
    assert eval(repr(recipe)) == recipe
    assert repr(AWQModifier(n_grid=5)) == "AWQModifier(n_grid=5)"


def test_objects_are_copied_and_pickled() -> None:
    recipe = guide_recipe()
    assert copy.deepcopy(recipe) == pickle.loads(pickle.dumps(recipe)) == recipe


def test_equality_sees_every_field() -> None:
    assert AWQModifier(n_grid=5) == AWQModifier(n_grid=5) != AWQModifier(n_grid=6)
    assert guide_args() != guide_args(group_size=64)


# ---- refusals, where the object is made


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AWQModifier(n_grid=1), r"^AWQModifier: n_grid: 1 is outside \[2, 1000\]"),
        (lambda: AWQModifier(duo_scaling="on"), '^AWQModifier: duo_scaling: "on" is none of'),  # type: ignore[arg-type]
        (lambda: AWQModifier(mappings=["up_proj"]), r"^AWQModifier: mappings\[0\]"),
        (lambda: AWQModifier(ignore=["lm_head"]), "^AWQModifier: the modifiers do not say how to quantize"),
        (lambda: guide_args(strategy="channel"), "^QuantizationArgs: group_size 128 contradicts strategy channel"),
        (lambda: guide_args(type="itn"), '^QuantizationArgs: type: "itn" is unknown; did you mean "int"'),
        (lambda: QuantizationScheme(targets=["Linear"]), '^QuantizationScheme: the key "weights" is missing'),
        (lambda: QuantizationModifier(scheme="W4A17"), "^QuantizationModifier: scheme: .*W4A17.* is unknown"),
    ],
)
def test_nonsense_is_refused_at_its_line(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_numbers_out_of_range_are_wrong_values() -> None:
    with pytest.raises(ValueError, match="^AWQModifier: num_bits is 9"):
        AWQModifier(bits=9)
    with pytest.raises(ValueError, match="^QuantizationArgs: group_size is 17"):
        guide_args(group_size=17)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QuantizationArgs(type="float"), "^QuantizationArgs: type"),
        (lambda: AWQModifier(offload_device="cuda:0"), '^AWQModifier: offload_device: "cuda:0" is not supported'),
        (lambda: AWQModifier(sequential_targets=["LlamaDecoderLayer"]), "^AWQModifier: sequential_targets: .*leave it"),
        (
            lambda: QuantizationModifier(scheme="W4A16", kv_cache_scheme=QuantizationArgs(num_bits=8)),
            "^QuantizationModifier: kv_cache_scheme: ",
        ),
        (
            lambda: QuantizationScheme(
                targets=["Linear"],
                weights=guide_args(),
                input_activations=QuantizationArgs(num_bits=8, strategy="token", dynamic=True),
            ),
            "^QuantizationScheme: input_activations: ",
        ),
    ],
)
def test_what_salient_cannot_do_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(NotImplementedError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "keywords", "message"),
    [
        (AWQModifier, {"n_grdi": 5}, "AWQModifier: unknown argument 'n_grdi'; did you mean 'n_grid'"),
        (QuantizationArgs, {"symetric": True}, "QuantizationArgs: .* 'symetric'; did you mean 'symmetric'"),
        (QuantizationScheme, {"targets": [], "weight": 1}, "unknown argument 'weight'; did you mean 'weights'"),
        (AWQMapping, {"hook": "c"}, "AWQMapping: unknown argument 'hook'; known are smooth_layer"),
    ],
)
def test_an_unknown_keyword_names_the_nearest(make: Any, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make(**keywords)


# ---- text


def test_the_recipe_of_the_guide_is_read() -> None:
    text, source = recipe_text(guide_recipe())
    _core.read_recipe(text, source)
    awq_part, quantization_part = json.loads(text)
    assert source.endswith(".json")
    assert awq_part["AWQModifier"]["bits"] == 4
    weights = quantization_part["QuantizationModifier"]["config_groups"]["group_0"]["weights"]
    assert {key: weights[key] for key in ("num_bits", "type", "strategy", "group_size", "symmetric")} == {
        "num_bits": 4,
        "type": "int",
        "strategy": "group",
        "group_size": 128,
        "symmetric": False,
    }


def test_lists_dicts_and_single_objects_are_recipes() -> None:
    modifier = QuantizationModifier(scheme="W4A16")
    alone = json.loads(recipe_text(modifier)[0])
    assert alone == json.loads(recipe_text([modifier])[0]) == json.loads(recipe_text([[modifier]])[0])
    assert alone == json.loads(recipe_text([{"QuantizationModifier": modifier}])[0])
    document = {"AWQModifier": {"n_grid": 5}, "QuantizationModifier": {"scheme": "W4A16"}}
    assert json.loads(recipe_text(document)[0]) == document


def test_a_section_salient_makes_one_document() -> None:
    section = {"salient": {"rounding": "nearest"}}
    text, source = recipe_text([AWQModifier(), QuantizationModifier(scheme="W4A16"), section])
    _core.read_recipe(text, source)
    assert list(json.loads(text)) == ["AWQModifier", "QuantizationModifier", "salient"]
    with pytest.raises(ValueError, match="AWQModifier stands twice"):
        recipe_text([AWQModifier(), AWQModifier(), {"salient": {}}])


def test_yaml_and_json_as_text_and_as_file(tmp_path: Path) -> None:
    text = "QuantizationModifier:\n  scheme: W4A16\n"
    assert recipe_text(text) == (text, "recipe")
    assert recipe_text("QuantizationModifier: {scheme: W4A16}")[1] == "recipe"
    assert recipe_text('{"QuantizationModifier": {"scheme": "W4A16"}}')[1] == "recipe.json"
    path = tmp_path / "awq.yaml"
    path.write_text(text)
    assert recipe_text(path) == recipe_text(str(path)) == (text, str(path))
    card = tmp_path / "card.md"
    card.write_text(f"---\n{text}---\n# A card\n")
    assert recipe_text(str(card)) == (text, str(card))


def test_a_card_without_front_matter_and_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "card.md").write_text("# A card\n")
    with pytest.raises(ValueError, match="card.md: has no front matter"):
        recipe_text(tmp_path / "card.md")
    with pytest.raises(FileNotFoundError, match="absent.yaml"):
        recipe_text("absent.yaml")


@pytest.mark.parametrize("recipe", [[], [3], 3, ["AWQModifier"]])
def test_no_modifier(recipe: object) -> None:
    with pytest.raises(ValueError, match="^recipe: "):
        recipe_text(recipe)


STAGES = """\
# two stages
first_stage:
  quant_modifiers:
    QuantizationModifier: {scheme: W4A16}
second_stage:
  quant_modifiers:
    QuantizationModifier: {scheme: W8A16}
salient: {format: pack-quantized}
"""


def test_a_stage_is_chosen_by_its_name() -> None:
    text, source = recipe_text(STAGES, "second")
    _core.read_recipe(text, source)
    assert "W8A16" in text and "W4A16" not in text and "pack-quantized" in text
    document = {"first_stage": {"a": 1}, "second_stage": {"b": 2}}
    assert json.loads(recipe_text(document, "first")[0]) == {"first_stage": {"a": 1}}
    assert json.loads(recipe_text(json.dumps(document), "first_stage")[0]) == {"first_stage": {"a": 1}}


def test_a_stage_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="stage: 'third' is none of the recipe's, which are first_stage, second_stage"):
        recipe_text(STAGES, "third")
    with pytest.raises(ValueError, match="stage: 'first', but the recipe is a list"):
        recipe_text([AWQModifier()], "first")


def test_a_second_modifier_of_one_kind_is_refused_by_the_reader() -> None:
    with pytest.raises(NotImplementedError, match="second AWQModifier"):
        refuse([AWQModifier(), *guide_recipe()])


def test_a_quantization_modifier_that_says_nothing_beside_another_is_dropped() -> None:
    text, source = recipe_text([AWQModifier(), QuantizationModifier(), QuantizationModifier(scheme="W4A16")])
    _core.read_recipe(text, source)
    with pytest.raises(ValueError, match="do not say how to quantize"):
        refuse([AWQModifier(), QuantizationModifier()])
    with pytest.raises(NotImplementedError, match="second QuantizationModifier"):
        refuse([QuantizationModifier(scheme="W4A16"), QuantizationModifier(scheme="W8A16")])


def test_model_dump() -> None:
    dumped = guide_args().model_dump()
    assert dumped["zp_dtype"] == "torch.int8" and dumped["strategy"] == "group" and dumped["observer_kwargs"] == {}
    assert guide_args(symmetric=True).model_dump(exclude_defaults=True) == {
        "num_bits": 4,
        "group_size": 128,
        "strategy": "group",
    }
    assert guide_recipe()[1].model_dump()["config_groups"]["group_0"]["weights"] == dumped
    assert "observer" not in guide_args().model_dump(exclude_none=True)
    assert QuantizationArgs(**dumped) == QuantizationArgs(**{**guide_args().model_dump(), "zp_dtype": "torch.int8"})


# ---- the packages themselves


def test_dumps_agree_with_compressed_tensors() -> None:
    peer = pytest.importorskip("compressed_tensors.quantization")
    saids: list[dict[str, Any]] = [{"num_bits": 4, "group_size": 128, "symmetric": False}, {}, {"group_size": -1}]
    for said in saids:
        assert QuantizationArgs(**said).model_dump() == peer.QuantizationArgs(**said).model_dump()


def test_objects_of_llm_compressor_are_recipes() -> None:
    pytest.importorskip("llmcompressor")
    from compressed_tensors.quantization import QuantizationArgs as PeerArgs
    from compressed_tensors.quantization import QuantizationScheme as PeerScheme
    from llmcompressor.modifiers.awq import AWQModifier as OldAWQ
    from llmcompressor.modifiers.quantization import QuantizationModifier as PeerQuantization
    from llmcompressor.modifiers.transform.awq import AWQMapping as PeerMapping
    from llmcompressor.modifiers.transform.awq import AWQModifier as PeerAWQ

    scheme = PeerScheme(targets=["Linear"], weights=PeerArgs(num_bits=4, symmetric=False, group_size=128))
    mappings = [PeerMapping("re:.*up_proj$", ["re:.*down_proj$"])]
    for recipe in (
        [PeerAWQ(mappings=mappings), PeerQuantization(ignore=["lm_head"], config_groups={"group_0": scheme})],
        OldAWQ(ignore=["lm_head"], scheme="W4A16_ASYM", targets=["Linear"], duo_scaling="both"),
        [OldAWQ(duo_scaling="both"), PeerQuantization(scheme="W4A16_ASYM", ignore=["lm_head"])],
    ):
        text, source = recipe_text(recipe)
        _core.read_recipe(text, source)
        assert [next(iter(part)) for part in json.loads(text)] == ["AWQModifier", "QuantizationModifier"]
