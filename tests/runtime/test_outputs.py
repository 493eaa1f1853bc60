"""A command deletes only what it can prove to have made itself, and never without being told."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.outputs import MARKER, maker, mark, remove_own
from trm_interp.runtime.runs import Run

NAMES = ("*.csv", "state.pt", "parts/")


@contextmanager
def writing(folder: Path, command: str, names: Sequence[str], **options: Any) -> Iterator[bool]:
    with Run(folder, command, names, **options) as run:
        yield run.begun


def fill(folder: Path, **options: bool) -> bool:
    with writing(folder, "search", NAMES, **options) as begun:
        (folder / "a.csv").write_text("a")
        (folder / "parts").mkdir(exist_ok=True)
        mark(folder / "parts", "search")
        (folder / "parts" / "1.npz").touch()
    return begun


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_earlier_work_needs_a_flag(tmp_path: Path):
    out = tmp_path / "out"
    assert fill(out) is False and maker(out) == "search"
    with pytest.raises(UserError, match="out exists: use --resume to continue or --overwrite"):
        fill(out)
    assert fill(out, resume=True) is True
    assert fill(out, overwrite=True) is False
    with pytest.raises(UserError, match="give one of --resume and --overwrite"):
        fill(out, resume=True, overwrite=True)


def test_resume_of_nothing_starts(tmp_path: Path):
    assert fill(tmp_path / "new", resume=True) is False
    (tmp_path / "empty").mkdir()
    assert fill(tmp_path / "empty", resume=True) is False


def test_earlier_work_stays_until_the_command_removes_it(tmp_path: Path):
    out = tmp_path / "out"
    fill(out)
    with writing(out, "search", NAMES, overwrite=True, clears_at_once=False) as begun:
        assert begun and names(out) == {MARKER, ".lock", "a.csv", "parts"}
        remove_own(out, "search", NAMES)
        assert names(out) == {MARKER, ".lock"}


def test_overwriting_leaves_what_the_command_did_not_make(tmp_path: Path):
    out = tmp_path / "out"
    fill(out)
    (out / "notes.md").write_text("mine")
    (out / "more").mkdir()
    (out / "more" / "b.csv").touch()
    with writing(out, "search", NAMES, overwrite=True):
        assert names(out) == {MARKER, ".lock", "notes.md", "more"}
    assert (out / "more" / "b.csv").exists()


def test_a_folder_that_bears_its_name_but_not_its_mark_stays(tmp_path: Path):
    out = tmp_path / "out"
    fill(out)
    (out / "parts" / MARKER).unlink()
    with writing(out, "search", NAMES, overwrite=True):
        assert (out / "parts" / "1.npz").exists()


def test_links_are_removed_and_not_followed(tmp_path: Path):
    out, victim = tmp_path / "out", tmp_path / "victim"
    fill(out)
    victim.mkdir()
    (victim / "x.csv").touch()
    mark(victim, "search")
    (out / "link.csv").symlink_to(victim / "x.csv")
    (out / "a.csv").unlink()
    (out / "a.csv").symlink_to(victim)
    with writing(out, "search", NAMES, overwrite=True):
        pass
    assert (victim / "x.csv").exists() and "link.csv" not in names(out)


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_another_commands_folder_is_left_alone(tmp_path: Path, flags: dict[str, bool]):
    out = tmp_path / "out"
    with writing(out, "train", ("*.pt",)):
        (out / "model.pt").touch()
    before = names(out)
    with pytest.raises(UserError, match="was written by `train`, so `search` leaves it alone"):
        fill(out, **flags)
    assert names(out) == before


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_of_anything_else_is_left_alone(tmp_path: Path, flags: dict[str, bool]):
    (tmp_path / "a.csv").touch()
    with pytest.raises(UserError, match="is not empty and has no marker"):
        fill(tmp_path, **flags)
    assert names(tmp_path) == {"a.csv"}


@pytest.mark.parametrize("text", ["", "[]", "null", '{"command": 3}', "\xff", "{" * 10**5])
def test_a_damaged_marker_proves_nothing(tmp_path: Path, text: str):
    (tmp_path / "a.csv").touch()
    (tmp_path / MARKER).write_text(text, encoding="latin-1")
    assert maker(tmp_path) is None
    with pytest.raises(UserError, match="has no marker"):
        fill(tmp_path, overwrite=True)


def test_a_folder_from_before_the_markers_is_resumed_and_not_overwritten(tmp_path: Path):
    (tmp_path / "state.pt").touch()
    recognised = {"unmarked": lambda folder: (folder / "state.pt").exists()}
    with (
        pytest.raises(UserError, match="use --resume to continue, or delete it$"),
        writing(tmp_path, "train", NAMES, **recognised),
    ):
        pass
    for clear in (True, False):
        with (
            pytest.raises(UserError, match="has no marker"),
            writing(tmp_path, "train", NAMES, overwrite=True, clears_at_once=clear, **recognised),
        ):
            pass
    with writing(tmp_path, "train", NAMES, resume=True, **recognised) as begun:
        assert begun
    assert maker(tmp_path) == "train"


def test_nothing_is_left_of_a_start_that_failed(tmp_path: Path):
    with pytest.raises(RuntimeError), writing(tmp_path / "a" / "b", "train", NAMES):
        raise RuntimeError
    assert not (tmp_path / "a" / "b").exists()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="file is a file"), writing(file, "train", NAMES):
        pass


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", ".gitkeep"])
def test_files_that_nobody_wrote_are_left_alone(tmp_path: Path, name: str):
    (tmp_path / name).write_text("left")
    assert fill(tmp_path) is False
    assert fill(tmp_path, overwrite=True) is False
    assert (tmp_path / name).read_text() == "left"


def test_a_folder_of_such_a_name_is_foreign(tmp_path: Path):
    (tmp_path / ".DS_Store").mkdir()
    with pytest.raises(UserError, match="is not empty and has no marker"):
        fill(tmp_path)


def test_a_dangling_link_is_named(tmp_path: Path):
    (tmp_path / "out").symlink_to("nowhere")
    with pytest.raises(UserError, match="out is a link to nowhere, which is missing"):
        fill(tmp_path / "out")
    assert names(tmp_path) == {"out"}
