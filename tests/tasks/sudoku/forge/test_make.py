"""`data make` and `data import`: limits, two at once, leftovers of kills, what is overwritten."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import partial_name
from trm_interp.runtime.fresh import FolderRun
from trm_interp.runtime.locks import locked_beside
from trm_interp.runtime.outputs import MARKER, mark
from trm_interp.tasks.base import PuzzleError
from trm_interp.tasks.sudoku import task
from trm_interp.tasks.sudoku.dataset import load
from trm_interp.tasks.sudoku.forge.build import ABOUT, COMMAND, LINEAGES, building
from trm_interp.tasks.sudoku.forge.importing import import_file
from trm_interp.tasks.sudoku.forge.presets import PRESETS, Preset, make_preset

A, A_SOLVED = ".3....1.3......2", "1324241332414132"


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny4", Preset(side=4, train=3, val=2, test=1))
    monkeypatch.setitem(task.PRESETS, "tiny4", "six puzzles")


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("sudoku9", "--n-train", 10**12), "train must be at most 10000000, got 1000000000000"),
        (("sudoku9-hard", "--n-test", 10**30), "test must be at most 10000000"),
        (("sudoku4", "--n-train", 5000), "4x4 puzzles are of 4710 classes, 5100 are wanted"),
        (("sudoku9", "--n-val", 0), "val must be at least 1, got 0"),
        (("sudoku9-hard", "--workers", 10**9), "workers must be at most 256, got 1000000000"),
        (("sudoku9-hard", "--workers", -1), "workers must be at least 1, got -1"),
        (("sudoku9", "--seed", 2**64), "seed must be from 0 to 9223372036854775807"),
        (("sudoku9", "--seed", -1), "seed must be from 0 to"),
        (("sudoku9-hard", "--seed", 2**31), "seed must be at most 2147483647, got 2147483648"),
    ],
)
def test_numbers_that_cannot_be_met(tmp_path, cli, words, problem):
    answer = cli("data", "make", *words, "--out", tmp_path / "out")
    assert answer.code == 2 and problem in answer.err and answer.err.count("\n") == 1
    assert len(answer.err) < 300 and names(tmp_path) == set()


def test_memory_is_counted_before_it_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("trm_interp.runtime.limits._physical", lambda: 10**6)
    with pytest.raises(UserError, match="5000 puzzles would need .* lower --n-train"):
        make_preset("sudoku9", tmp_path / "out", sizes={"train": 2500})


def test_seeds_of_relabelings(tmp_path, cli):
    (tmp_path / "p.txt").write_text(f"{A},{A_SOLVED}\n")
    answer = cli("data", "rate", tmp_path / "p.txt", "--seed", 2**64)
    assert answer.code == 2 and "seed must be from 0 to" in answer.err


def test_the_second_of_two_is_refused(tmp_path, cli):
    out = tmp_path / "out"
    with locked_beside(out):
        for words in (
            ("make", "tiny4", "--out", out),
            ("import", tmp_path / "p.txt", "--out", out),
        ):
            (tmp_path / "p.txt").write_text(f"{A},{A_SOLVED}\n")
            answer = cli("data", *words)
            assert answer.code == 2 and "is being written by another process" in answer.err
            assert answer.err.count("\n") == 1
    assert names(tmp_path) == {"p.txt"}


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    child.wait()
    return child.pid


def leave(out: Path, pid: int, marked: bool = True) -> Path:
    """A scratch folder as a killed run leaves it."""
    left = out.with_name(partial_name(out.name).replace(f"-{os.getpid()}-", f"-{pid}-"))
    left.mkdir()
    if marked:
        mark(left, COMMAND)
        (left / "new").mkdir()
        (left / "new" / "train.txt").touch()
    return left


def test_leftovers_of_dead_runs_go_and_nothing_else(tmp_path, dead):
    out = tmp_path / "out"
    gone = [leave(out, dead), leave(out, dead, marked=False)]
    foreign = leave(out, dead, marked=False)
    (foreign / "mine").touch()
    other = leave(out, dead)
    mark_of_another = other / MARKER
    mark_of_another.write_text('{"command": "train"}')
    link = out.with_name(partial_name("out").replace(f"-{os.getpid()}-", f"-{dead}-"))
    link.symlink_to(other)
    stay = [leave(out, os.getppid()), leave(tmp_path / "out2", dead), foreign, other, link]
    stay.append(tmp_path / ".out.12345678")
    stay[-1].mkdir()
    make_preset("tiny4", out)
    assert not any(path.exists() for path in gone)
    assert names(tmp_path) == {"out", *(path.name for path in stay)}
    assert (foreign / "mine").exists()


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path, dead):
    out = tmp_path / "out"
    make_preset("tiny4", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    left = leave(out, dead)
    out.rename(left / "old")
    with FolderRun(out, COMMAND, lambda folder: None, resume=True):
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert names(tmp_path) == {"out"}


def test_a_replacement_that_fails_puts_the_old_back(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").touch()
    real = Path.rename

    def rename(path: Path, to: Path) -> Path:
        if path.name == "new":
            raise OSError("disk full")
        return real(path, to)

    monkeypatch.setattr(Path, "rename", rename)
    with (
        pytest.raises(OSError, match="disk full"),
        FolderRun(out, COMMAND, lambda folder: None, overwrite=True) as run,
        run.filling() as fresh,
    ):
        (fresh / "new").touch()
    assert names(tmp_path) == {"out"} and names(out) == {"old"}


def test_only_a_data_set_is_overwritten(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "train.txt").write_text("mine")
    for card in (None, "[]", '{"preset": "tiny4"}', '{"ckpt": "model"}'):
        if card:
            (out / "card.json").write_text(card)
        with pytest.raises(PuzzleError, match=r"no card\.json of `data make`: not a data set"):
            make_preset("tiny4", out, overwrite=True)
    assert (out / "train.txt").read_text() == "mine"


def test_a_link_stays_a_link(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    make_preset("tiny4", real)
    link.symlink_to(real)
    make_preset("tiny4", link, seed=3, overwrite=True)
    assert link.is_symlink() and json.loads((real / "card.json").read_text())["seed"] == 3
    (real / "train.txt").unlink()
    (real / "train.txt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PuzzleError, match=r"holds train\.txt: not a data set"):
        make_preset("tiny4", link, overwrite=True)


# The folder of a build ------------------------------------------------------------------------


def test_a_build_deletes_only_what_it_made(tmp_path):
    folder = tmp_path / "out.build"
    folder.mkdir()
    (folder / "notes.md").touch()
    for flags in ((False, False), (True, False), (False, True)):
        with pytest.raises(UserError, match="has no marker"), building(folder, {}, *flags):
            pass
    (folder / "notes.md").unlink()
    with building(folder, {"seed": 1}, False, False):
        (folder / LINEAGES).touch()
        (folder / "notes.md").touch()
    assert names(folder) == {MARKER, "notes.md"}


def test_a_build_of_a_data_set_to_be_overwritten_is_resumed(tmp_path):
    with pytest.raises(KeyboardInterrupt), building(tmp_path / "b", {}, False, True):
        (tmp_path / "b" / LINEAGES).write_text("done\n")
        raise KeyboardInterrupt
    with building(tmp_path / "b", {}, True, True) as grown:
        assert (grown / LINEAGES).read_text() == "done\n"
    assert names(tmp_path) == set()


@pytest.mark.parametrize("about", ["[]", "null", "", "\xff", "[" * 10**5])
def test_a_build_that_lies_about_itself(tmp_path, about):
    with pytest.raises(KeyboardInterrupt), building(tmp_path / "b", {}, False, False):
        raise KeyboardInterrupt
    (tmp_path / "b" / ABOUT).write_text(about, encoding="latin-1")
    expected = pytest.raises(UserError, match=r"build\.json.*start over")
    with expected as caught, building(tmp_path / "b", {}, True, False):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "{}",
        "nonsense",
        "\xff",
        json.dumps({"puzzle": A, "solution": A, "seed": 1, "target": 1, "energy": 1, "lists": 1}),
        json.dumps({"puzzle": "x" * 36, "solution": "x" * 36, "seed": 1} | dict.fromkeys(
            ("target", "energy", "lists"), 1)),
        json.dumps({"puzzle": "." * 36, "solution": "." * 36, "seed": "1"} | dict.fromkeys(
            ("target", "energy", "lists"), 1)),
    ],
)  # fmt: skip
def test_lineages_that_lie(tmp_path, line):
    from trm_interp.tasks.sudoku.forge.build import _finished

    (tmp_path / LINEAGES).write_text(f"{line}\n", encoding="latin-1")
    with pytest.raises(PuzzleError, match=r"lineages\.jsonl: line 1.*--overwrite") as caught:
        _finished(tmp_path, 0, 36)
    assert "\n" not in str(caught.value)


# Import ---------------------------------------------------------------------------------------


def test_import_replaces_only_what_it_wrote(tmp_path, cli):
    source, out = tmp_path / "source.csv", tmp_path / "out.txt"
    source.write_text(f"puzzle,solution\n{A},{A_SOLVED}\n")

    def run(*words: object):
        return cli("data", "import", source, "--out", out, *words)

    out.with_suffix(".json").write_text('{"settings": "of something else"}')
    assert "no card of `data import` next to it" in run().err
    assert "no card of `data import` next to it" in run("--overwrite").err
    out.with_suffix(".json").unlink()
    out.write_text("notes")
    assert "no card of `data import` next to it" in run("--overwrite").err
    assert out.read_text() == "notes"
    out.unlink()
    assert run().code == 0 and run("--overwrite").code == 0
    assert "out.txt exists: use --overwrite" in run().err
    itself = cli("data", "import", out, "--out", out, "--overwrite")
    assert itself.code == 2 and "out.txt is what is imported" in itself.err
    assert len(load(out)) == 1 and names(tmp_path) == {"source.csv", "out.txt", "out.json"}


def test_the_working_directory_can_be_the_output(tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for name in ("tiny4", "sudoku6-hard"):
        with pytest.raises(PuzzleError, match=r"^/ is the root folder: choose another output"):
            make_preset(name, "/", overwrite=True)
    with pytest.raises(PuzzleError, match="holds here: not a data set"):
        make_preset("tiny4", "..")
    (tmp_path / "here.build").write_text("")  # what a hard preset fills next to its output
    with pytest.raises(UserError, match=r"here\.build is a file"):
        make_preset("sudoku6-hard", ".")
    make_preset("tiny4", ".")
    assert names(here) == {"card.json", "train.txt", "val.txt", "test.txt"}


@pytest.mark.parametrize("out", [".", "..", "/", "folder"])
def test_import_writes_no_folder(tmp_path, monkeypatch, out):
    (tmp_path / "folder").mkdir()
    (tmp_path / "p.txt").write_text(f"{A},{A_SOLVED}\n")
    monkeypatch.chdir(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(PuzzleError, match="is a folder: name a file in it, such as"):
            import_file("p.txt", out, overwrite=overwrite)


def test_files_that_nobody_wrote_are_in_no_way(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".gitkeep").write_text("kept")
    make_preset("tiny4", out)
    (out / ".DS_Store").touch()
    make_preset("tiny4", out, seed=1, overwrite=True)
    assert names(out) >= {".gitkeep", ".DS_Store", "card.json"}
    assert (out / ".gitkeep").read_text() == "kept"


def test_a_data_set_of_another_preset_is_replaced(tmp_path):
    out = tmp_path / "out"
    make_preset("tiny4", out)
    for split in ("train", "val", "test"):  # hard ones
        (out / f"{split}.txt").rename(out / f"{split}.csv")
    make_preset("tiny4", out, overwrite=True)
    assert names(out) == {"card.json", "train.txt", "val.txt", "test.txt"}
