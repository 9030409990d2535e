"""Biases, log-probabilities, several texts of a prompt, saved states and speculation."""

from __future__ import annotations

import json
import math
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest

import salient
from salient.generation import GenerationOutput
from salient.model import CausalLM

PROMPT = "Once upon a time"
GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 20}
DRAWN: dict[str, Any] = {"do_sample": True, "temperature": 0.9, "seed": 4, "max_new_tokens": 20}
NOTHING = np.zeros((1, 0), dtype=np.int64)


@pytest.fixture(scope="module")
def model(demo_model: str) -> CausalLM:
    return salient.load(demo_model)


@pytest.fixture(scope="module")
def ids(model: CausalLM) -> np.ndarray[Any, Any]:
    return np.array([model.tokenizer.encode(PROMPT)])


def whole(model: CausalLM, ids: Any, **options: Any) -> GenerationOutput:
    output = model.generate(ids, return_dict_in_generate=True, **options)
    assert isinstance(output, GenerationOutput)
    return output


def test_biases_of_all_spellings(model: CausalLM, ids: Any) -> None:
    first = int(model.generate(ids, **GREEDY)[0, ids.shape[1]])
    for banned in (
        {"logit_bias": {first: -100}},
        {"logit_bias": {first: -math.inf}},
        {"sequence_bias": {(first,): -math.inf}},
        {"sequence_bias": [[[first], -50.0]]},
        {"suppress_tokens": [first]},
        {"bad_words_ids": [[first]]},
    ):
        assert first not in model.generate(ids, **banned, **GREEDY)[0, ids.shape[1] :], banned
    forced = model.generate(ids, logit_bias={7: 60.0}, sequence_bias={(7,): 60.0}, **GREEDY)
    assert (forced[0, ids.shape[1] :] == 7).all()
    with pytest.raises(NotImplementedError, match="only single tokens"):
        model.generate(ids, bad_words_ids=[[1, 2]], **GREEDY)
    with pytest.raises(ValueError, match="token 1000000, but the vocabulary"):
        model.generate(ids, logit_bias={10**6: 1.0}, **GREEDY)
    with pytest.raises(ValueError, match="logit_bias nan of token 7"):
        model.generate(ids, logit_bias={7: math.nan}, **GREEDY)


def test_logprobs_are_the_log_softmax_of_the_logits(model: CausalLM, ids: Any) -> None:
    output = whole(model, ids, logprobs=3, logit_bias={7: 3.0}, **DRAWN)
    assert output.finish_reasons == ["max_tokens"] and output.logprobs is not None
    found = output.logprobs[0]
    expected, _ = model.score(output.sequences[0], first=ids.shape[1])
    assert [one.token for one in found] == output.sequences[0, ids.shape[1] :].tolist()
    np.testing.assert_allclose([one.logprob for one in found], expected, atol=1e-4)
    for one in found:
        assert len(one.top) == 3 and list(one.top.values()) == sorted(one.top.values(), reverse=True)
        assert one.logprob <= max(one.top.values())
    assert whole(model, ids, **GREEDY).logprobs is None
    with pytest.raises(ValueError, match="return_dict_in_generate"):
        model.generate(ids, logprobs=1)


def test_texts_of_one_prompt_are_those_of_their_seeds(model: CausalLM, ids: Any) -> None:
    several = whole(model, np.repeat(ids, 2, axis=0), num_return_sequences=3, logprobs=0, **DRAWN)
    assert several.sequences.shape[0] == 6 and len(several.finish_reasons) == 6
    options = {**DRAWN}
    for index in range(6):
        options["seed"] = 4 + index
        np.testing.assert_array_equal(several.sequences[index], model.generate(ids, **options)[0])
    stopped = model.generate(ids, num_return_sequences=3, stop_strings=["."], **{**DRAWN, "max_new_tokens": 60})
    plain = model.generate(ids, num_return_sequences=3, **{**DRAWN, "max_new_tokens": 60})
    for short, long in zip(stopped, plain):
        text = model.tokenizer.decode(long)
        assert model.tokenizer.decode(short).startswith(text[: text.index(".") + 1])


