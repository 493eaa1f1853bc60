"""A puzzle with two solutions is no puzzle: noticed without numba, and proved once."""

import json
import sys
from contextlib import contextmanager
from io import StringIO
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from trm_interp.runtime import progress
from trm_interp.tasks.base import PuzzleError
from trm_interp.tasks.sudoku import unique
from trm_interp.tasks.sudoku.dataset import load, load_text
from trm_interp.tasks.sudoku.forge.generate import generate
from trm_interp.tasks.sudoku.forge.solver import solve_batch
from trm_interp.tasks.sudoku.grid import SHAPES, parse, to_tokens
from trm_interp.tasks.sudoku.unique import ambiguous

SOLUTION = "1234341221434321"
# 1 and 3 stand in both rows of the first band and in both its stacks: they can change places
TWO = ".2.4.4.221434321"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def mixed(side: int, n: int = 40):
    """Minimal puzzles, of every other one a clue is gone: several solutions; and their solutions"""
    puzzles, solutions = generate(SHAPES[side], n, seed=3)
    for puzzle in puzzles[::2]:
        puzzle[puzzle.nonzero()[0][0]] = 0
    return puzzles, solutions


@pytest.mark.parametrize("side", [4, 6, 9])
@pytest.mark.parametrize("few", [0, 10**6])
def test_the_same_as_the_solver(side, few, monkeypatch):
    monkeypatch.setattr(unique, "FEW", few)
    puzzles, solutions = mixed(side)
    several = ambiguous(puzzles, solutions)
    assert several.tolist() == [i % 2 == 0 for i in range(len(puzzles))]
    assert several.tolist() == (solve_batch(puzzles).counts > 1).tolist()


def test_without_numba(monkeypatch):
    puzzles, solutions = mixed(9)
    monkeypatch.setattr(unique, "FEW", 0)
    monkeypatch.setattr(unique, "PART", 16)
    monkeypatch.setitem(sys.modules, "trm_interp.tasks.sudoku.forge.solver", None)
    calls = []
    several = ambiguous(puzzles, solutions, lambda *at: calls.append(at))
    assert several.tolist() == [i % 2 == 0 for i in range(40)]
    assert calls == [(0, 40), (16, 40), (32, 40), (40, 40)]


def test_few_states_wait_in_a_grid_without_givens():
    empty, solution = np.zeros((3, 81), np.uint8), solve_batch(np.zeros((1, 81), np.uint8))
    assert ambiguous(empty, np.tile(solution.solutions, (3, 1))).all()


def test_proved_once(cache, monkeypatch):
    puzzles, solutions = mixed(9)
    first = ambiguous(puzzles, solutions)
    (kept,) = cache.rglob("*.json")
    assert json.loads(kept.read_text()) == {"ambiguous": list(range(0, 40, 2))}

    def never(*args):
        raise AssertionError("searched again")

    with monkeypatch.context() as patched:
        patched.setattr(unique, "_second_solutions", never)
        assert (ambiguous(puzzles, solutions) == first).all()
        with pytest.raises(AssertionError):
            ambiguous(puzzles[:7], solutions[:7])  # other puzzles, another proof
    for text in ("", "[]", "null", '{"ambiguous": [40]}', '{"ambiguous": [true]}', "[" * 10**5):
        kept.write_text(text)
        assert (ambiguous(puzzles, solutions) == first).all()
        assert json.loads(kept.read_text())["ambiguous"] == list(range(0, 40, 2))


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    puzzles, solutions = mixed(6)
    assert ambiguous(puzzles, solutions)[::2].all()


def relabelled(text: str, n: int = 24) -> list[str]:
    return ["".join(o[int(c) - 1] if c != "." else c for c in text)
            for o, _ in zip(permutations("1234"), range(n), strict=False)]  # fmt: skip


