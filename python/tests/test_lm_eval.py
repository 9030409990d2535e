"""The model `salient` of lm_eval gives the figures of lm_eval's own model `hf` for the same dense model.

The figures to compare with are golden/lm_eval.json; golden/make_lm_eval_golden.py made them with transformers.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")

lm_eval = pytest.importorskip("lm_eval", reason="lm_eval is not installed")

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.registry import get_model, model_registry  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from salient.lm_eval import SalientLM  # noqa: E402
from salient.model import load  # noqa: E402

HERE = Path(__file__).resolve().parent
MODEL = HERE.parents[1] / "examples" / "demo" / "model"
TASKS = HERE / "lm_eval_task"
GOLDEN = json.loads((HERE / "golden" / "lm_eval.json").read_text(encoding="utf-8"))
CHOICE, CONTINUE, ROLLING = "salient_demo_choice", "salient_demo_continue", "salient_demo_rolling"
STORY = "Long ago, near Ferngrove, there lived a hardworking man named Victor, who was a candlemaker."


def evaluate(model: Any, tasks: list[str], **options: Any) -> dict[str, Any]:
    results: dict[str, Any] = lm_eval.simple_evaluate(
        model=model, tasks=tasks, task_manager=TaskManager(include_path=str(TASKS)), bootstrap_iters=0, **options
    )
    return results


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return evaluate("salient", ["salient_demo"], model_args=f"pretrained={MODEL}", device="cpu", batch_size=1)


@pytest.fixture(scope="module")
def lm() -> SalientLM:
    return SalientLM(pretrained=str(MODEL), device="cpu")


def request(kind: str, *arguments: Any) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def loglikelihoods(lm: SalientLM, *pairs: tuple[str, str]) -> list[tuple[float, bool]]:
    answers: list[tuple[float, bool]] = lm.loglikelihood([request("loglikelihood", *pair) for pair in pairs])
    return answers


def generated(lm: SalientLM, context: str, **options: Any) -> str:
    return lm.generate_until([request("generate_until", context, options)], disable_tqdm=True)[0]


def metric(results: dict[str, Any], task: str, name: str) -> float:
    value: float = results["results"][task][f"{name},none"]
    return value


def responses(results: dict[str, Any], task: str) -> list[list[Any]]:
    """What the model answered, document by document in the golden's order."""
    samples = sorted(results["samples"][task], key=lambda sample: int(sample["doc_id"]))
    return [[list(one) if isinstance(one, tuple) else one for (one,) in sample["resps"]] for sample in samples]


def near(golden: Any) -> Any:
    """The same, but for rounding in numbers."""
    if isinstance(golden, list):
        return [near(one) for one in golden]
    return pytest.approx(golden, abs=1e-3, rel=1e-4) if isinstance(golden, float) else golden


@pytest.mark.parametrize(("task", "name"), [(CHOICE, "acc"), (CHOICE, "acc_norm"), (CONTINUE, "exact_match")])
def test_scores_are_those_of_transformers(results: dict[str, Any], task: str, name: str) -> None:
    assert metric(results, task, name) == GOLDEN["tasks"][task]["metrics"][name]


@pytest.mark.parametrize("name", ["word_perplexity", "byte_perplexity", "bits_per_byte"])
def test_perplexities_are_those_of_transformers(results: dict[str, Any], name: str) -> None:
    assert metric(results, ROLLING, name) == pytest.approx(GOLDEN["tasks"][ROLLING]["metrics"][name], rel=1e-4)


def test_each_answer_is_that_of_transformers(results: dict[str, Any]) -> None:
    for task in (CHOICE, CONTINUE, ROLLING):
        assert responses(results, task) == near(GOLDEN["tasks"][task]["responses"])


def test_so_it_is_with_a_short_context_and_begin_tokens() -> None:
    golden = GOLDEN["short"]
    results = evaluate("salient", ["salient_demo"], model_args={"pretrained": str(MODEL), **golden["arguments"]})
    for task in (CHOICE, CONTINUE, ROLLING):
        assert responses(results, task) == near(golden["tasks"][task]["responses"])


def test_tokens_are_those_of_transformers(lm: SalientLM) -> None:
    lines = (TASKS / "rolling.jsonl").read_text(encoding="utf-8").splitlines()
    assert [lm.tok_encode(json.loads(line)["text"]) for line in lines] == GOLDEN["token_ids"]


