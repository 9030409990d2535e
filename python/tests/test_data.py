"""Calibration data in every form, as sequences of ids."""

from __future__ import annotations

import json
import pathlib
import sys
import types
import warnings
from typing import Any

import numpy as np
import pytest

from salient._data import calibration_blocks, calibration_sequences
from salient.tokenizer import AutoTokenizer, Tokenizer

REPOSITORY = pathlib.Path(__file__).parents[2]
DEMO = REPOSITORY / "examples" / "demo" / "model"
TEXTS = ["One river.", "The garden is old and the wall is new.", "", "Letters", "A bridge over the river in winter"]


class Letters:
    """A tokenizer that anybody could follow: <1> letters as their codes <2>."""

    truncation_side = "right"

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        ids = [ord(letter) for letter in text]
        return [1, *ids, 2] if add_special_tokens else ids


LETTERS = Letters()


@pytest.fixture(scope="module")
def demo() -> Tokenizer:
    return AutoTokenizer.from_pretrained(DEMO)


@pytest.fixture
def fake_datasets(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """A `datasets` that hands out ``rows`` and remembers the arguments, or raises ``failure``."""
    fake = types.SimpleNamespace(rows=[{"text": "abc"}], failure=None, calls=[])

    def load_dataset(*arguments: Any, **options: Any) -> Any:
        fake.calls.append((arguments, options))
        if fake.failure is not None:
            raise fake.failure
        return fake.rows

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return fake


def sequences(data: Any, **options: Any) -> list[list[int]]:
    found = calibration_sequences(data, **{"tokenizer": LETTERS, "max_seq_length": 64, **options})
    for ids in found:
        assert ids.dtype == np.int32 and ids.ndim == 1 and ids.flags.c_contiguous
    return [ids.tolist() for ids in found]


def blocks(data: Any, **options: Any) -> list[list[int]]:
    return [
        ids.tolist() for ids in calibration_blocks(data, **{"tokenizer": LETTERS, "max_calib_seq_len": 4, **options})
    ]


def ids_of(text: str) -> list[int]:
    return LETTERS.encode(text)


# ---- forms of data


def test_texts_get_special_tokens_and_are_cut_between_them() -> None:
    assert sequences(["abc", "abcdef"], max_seq_length=5) == [ids_of("abc"), ids_of("abc")]
    assert sequences(["abcdef"], max_seq_length=5, add_special_tokens=False) == [list(b"abcde")]
    assert sequences(["abcdef"], max_seq_length=1) == [[1]]


def test_texts_are_cut_at_the_side_of_the_tokenizer() -> None:
    left = Letters()
    left.truncation_side = "left"
    assert sequences(["abcdef"], tokenizer=left, max_seq_length=5) == [ids_of("def")]


def test_texts_are_encoded_as_transformers_does(demo: Tokenizer) -> None:
    found = calibration_sequences(TEXTS, tokenizer=demo, max_seq_length=6)
    expected = [demo.encode(text)[:6] for text in TEXTS if text]
    assert [ids.tolist() for ids in found] == sorted(expected, key=len, reverse=True)
    assert len({len(ids) for ids in found}) > 1


def test_rows_in_every_form() -> None:
    expected = [[5, 6, 7], [8]]
    assert sequences([[5, 6, 7], [8]]) == expected
    assert sequences(([5, 6, 7], (8,))) == expected
    assert sequences([np.array([5, 6, 7]), np.array([8], dtype=np.uint8)]) == expected
    assert sequences([np.array([[5, 6, 7]]), [[8]]]) == expected
    assert sequences([{"input_ids": [5, 6, 7]}, {"input_ids": np.array([8]), "labels": [1]}]) == expected
    assert sequences(iter([[5, 6, 7], [8]])) == expected
    assert sequences(np.array([[5, 6], [7, 8]])) == [[5, 6], [7, 8]]
    assert sequences(np.array([5, 6])) == [[5, 6]]


def test_padding_goes_by_the_mask() -> None:
    batch = {"input_ids": [[9, 5, 6], [7, 9, 9], [9, 9, 9]], "attention_mask": [[0, 1, 1], [1, 0, 0], [0, 0, 0]]}
    assert sequences([batch]) == [[5, 6], [7]]
    assert sequences(batch) == [[5, 6], [7]]
    assert sequences([{"input_ids": [9, 5], "attention_mask": [0, 1]}]) == [[5]]


def test_tensors_and_data_loaders() -> None:
    torch = pytest.importorskip("torch")
    rows = [
        {"input_ids": [5, 6, 0], "attention_mask": [1, 1, 0]},
        {"input_ids": [7, 8, 9], "attention_mask": [1, 1, 1]},
    ]
    dataset = [{name: torch.tensor(value) for name, value in row.items()} for row in rows]
    assert sequences(torch.utils.data.DataLoader(dataset, batch_size=2)) == [[5, 6], [7, 8, 9]]
    assert sequences(torch.utils.data.DataLoader(dataset), num_samples=1) == [[5, 6], [7, 8, 9]]
    assert sequences([torch.tensor([[1, 2]]), torch.tensor([3])]) == [[1, 2], [3]]
    pairs = torch.utils.data.TensorDataset(torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3))
    with pytest.raises(ValueError, match="a batch of 2 parts without names"):
        sequences(torch.utils.data.DataLoader(pairs))


