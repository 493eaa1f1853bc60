"""`solve`: what a person sees, and what is refused before any network is run."""

import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import trm_interp.search.solve
from trm_interp.cli import app
from trm_interp.runtime.errors import UserError
from trm_interp.search.settings import SOLVE, SearchConfig, SolveConfig
from trm_interp.search.show import board, cell_styles, legend
from trm_interp.search.solve import read_puzzles, solve
from trm_interp.subjects.settings import default_checkpoint
from trm_interp.tasks.arc.task import Arc
from trm_interp.tasks.sudoku.forge.solver import solve_batch
from trm_interp.tasks.sudoku.grid import conflicts, parse
from trm_interp.tasks.sudoku.partial import completable_part

Cli = Callable[..., Any]
FULL = "1243431221343421"  # the plain run of the checkpoint copies it in one step


@pytest.fixture
def words(copier: Path) -> list[object]:
    return ["--ckpt", copier, "--k", 2, "--steps", 2]


def test_a_board_with_what_is_known_about_it(cli: Cli, words: list[object]):
    answer = cli("solve", FULL, *words)
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[:5] == ["1 2 | 4 3", "4 3 | 1 2", "----+----", "2 1 | 3 4", "3 4 | 2 1"]
    # one step of 2 x (2 + 1) evaluations
    assert "line 1: confirmed by the rules; confidence" in lines[5]
    assert lines[5].endswith("steps: 1 (trajectory 1 of 1); network evaluations in all: 6")


def test_text_file_and_standard_input_are_the_same(
    cli: Cli, words: list[object], grids: Path, tmp_path: Path
):
    puzzle = ".243 4312 2134 3421"
    (tmp_path / "p.txt").write_text(puzzle.replace(" ", "") + "\n")
    one = json.loads(cli("solve", puzzle, *words, "--json").out)
    assert one == json.loads(cli("solve", tmp_path / "p.txt", *words, "--json").out)
    piped = CliRunner().invoke(
        app, ["solve", "-", *map(str, words), "--json"], input=puzzle.replace(" ", "")
    )
    assert one == json.loads(piped.stdout) and one["n"] == 1
    many = json.loads(cli("solve", grids, *words, "--json").out)
    assert many["n"] == 13
    for solved in many["puzzles"]:
        full = "." not in solved["puzzle"]
        assert not solved["confirmed"] or solved["answer"].count(".") == 0
        assert solved["several"] is False and 0 < solved["confidence"] < 1
        assert full or solved["trajectories"] in (1, 2)


def test_an_unsolved_puzzle_is_called_so(cli: Cli, words: list[object]):
    answer = cli("solve", "." * 12 + FULL[12:], *words)
    assert "NOT confirmed by the rules" in answer.out and answer.code == 0
    assert "several solutions; any of them counts" in answer.err
    assert answer.out.startswith("line 1: the puzzle has several solutions\n")
    assert "one of several solutions" not in answer.out
    as_json = cli("solve", "." * 12 + FULL[12:], *words, "--json").out
    (solved,) = json.loads(as_json)["puzzles"]
    puzzle, grid = parse(solved["puzzle"]), parse(solved["answer"])
    wrong = (grid == 0) | ((puzzle > 0) & (grid != puzzle)) | conflicts(grid)
    assert f"line 1: no solution found; this grid breaks the rules in {wrong.sum()} cells" in (
        answer.out
    )
    kept = 16 - solved["partial"].count(".")
    assert f"of its 16 cells {kept} can be completed to a solution" in answer.out
    assert solved["partial"].endswith(FULL[12:])
    assert solve_batch(parse(solved["partial"])[None], limit=1).counts[0] == 1


def test_a_trace_shows_every_cycle_and_ends_in_the_answer(words: list[object], copier: Path):
    config = SolveConfig(puzzle="." + FULL[1:], ckpt=str(copier), trace=True)
    how = SearchConfig(**SOLVE | {"k": 2, "steps": 2})
    (solution,) = solve(config, how, lambda line: None)
    assert solution.guesses is not None and solution.guesses.shape == (solution.steps, 2, 16)
    assert (solution.guesses[-1, -1] == solution.answer).all()
    shown = CliRunner().invoke(
        app,
        ["solve", "." + FULL[1:], *map(str, words), "--trace"],
        env={"FORCE_COLOR": "1", "COLUMNS": "120"},
    )
    assert "changed, " in shown.stdout and "step 1, confidence" in shown.stdout
    assert shown.stdout.count("cycle by cycle") == solution.steps


def test_marks_stand_for_colours_where_there_are_none(cli: Cli, words: list[object]):
    shown = cli("solve", "." + FULL[1:], *words, "--trace").out.partition("line 1: no")[0]
    lines = shown.splitlines()
    assert lines[0] == "* changed, ! in conflict, # both"
    counts = [int(n) for n in re.findall(r"(\d+) changed", shown)]
    clashes = [int(n) for n in re.findall(r"(\d+) in conflict", shown)]
    boards = "".join(line for line in lines[1:] if re.match(r"[\d.].[\d.].\|", line))
    assert boards.count("*") + boards.count("#") == sum(counts) > 0
    assert boards.count("!") + boards.count("#") == sum(clashes)
    assert all(len(line) in (24, 9) for line in lines if line.startswith("----"))
    plain = Console(file=io.StringIO(), force_terminal=True, no_color=True, color_system="standard")
    assert legend(plain).plain.startswith("* changed")
    colours = Console(file=io.StringIO(), force_terminal=True, color_system="standard")
    assert legend(colours).plain == "given changed in conflict"