def test_results_name_the_model(results: dict[str, Any]) -> None:
    assert results["config"]["model_name_or_path"] == str(MODEL)
    assert json.dumps(results["config"]["model_info"])
    assert results["max_length"] == 512


def test_a_loaded_model_can_be_wrapped(results: dict[str, Any]) -> None:
    wrapped = SalientLM(pretrained=load(str(MODEL)))
    assert responses(evaluate(wrapped, [CHOICE]), CHOICE) == responses(results, CHOICE)


def test_registration_leaves_the_other_models_alone() -> None:
    assert get_model("salient") is SalientLM
    assert {"hf", "vllm"} <= set(model_registry.keys())


def test_choices_of_one_token_are_answered_by_one_run(lm: SalientLM, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(STORY, " He"), (STORY, " She"), (STORY, " The")]
    alone = [loglikelihoods(lm, pair)[0] for pair in pairs]
    monkeypatch.setattr(lm, "_score", None)
    together = loglikelihoods(lm, *pairs)
    assert [value for value, _ in together] == [pytest.approx(value, abs=1e-5) for value, _ in alone]
    assert [most_likely for _, most_likely in together] == [most_likely for _, most_likely in alone]


def test_answers_come_in_the_order_of_the_requests(lm: SalientLM) -> None:
    pairs = [(STORY, " He"), ("One foggy morning", " a woman"), (STORY, " She")]
    alone = [loglikelihoods(lm, pair)[0] for pair in pairs]
    assert [list(answer) for answer in loglikelihoods(lm, *pairs)] == [near(list(answer)) for answer in alone]


def test_spaces_behind_the_context_belong_to_the_continuation(lm: SalientLM) -> None:
    assert loglikelihoods(lm, (STORY + " ", "He")) == loglikelihoods(lm, (STORY, " He"))


def test_a_text_without_context_follows_the_begin_token(lm: SalientLM) -> None:
    ids = np.asarray([0, *lm.tok_encode(STORY)], dtype=np.int32)
    whole = float(lm.model.score(ids, 1)[0].sum())
    assert loglikelihoods(lm, ("", STORY))[0][0] == pytest.approx(whole)
    assert lm.loglikelihood_rolling([request("loglikelihood_rolling", STORY)]) == [pytest.approx(whole)]


def test_an_empty_text_has_the_loglikelihood_zero(lm: SalientLM) -> None:
    assert lm.loglikelihood_rolling([request("loglikelihood_rolling", "")]) == [0.0]


def test_long_contexts_lose_tokens_on_the_left() -> None:
    short = SalientLM(pretrained=str(MODEL), max_length=8)
    context, continuation = short.tok_encode(STORY), short.tok_encode(" He")
    ids = np.asarray((context + continuation)[-9:], dtype=np.int32)
    assert loglikelihoods(short, (STORY, " He"))[0][0] == pytest.approx(float(short.model.score(ids, 8)[0].sum()))


def test_a_continuation_longer_than_the_context_is_refused() -> None:
    short = SalientLM(pretrained=str(MODEL), max_length=4)
    with pytest.raises(ValueError, match="longer than the context of 4"):
        loglikelihoods(short, ("One", STORY))


def test_rolling_windows_predict_each_token_once() -> None:
    short = SalientLM(pretrained=str(MODEL), max_length=8)
    ids = short.tok_encode(STORY)
    windows = short._windows(STORY)
    assert [token for window in windows for token in window.continuation] == ids
    assert all(len(window.context) + len(window.continuation) <= 9 for window in windows)


def test_generation_ends_before_the_stop_string(lm: SalientLM) -> None:
    free = generated(lm, STORY, max_gen_toks=24)
    stop = free[10:14]
    assert generated(lm, STORY, max_gen_toks=24, until=[stop]) == free[: free.index(stop)]
    assert generated(lm, STORY, max_gen_toks=24, until=stop) == free[: free.index(stop)]


def test_generation_ends_after_max_gen_toks(lm: SalientLM) -> None:
    five, nine = (lm.tok_encode(generated(lm, STORY, max_gen_toks=count)) for count in (5, 9))
    assert five == nine[:5]