def test_columns() -> None:
    rows = [{"body": "ab", "title": "x"}, {"body": "c", "title": "y"}]
    assert sequences(rows, text_column="body") == [ids_of("ab"), ids_of("c")]
    with pytest.raises(ValueError, match="row 0: there is no column 'text' and no 'input_ids', only: 'body', 'title'"):
        sequences(rows)
    with pytest.raises(ValueError, match="row 1: column 'text' holds 5, not a text"):
        sequences([{"text": "a"}, {"text": 5}])


@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_conversations_are_refused(column: str) -> None:
    rows = [{column: [{"role": "user", "content": "hi"}]}]
    for text_column in ("text", column):
        with pytest.raises(NotImplementedError, match=f"column '{column}' holds a conversation"):
            sequences(rows, text_column=text_column)


def test_preprocessing_changes_rows(tmp_path: pathlib.Path) -> None:
    rows = [{"a": "x", "b": "y"}]
    assert sequences(rows, preprocess=lambda row: {"text": row["a"] + row["b"]}) == [ids_of("xy")]
    assert sequences(["q"], preprocess=lambda row: {"text": row["text"] * 3}) == [ids_of("qqq")]
    assert sequences(["q"], preprocess=lambda row: {"input_ids": [3, 4]}) == [[3, 4]]
    file = tmp_path / "own.py"
    file.write_text("def twice(row):\n    return {'text': row['text'] * 2}\n")
    assert sequences(["q"], preprocess=f"{file}:twice") == [ids_of("qq")]
    with pytest.raises(ValueError, match="has no function 'thrice'"):
        sequences(["q"], preprocess=f"{file}:thrice")
    with pytest.raises(ValueError, match='"file.py:function"'):
        sequences(["q"], preprocess="twice")
    with pytest.raises(ValueError, match=r"row 0: .* must return a mapping, not str"):
        sequences(["q"], preprocess=lambda row: "text")


# ---- which samples


def test_without_a_seed_the_longest_come_first() -> None:
    data = [[1], [2, 2, 2], [3, 3], [4, 4, 4], [5, 5]]
    assert sequences(data, num_samples=3) == [[2, 2, 2], [4, 4, 4], [3, 3]]
    assert sequences(data, num_samples=99) == [[2, 2, 2], [4, 4, 4], [3, 3], [5, 5], [1]]
    assert sequences(iter(data), num_samples=2) == data[:2]


def test_a_seed_draws_the_same_samples_everywhere() -> None:
    data = [[index] for index in range(10)]
    drawn = sequences(data, num_samples=4, shuffle_seed=7)
    assert drawn == [[int(index)] for index in np.random.default_rng(7).permutation(10)[:4]]
    assert drawn == sequences(data, num_samples=4, shuffle_seed=7)
    assert drawn != sequences(data, num_samples=4, shuffle_seed=8)


def test_empty_samples_do_not_count() -> None:
    assert len(sequences([[], [1], [], [2], [3]], num_samples=3, shuffle_seed=0)) == 3


def test_joined_samples() -> None:
    data = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
    assert sequences(data, concatenate=True, max_seq_length=4) == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert sequences(data, concatenate=True, max_seq_length=4, num_samples=1) == [[1, 2, 3, 4]]
    assert sequences(data, concatenate=True, max_seq_length=50) == [[1, 2, 3, 4, 5, 6, 7, 8, 9]]
    order = np.random.default_rng(3).permutation(3)
    joined = [token for index in order for token in data[index]]
    assert sequences(data, concatenate=True, max_seq_length=4, shuffle_seed=3) == [joined[:4], joined[4:8]]
    with pytest.raises(ValueError, match="max_seq_length is needed"):
        sequences(data, concatenate=True, max_seq_length=None)