def test_stated_solutions_are_not_believed_to_be_the_only_ones(tmp_path, cli, copier):
    lines = [f"{p},{s}" for p, s in zip(relabelled(TWO), relabelled(SOLUTION), strict=True)]
    file = tmp_path / "two.txt"
    file.write_text("\n".join([*lines, f"{SOLUTION},{SOLUTION}"]) + "\n")
    with pytest.raises(PuzzleError, match="24 bad lines of 25") as caught:
        load(file)
    assert "line 1: several solutions" in str(caught.value)
    assert load(file, skip_bad=True).lines.tolist() == [25]
    assert len(load(file, several=True)) == 25
    refused = cli("eval", "--ckpt", copier, "--puzzles", file)
    assert refused.code == 2 and "line 1: several solutions" in refused.err
    left = cli("eval", "--ckpt", copier, "--puzzles", file, "--skip-bad", "--json")
    assert left.code == 0 and json.loads(left.out)["n"] == 1


def test_limit_checks_what_it_reads(tmp_path):
    file = tmp_path / "later.txt"
    file.write_text(f"{SOLUTION},{SOLUTION}\n{TWO},{SOLUTION}\n")
    assert len(load(file, limit=1)) == 1
    with pytest.raises(PuzzleError, match="line 2: several solutions"):
        load(file)


def test_public_folders_are_checked_too(tmp_path):
    np.save(tmp_path / "all__inputs.npy", to_tokens(np.stack([parse(SOLUTION), parse(TWO)])))
    np.save(tmp_path / "all__labels.npy", to_tokens(np.stack([parse(SOLUTION)] * 2)))
    with pytest.raises(PuzzleError, match="row 1: several solutions"):
        load(tmp_path)


def test_what_singles_solve_leaves_nothing_on_disk(cache):
    assert len(load_text(f".{SOLUTION[1:]},{SOLUTION}", "p")) == 1
    assert not Path(cache).exists()


def test_the_proofs_that_were_used_last_are_kept(cache, monkeypatch):
    monkeypatch.setattr(unique, "MOST_KEPT", 2)
    puzzles, solutions = mixed(9, 8)
    for part in (slice(0, 5), slice(0, 6), slice(0, 5), slice(0, 7)):
        ambiguous(puzzles[part], solutions[part])
    assert len(list(cache.rglob("*.json"))) == 2
    for n in (5, 7):
        kept = unique._kept(puzzles[:n])
        assert kept is not None and kept.exists()


def test_every_command_shows_that_it_checks(tmp_path, cli, copier, monkeypatch):
    proved, solved = tmp_path / "proved.txt", tmp_path / "solved.txt"
    proved.write_text(f".{SOLUTION[1:]},{SOLUTION}\n")
    solved.write_text(f".{SOLUTION[1:]}\n")
    shown: list[str] = []

    @contextmanager
    def bar(label, unit, note, **options):
        yield lambda done, total: shown.append(f"{label} {done}/{total}")

    monkeypatch.setattr(progress, "_lines", bar)
    on, out = ["--ckpt", copier], tmp_path / "out"
    for words in (
        ["eval", *on, "--puzzles", proved, "--steps", 1],
        ["losses", *on, "--puzzles", proved, "--steps", 2, "--out", out],
        ["data", "rate", proved],
        ["solve", solved, *on],
    ):
        shown.clear()
        answer = cli(*words)
        assert answer.code in (0, 1), answer.err
        assert shown[:2] == ["checking 0/1", "checking 1/1"], words


def test_a_passing_bar_shares_the_terminal(monkeypatch):
    terminal = StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress.progress("solving", "puzzles") as outer:
        with progress.passing("checking", "puzzles") as inner:
            assert progress._open is not None and len(progress._open.tasks) == 1
            inner(0, 3)
            assert [task.description for task in progress._open.tasks] == ["solving", "checking"]
        assert [task.description for task in progress._open.tasks] == ["solving"]
        outer(2, 2)
    assert progress._open is None and "solving" in terminal.getvalue()
    with progress.passing("checking", "puzzles") as nothing:
        nothing(0, 0)
        assert progress._open is None
