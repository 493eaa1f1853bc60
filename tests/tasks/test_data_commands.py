"""The commands on puzzle files, on a task that the package does not have."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_task import Latin, latin_puzzles

from trm_interp.tasks.base import PuzzleSet

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def puzzles() -> PuzzleSet:
    return latin_puzzles(5)


@pytest.fixture
def file(tmp_path: Path, puzzles: PuzzleSet) -> Path:
    Latin.save(tmp_path / "squares", puzzles)
    return tmp_path / "squares"


def test_rate(cli: Cli, file: Path, puzzles: PuzzleSet):
    answer = cli("data", "rate", file)
    assert answer.code == 0, answer.err
    rows = list(csv.DictReader(io.StringIO(answer.out)))
    task = puzzles.task
    assert [row["puzzle"] for row in rows] == [task.text(one) for one in puzzles.inputs]
    assert [int(row["blanks"]) for row in rows] == task.asked(puzzles.inputs).sum(1).tolist()
    assert [int(row["line"]) for row in rows] == [2, 3, 4, 5, 6]


def test_bad_lines_are_named_or_left_out(cli: Cli, file: Path):
    file.write_text(file.read_text() + "ABC|ABC|ABC\n")
    answer = cli("data", "rate", file)
    assert (answer.code, answer.out) == (2, "") and "squares: line 7: no solutions" in answer.err
    answer = cli("data", "rate", file, "--skip-bad")
    assert answer.code == 0 and "skipped line 7: no solutions" in answer.err
    assert len(answer.out.splitlines()) == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("check", "FILE", "FILE"), "splits of latin puzzles cannot be compared"),
        (("import", "FILE", "--out", "OUT"), "latin puzzles cannot be imported"),
        (("make", "latin3", "--out", "OUT"), "'latin3'; there are sudoku4, sudoku6, sudoku9"),
        (("download", "latin3", "--out", "OUT"), "latin3"),
    ],
)
def test_what_the_task_cannot_do_is_one_line(
    cli: Cli, file: Path, tmp_path: Path, words: tuple[str, ...], message: str
):
    names = {"FILE": file, "OUT": tmp_path / "out"}
    answer = cli("data", *(names.get(word, word) for word in words))
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err and answer.err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "out").exists()