def test_the_part_that_can_be_completed():
    # one solution: the cells that are right
    puzzle, answer = parse("......2..3..2.4."), parse("1234342143122144")
    right = parse("1234342143122143")
    assert (completable_part(puzzle, answer) == np.where(answer == right, answer, 0)).all()
    # several: as many as fit together, the givens among them
    empty = np.zeros(16, np.uint8)
    assert (completable_part(empty, right) == right).all()
    same = completable_part(empty, np.full(16, 1, np.uint8))
    assert (same == 1).sum() == 4 and solve_batch(same[None], limit=1).counts[0] == 1
    assert not completable_part(parse("123....4........"), right).any()  # no solution


@pytest.mark.parametrize(
    ("given", "puzzles"),
    [
        ("1 2 | 4 3\n4 3 | 1 2\n----+----\n2 1 | 3 4\n3 4 | 2 .\n", 1),
        ("12|43 43|12 21|34 34|2_", 1),
        (f"{FULL}\n{FULL}\n", 2),
    ],
)
def test_puzzles_as_they_are_pasted(given: str, puzzles: int):
    assert len(read_puzzles(given)) == puzzles


def test_what_is_no_puzzle_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for given in ("1Z" * 128, "x" * 5000, "a\0b"):
        with pytest.raises(UserError, match="no such file, and no puzzle") as caught:
            read_puzzles(given)
        assert len(str(caught.value)) < 300
    with pytest.raises(UserError, match="200 cells; a Sudoku here has 16, 36, 81 or 256"):
        read_puzzles("12" * 100)
    os.mkfifo("pipe")
    with pytest.raises(UserError, match="pipe is a named pipe"):
        read_puzzles("pipe")


def test_colours_of_a_cell():
    from trm_interp.search.show import CHANGED, CONFLICT, GIVEN

    given, changed, clash = np.array([[1, 0, 0, 2], [0, 1, 0, 0], [0, 0, 0, 1]])
    assert cell_styles(given > 0, changed, clash) == [GIVEN, CHANGED, "", f"{GIVEN} {CONFLICT}"]


def test_characters_on_dark_cells_are_white():
    task, tokens = Arc(3), np.array([2, 6, 0, 0, 0, 0, 0, 0, 0], np.uint8)  # black, yellow, pads
    (first, *_) = board(task, tokens, [""] * 9)
    assert [str(span.style) for span in first.spans] == ["white on #000000", "on #ffdc00"]
    (marked, *_) = board(task, tokens, ["on red", *[""] * 8])
    assert [str(span.style) for span in marked.spans] == ["on red", "on #ffdc00"]


@pytest.mark.slow
def test_the_checkpoint_that_ships_solves_its_puzzles(cli: Cli):
    puzzles = default_checkpoint().parent / "data" / "sudoku6" / "test.txt"
    first = puzzles.read_text().splitlines()[0].split(",")
    (solved,) = json.loads(cli("solve", first[0], "--json").out)["puzzles"]
    assert solved["confirmed"] and solved["answer"] == first[1]


@pytest.mark.parametrize(
    ("puzzle", "problem"),
    [
        ("11..............", "line 1: contradictory givens"),
        ("123....4........", "line 1: no solution"),
        ("123", "3 cells; a Sudoku here has 16, 36, 81 or 256"),
        ("5...............", "character '5' at 0"),
        ("", "no puzzle in it"),
        ("nowhere.txt", "nowhere.txt: no such file, and no puzzle"),
        ("." * 36, "6x6 Sudoku puzzles, but"),
        ("." * 81, "reads 16 cells of 6 tokens: give --ckpt artifacts/trm-sudoku9-extreme"),
    ],
)
def test_bad_puzzles_are_refused_before_anything_runs(
    cli: Cli, words: list[object], monkeypatch: pytest.MonkeyPatch, puzzle: str, problem: str
):
    def never(*args: Any) -> Any:
        raise AssertionError("the network was run")

    monkeypatch.setattr(trm_interp.search.solve, "search", never)
    answer = cli("solve", puzzle, *words)
    assert (answer.code, answer.out) == (2, "") and answer.err.count("\n") == 1
    assert problem in answer.err, answer.err


def test_bad_lines_can_be_left_out(cli: Cli, words: list[object], tmp_path: Path):
    file = tmp_path / "p.txt"
    file.write_text(f"11..............\n{FULL}\n")
    answer = cli("solve", file, *words, "--json", "--skip-bad")
    assert answer.code == 0 and "skipped line 1: contradictory givens" in answer.err
    assert [solved["line"] for solved in json.loads(answer.out)["puzzles"]] == [2]


def test_a_size_without_a_checkpoint(cli: Cli):
    answer = cli("solve", FULL)
    assert answer.code == 2 and "no checkpoint for 4x4 Sudoku puzzles ships" in answer.err