def test_the_limit_of_the_tokenizer_holds_for_texts(demo: Tokenizer) -> None:
    text = "river " * 900
    with pytest.warns(UserWarning, match="max_seq_length=600: texts are cut to 512 tokens"):
        found = calibration_sequences([text], tokenizer=demo, max_seq_length=600)
    assert [len(ids) for ids in found] == [512]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [len(ids) for ids in calibration_sequences([text], tokenizer=demo)] == [512]
        assert [len(ids) for ids in calibration_sequences([[1] * 600], tokenizer=demo, max_seq_length=600)] == [600]


# ---- AutoAWQ's blocks


def test_blocks_join_samples_and_drop_the_rest() -> None:
    assert blocks([[1, 2, 3], [4, 5], [6, 7, 8, 9]]) == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert blocks([[1, 2]]) == [[1, 2]]


def test_blocks_keep_long_samples() -> None:
    assert blocks([[1] * 9, [2] * 3]) == [[1] * 4, [1] * 4, [1, 2, 2, 2]]


def test_blocks_are_of_so_many_samples_and_no_more() -> None:
    data = [[], [1, 1], [2, 2], [3, 3], [4, 4]]
    assert blocks(data, max_calib_samples=2) == [[1, 1, 2, 2]]
    assert blocks([[1] * 100], max_calib_samples=2) == [[1] * 4] * 2


def test_blocks_of_texts_are_stripped() -> None:
    assert blocks(["  ab \n"], max_calib_seq_len=64) == [ids_of("ab")]
    assert blocks([{"body": " ab"}], max_calib_seq_len=64, text_column="body") == [ids_of("ab")]


# ---- files