@pytest.mark.parametrize("options", [GREEDY, DRAWN])
def test_a_saved_state_goes_on_as_if_there_was_no_break(
    model: CausalLM, ids: Any, tmp_path: pathlib.Path, options: dict[str, Any]
) -> None:
    expected = model.generate(ids, **options)
    state = tmp_path / "text.state"
    model.generate(ids, **{**options, "max_new_tokens": 7}, save_state=state)
    resumed = model.generate(NOTHING, **{**options, "max_new_tokens": 13}, load_state=state)
    np.testing.assert_array_equal(resumed, expected)
    text = model.generate(PROMPT, **options)
    start = model.generate(PROMPT, **{**options, "max_new_tokens": 7}, save_state=state)
    rest = "".join(model.stream("", **{**options, "max_new_tokens": 13}, load_state=state))
    assert start + rest == text
    behind = np.array([[5, 6]])
    more = model.generate(behind, max_new_tokens=3, do_sample=False, load_state=state)
    assert more.shape == (1, ids.shape[1] + 7 + 2 + 3)
    assert more[0, ids.shape[1] + 7 :][:2].tolist() == [5, 6]


def test_states_of_other_models_and_damaged_ones_are_refused(
    model: CausalLM, ids: Any, demo_model: str, tmp_path: pathlib.Path
) -> None:
    state = tmp_path / "text.state"
    model.generate(ids, save_state=state, **GREEDY)
    shutil.copytree(demo_model, tmp_path / "other")
    config = tmp_path / "other" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "rope_theta": 12345.0}))
    with pytest.raises(ValueError, match="another model or another config.json"):
        salient.load(tmp_path / "other").generate(NOTHING, load_state=state, **GREEDY)
    data = bytearray(state.read_bytes())
    data[-50] ^= 1
    state.write_bytes(bytes(data))
    with pytest.raises(salient.FormatError, match="checksum"):
        model.generate(NOTHING, load_state=state, **GREEDY)
    with pytest.raises(FileNotFoundError):
        model.generate(NOTHING, load_state=tmp_path / "none", **GREEDY)


@pytest.mark.parametrize("options", [GREEDY, DRAWN, {**DRAWN, "stop_strings": ["."], "max_new_tokens": 60}])
def test_speculation_changes_no_text(model: CausalLM, ids: Any, options: dict[str, Any]) -> None:
    expected = whole(model, ids, **options)
    assert expected.proposed_tokens == [0]
    for speculation in (
        {"assistant_model": model},
        {"assistant_model": model.directory, "num_assistant_tokens": 3},
        {"prompt_lookup_num_tokens": 4},
    ):
        output = whole(model, np.repeat(ids, 1, axis=0), **speculation, **options)
        np.testing.assert_array_equal(output.sequences, expected.sequences)
        assert output.finish_reasons == expected.finish_reasons
        if "assistant_model" in speculation:
            assert output.proposed_tokens == output.accepted_tokens or "stop_strings" in options
            assert output.accepted_tokens[0] > 5


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"logprobs": -1, "return_dict_in_generate": True}, ValueError, "logprobs -1 is negative"),
        ({"num_assistant_tokens": "a"}, TypeError, "num_assistant_tokens 'a'"),
        ({"prompt_lookup_num_tokens": -2}, ValueError, "prompt_lookup_num_tokens -2"),
        ({"assistant_model": 7}, TypeError, "a loaded model is expected"),
        ({"assistant_model": "here", "prompt_lookup_num_tokens": 2}, ValueError, "two ways"),
        (
            {"assistant_model": "here", "num_assistant_tokens": 0},
            ValueError,
            "assistant_model with num_assistant_tokens 0",
        ),
        ({"num_return_sequences": 2, "do_sample": True, "save_state": "x"}, ValueError, "save_state is for one text"),
        ({"load_state": "x", "max_length": 30}, ValueError, "max_new_tokens, not max_length"),
    ],
)
def test_refusals(model: CausalLM, ids: Any, arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        model.generate(ids, **arguments)


def test_an_assistant_of_another_vocabulary_is_refused(
    model: CausalLM, ids: Any, demo_model: str, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(demo_model, tmp_path / "other")
    path = tmp_path / "other" / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[300:302]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(ValueError, match="another vocabulary"):
        model.generate(ids, assistant_model=tmp_path / "other", **GREEDY)


def stored(demo_model: str, directory: pathlib.Path, **values: Any) -> CausalLM:
    """The demo model with a generation_config.json that says so."""
    shutil.copytree(demo_model, directory)
    (directory / "generation_config.json").write_text(json.dumps(values), encoding="utf-8")
    return salient.load(directory)


@pytest.mark.parametrize("values", [{"bad_words_ids": [[7], [1, 2]]}, {"sequence_bias": [[[7], -2.0], [[1, 2], -3.0]]}])
def test_stored_biases_of_several_tokens_are_left_out(
    model: CausalLM, ids: Any, demo_model: str, tmp_path: pathlib.Path, values: dict[str, Any]
) -> None:
    other = stored(demo_model, tmp_path / "model", **values)
    with pytest.warns(UserWarning, match=f"generation_config.json: left out: generate: {next(iter(values))}"):
        found = other.generate(ids, **GREEDY)
    np.testing.assert_array_equal(found, model.generate(ids, **GREEDY))


def test_a_stored_bias_of_single_tokens_counts(ids: Any, demo_model: str, tmp_path: pathlib.Path) -> None:
    other = stored(demo_model, tmp_path / "model", sequence_bias=[[[7], 60.0]])
    assert (other.generate(ids, **GREEDY)[0, ids.shape[1] :] == 7).all()


def test_a_file_does_not_turn_speculation_on(
    model: CausalLM, ids: Any, demo_model: str, tmp_path: pathlib.Path
) -> None:
    other = stored(demo_model, tmp_path / "model", prompt_lookup_num_tokens=4, num_assistant_tokens=0)
    repeating: dict[str, Any] = {"logit_bias": {7: 60.0}, **GREEDY}
    assert whole(model, ids, prompt_lookup_num_tokens=4, **repeating).proposed_tokens[0] > 0
    assert whole(other, ids, **repeating).proposed_tokens == [0]
    assert whole(other, ids, assistant_model=model, **GREEDY).accepted_tokens[0] > 5


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        ("none/text.state", FileNotFoundError, "there is no folder .*none"),
        (".", IsADirectoryError, "a folder stands"),
        (__file__, ValueError, "is no saved state"),
    ],
)
def test_where_a_state_cannot_lie_no_text_is_begun(
    model: CausalLM, ids: Any, tmp_path: pathlib.Path, target: str, error: type[Exception], words: str
) -> None:
    class Seen:
        def put(self, value: Any) -> None:
            raise AssertionError("the text began")

        def end(self) -> None: ...

    with pytest.raises(error, match=words):
        model.generate(ids, streamer=Seen(), save_state=tmp_path / target, **GREEDY)
    with pytest.raises(error, match=words):
        model.stream(PROMPT, save_state=tmp_path / target, **GREEDY)


