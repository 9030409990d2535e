"""The handle on a model: what it gives, what it refuses, how it is saved."""

from __future__ import annotations

import copy
import gc
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

import salient
from salient._files import Scratch
from salient.model import CausalLM, model_handle
from salient.modifiers.quantization import QuantizationModifier

from conftest import output_behind_ctrl_c

PROMPT = "Once upon a time"
GREEDY = {"do_sample": False}  # the demo model's generation_config.json has it sample


@pytest.fixture(scope="module")
def model(demo_model: str) -> CausalLM:
    return salient.load(demo_model)


def ids_of(model: CausalLM, text: str = PROMPT) -> np.ndarray[Any, Any]:
    return np.array([model.tokenizer.encode(text)])


# ---- numbers


def test_logits_of_all_positions_and_of_the_last(model: CausalLM) -> None:
    ids = ids_of(model)
    logits = model.logits(ids)
    assert logits.shape == (ids.shape[1], model.config.vocab_size) and logits.dtype == np.float32
    np.testing.assert_allclose(model.logits(ids[0], last=2), logits[-2:], rtol=0, atol=2e-5)
    np.testing.assert_array_equal(model.logits(list(ids[0])), logits)


def test_scores_are_the_log_softmax_of_logits(model: CausalLM) -> None:
    ids = ids_of(model, "Once upon a time there was a fox. The fox was very happy with the lazy bird.")[0]
    logits = model.logits(ids).astype(np.float64)
    expected = (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )
    for first in (1, 5, len(ids) - 1):
        scores, is_top = model.score(ids, first)
        wanted = expected[np.arange(first - 1, len(ids) - 1), ids[first:]]
        np.testing.assert_allclose(scores, wanted, atol=1e-4)
        np.testing.assert_array_equal(is_top, logits[first - 1 : -1].argmax(-1) == ids[first:])


def test_greedy_text_follows_the_largest_logit(model: CausalLM) -> None:
    ids = ids_of(model)
    out = model.generate(ids, max_new_tokens=5, **GREEDY)
    assert out.shape == (1, ids.shape[1] + 5) and out.dtype == np.int64
    for length in range(ids.shape[1], out.shape[1]):
        assert model.logits(out[0, :length], last=1)[0].argmax() == out[0, length]


def test_text_stream_and_ids_agree(model: CausalLM) -> None:
    ids = ids_of(model)
    text = model.generate(PROMPT, max_new_tokens=24, **GREEDY)
    assert "".join(model.stream(PROMPT, max_new_tokens=24, **GREEDY)) == text
    assert model.tokenizer.decode(model.generate(ids, max_new_tokens=24, **GREEDY)[0]) == PROMPT + text


