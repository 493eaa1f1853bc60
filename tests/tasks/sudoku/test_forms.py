"""The forms of puzzle files that people have."""

import hashlib
import os
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trm_interp.runtime import limits
from trm_interp.runtime.errors import UserError
from trm_interp.tasks.base import PuzzleError
from trm_interp.tasks.sudoku.dataset import load, load_text
from trm_interp.tasks.sudoku.formats import column
from trm_interp.tasks.sudoku.grid import from_tokens, parse

A, A_SOLVED = ".3....1.3......2", "1324241332414132"
B, B_SOLVED = "1234....2....32.", "1234341221434321"


@pytest.mark.parametrize(
    ("header", "before", "after"),
    [
        ("quizzes,solutions", "", ""),
        ("puzzle,solution", "", ""),
        ("Puzzle,Solution", "", ""),
        ("id,puzzle,solution,clues,difficulty", "7,", ",5,0.3"),
        ('"source","question","answer","rating"', "kaggle,", ",0"),
    ],
)
def test_headers(header, before, after):
    rows = [f"{before}{p},{s}{after}" for p, s in ((A, A_SOLVED), (B, B_SOLVED))]
    puzzles = load_text("\n".join([header, *rows]), "train.csv")
    assert puzzles.lines.tolist() == [2, 3]
    assert (from_tokens(puzzles.inputs) == np.stack([parse(A), parse(B)])).all()
    assert (from_tokens(puzzles.labels) == np.stack([parse(A_SOLVED), parse(B_SOLVED)])).all()


def test_a_header_without_solutions():
    puzzles = load_text(f"id,puzzle\n1,{A}\n2,{B}\n", "train.csv")
    assert (from_tokens(puzzles.labels) == np.stack([parse(A_SOLVED), parse(B_SOLVED)])).all()
    assert len(load_text(f"puzzle\n{A}\n", "train.csv")) == 1


def test_other_columns_of_a_file_can_be_had(tmp_path):
    file = tmp_path / "p.csv"
    file.write_text(f"Puzzle,Solution,Lineage\n{A},{A_SOLVED},3\n")
    assert column(file, "lineage", np.array([2])) == ["3"]
    assert column(file, "seed", np.array([2])) is None
    file.write_text(f"{A},{A_SOLVED}\n")
    assert column(file, "lineage", np.array([1])) is None


def test_a_lineage_that_is_no_seed(tmp_path, cli):
    file = tmp_path / "p.csv"
    file.write_text(f"puzzle,solution,lineage\n{A},{A_SOLVED},one\n")
    answer = cli("data", "rate", file)
    assert answer.code == 2 and "line 2: lineage 'one' is no seed" in answer.err


@pytest.mark.parametrize("blank", [".", "0", "_", "*"])
def test_blanks(blank):
    assert (
        from_tokens(load_text(f"{A.replace('.', blank)},{A_SOLVED}", "p").inputs) == parse(A)
    ).all()


DRAWN = """# two grids, the second one not drawn

+-----+-----+
| . 3 | . . |
| . . | 1 . |
+-----+-----+
| 3 . | . . |
| . . | . 2 |
+-----+-----+

1234
____
2 * * *
.32.
"""


def test_drawn_grids():
    puzzles = load_text(DRAWN, "p")
    assert (from_tokens(puzzles.inputs) == np.stack([parse(A), parse(B)])).all()
    assert puzzles.lines.tolist() == [4, 11]
    titled = "\n".join(["Grid 01", *(A[i : i + 4] for i in (0, 4, 8, 12)), "Grid 02"])
    titled += "\n" + "\r\n".join(B[i : i + 4] for i in (0, 4, 8, 12))
    assert (from_tokens(load_text(titled, "p").inputs) == from_tokens(puzzles.inputs)).all()
    assert len(load_text(titled, "p")) == 2


@pytest.mark.parametrize("side", [6, 9])
def test_grids_of_other_sizes(side):
    row = "123456789"[:side]
    rows = [row, *["." * side] * (side - 1)]
    puzzles = load_text("\n".join([*rows, "", *rows]), "p", several=True)
    assert puzzles.inputs.shape == (2, side**2) and puzzles.lines.tolist() == [1, side + 2]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (["1234", "....", "2..."], "line 1: a grid of 3 rows, its first has 4 cells"),
        (["1234", "....", "2..", ".32."], "line 1: row 3 of the grid has 3 cells, its first 4"),
        (["1234", "....", "2..x", ".32."], "line 1: character 'x' at 11"),
        (["11..", "....", "....", "...."], "line 1: contradictory givens"),
    ],
)
def test_grids_that_do_not_fit_are_named_and_the_next_is_read(rows, reason):
    text = "\n".join([*rows, "", *(A[i : i + 4] for i in (0, 4, 8, 12))])
    with pytest.raises(PuzzleError) as caught:
        load_text(text, "p")
    assert reason in str(caught.value) and "1 bad line of 2" in str(caught.value)
    assert (from_tokens(load_text(text, "p", skip_bad=True).inputs) == parse(A)).all()


def test_only_plain_files_are_opened(tmp_path, cli):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="pipe is a named pipe, not a file"):
        load(pipe)
    with pytest.raises(UserError, match="null is a device, not a file"):
        load("/dev/null")
    answer = cli("data", "check", pipe, "/dev/zero")
    assert answer.code == 2 and "named pipe" in answer.err


LINE = st.text('1234.,|+- \t"_*0#xGrid\x00é', max_size=20)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(LINE, st.just("puzzle,solution"), st.just("1 2 | 3 4"), st.just(A)),
                max_size=12))  # fmt: skip
def test_no_text_ends_in_anything_but_puzzles_or_one_error(lines):
    try:
        assert len(load_text("\n".join(lines), "p", skip_bad=True, several=True)) > 0
    except PuzzleError as error:
        assert str(error).startswith("p: ")


@pytest.mark.parametrize("drawn", [False, True])
def test_a_limit_reads_the_first_lines_of_a_file_that_memory_cannot_hold(
    tmp_path, monkeypatch, drawn
):
    rows = [A[i : i + 4] for i in (0, 4, 8, 12)]
    puzzle = "\n".join([*rows, "\n"]) if drawn else f"puzzle,solution\n{A},{A_SOLVED}\n"
    content = (puzzle + f"# {'x' * 97}\n" * 100_000).encode()  # 10 MB
    file = tmp_path / "large.csv"
    file.write_bytes(content)
    held = limits.Memory(5 * 10**7, "this machine has")
    monkeypatch.setattr(limits, "memory_limit", lambda: held)
    with pytest.raises(UserError, match=r"would need 0\.1 GB of memory.*--limit"):
        load(file)
    tracemalloc.start()
    try:
        puzzles = load(file, limit=1)
        assert tracemalloc.get_traced_memory()[1] < 3 * 10**6
    finally:
        tracemalloc.stop()
    assert (from_tokens(puzzles.labels) == parse(A_SOLVED)).all()
    assert puzzles.sha256 == {"large.csv": hashlib.sha256(content).hexdigest()}


def test_a_line_without_an_end_is_not_read_to_its_end(tmp_path):
    file = tmp_path / "model.bin"
    with file.open("wb") as opened:
        opened.truncate(10**8)
    with pytest.raises(PuzzleError, match="no puzzles; a line has over 1000000 characters"):
        load(file, limit=1)