def test_a_text_file_is_cut_into_windows(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "some.txt"
    file.write_text("abcdefghij")
    assert sequences(file, max_seq_length=4) == [list(b"abcd"), list(b"efgh")]
    assert sequences(str(file), max_seq_length=4, num_samples=1) == [list(b"abcd")]
    drawn = sequences(file, max_seq_length=1, num_samples=3, shuffle_seed=1)
    assert drawn == [[ord("abcdefghij"[index])] for index in np.random.default_rng(1).permutation(10)[:3]]
    assert blocks(file) == [list(b"abcd"), list(b"efgh")]


def test_the_windows_are_those_of_the_program(demo: Tokenizer) -> None:
    from salient import _core

    path = str(REPOSITORY / "examples" / "demo" / "calibration.txt")
    expected = _core.read_windows(demo.core, path, window=64, maximum=5)
    found = calibration_sequences(path, tokenizer=demo, max_seq_length=64)[:5]
    assert [ids.tolist() for ids in found] == [ids.tolist() for ids in expected]


def test_a_line_of_jsonl_is_a_row(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "ab"}\n\n{"input_ids": [7]}\n"c\\u2028d"\n', encoding="utf-8")
    assert sequences(file) == [ids_of("c\u2028d"), ids_of("ab"), [7]]
    file.write_text('{"text": "ab"}\n{"text": \n')
    with pytest.raises(ValueError, match=r"rows\.jsonl: line 2: "):
        sequences(file)


def test_bytes_that_are_no_text_are_named(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "some.txt"
    file.write_bytes(b"ab\xff")
    with pytest.raises(ValueError, match=r"some\.txt: byte 2 is no UTF-8"):
        sequences(file)


@pytest.mark.parametrize("name", ["calibration.txt", "./data", "/no/where/at/all.jsonl", pathlib.Path("pileval")])
def test_a_missing_file_is_not_asked_of_the_hub(name: Any, fake_datasets: types.SimpleNamespace) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such file; pass a text file"):
        sequences(name)
    assert fake_datasets.calls == []


# ---- names


def test_pileval_is_what_autoawq_means(fake_datasets: types.SimpleNamespace) -> None:
    assert blocks("pileval", max_calib_seq_len=64) == [ids_of("abc")]
    options = {"split": "validation", "streaming": False}
    assert fake_datasets.calls == [(("mit-han-lab/pile-val-backup",), options)]


@pytest.mark.parametrize(
    ("name", "repository", "options"),
    [
        ("wikitext", "Salesforce/wikitext", {"name": "wikitext-2-raw-v1", "streaming": False}),
        ("c4", "allenai/c4", {"name": "en", "streaming": True}),
        ("open-platypus", "garage-bAInd/Open-Platypus", {"streaming": False}),
        ("someone/texts", "someone/texts", {"streaming": False}),
    ],
)
def test_names_and_their_repositories(
    name: str, repository: str, options: dict[str, Any], fake_datasets: types.SimpleNamespace
) -> None:
    assert sequences(name) == [ids_of("abc")]
    assert fake_datasets.calls == [((repository,), options)]


def test_options_of_the_caller_reach_datasets(fake_datasets: types.SimpleNamespace) -> None:
    sequences("c4", split="train[:64]", config_name="de", load_options={"data_files": "x.json"})
    expected = {"name": "de", "split": "train[:64]", "streaming": False, "data_files": "x.json"}
    assert fake_datasets.calls[0][1] == expected


def test_rows_of_known_names_are_written_out(fake_datasets: types.SimpleNamespace) -> None:
    fake_datasets.rows = [{"instruction": "Add.", "input": "1 1", "output": "2"}, {"instruction": "Go.", "output": "I"}]
    first, second = ("".join(map(chr, ids[1:-1])) for ids in sequences("open_platypus", max_seq_length=999))
    assert first.endswith("### Instruction:\nAdd.\n\n### Input:\n1 1\n\n### Response:\n2")
    assert second.endswith("completes the request.\n\n### Instruction:\nGo.\n\n### Response:\nI")


@pytest.mark.parametrize("name", ["ultrachat-200k", "ultrachat_200k", "HuggingFaceH4/ultrachat_200k"])
def test_chats_are_refused_before_they_are_fetched(name: str, fake_datasets: types.SimpleNamespace) -> None:
    with pytest.raises(NotImplementedError, match="conversations need a chat template"):
        sequences(name)
    assert fake_datasets.calls == []


def test_an_unreachable_hub_is_one_sentence(fake_datasets: types.SimpleNamespace) -> None:
    fake_datasets.failure = ConnectionError("Couldn't reach it\nmore")
    with pytest.raises(FileNotFoundError) as caught:
        blocks("pileval")
    assert str(caught.value) == (
        'calibration data "pileval": there is no such file, and datasets could not load mit-han-lab/pile-val-backup '
        "(ConnectionError: Couldn't reach it); pass a text file (.txt, .jsonl), a list of texts or a list of lists of "
        "token ids instead"
    )
    fake_datasets.failure = ValueError('Unknown split "x"')
    with pytest.raises(ValueError, match='calibration data "c4": ValueError: Unknown split "x"'):
        sequences("c4")


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(FileNotFoundError, match="pip install datasets"):
        sequences("wikitext")


# ---- objects of `datasets`


def test_datasets() -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"text": ["a", "bcd", "ef", ""]})
    assert sequences(rows) == [ids_of("bcd"), ids_of("ef"), ids_of("a"), ids_of("")]
    assert sequences(rows, num_samples=1) == [ids_of("bcd")]
    order = np.random.default_rng(5).permutation(4)[:2]
    assert sequences(rows, num_samples=2, shuffle_seed=5) == [ids_of(rows[int(index)]["text"]) for index in order]
    tokenised = datasets.Dataset.from_dict(
        {"input_ids": [[5, 6, 0]], "attention_mask": [[1, 1, 0]], "labels": [[1, 1, 1]]}
    )
    assert sequences(tokenised) == [[5, 6]]
    assert sequences(tokenised.with_format("numpy")) == [[5, 6]]
    with pytest.raises(ValueError, match="only: 'body'"):
        sequences(datasets.Dataset.from_dict({"body": ["a"]}))


def test_dataset_dicts_and_splits() -> None:
    datasets = pytest.importorskip("datasets")
    parts = {name: datasets.Dataset.from_dict({"text": [f"{name}{i}" for i in range(4)]}) for name in ("train", "test")}
    both = datasets.DatasetDict(parts)
    assert sequences(both) == [ids_of(f"train{i}") for i in range(4)]
    assert sequences(both, split="test[1:3]") == [ids_of("test1"), ids_of("test2")]
    assert sequences(both, split="train[:50%]") == [ids_of("train0"), ids_of("train1")]
    assert sequences(datasets.DatasetDict({"test": parts["test"]})) == [ids_of(f"test{i}") for i in range(4)]
    with pytest.raises(ValueError, match="there is no split 'validation', only: train, test"):
        sequences(both, split="validation")
    with pytest.raises(ValueError, match=r"split 'test\[1'"):
        sequences(both, split="test[1")


