"""The tokenizers against the answers of transformers (golden/make_tokenizer_goldens.py), and what is our own."""

from __future__ import annotations

import copy
import json
import pathlib
import pickle
import shutil
import sys
import warnings
import weakref
from typing import Any

import numpy as np
import pytest

from salient import _hub
from salient.tokenizer import Array, AutoTokenizer, BatchEncoding, Tokenizer, as_tokenizer

FOLDER = pathlib.Path(__file__).parent
REPOSITORY = FOLDER.parents[1]
DEMO = REPOSITORY / "examples" / "demo" / "model"
GOLDENS: dict[str, Any] = json.loads((FOLDER / "golden" / "tokenizer_calls.json").read_text())["tokenizers"]
FRAMED = "begin_end"  # special tokens before and behind every text


def make_directory(name: str, directory: pathlib.Path) -> pathlib.Path:
    golden = GOLDENS[name]
    if golden["tokenizer"] is None:
        return DEMO
    source = json.loads((REPOSITORY / "tests" / "golden" / "text" / golden["tokenizer"]).read_text())["tokenizer"]
    for file, content in {**golden["files"], "tokenizer.json": source}.items():
        (directory / file).write_text(json.dumps(content))
    return directory


@pytest.fixture(params=list(GOLDENS))
def golden(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> tuple[Tokenizer, dict[str, Any]]:
    return AutoTokenizer.from_pretrained(make_directory(request.param, tmp_path)), GOLDENS[request.param]


@pytest.fixture
def demo() -> Tokenizer:
    return AutoTokenizer.from_pretrained(DEMO)


@pytest.fixture
def framed(tmp_path: pathlib.Path) -> Tokenizer:
    directory = tmp_path / "framed"
    directory.mkdir()
    return AutoTokenizer.from_pretrained(make_directory(FRAMED, directory))


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "shape": list(value.shape), "dtype": str(value.dtype)}
    return value


def test_attributes_are_those_of_transformers(golden: tuple[Tokenizer, dict[str, Any]]) -> None:
    tokenizer, expected = golden
    attributes = dict(expected["attributes"])
    assert len(tokenizer) == attributes.pop("length")
    assert str(tokenizer.model_max_length) == attributes.pop("model_max_length")
    assert {name: getattr(tokenizer, name) for name in attributes} == attributes


def test_answers_are_those_of_transformers(golden: tuple[Tokenizer, dict[str, Any]]) -> None:
    tokenizer, expected = golden
    assert len(expected["calls"]) > 80
    for call in expected["calls"]:
        arguments = copy.deepcopy(call["arguments"])
        method = getattr(tokenizer, call["method"])
        if "error" in call:
            with pytest.raises(ValueError):
                method(*arguments, **call["options"])
        else:
            assert plain(method(*arguments, **call["options"])) == call["answer"], call


def test_vocabulary_holds_every_token_once(golden: tuple[Tokenizer, dict[str, Any]]) -> None:
    tokenizer, _ = golden
    vocabulary = tokenizer.get_vocab()
    assert len(vocabulary) == len(tokenizer)
    assert all(tokenizer.convert_ids_to_tokens(token_id) == token for token, token_id in vocabulary.items())


def test_class_of_the_configuration_says_what_the_files_leave_out(tmp_path: pathlib.Path) -> None:
    directory = make_directory(FRAMED, tmp_path)
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizerFast"}')
    (directory / "special_tokens_map.json").unlink()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert (tokenizer.padding_side, tokenizer.bos_token, tokenizer.eos_token) == ("left", "<s>", "</s>")
    assert AutoTokenizer.from_pretrained(directory, padding_side="right").padding_side == "right"