JSON_OBJECT = {"type": "json_object"}


def ending(model: CausalLM) -> dict[int, float]:
    """Biases without which a model of stories hardly ever ends a string."""
    return {model.tokenizer.convert_tokens_to_ids(token): 12.0 for token in ('"', "}", "]")}


def test_json_texts_that_end_are_objects(model: CausalLM, ids: Any) -> None:
    options: dict[str, Any] = {"do_sample": True, "temperature": 2.0, "top_k": 0, "max_new_tokens": 120}
    complete = 0
    for seed in range(0, 32, 8):
        output = whole(
            model,
            ids,
            response_format=JSON_OBJECT,
            logit_bias=ending(model),
            seed=seed,
            num_return_sequences=8,
            **options,
        )
        for sequence, reason in zip(output.sequences, output.finish_reasons):
            text = model.tokenizer.decode(sequence[ids.shape[1] :], skip_special_tokens=True)
            assert reason in ("complete", "max_tokens")
            assert text.lstrip(" \t\r\n").startswith("{")
            if reason == "complete":
                complete += 1
                assert isinstance(json.loads(text), dict)
    assert complete > 4


def test_json_comes_in_pieces_too(model: CausalLM) -> None:
    options: dict[str, Any] = {
        **GREEDY,
        "max_new_tokens": 100,
        "response_format": JSON_OBJECT,
        "logit_bias": ending(model),
    }
    text = model.generate(PROMPT, **options)
    assert isinstance(json.loads(text), dict)
    assert "".join(model.stream(PROMPT, **options)) == text
    plain = {**options, "response_format": {"type": "text"}}
    assert model.generate(PROMPT, **plain) == model.generate(PROMPT, **{**plain, "response_format": None})


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ("json_object", TypeError, "response_format 'json_object' is no dict"),
        ({"type": "json"}, ValueError, "has the type 'json', not 'text' or 'json_object'"),
        ({}, ValueError, "has the type None"),
        ({"type": "json_object", "strict": True}, ValueError, "has no key 'strict'"),
        ({"type": "json_schema", "json_schema": {}}, NotImplementedError, "json_schema is not supported"),
    ],
)
def test_response_formats_are_checked(model: CausalLM, ids: Any, given: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        model.generate(ids, response_format=given)
