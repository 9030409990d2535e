"""Ids of the hub, with a module in the place of huggingface_hub."""

from __future__ import annotations

import os
import pathlib
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from salient import _hub


class FakeHub(types.ModuleType):
    """Remembers what it is asked for; ``failure`` is raised instead of an answer."""

    def __init__(self, directory: pathlib.Path) -> None:
        super().__init__("huggingface_hub")
        self.directory = directory
        self.failure: Exception | None = None
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.HfApi = self._api
        self.snapshot_download = self._answer("snapshot_download", str(directory))

    def _answer(self, name: str, answer: Any) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append((name, arguments, options))
            if self.failure is not None:
                raise self.failure
            return answer

        return call

    def _api(self, token: Any = None) -> Any:
        commit = types.SimpleNamespace(commit_url="https://hub/me/mine/commit/1")
        return types.SimpleNamespace(
            create_repo=self._answer("create_repo", types.SimpleNamespace(repo_id="me/mine")),
            upload_folder=self._answer("upload_folder", commit),
        )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> FakeHub:
    fake = FakeHub(tmp_path / "snapshot")
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    monkeypatch.chdir(tmp_path)
    return fake


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)


def test_a_directory_is_itself(hub: FakeHub, tmp_path: pathlib.Path) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert _hub.find_model("owner/name", revision="other") == "owner/name"
    assert _hub.find_model(tmp_path) == str(tmp_path)
    assert hub.calls == []


def test_an_id_is_fetched_with_the_options(hub: FakeHub) -> None:
    options: dict[str, Any] = {"revision": "v2", "cache_dir": "/cache", "token": "t", "local_files_only": True}
    assert _hub.find_model("owner/some-model_1.5B", **options) == str(hub.directory)
    name, arguments, seen = hub.calls[0]
    assert (name, arguments) == ("snapshot_download", ("owner/some-model_1.5B",))
    patterns = seen.pop("allow_patterns")
    assert seen == {**options, "force_download": False}
    assert "*.safetensors" in patterns and "*.json" in patterns and not any("bin" in pattern for pattern in patterns)


def test_a_tokenizer_needs_no_weights(hub: FakeHub) -> None:
    _hub.find_model("owner/name", weights=False)
    assert "*.safetensors" not in hub.calls[0][2]["allow_patterns"]


def test_a_mistyped_path_is_not_asked_of_the_hub(hub: FakeHub, tmp_path: pathlib.Path) -> None:
    (tmp_path / "models").mkdir()
    names: list[str | pathlib.Path] = [
        str(tmp_path / "models" / "lama"),
        "./models/lama",
        "models/lama/7b",
        "../x",
        "lama/",
        pathlib.Path("lama"),
    ]
    for name in names:
        with pytest.raises(FileNotFoundError, match="there is no such directory") as caught:
            _hub.find_model(name)
        assert str(caught.value).startswith(os.fspath(name))
    with pytest.raises(FileNotFoundError, match="models exists, but holds no 'lama'"):
        _hub.find_model("./models/lama")
    assert hub.calls == []


def test_a_file_is_no_model(tmp_path: pathlib.Path) -> None:
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(ValueError, match="is a file: a model is the directory"):
        _hub.find_model(tmp_path / "model.safetensors")


def test_an_unreachable_hub_is_one_sentence_with_the_cause(hub: FakeHub) -> None:
    hub.failure = RuntimeError("first line\nsecond line")
    hub.failure.__cause__ = OSError("Name or service not known")
    with pytest.raises(FileNotFoundError) as caught:
        _hub.find_model("owner/name")
    assert str(caught.value) == (
        "owner/name: there is no such directory, and the Hugging Face hub did not give it: RuntimeError: first line "
        "(OSError: Name or service not known)"
    )


def test_interrupts_pass(hub: FakeHub) -> None:
    hub.failure = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        _hub.find_model("owner/name")


def test_without_the_package_it_is_named(no_hub: None, tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^owner/name: .*pip install huggingface_hub"):
        _hub.find_model("owner/name")
    with pytest.raises(NotImplementedError, match=r"^me/mine: .*pip install huggingface_hub"):
        _hub.push(tmp_path, "me/mine")


def test_push_makes_the_repository_and_uploads(hub: FakeHub, tmp_path: pathlib.Path) -> None:
    url = _hub.push(tmp_path, "mine", private=True, commit_message="4 bits", create_pr=True)
    assert url == "https://hub/me/mine/commit/1"
    assert [name for name, _, _ in hub.calls] == ["create_repo", "upload_folder"]
    assert hub.calls[0][2] == {"private": True, "exist_ok": True}
    upload = hub.calls[1][2]
    assert (upload["repo_id"], upload["folder_path"]) == ("me/mine", str(tmp_path))
    assert (upload["commit_message"], upload["create_pr"]) == ("4 bits", True)


def test_push_says_what_went_wrong(hub: FakeHub, tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing: there is no such directory to upload to me/mine"):
        _hub.push(tmp_path / "nothing", "me/mine")
    hub.failure = ValueError("401 Unauthorized")
    with pytest.raises(OSError, match="me/mine: .* did not take the upload: ValueError: 401 Unauthorized"):
        _hub.push(tmp_path, "me/mine")


def test_arguments_of_an_upload_are_sorted() -> None:
    given = {"private": True, "use_temp_dir": None, "max_shard_size": "5GB", "tags": None, "revision": "v2"}
    assert _hub.push_options("push_to_hub", given) == {"private": True, "revision": "v2"}
    with pytest.raises(TypeError, match="push_to_hub: unknown argument 'branch'"):
        _hub.push_options("push_to_hub", {"branch": "v2"})
    with pytest.raises(NotImplementedError, match="no model card is written"):
        _hub.push_options("push_to_hub", {"tags": ["awq"]})


@pytest.mark.parametrize(
    ("name", "expected"),
    [("gpt2", True), ("a/b", True), ("a/b-1.5_x", True), ("a/b/c", False), ("/a/b", False), ("a b", False), ("", False),
     ("a--b", False), ("..", False), ("a/..", False), ("x" * 97, False)],
)  # fmt: skip
def test_which_names_the_hub_could_know(name: str, expected: bool) -> None:
    assert _hub.is_repository_id(name) is expected