def test_damaged_configuration_names_the_file(tmp_path: pathlib.Path) -> None:
    directory = make_directory("map", tmp_path)
    (directory / "special_tokens_map.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"special_tokens_map\.json: an object is expected, not list"):
        AutoTokenizer.from_pretrained(directory)


# ---- special tokens


def test_padding_works_once_a_token_is_named(tmp_path: pathlib.Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_directory("begin", tmp_path))
    with pytest.raises(ValueError, match="names none: set one"):
        tokenizer(["a", "a b c"], padding=True)
    tokenizer.pad_token = tokenizer.eos_token
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 1
    batch = tokenizer(["a", "a b c"], padding=True)
    assert batch.attention_mask[0] == [0] * (len(batch.input_ids[1]) - 2) + [1, 1]
    assert batch.input_ids[0][0] == 1


def test_padding_token_by_id_and_none(demo: Tokenizer) -> None:
    demo.pad_token_id = 5
    assert demo.pad_token == "%"
    demo.pad_token = None
    assert demo.pad_token_id is None


def test_unknown_padding_token_is_refused(demo: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"pad_token '\[PAD\]' is none of the 3072 tokens"):
        demo.pad_token = "[PAD]"
    with pytest.raises(NotImplementedError, match="new tokens cannot be added"):
        demo.add_special_tokens({"pad_token": "[PAD]"})
    assert demo.pad_token == "<|endoftext|>"
    assert demo.add_special_tokens({"pad_token": "!"}) == 0
    assert demo.pad_token_id == 1


def test_tokens_that_a_model_names_itself(tmp_path: pathlib.Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_directory("map", tmp_path))
    assert (tokenizer.image_token, tokenizer.image_token_id) == ("<s>", 1)
    with pytest.raises(AttributeError, match="audio_token"):
        _ = tokenizer.audio_token


def test_tokens_that_the_vocabulary_lacks_have_no_name(tmp_path: pathlib.Path) -> None:
    directory = make_directory("plain", tmp_path)
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')
    (directory / "special_tokens_map.json").write_text('{"bos_token": "<none>", "eos_token": "<|end|>"}')
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert tokenizer.special_tokens_map == {"eos_token": "<|end|>"}
    tokenizer.save_pretrained(tmp_path / "saved")
    assert "<none>" in (tmp_path / "saved" / "special_tokens_map.json").read_text()


def test_what_stands_around_a_text_is_fixed(framed: Tokenizer, demo: Tokenizer) -> None:
    assert framed.add_bos_token and framed.add_eos_token and not demo.add_bos_token
    framed.add_bos_token = True
    for name, value in (("add_bos_token", False), ("add_eos_token", False)):
        with pytest.raises(NotImplementedError, match=f"{name}={value}"):
            setattr(framed, name, value)


def test_settings_of_the_caller_win(tmp_path: pathlib.Path) -> None:
    directory = make_directory(FRAMED, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(directory, pad_token="</s>", truncation_side="right", model_max_length=3)
    assert tokenizer("a b c d", truncation=True)["input_ids"] == [1, tokenizer("a").input_ids[1], 2]
    assert tokenizer.pad_token_id == 2
    with pytest.raises(TypeError, match="unknown argument 'paddingside'; did you mean 'padding_side'"):
        AutoTokenizer.from_pretrained(directory, paddingside="left")
    with pytest.raises(ValueError, match="padding_side='top'"):
        AutoTokenizer.from_pretrained(directory, padding_side="top")
    AutoTokenizer.from_pretrained(directory, add_bos_token=True, fix_mistral_regex=False)
    named = AutoTokenizer.from_pretrained(directory, additional_special_tokens=["a"])
    assert named.all_special_tokens == ["<s>", "</s>", "<unk>", "a"]
    refused: list[dict[str, Any]] = [{"add_bos_token": False}, {"fix_mistral_regex": True}, {"gguf_file": "a.gguf"}]
    for options in refused:
        with pytest.raises(NotImplementedError, match=f"{next(iter(options))}="):
            AutoTokenizer.from_pretrained(directory, **options)


def test_arguments_without_effect_are_accepted() -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(DEMO), use_fast=False, trust_remote_code=True, legacy=False)
    assert tokenizer.is_fast and tokenizer.name_or_path == str(DEMO)


# ---- arguments of a call


def test_special_tokens_need_room(framed: Tokenizer) -> None:
    with pytest.raises(ValueError, match="max_length=1: 2 special tokens alone"):
        framed("a", truncation=True, max_length=1)
    assert framed("a b", truncation=True, max_length=2).input_ids == [1, 2]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"text_pair": "b"}, NotImplementedError, "pairs of texts"),
        ({"is_split_into_words": True}, NotImplementedError, "split into words"),
        ({"return_offsets_mapping": True}, NotImplementedError, "return_offsets_mapping=True"),
        ({"stride": 3}, NotImplementedError, "stride=3"),
        ({"paddding": True}, TypeError, "did you mean 'padding'"),
        ({"return_tensors": "tf"}, NotImplementedError, 'return_tensors="tf"'),
        ({"return_tensors": "xy"}, ValueError, "return_tensors='xy'"),
        ({"max_length": -1}, ValueError, "max_length=-1"),
        ({"pad_to_multiple_of": 0}, ValueError, "pad_to_multiple_of=0"),
        ({"padding": True, "padding_side": "top"}, ValueError, "padding_side='top'"),
    ],
)
def test_what_cannot_be_done_is_refused(demo: Tokenizer, options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        demo("a", **options)


def test_defaults_of_refused_arguments_pass(demo: Tokenizer) -> None:
    assert demo("a", stride=0, return_offsets_mapping=False, text_pair=None).input_ids == demo.encode("a")


@pytest.mark.parametrize(("text", "message"), [(5, "not int"), (None, "not NoneType"), (["a", 7], "item 1 .* is int")])
def test_what_is_no_text_is_refused(demo: Tokenizer, text: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        demo(text)


def test_no_texts_give_no_rows(demo: Tokenizer) -> None:
    assert demo([], padding=True) == {"input_ids": [], "attention_mask": []}


def test_clean_up_is_said_to_do_nothing(demo: Tokenizer) -> None:
    ids = demo.encode("well , yes .")
    with pytest.warns(UserWarning, match="clean_up_tokenization_spaces"):
        assert demo.decode(ids, clean_up_tokenization_spaces=True) == "well , yes ."
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert demo.decode(ids, clean_up_tokenization_spaces=False) == "well , yes ."


@pytest.mark.parametrize("ids", ["text", [1.5], None, [None]])
def test_decode_wants_whole_numbers(demo: Tokenizer, ids: Any) -> None:
    with pytest.raises(TypeError, match="whole numbers are expected"):
        demo.decode(ids)


def test_decode_takes_arrays_and_encodings(demo: Tokenizer) -> None:
    batch = demo(["one river", "two"], padding=True, return_tensors="np")
    assert demo.batch_decode(batch.input_ids, skip_special_tokens=True) == ["one river", "two"]
    assert demo.decode(batch, skip_special_tokens=True) == ["one river", "two"]
    assert demo.decode(batch["input_ids"][1][0]) == demo.decode(demo.encode("two")[0])
    assert demo.batch_decode([]) == []
    with pytest.raises(ValueError, match="id -100 at position 1"):
        demo.decode([5, -100])


def test_chat_templates_are_refused(demo: Tokenizer) -> None:
    with pytest.raises(NotImplementedError, match="later version"):
        demo.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)


# ---- tensors


def test_arrays_take_the_place_of_tensors(demo: Tokenizer, without_torch: None) -> None:
    ids = demo("one river", return_tensors="pt").input_ids
    assert isinstance(ids, Array) and ids.dtype == np.int64
    for same in (ids.to("cuda:0"), ids.to(device="cuda", non_blocking=True), ids.cuda(), ids.cpu(), ids.detach()):
        assert same is ids
    assert ids.shape == ids.size() == (1, 2)
    assert (ids.size, ids.size(1), ids.size(-2), ids.numel(), ids.dim(), ids.device) == (2, 2, 1, 2, 2, "cpu")
    assert type(ids.numpy()) is np.ndarray and np.shares_memory(ids.numpy(), ids)
    assert ids[0].unsqueeze(0).shape == (1, 2) and isinstance(ids[:, 1:], Array)
    assert ids.tolist() == [demo.encode("one river")]
    assert demo.encode("one river", return_tensors="pt").size(1) == 2


def test_encodings_go_to_a_device_and_into_calls(demo: Tokenizer, without_torch: None) -> None:
    batch = demo(["one", "two rivers"], padding=True, return_tensors="pt")
    assert batch.to("cuda") is batch and isinstance(batch, BatchEncoding)
    assert (lambda input_ids, attention_mask: input_ids.shape == attention_mask.shape)(**batch)
    assert batch[0:1]["input_ids"].shape == (1, batch.input_ids.shape[1])
    with pytest.raises(AttributeError, match="only input_ids, attention_mask"):
        _ = batch.labels


def test_torch_tensors_where_torch_is_installed(demo: Tokenizer) -> None:
    torch = pytest.importorskip("torch")
    batch = demo(["one", "two rivers"], padding=True, return_tensors="pt").to("cpu")
    assert torch.is_tensor(batch.input_ids) and batch.input_ids.dtype == torch.int64
    assert demo.batch_decode(batch.input_ids, skip_special_tokens=True) == ["one", "two rivers"]
    if not torch.cuda.is_available():
        assert batch.to("cuda").input_ids.device.type == "cpu"


# ---- files


def test_saved_files_are_those_of_the_directory(tmp_path: pathlib.Path) -> None:
    directory = make_directory(FRAMED, tmp_path)
    target = tmp_path / "new" / "place"
    paths = AutoTokenizer.from_pretrained(directory).save_pretrained(target)
    names = ["tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"]
    assert paths == tuple(str(target / name) for name in names)
    assert all((target / name).read_bytes() == (directory / name).read_bytes() for name in names)
    assert sorted(path.name for path in target.iterdir()) == sorted(names)


@pytest.mark.parametrize("name", [FRAMED, "map", "plain"])
def test_saved_files_hold_what_was_set(name: str, tmp_path: pathlib.Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_directory(name, tmp_path))
    tokenizer.pad_token, tokenizer.eos_token = "a", None
    tokenizer.padding_side, tokenizer.model_max_length = "left", 77
    tokenizer.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert (again.pad_token, again.eos_token, again.padding_side, again.model_max_length) == ("a", None, "left", 77)
    assert (again.bos_token, again.truncation_side) == (tokenizer.bos_token, tokenizer.truncation_side)


def test_saving_leaves_other_files_alone(tmp_path: pathlib.Path) -> None:
    for path in DEMO.iterdir():
        shutil.copy(path, tmp_path)
    weights = tmp_path / "model.safetensors"
    before = weights.stat()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(tmp_path)
    assert weights.stat() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in DEMO.iterdir())
    assert AutoTokenizer.from_pretrained(tmp_path).padding_side == "left"