def test_streams() -> None:
    datasets = pytest.importorskip("datasets")
    stream = datasets.Dataset.from_dict({"text": [str(i) for i in range(10)]}).to_iterable_dataset()
    assert sequences(stream, num_samples=3) == [ids_of(str(i)) for i in range(3)]
    drawn = sequences(stream, num_samples=3, shuffle_seed=1)
    assert drawn == sequences(stream, num_samples=3, shuffle_seed=1) != sequences(stream, num_samples=3, shuffle_seed=2)


def test_files_and_directories_that_datasets_reads(tmp_path: pathlib.Path) -> None:
    datasets = pytest.importorskip("datasets")
    (tmp_path / "rows.json").write_text(json.dumps([{"text": "a"}, {"text": "b"}]))
    assert sequences(tmp_path / "rows.json") == [ids_of("a"), ids_of("b")]
    (tmp_path / "rows.csv").write_text("text\nc\n")
    assert sequences(tmp_path / "rows.csv") == [ids_of("c")]
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["d"]})}).save_to_disk(tmp_path / "saved")
    assert sequences(tmp_path / "saved") == [ids_of("d")]


def test_autoawqs_seed_shuffles_data_sets_of_the_hub(fake_datasets: types.SimpleNamespace) -> None:
    class Rows(list[Any]):
        def shuffle(self, seed: int) -> list[Any]:
            return [{"text": f"seed {seed}"}]

    fake_datasets.rows = Rows([{"text": "not this"}])
    assert blocks("someone/texts", max_calib_seq_len=64) == [ids_of("seed 42")]


# ---- what is refused


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the list is empty"),
        ([[], []], "none of the 2 rows holds a token"),
        ([1, 2], "the list begins with the number 1"),
        ([[1, 2.5]], r"row 0: whole numbers are expected, not 2\.5"),
        ([[1], [2, -3]], "row 1: position 1 holds -3"),
        ([[1], [2**31]], f"row 1: position 0 holds {2**31}"),
        ([[1, "a"]], "row 0: whole numbers are expected, not the text 'a'"),
        ([[1], None], "row 1: token ids are expected, not None"),
        ([[1], 5], "row 1: token ids are expected, not 5"),
        ([[True]], "row 0: whole numbers are expected, not True"),
        ([{"input_ids": [1, 2], "attention_mask": [1]}], "row 0: attention_mask has 1 numbers for 2 ids"),
        ([{"input_ids": [[1], [2]], "attention_mask": [[1]]}], "row 0: attention_mask has 1 rows for 2"),
        ([[{"input_ids": [1]}]], "row 0: ids are expected, not a list of mappings"),
    ],
)
def test_nonsense_is_named(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sequences(data)
    with pytest.raises(ValueError, match=message):
        blocks(data)


def test_what_holds_no_rows_is_refused() -> None:
    with pytest.raises(TypeError, match="not int"):
        sequences(5)
    with pytest.raises(TypeError, match="not NoneType"):
        sequences(None)


@pytest.mark.parametrize("options", [{"num_samples": 0}, {"max_seq_length": -1}, {"num_samples": 1.5}])
def test_numbers_must_be_positive(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}=.*at least 1"):
        sequences([[1]], **options)


def test_numbers_of_numpy_are_numbers(demo: Tokenizer) -> None:
    data, few = [[1, 2], [3, 4], [5, 6]], np.int64(2)
    assert sequences(data, num_samples=few, max_seq_length=np.int32(1)) == [[1], [3]]
    blocks = calibration_blocks(data, tokenizer=demo, max_calib_samples=few, max_calib_seq_len=few)
    assert [block.tolist() for block in blocks] == [[1, 2], [3, 4]]


def test_bytes_are_no_ids() -> None:
    with pytest.raises(ValueError, match="whole numbers are expected, not the text b'abc'|token ids are expected"):
        sequences([b"abc"])


def test_a_tokenizer_with_encode_alone_will_do() -> None:
    class Bare:
        def encode(self, text: str) -> list[int]:
            return [ord(letter) for letter in text]

    class Encoding:
        def __init__(self, ids: list[int]) -> None:
            self.ids = ids

    class Rust:
        """As Tokenizer of the package `tokenizers` answers."""

        def encode(self, text: str, add_special_tokens: bool = True) -> Encoding:
            return Encoding(LETTERS.encode(text, add_special_tokens))

    assert sequences(["abc"], tokenizer=Bare(), max_seq_length=2) == [list(b"ab")]
    assert sequences(["abcd"], tokenizer=Rust(), max_seq_length=4) == [ids_of("ab")]