def test_long_prompts_make_room_for_what_is_generated(lm: SalientLM) -> None:
    room = lm.max_length - 4
    last = lm.tok_decode(lm.tok_encode(STORY * 40)[-room:])
    assert generated(lm, STORY * 40, max_gen_toks=4) == generated(lm, last, max_gen_toks=4)
    with pytest.raises(ValueError, match="no room for a prompt in a context of 512"):
        generated(lm, STORY, max_gen_toks=512)


def test_samples_follow_the_seed_of_numpy(lm: SalientLM) -> None:
    def sample(seed: int) -> list[str]:
        np.random.seed(seed)
        return [generated(lm, STORY, max_gen_toks=16, do_sample=True, temperature=1.0) for _ in range(2)]

    assert sample(1) == sample(1) != sample(2)
    assert len(set(sample(1))) == 2


def test_begin_tokens() -> None:
    plain, begun = SalientLM(pretrained=str(MODEL)), SalientLM(pretrained=str(MODEL), add_bos_token=True)
    assert begun.tok_encode(STORY) == [0, *plain.tok_encode(STORY)]
    assert begun.tok_encode(STORY, add_special_tokens=False) == plain.tok_encode(STORY)
    assert begun.tok_encode("<|endoftext|>" + STORY) == [0, *plain.tok_encode(STORY)]


def test_the_prefix_token_can_be_named(lm: SalientLM) -> None:
    named = SalientLM(pretrained=str(MODEL), prefix_token_id=7)
    assert (lm.prefix_token_id, named.prefix_token_id, lm.eot_token_id) == (0, 7, 0)
    assert not math.isclose(loglikelihoods(named, ("", STORY))[0][0], loglikelihoods(lm, ("", STORY))[0][0])


def test_a_tokenizer_can_be_named(lm: SalientLM) -> None:
    for tokenizer in (str(MODEL), lm.tokenizer):
        assert SalientLM(pretrained=str(MODEL), tokenizer=tokenizer).tok_encode(STORY) == lm.tok_encode(STORY)


def test_chat_templates_are_refused(lm: SalientLM) -> None:
    with pytest.raises(NotImplementedError, match="does not apply chat templates"):
        evaluate(lm, [CONTINUE], apply_chat_template=True)
    with pytest.raises(NotImplementedError, match="does not apply chat templates"):
        lm.chat_template(True)


def test_unknown_arguments_name_the_nearest() -> None:
    with pytest.raises(TypeError, match="unknown argument 'max_len'; did you mean 'max_length'"):
        SalientLM(pretrained=str(MODEL), max_len=4)


def test_arguments_that_would_change_the_result_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="does not support peft='adapter': adapters are not read"):
        SalientLM(pretrained=str(MODEL), peft="adapter")


def test_arguments_without_effect_are_accepted() -> None:
    with pytest.warns(UserWarning, match="ignores dtype='bfloat16'"):
        SalientLM(pretrained=str(MODEL), dtype="bfloat16", trust_remote_code=False, revision="main", peft=None)


def test_the_context_is_that_of_the_config_then_of_the_tokenizer(
    lm: SalientLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(str(MODEL))
    del model.config["max_position_embeddings"]
    assert SalientLM(pretrained=model).max_length == lm.tokenizer.model_max_length == 512
    monkeypatch.setattr(model.tokenizer, "model_max_length", int(1e30))
    assert SalientLM(pretrained=model).max_length == 2048
    model.config["text_config"] = {"n_ctx": 99}
    assert SalientLM(pretrained=model).max_length == 99


def test_padding_tokens_in_a_prompt_are_read(lm: SalientLM) -> None:
    assert generated(lm, STORY + "<|endoftext|>" + STORY, max_gen_toks=4) != ""


@pytest.mark.parametrize("name", ["max_length", "max_gen_toks"])
def test_lengths_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=0: a whole number of at least 1"):
        SalientLM.create_from_arg_string(f"pretrained={MODEL},{name}=0")


def test_the_command_line_knows_the_model(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    command = [sys.executable, "-m", "salient.lm_eval", "run", "--model", "salient", "--tasks", CHOICE]
    options = ["--model_args", f"pretrained={MODEL}", "--include_path", str(TASKS), "--output_path", str(output)]
    subprocess.run([*command, *options], check=True, cwd=tmp_path, timeout=300)
    (written,) = tmp_path.glob("results*.json")
    results = json.loads(written.read_text(encoding="utf-8"))
    assert metric(results, CHOICE, "acc") == GOLDEN["tasks"][CHOICE]["metrics"]["acc"]
