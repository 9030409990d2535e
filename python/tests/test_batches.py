"""Several prompts of one call, which share passes: each gets the text that it gets alone."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

import salient
from salient import _core
from salient._batch import BatchEncoding
from salient.model import CausalLM
from salient.modifiers.quantization import QuantizationModifier

from conftest import output_behind_ctrl_c

PROMPTS = ("Once upon a time", "The little fox", "One day, a girl named Lily", "A", "Once upon a time")
GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 24}
DRAWN: dict[str, Any] = {"do_sample": True, "temperature": 0.9, "seed": 4, "max_new_tokens": 24}


@pytest.fixture(scope="module")
def quantized(demo_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    target = tmp_path_factory.mktemp("quantized") / "demo"
    recipe = QuantizationModifier(targets=["Linear"], scheme="W4A16", ignore=["lm_head"])
    salient.oneshot(model=demo_model, recipe=recipe, output_dir=str(target))
    return str(target)


@pytest.fixture(scope="module", params=["dense", "dense, int16", "fp32", "int16", "int8"])
def model(request: pytest.FixtureRequest, demo_model: str, quantized: str) -> CausalLM:
    kind, _, activations = request.param.rpartition(", ")
    if "dense" in request.param:
        return salient.load(demo_model, activations=activations if kind else "fp32")
    return salient.load(quantized, activations=activations)


def encoded(model: CausalLM, prompts: Any = PROMPTS) -> Any:
    """Padded on the left."""
    tokenizer = salient.AutoTokenizer.from_pretrained(model.directory, padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer(list(prompts), padding=True, return_tensors="np")


def rows_alone(batch: Any) -> list[Any]:
    return [row[mask == 1][None] for row, mask in zip(batch.input_ids, batch.attention_mask)]


def same_rows(model: CausalLM, batch: Any, options: dict[str, Any], **more: Any) -> None:
    """Tokens, reasons and log-probabilities, to the last bit."""
    whole: dict[str, Any] = {"logprobs": 2, "return_dict_in_generate": True}
    found = model.generate(**batch, pad_token_id=9, **whole, **{**options, **more})
    length = batch.input_ids.shape[1]
    for index, row in enumerate(rows_alone(batch)):
        own = {**options, "seed": options["seed"] + index} if "seed" in options else options
        alone = model.generate(row, **whole, **own)
        new = alone.sequences[0, row.shape[1] :]
        np.testing.assert_array_equal(found.sequences[index, length : length + len(new)], new)
        assert (found.sequences[index, length + len(new) :] == 9).all()
        assert found.finish_reasons[index] == alone.finish_reasons[0]
        assert found.logprobs[index] == alone.logprobs[0]
        assert found.proposed_tokens[index] == alone.proposed_tokens[0]


@pytest.mark.parametrize("options", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_each_row_is_the_text_of_its_prompt_alone(model: CausalLM, options: dict[str, Any]) -> None:
    batch = encoded(model)
    same_rows(model, batch, options)
    same_rows(model, batch, options, max_num_seqs=2, max_num_batched_tokens=1, kv_cache_memory_bytes="8MiB")
    same_rows(model, batch, options, batch_invariant=True)


def test_rows_that_may_round_otherwise_have_the_length_asked_for(model: CausalLM) -> None:
    batch = encoded(model)
    found = model.generate(**batch, do_sample=False, max_new_tokens=6, eos_token_id=-1, batch_invariant=False)
    assert found.shape == (len(PROMPTS), batch.input_ids.shape[1] + 6)


def test_long_prompts_in_all_lengths(model: CausalLM) -> None:
    words = np.random.default_rng(0).integers(5, 3000, size=(12, 480))
    mask = np.arange(480) >= 40 * np.arange(12)[:, None]
    same_rows(model, BatchEncoding(input_ids=words, attention_mask=mask.astype(int)), GREEDY)


def test_what_else_steers_a_text_steers_each_row(model: CausalLM) -> None:
    batch = encoded(model)
    plain = model.generate(**batch, **DRAWN)
    end = int(plain[1, batch.input_ids.shape[1] + 5])  # some end with it, others do not
    for more in (
        {"eos_token_id": end},
        {"stop_strings": [".", "!"], "max_new_tokens": 60},
        {"stop_strings": ["\ud800"]},
        {"prompt_lookup_num_tokens": 3},
        {"assistant_model": model, "num_assistant_tokens": 3},
        {"repetition_penalty": 1.3, "logit_bias": {7: 2.0}, "min_new_tokens": 4},
        {"response_format": {"type": "json_object"}, "max_new_tokens": 12},
    ):
        same_rows(model, batch, {**DRAWN, **more})


def test_rows_and_texts_of_each_are_in_order(model: CausalLM) -> None:
    batch = encoded(model)
    found = model.generate(**batch, num_return_sequences=3, **DRAWN)
    assert found.shape[0] == 15
    for index, row in enumerate(rows_alone(batch)):
        for text in range(3):
            options = {**DRAWN, "seed": DRAWN["seed"] + 3 * index + text}
            alone = model.generate(row, **options)[0, row.shape[1] :]
            np.testing.assert_array_equal(found[3 * index + text, batch.input_ids.shape[1] :][: len(alone)], alone)


def test_texts_behind_a_state_share_passes_too(model: CausalLM, tmp_path: pathlib.Path) -> None:
    state = tmp_path / "text.state"
    before = model.generate(encoded(model, PROMPTS[:1]).input_ids, max_new_tokens=5, do_sample=False, save_state=state)
    rows = np.array([[5, 6], [7, 8]])
    found = model.generate(rows, load_state=state, num_return_sequences=2, **DRAWN)
    for index in range(4):
        options = {**DRAWN, "seed": DRAWN["seed"] + index}
        alone = model.generate(rows[index // 2 :][:1], load_state=state, **options)[0]
        np.testing.assert_array_equal(found[index, : len(alone)], alone)
        np.testing.assert_array_equal(found[index, : before.shape[1]], before[0])


@pytest.mark.filterwarnings("ignore:generate. the text ends where")
def test_rows_end_where_the_context_does(demo_model: str) -> None:
    model = salient.load(demo_model)
    rows = np.array([[5] * 510, [6] * 510])
    options: dict[str, Any] = {"max_new_tokens": 50, "eos_token_id": -1, "do_sample": False}
    output = model.generate(rows, return_dict_in_generate=True, **options)
    assert output.finish_reasons == ["context_limit"] * 2
    np.testing.assert_array_equal(output.sequences[0], model.generate(rows[:1], **options)[0])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"max_num_seqs": 0}, ValueError, "max_num_seqs 0 is less than 1"),
        ({"max_num_seqs": 1.5}, TypeError, "max_num_seqs 1.5"),
        ({"max_num_batched_tokens": -3}, ValueError, "max_num_batched_tokens -3"),
        ({"batch_invariant": "yes"}, TypeError, "batch_invariant 'yes' is neither True nor False"),
        ({"kv_cache_memory_bytes": "much"}, ValueError, "no size"),
        ({"kv_cache_memory_bytes": -1}, ValueError, "kv_cache_memory_bytes: -1 is no size"),
        ({"kv_cache_memory_bytes": 1024}, ValueError, "kv_cache_memory_bytes is 1024, but 128 positions"),
        ({"kv_cache_memory_bytes": "1MiB", "max_new_tokens": 400}, ValueError, "take 4 blocks of 128 positions"),
    ],
)
def test_bounds_that_make_no_sense(demo_model: str, arguments: dict[str, Any], error: Any, words: str) -> None:
    model = salient.load(demo_model)
    with pytest.raises(error, match=words):
        model.generate([[5, 6], [7, 8]], **arguments)


def test_errors_of_one_row_are_those_that_it_has_alone(demo_model: str) -> None:
    model = salient.load(demo_model)
    for row in ([5, 10**6], [0, 0]):
        masks = {"attention_mask": [[1, 1], [0, 0]]} if row == [0, 0] else {}
        with pytest.raises(ValueError) as alone:
            model.generate([row], **{name: mask[1:] for name, mask in masks.items()})
        with pytest.raises(ValueError) as together:
            model.generate([[5, 6], row], **masks)
        assert str(together.value) == str(alone.value)
    with pytest.raises(ValueError, match="no token may come next"):
        model.generate([[5, 6], [7, 8]], suppress_tokens=range(3072), max_new_tokens=3)
    assert model.generate([[5, 6], [7, 8]], max_new_tokens=3, do_sample=False).shape[0] == 2


def test_ctrl_c_stops_all_rows(demo_model: str) -> None:
    script = f"""
        import salient
        model = salient.load({demo_model!r})
        print("ready", flush=True)
        try:
            while True:
                model.generate([[5, 6], [7, 8], [9, 10]], max_new_tokens=400, eos_token_id=-1)
        except KeyboardInterrupt:
            print("stopped", model.generate([[5, 6], [7, 8]], max_new_tokens=1).shape)
    """
    assert output_behind_ctrl_c(script) == "stopped (2, 3)\n"


def test_a_text_lives_on_behind_the_call_that_made_it(demo_model: str) -> None:
    core = salient.load(demo_model).core
    texts = [core.start(np.array([5, 6], dtype=np.int32), max_new_tokens=9, stop_token_ids=[]) for _ in range(2)]
    first = texts[0].next()
    _core.finish_together(texts)
    assert texts[0].rest().tolist() == texts[1].rest().tolist()[1:] and texts[1].rest().size == 0
    assert first is not None and texts[0].next() is None and texts[0].fork(3).next() is None
    with pytest.raises(TypeError, match="unknown argument 'tokens'"):
        _core.finish_together(texts, tokens=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="max_num_seqs: 'a' is of the wrong type"):
        _core.finish_together(texts, max_num_seqs="a")  # type: ignore[arg-type]
    _core.finish_together([])
