"""Repositories of the hub, by stand-ins for its library, and folders that stand for them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import EntryNotFoundError
from sae_runs import identity_sae
from tiny_store import N, record

from trm_interp.recording.info import describe
from trm_interp.runtime.hub import HubError, OnDisk, OnTheHub, is_remote, remote, repository


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("url", "kind", "name", "inner"),
    [
        ("hf://owner/name", "model", "owner/name", ""),
        ("hf:/owner/name/a/b", "model", "owner/name", "a/b"),  # as pathlib writes it
        ("hf://datasets/owner/name", "dataset", "owner/name", ""),
    ],
)
def test_urls(url: str, kind: str, name: str, inner: str):
    assert is_remote(url) and is_remote(Path(url))
    place, rest = repository(Path(url), "model")
    assert isinstance(place, OnTheHub)
    assert (place.name, place.kind, rest) == (name, kind, inner)
    assert place.url == f"hf://{name}"


@pytest.mark.parametrize("url", ["hf://owner", "hf://", "owner/name", "https://example.org/a/b"])
def test_what_names_no_repository(url: str):
    with pytest.raises(HubError, match="expected hf://owner/repo"):
        repository(url, "model")


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place = OnDisk(tmp_path / "repo", "file:///repo")
    for name in "ab":
        (tmp_path / name).write_text(name)
    place.publish({"a": tmp_path / "a", "in/b": tmp_path / "b"}, "first")
    (tmp_path / "a").write_text("new")
    with pytest.raises(HubError, match="nothing was pushed"):  # the second file is not there
        place.publish({"a": tmp_path / "a", "c": tmp_path / "absent"}, "second")
    assert (place.folder / "a").read_text() == "a"
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a", "b", "repo"]  # and nothing is left
    place.publish({"a": tmp_path / "a"}, "third")
    assert (place.folder / "a").read_text() == "new" and (place.folder / "in/b").read_text() == "b"


def test_what_is_there_comes_back_where_the_new_cannot_be_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place, plain = OnDisk(tmp_path / "repo", "file:///repo"), Path.rename
    (tmp_path / "a").write_text("a")
    place.publish({"a": tmp_path / "a"}, "first")

    def refused(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return plain(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(HubError, match="nothing was pushed"):
        place.publish({"b": tmp_path / "a"}, "second")
    assert [file.name for file in place.folder.iterdir()] == ["a"]


def test_files_are_fetched_once_and_anew_after_a_push(tmp_path: Path):
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "a").write_text("one")
    here = remote(f"file://{folder}", "model")
    kept = here.fetch("a")
    assert kept.read_text() == "one" and kept.parent == here.folder != folder
    (folder / "a").unlink()
    assert here.fetch("a") == kept  # from the mirror
    with pytest.raises(FileNotFoundError, match="no a"):
        here.fetch("a", renew=True)
    (folder / "a").write_text("another")
    assert remote(f"file://{folder}", "model").fetch("a").read_text() == "another"
    with pytest.raises(HubError, match="no such folder"):
        remote("file:///nowhere/at/all", "model")


class Api:
    """As much of `HfApi` as is called: one repository in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, []

    def repo_info(self, name: str, repo_type: str) -> Any:
        return SimpleNamespace(sha="0" * 40)

    def hf_hub_download(self, name: str, file: str, **how: Any) -> str:
        assert how["revision"] == "0" * 40
        if not (self.folder / file).exists():
            raise EntryNotFoundError(file)
        copy = how["local_dir"] / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((self.folder / file).read_bytes())
        return str(copy)

    def create_repo(self, name: str, **how: Any) -> None:
        self.calls.append((name, how))

    def create_commit(self, name: str, adding: list[Any], **how: Any) -> Any:
        for one in adding:
            (self.folder / one.path_in_repo).write_bytes(Path(one.path_or_fileobj).read_bytes())
        return SimpleNamespace(commit_url=f"https://huggingface.co/{name}/commit/0")


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Api:
    (tmp_path / "hub").mkdir()
    api = Api(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    return api


def test_the_hub_gets_one_commit_and_gives_files_one_by_one(api: Api, tmp_path: Path):
    (tmp_path / "a").write_text("content")
    place, _ = repository("hf://me/mine", "dataset")
    seen_at = place.publish({"a": tmp_path / "a"}, "first")
    assert seen_at == "https://huggingface.co/me/mine/commit/0"
    new = {"repo_type": "dataset", "exist_ok": True, "private": True}
    assert api.calls == [("me/mine", new)]
    here = remote("hf://me/mine", "dataset")
    assert here.fetch("a").read_text() == "content"
    with pytest.raises(FileNotFoundError, match="hf://me/mine: no b"):
        here.fetch("b")


@pytest.mark.parametrize("kind", ["store", "sae"])
def test_info_tells_what_is_on_the_hub(kind: str, api: Api, tmp_path: Path):
    """Of a store the manifest alone is fetched, until all of it is asked for."""
    if kind == "store":
        api.folder = record(tmp_path / "store")
        facts = describe("hf://me/mine")
        assert facts["puzzles"] == N and facts["path"] == "hf://me/mine" and not facts["problems"]
        assert not list((tmp_path / "cache").rglob("*.h5"))
        thorough = describe("hf://me/mine", thorough=True)
        assert thorough["exact_at_step"] and thorough["problems"] == []
        assert len(list((tmp_path / "cache").rglob("shard-*.h5"))) == facts["shards"]
    else:
        api.folder = identity_sae(tmp_path / "sae", 4)
        facts = describe("hf://me/mine")
        assert (facts["kind"], facts["features"]) == ("sparse autoencoder", 8)


def test_a_hub_out_of_reach_is_one_line(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def offline(*args: Any, **more: Any) -> Any:
        raise ConnectionError("cannot reach the hub\nand more")

    (tmp_path / "a").write_text("content")
    place, _ = repository("hf://me/mine", "model")
    for name in ("repo_info", "hf_hub_download", "create_commit"):
        monkeypatch.setattr(api, name, offline)
    messages = []
    for call in (
        lambda: place.revision(),
        lambda: place.fetch("a", "0" * 40, tmp_path / "mirror"),
        lambda: place.publish({"a": tmp_path / "a"}, "first"),
    ):
        with pytest.raises(HubError) as error:
            call()
        messages.append(str(error.value))
    assert all("cannot reach the hub" in line and "\n" not in line for line in messages)
    assert "nothing was pushed" in messages[-1] and not any(api.folder.iterdir())