def test_saving_into_a_file_is_refused(demo: Tokenizer, tmp_path: pathlib.Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(NotADirectoryError, match="taken is a file"):
        demo.save_pretrained(tmp_path / "taken")
    with pytest.raises(TypeError, match="save_pretrained: unknown argument 'safe'"):
        demo.save_pretrained(tmp_path, safe=True)


def test_push_uploads_the_tokenizer_files(demo: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def push(directory: str, repo_id: str, **options: Any) -> str:
        seen.update(names=sorted(path.name for path in pathlib.Path(directory).iterdir()), repo_id=repo_id, **options)
        return "address"

    monkeypatch.setattr(_hub, "push", push)
    assert demo.push_to_hub("me/mine", private=True) == "address"
    names = ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
    assert seen == {"names": names, "repo_id": "me/mine", "private": True}


@pytest.mark.parametrize("call", ["push_to_hub", "save_pretrained"])
def test_uploads_are_refused_before_anything_is_written(demo: Tokenizer, tmp_path: pathlib.Path, call: str) -> None:
    target = tmp_path / "target"
    options = {"push_to_hub": True} if call == "save_pretrained" else {}
    with pytest.raises(TypeError, match=f"{call}: unknown argument 'privat'; did you mean 'private'"):
        getattr(demo, call)(str(target), privat=True, **options)
    with pytest.raises(NotImplementedError, match=f"{call}: tags="):
        getattr(demo, call)(str(target), tags=["awq"], **options)
    assert not target.exists()


def test_uploads_lie_where_temporary_models_do(
    demo: Tokenizer, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[pathlib.Path] = []
    monkeypatch.setattr(_hub, "push", lambda directory, repo_id, **options: seen.append(pathlib.Path(directory)))
    monkeypatch.setenv("SALIENT_WORK", str(tmp_path / "work" / "place"))
    demo.push_to_hub("me/mine", use_temp_dir=True)
    assert seen[0].parent == tmp_path / "work" / "place" and not seen[0].exists()


def test_a_chat_template_is_saved(tmp_path: pathlib.Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_directory(FRAMED, tmp_path))
    tokenizer.chat_template = "{{ messages[0] }}"
    paths = tokenizer.save_pretrained(tmp_path / "saved")
    assert str(tmp_path / "saved" / "chat_template.jinja") in paths
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again.chat_template == "{{ messages[0] }}" and again.bos_token == tokenizer.bos_token
    again.chat_template = [{"name": "default", "template": "{{ messages[0] }}"}]
    again.save_pretrained(tmp_path / "saved")
    several = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert several.chat_template == again.chat_template
    several.chat_template = None
    several.save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").chat_template is None


def test_a_tokenizer_outlives_its_directory(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / name, source)
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "tool.jinja").write_text("tool")
    tokenizer, whole = AutoTokenizer.from_pretrained(source), AutoTokenizer.from_pretrained(DEMO)
    shutil.rmtree(source)
    assert tokenizer.vocab_size == whole.vocab_size and tokenizer.get_vocab() == whole.get_vocab()
    again = pickle.loads(pickle.dumps(tokenizer))
    paths = again.save_pretrained(tmp_path / "saved")
    assert paths[-1] == str(tmp_path / "saved" / "additional_chat_templates" / "tool.jinja")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert saved.encode("one river") == again.encode("one river") == whole.encode("one river")


def test_a_tokenizer_keeps_its_owner_alive() -> None:
    class Owner:
        pass

    owner = Owner()
    watch = weakref.ref(owner)
    tokenizer = Tokenizer(DEMO, owner=owner)
    del owner
    assert watch() is tokenizer.owner and copy.deepcopy(tokenizer).owner is None
    tokenizer.owner = None
    assert watch() is None


def test_names_of_tokens_are_known_to_the_class() -> None:
    for name in ("pad_token", "pad_token_id", "vocab_size"):
        assert getattr(Tokenizer, name) is vars(Tokenizer)[name]


def test_pickled_tokenizers_keep_their_settings(demo: Tokenizer) -> None:
    demo.pad_token, demo.padding_side = "!", "left"
    again = pickle.loads(pickle.dumps(demo))
    assert again(["a", "a b"], padding=True) == demo(["a", "a b"], padding=True)
    assert copy.deepcopy(demo).pad_token == "!"


def test_missing_tokenizer_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json"):
        AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no such directory"):
        AutoTokenizer.from_pretrained(tmp_path / "nothing")
    with pytest.raises(OSError, match="from_pretrained"):
        AutoTokenizer()


# ---- whichever tokenizer a caller has


class Foreign:
    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [len(text)]


def test_as_tokenizer_takes_what_encodes(demo: Tokenizer) -> None:
    class Processor:
        tokenizer = Foreign()

    assert as_tokenizer(None, DEMO).encode("a") == demo.encode("a")
    assert as_tokenizer(str(DEMO), "nowhere").encode("a") == demo.encode("a")
    assert as_tokenizer(demo, DEMO) is demo
    assert as_tokenizer(Processor(), DEMO).encode("abc") == [3]
    with pytest.raises(TypeError, match="not int"):
        as_tokenizer(5, DEMO)