def test_a_padded_batch_gives_what_each_prompt_gives(model: CausalLM) -> None:
    tokenizer = salient.AutoTokenizer.from_pretrained(model.directory, padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token
    prompts = ["Once upon a time", "The"]
    batch = tokenizer(prompts, padding=True, return_tensors="np")
    out = model.generate(**batch, max_new_tokens=6, **GREEDY)
    assert out.shape == (2, batch.input_ids.shape[1] + 6)
    for row, prompt in zip(out, prompts):
        alone = model.generate(ids_of(model, prompt), max_new_tokens=6, **GREEDY)[0]
        np.testing.assert_array_equal(row[-len(alone) :], alone)


def test_padding_without_a_mask_is_no_text(model: CausalLM) -> None:
    ids = ids_of(model)[0].tolist()
    padded = np.array([[1, 1, *ids], [*ids, *ids[:2]]])
    out = model.generate(padded, pad_token_id=1, max_new_tokens=4, **GREEDY)
    alone = model.generate(np.array([ids]), max_new_tokens=4, **GREEDY)
    np.testing.assert_array_equal(out[0, 2:], alone[0])
    assert model.generate(padded, pad_token_id=1, max_length=9, **GREEDY).shape == (2, 9)


def test_the_token_that_ends_a_text_is_part_of_it(model: CausalLM) -> None:
    ids = ids_of(model)
    third = int(model.generate(ids, max_new_tokens=3, **GREEDY)[0, -1])
    out = model.generate(ids, max_new_tokens=10, eos_token_id=third, **GREEDY)
    assert out.shape == (1, ids.shape[1] + 3) and out[0, -1] == third


def test_no_end_before_the_least_number_of_tokens(model: CausalLM) -> None:
    ids = ids_of(model)
    second = int(model.generate(ids, max_new_tokens=2, **GREEDY)[0, -1])
    for least in ({"min_new_tokens": 6}, {"min_length": ids.shape[1] + 6}):
        out = model.generate(ids, max_new_tokens=8, eos_token_id=second, **least, **GREEDY)
        assert out.shape[1] >= ids.shape[1] + 6 and second not in out[0, ids.shape[1] : ids.shape[1] + 6]


def test_calling_the_model_gives_logits(model: CausalLM) -> None:
    ids = ids_of(model)[0]
    logits = model(np.array([ids, [1, *ids[:-1]]]), attention_mask=[[1] * len(ids), [0] + [1] * (len(ids) - 1)]).logits
    np.testing.assert_array_equal(logits[0], model.logits(ids))
    np.testing.assert_array_equal(logits[1, 1:], model.logits(ids[:-1]))
    assert not logits[1, 0].any()
    with pytest.raises(NotImplementedError, match="labels"):
        model(ids[None], labels=ids[None])


def test_a_text_cut_by_the_context_is_told_of(model: CausalLM) -> None:
    with pytest.warns(UserWarning, match="context of 512 tokens"):
        assert model.generate([[5] * 510], max_new_tokens=50, eos_token_id=-1).shape[1] < 520


def test_sampling_follows_its_seed(model: CausalLM) -> None:
    options = {"max_new_tokens": 12, "do_sample": True, "temperature": 1.5}
    assert model.generate(PROMPT, seed=1, **options) == model.generate(PROMPT, seed=1, **options)
    texts = {model.generate(PROMPT, seed=seed, **options) for seed in range(4)}
    assert len(texts) > 1
    np.random.seed(3)
    first = model.generate(PROMPT, **options)
    np.random.seed(3)
    assert model.generate(PROMPT, **options) == first
    for seed in (None, 5):
        several = model.generate(ids_of(model), num_return_sequences=3, seed=seed, **options)
        assert several.shape[0] == 3 and len({tuple(row) for row in several.tolist()}) == 3


def test_stop_strings_end_text_before_them_and_ids_behind(model: CausalLM) -> None:
    whole = model.generate(PROMPT, max_new_tokens=30, **GREEDY)
    stop = whole[10:16]
    assert model.generate(PROMPT, max_new_tokens=30, stop_strings=[stop], **GREEDY) == whole[: whole.find(stop)]
    assert "".join(model.stream(PROMPT, max_new_tokens=30, stop_strings=stop, **GREEDY)) == whole[: whole.find(stop)]
    out = model.generate(ids_of(model), max_new_tokens=30, stop_strings=[stop], **GREEDY)
    assert stop in model.tokenizer.decode(out[0]) and out.shape[1] < ids_of(model).shape[1] + 30


def test_a_streamer_sees_the_prompt_and_each_token(model: CausalLM, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []

    class Recorder:
        def put(self, value: Any) -> None:
            seen.append(value.tolist())

        def end(self) -> None:
            seen.append("end")

    ids = ids_of(model)
    out = model.generate(ids, max_new_tokens=3, streamer=Recorder())
    assert seen == [ids.tolist(), *([one] for one in out[0, -3:].tolist()), "end"]
    model.generate(ids, max_new_tokens=20, streamer=salient.TextStreamer(model.tokenizer, skip_prompt=True), **GREEDY)
    assert capsys.readouterr().out == model.generate(PROMPT, max_new_tokens=20, **GREEDY) + "\n"


def test_generation_config_is_followed(model: CausalLM, tmp_path: pathlib.Path) -> None:
    copied = shutil.copytree(model.directory, tmp_path / "model")
    (copied / "generation_config.json").write_text('{"max_new_tokens": 4, "do_sample": false, "foreign": 1}')
    out = CausalLM(copied).generate(ids_of(model))
    assert out.shape[1] == ids_of(model).shape[1] + 4
    assert CausalLM(copied).generate(ids_of(model), max_new_tokens=2).shape[1] == ids_of(model).shape[1] + 2
    assert CausalLM(copied).generate(ids_of(model), max_length=7).shape[1] == 7


def test_what_generation_config_has_beyond_us_is_told(model: CausalLM, tmp_path: pathlib.Path) -> None:
    copied = shutil.copytree(model.directory, tmp_path / "model")
    (copied / "generation_config.json").write_text('{"num_beams": 4, "max_new_tokens": 2}')
    with pytest.warns(UserWarning, match="left out: generate: num_beams=4"):
        assert CausalLM(copied).generate(ids_of(model)).shape[1] == ids_of(model).shape[1] + 2
    (copied / "generation_config.json").write_text("[]")
    with pytest.raises(salient.FormatError, match="generation_config.json: expected an object"):
        CausalLM(copied).generate(ids_of(model))


# ---- refusals


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, ValueError, "input_ids are missing"),
        ({"input_ids": [[]]}, ValueError, "prompt is empty"),
        ({"input_ids": [[1, 10**6]]}, ValueError, "vocabulary"),
        ({"input_ids": [[1.5, 2.0]]}, ValueError, "whole numbers"),
        ({"input_ids": ["a", "b"]}, TypeError, "texts are encoded first"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, ValueError, "attention_mask"),
        ({"input_ids": [[1, 2]], "max_new_token": 3}, TypeError, "did you mean 'max_new_tokens'"),
        ({"input_ids": [[1, 2]], "num_beams": 4}, NotImplementedError, "beam search"),
        ({"input_ids": [[1, 2]], "max_new_tokens": -1}, ValueError, "-1"),
        ({"input_ids": [[1, 2]], "max_new_tokens": "3"}, TypeError, "max_new_tokens '3'"),
        ({"input_ids": [[1, 2]], "temperature": "hot", "do_sample": True}, TypeError, "temperature 'hot'"),
        ({"input_ids": [[1, 2]], "max_length": 2}, ValueError, "max_length is 2"),
        ({"input_ids": [[1, 2]], "num_return_sequences": 2, "do_sample": False}, ValueError, "do_sample"),
        ({"input_ids": [[1, 2]], "do_sample": True, "top_p": 7.0}, ValueError, "top_p"),
        ({"input_ids": [[1, 2], [3, 4]], "streamer": salient.TextStreamer(None)}, ValueError, "one text, not 2"),
        ({"input_ids": {"input_ids": [[1]]}}, TypeError, r"\*\*inputs"),
        ({"input_ids": [[1, 2]], "inputs": [[1]]}, ValueError, "two names"),
        ({"input_ids": [[1, 2]], "generation_config": {"num_beams": 4}}, NotImplementedError, "num_beams=4"),
        ({"input_ids": [[1, 2]], "stop_strings": [""]}, ValueError, "no text to stop at"),
        ({"input_ids": [[1, 2]], "eos_token_id": "a"}, TypeError, "eos_token_id 'a'"),
        ({"input_ids": [[1, 2]], "seed": -1}, ValueError, "seed -1"),
        ({"input_ids": [[1, 2]], "do_sample": "no"}, TypeError, "do_sample 'no'"),
        ({"input_ids": PROMPT, "attention_mask": [[1]]}, ValueError, "pass ids"),
    ],
)
def test_generate_refuses(model: CausalLM, arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        model.generate(**arguments)


def test_rows_of_different_lengths_are_told_to_pad(model: CausalLM) -> None:
    with pytest.raises(ValueError, match="pad"):
        model.generate([[1, 2], [3]])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: m.logits([1, 2], last=3), ValueError, "last 3"),
        (lambda m: m.logits([[1], [2]]), ValueError, r"\[2, 1\]"),
        (lambda m: m.score([1, 2], 0), ValueError, "first 0"),
        (lambda m: m.logits([1] * 100_000), ValueError, "100000 tokens"),
    ],
)
def test_logits_and_score_refuse(model: CausalLM, call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(model)


def test_activations_and_packed_weights(tmp_path: pathlib.Path, demo_model: str) -> None:
    path = tmp_path / "quantized"
    salient.oneshot(model=demo_model, recipe=QuantizationModifier(
        targets=["Linear"], scheme="W4A16", ignore=["lm_head"]), output_dir=path)  # fmt: skip
    ids = np.array([[5, 9, 2, 11, 40, 7]])
    exact = salient.load(path)(ids).logits
    packed = tmp_path / "packed"
    for _ in range(2):
        np.testing.assert_array_equal(salient.load(path, packed_weights=packed)(ids).logits, exact)
    assert len(list(packed.iterdir())) == 1
    near = salient.load(path, activations="int16", lm_head="stored")(ids).logits
    coarse = salient.load(path, activations="int8")(ids).logits
    errors = [np.abs(other - exact).max() / np.abs(exact).max() for other in (near, coarse)]
    assert 0 < errors[0] < 1e-3 < errors[1] < 0.1
    with pytest.raises(ValueError, match='activations "int4"'):
        salient.load(path, activations="int4")


def test_kv_cache_dtype(demo_model: str) -> None:
    ids = np.array([[5, 9, 2, 11, 40, 7]])
    logits = {
        name: salient.load(demo_model, kv_cache_dtype=name)(ids).logits
        for name in ("auto", "fp32", "float32", "fp16", "float16", "bf16", "bfloat16")
    }
    for name, same in (("auto", "fp32"), ("float32", "fp32"), ("float16", "fp16"), ("bfloat16", "bf16")):
        np.testing.assert_array_equal(logits[name], logits[same])
    errors = [np.abs(logits[name] - logits["fp32"]).max() / np.abs(logits["fp32"]).max() for name in ("fp16", "bf16")]
    assert 0 < errors[0] < errors[1] < 0.02


def test_lm_head(demo_model: str) -> None:
    ids = np.array([[5, 9, 2, 11, 40, 7]])
    exact = salient.load(demo_model)(ids).logits
    rounded = salient.load(demo_model, lm_head="int8")(ids).logits
    assert 0 < np.abs(rounded - exact).max() < 0.02 * np.abs(exact).max()
    np.testing.assert_array_equal(salient.load(demo_model, lm_head="stored", activations="int16")(ids).logits, exact)
    with pytest.raises(ValueError, match='lm_head "int4"'):
        salient.load(demo_model, lm_head="int4")


@pytest.mark.parametrize(
    ("running", "error", "words"),
    [
        ({"activations": "int4"}, ValueError, 'activations "int4" are not known'),
        ({"device": "tpu"}, ValueError, 'device "tpu" is not known'),
        ({"lm_head": "int4"}, ValueError, 'lm_head "int4"'),
        ({"kv_cache_dtype": "fp8"}, ValueError, r'"fp8" are not known \(fp32, fp16, bf16, int8\)'),
        ({"fuse_layers": "yes"}, TypeError, "fuse_layers: 'yes' is of the wrong type"),
        ({"packed_weights": 7}, TypeError, "packed_weights: 7 is of the wrong type"),
        ({"lm_heads": "int8"}, TypeError, "did you mean 'lm_head'"),
    ],
)
def test_how_to_run_is_checked_before_weights_are_read(
    demo_model: str, running: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        CausalLM(demo_model, **running)
    assert CausalLM(demo_model, **dict.fromkeys(running.keys() - {"lm_heads"})).num_parameters() > 0


def test_loading_refuses(tmp_path: pathlib.Path, demo_model: str) -> None:
    with pytest.raises(FileNotFoundError, match="nope"):
        salient.load(tmp_path / "nope")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(salient.FormatError, match="config.json"):
        salient.load(tmp_path)
    with pytest.raises(ValueError, match="tpu"):
        salient.load(demo_model, device="tpu")
    with pytest.raises(TypeError, match="model"):
        model_handle(3)
    with pytest.raises(OSError, match="from_pretrained"):
        salient.AutoModelForCausalLM()
    with pytest.raises(TypeError, match="foo"):
        salient.AutoModelForCausalLM.from_pretrained(demo_model, foo=1)
    with pytest.raises(ValueError, match="dense"):
        salient.AutoModelForCausalLM.from_pretrained(demo_model, quantization_config=salient.AwqConfig(bits=4))


def test_other_devices_are_named_in_a_warning(demo_model: str) -> None:
    with pytest.warns(UserWarning, match="cuda"):
        loaded = salient.AutoModelForCausalLM.from_pretrained(demo_model, device_map="cuda:0", torch_dtype="auto")
    with pytest.warns(UserWarning, match="cuda"):
        assert loaded.to("cuda") is loaded
    assert loaded.eval().cpu() is loaded


# ---- files


def test_repr_says_family_size_scheme_and_device(model: CausalLM) -> None:
    assert repr(model) == "CausalLM(LlamaForCausalLM, 3.9M parameters, 7.5 MiB, dense BF16, cpu)"


def test_save_and_load_again(model: CausalLM, tmp_path: pathlib.Path) -> None:
    target = tmp_path / "deep" / "saved"
    model.save_pretrained(target, max_shard_size="2MB")
    assert len(list(target.glob("*.safetensors"))) > 1
    (target / "README.md").write_text("mine")
    model.save_pretrained(target)
    assert (target / "model.safetensors").exists() and len(list(target.glob("*.safetensors"))) == 1
    assert (target / "README.md").read_text() == "mine"
    assert not list(tmp_path.glob("**/.*"))
    np.testing.assert_array_equal(salient.load(target).logits(ids_of(model)), model.logits(ids_of(model)))
    model.save_pretrained(model.directory)


def test_changes_of_the_configuration_are_saved(demo_model: str, tmp_path: pathlib.Path) -> None:
    handle = CausalLM(demo_model)
    handle.config.note = "changed"
    handle.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved/config.json").read_text())["note"] == "changed"


def test_saving_keeps_what_is_no_model(model: CausalLM, tmp_path: pathlib.Path) -> None:
    own = {"notes.txt": "mine", "photos/summer.jpg": "", "embeddings.bin": "x", "adapter_model.safetensors": "y"}
    for name, content in own.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text(content)
    model.save_pretrained(tmp_path / "out", max_shard_size="2MB")
    for leftover in ("quant_config.json", "recipe.yaml", "model-00009-of-00009.safetensors"):
        (tmp_path / "out" / leftover).write_text("{}")
    model.save_pretrained(tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_text() for name in own} == own
    assert repr(salient.load(tmp_path / "out")) == repr(model)
    assert not (tmp_path / "out/quant_config.json").exists() and not (tmp_path / "out/recipe.yaml").exists()
    assert [path.name for path in (tmp_path / "out").glob("model*")] == ["model.safetensors"]
    assert not list((tmp_path / "out").glob(".*"))


def test_saving_into_the_working_folder_and_through_links(
    model: CausalLM, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    monkeypatch.chdir(tmp_path / "real")
    model.save_pretrained(".")
    assert os.path.exists("config.json")
    model.save_pretrained(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real/model.safetensors").exists()


def test_saving_refuses(model: CausalLM, tmp_path: pathlib.Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/config.json").write_text('{"port": 80}')
    with pytest.raises(ValueError, match="app/config.json is no model's"):
        model.save_pretrained(tmp_path / "app")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        model.save_pretrained(tmp_path / "file")
    with pytest.raises(ValueError, match="5QB"):
        model.save_pretrained(tmp_path / "x", max_shard_size="5QB")
    with pytest.raises(NotImplementedError, match="safe_serialization"):
        model.save_pretrained(tmp_path / "x", safe_serialization=False)
    with pytest.raises(TypeError, match="max_shard_sise.*did you mean 'max_shard_size'"):
        model.save_pretrained(tmp_path / "x", max_shard_sise="5GB")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app", "file"]


def test_a_save_that_is_stopped_leaves_what_was_there(
    model: CausalLM, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path / "out")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("salient._core.reshard", stop)
    for target in ("out", "new"):
        with pytest.raises(KeyboardInterrupt):
            model.save_pretrained(tmp_path / target)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def adopted(model: CausalLM) -> CausalLM:
    """A handle on a copy in a temporary directory."""
    scratch = Scratch()
    shutil.copytree(model.directory, scratch.path, dirs_exist_ok=True)
    handle = CausalLM(model.directory)
    handle.adopt(scratch.path, scratch)
    return handle


@pytest.fixture
def work(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("SALIENT_WORK", str(tmp_path / "work"))
    return tmp_path / "work"


def test_temporary_weights_go_with_the_last_who_uses_them(model: CausalLM, work: pathlib.Path) -> None:
    handle = adopted(model)
    assert handle.generate(PROMPT, max_new_tokens=3, **GREEDY) == model.generate(PROMPT, max_new_tokens=3, **GREEDY)
    other, tokenizer = copy.copy(handle), handle.tokenizer
    del handle
    gc.collect()
    assert other.logits(ids_of(model)).shape[0] == ids_of(model).shape[1]
    del other
    gc.collect()
    assert tokenizer.save_pretrained(work / "tokenizer")
    shutil.rmtree(work / "tokenizer")
    del tokenizer
    gc.collect()
    assert list(work.iterdir()) == []


def test_a_forked_child_leaves_temporary_weights_alone(model: CausalLM, work: pathlib.Path) -> None:
    handle = adopted(model)
    script = "import os, sys, salient\nfrom salient._files import Scratch\ns = Scratch()\n"
    script += "if os.fork() == 0: sys.exit(0)\nos.wait()\nprint(os.path.exists(s.path))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "True\n"
    assert os.listdir(work) == [os.path.basename(handle.directory)]


# ---- threads and signals


def test_long_calls_let_other_threads_run(model: CausalLM) -> None:
    ticks = []
    done = threading.Event()

    def tick() -> None:
        while not done.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    model.generate(ids_of(model), max_new_tokens=100)
    done.set()
    thread.join()
    assert len(ticks) > 5  # one or two where the call held the lock


def test_a_stream_that_is_dropped_ends(model: CausalLM) -> None:
    before = threading.active_count()
    stream = model.stream(PROMPT, max_new_tokens=100_000_000)
    assert next(iter(stream))
    del stream
    assert threading.active_count() == before


LEFT_OPEN = {
    "a stream": "stream = model.stream('Once'); next(iter(stream))",
    "a thread": "threading.Thread(target=lambda: [model.logits([1] * 500) for _ in range(1000)], daemon=True).start()",
}


@pytest.mark.parametrize("code", LEFT_OPEN.values(), ids=LEFT_OPEN.keys())
def test_the_interpreter_ends_well_with_work_left(demo_model: str, code: str) -> None:
    script = f"import salient, threading, time\nmodel = salient.load({demo_model!r})\n{code}\ntime.sleep(0.2)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_errors_of_a_stream_come_out(model: CausalLM) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        list(model.stream("\ud800"))
    with pytest.raises(TypeError, match="a text is expected, not list"):
        model.stream([[1, 2]])  # type: ignore[arg-type]


def test_ctrl_c_stops_generation(demo_model: str) -> None:
    script = f"""
        import salient, sys
        model = salient.load({demo_model!r})
        print("ready", flush=True)
        try:
            while True:
                model.generate("Once upon a time", max_new_tokens=200, eos_token_id=-1)
        except KeyboardInterrupt:
            print("stopped", model.generate("The", max_new_tokens=1) != "")
    """
    assert output_behind_ctrl_c(script) == "stopped True\n"


def test_a_forked_child_computes_too(model: CausalLM) -> None:
    expected = model.logits(ids_of(model))
    child = os.fork()
    if child == 0:
        same = np.array_equal(model.logits(ids_of(model)), expected)
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


# ---- torch


def test_tensors_of_torch_come_back_as_such(model: CausalLM) -> None:
    torch = pytest.importorskip("torch")
    ids = torch.tensor(ids_of(model))
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, **GREEDY)
    assert isinstance(out, torch.Tensor) and out.dtype == torch.int64
    np.testing.assert_array_equal(out.numpy(), model.generate(ids_of(model), max_new_tokens=3, **GREEDY))


def test_models_and_streamers_of_transformers(model: CausalLM, capsys: pytest.CaptureFixture[str]) -> None:
    transformers = pytest.importorskip("transformers")
    dense = transformers.AutoModelForCausalLM.from_pretrained(model.directory)
    handle = model_handle(dense)
    assert handle.directory != model.directory
    np.testing.assert_array_equal(handle.logits(ids_of(model)), model.logits(ids_of(model)))
    tokenizer = transformers.AutoTokenizer.from_pretrained(model.directory)
    model.generate(ids_of(model), max_new_tokens=8, streamer=transformers.TextStreamer(tokenizer))
    assert capsys.readouterr().out.startswith(PROMPT)
