"""16x16: letters beyond 9, files, proofs without the compiled solver, and a model that reads it."""

import json

import numpy as np
import pytest
from sudoku16 import PUZZLE, SOLUTION, puzzles16

from trm_interp.tasks.base import PuzzleError, PuzzleSet
from trm_interp.tasks.registry import load_puzzles
from trm_interp.tasks.sudoku import propagation
from trm_interp.tasks.sudoku.dataset import load_text, repeats
from trm_interp.tasks.sudoku.forge.generate import generate
from trm_interp.tasks.sudoku.forge.solver import solve_batch
from trm_interp.tasks.sudoku.formats import typed
from trm_interp.tasks.sudoku.grid import SHAPES, parse, render, to_tokens
from trm_interp.tasks.sudoku.solving import solve
from trm_interp.tasks.sudoku.task import Sudoku

ROWS = [PUZZLE[at : at + 16] for at in range(0, 256, 16)]


def drawn() -> str:
    """The puzzle as the terminal shows it."""
    return "\n".join(Sudoku(16).lines(to_tokens(parse(PUZZLE))))


@pytest.mark.parametrize(
    "text",
    [
        PUZZLE,
        PUZZLE.lower(),
        f"{PUZZLE},{SOLUTION}",
        f"source,question,answer\nx,{PUZZLE},{SOLUTION}",
        "\n".join(ROWS),
        "\n".join(" ".join(row) for row in ROWS),
        drawn(),
    ],
)
def test_every_form_is_read(text, tmp_path):
    file = tmp_path / "puzzles.txt"
    file.write_text(text + "\n")
    puzzles = load_puzzles(file)
    assert puzzles.task == Sudoku(16) and len(puzzles) == 1
    assert puzzles.task.text(puzzles.inputs[0]) == PUZZLE
    assert puzzles.task.text(puzzles.labels[0]) == SOLUTION


def test_the_public_folder_is_read(tmp_path):
    made = puzzles16(3)
    np.save(tmp_path / "all__inputs.npy", made.inputs)
    np.save(tmp_path / "all__labels.npy", made.labels)
    puzzles = load_puzzles(tmp_path)
    assert puzzles.task == Sudoku(16)
    np.testing.assert_array_equal(puzzles.labels, made.labels)


def test_sixteen_lines_of_4x4_stay_4x4_puzzles():
    lines = ["1.3.....4......2"] * 15 + ["1.3.....4......."]
    with pytest.raises(PuzzleError, match=r"line 1: .* solution"):
        load_text("\n".join(lines), "many")
    assert load_text("......2..3..2.4.\n" * 20, "many").task == Sudoku(4)


def test_letters_are_digits_of_16x16_alone():
    assert render(parse(PUZZLE)) == PUZZLE and parse(PUZZLE).max() == 16
    with pytest.raises(ValueError, match="'A' at 15; digits are 1 to 4"):
        parse("1.3.....4......A")
    with pytest.raises(ValueError, match="'H' at 255; digits are 1 to 9 and A to G"):
        parse(PUZZLE[:-1] + "H")
    assert typed(PUZZLE) == PUZZLE and typed("AFFE") is None


def test_a_repeated_last_digit_is_seen():
    """Sixteen bits of a word overflow where G stands three times in a row."""
    grid = parse("GGG" + "." * 253)
    assert repeats(np.stack([grid, parse(SOLUTION)])).tolist() == [True, False]


@pytest.mark.parametrize("side", [4, 6, 9])
def test_the_same_solutions_as_the_compiled_solver(side):
    puzzles, _ = generate(SHAPES[side], 4, seed=3)
    puzzles[0][puzzles[0].nonzero()[0][0]] = 0  # several solutions
    puzzles[1, :2] = 1  # none
    by_singles, compiled = propagation.solutions(puzzles), solve_batch(puzzles)
    assert by_singles.counts.tolist() == compiled.counts.tolist() == [2, 0, 1, 1]
    np.testing.assert_array_equal(by_singles.solutions[2:], compiled.solutions[2:])
    assert not by_singles.given_up.any()


def test_solved_proved_and_given_up(monkeypatch):
    less = parse(PUZZLE)
    less[:24] = 0
    found = solve(np.stack([parse(PUZZLE), less]))
    assert found.counts.tolist() == [1, 2] and render(found.solutions[0]) == SOLUTION
    with pytest.raises(PuzzleError, match="line 1: several solutions"):
        load_text(render(less), "less")
    with pytest.raises(PuzzleError, match="line 1: not proved to have one solution alone"):
        load_text(f"{render(less)},{SOLUTION}", "less")
    monkeypatch.setattr(propagation, "MOST_STATES", 0)
    assert propagation.solutions(less[None], most=1).given_up.all()


def test_a_model_is_trained_on_it_and_evaluated(tmp_path, cli):
    train, val, out = tmp_path / "train.txt", tmp_path / "val.txt", tmp_path / "model"
    made = puzzles16(3)
    Sudoku.save(train, made)
    easier = PuzzleSet(made.task, made.inputs.copy(), made.labels, made.lines, "easier", {})
    easier.inputs[:, :100] = made.labels[:, :100]
    Sudoku.save(val, easier)
    words = ["--d-model", 16, "--h-cycles", 1, "--l-cycles", 1, "--batch-size", 2]
    trained = cli("train", "--train", train, "--val", val, "--out", out, "--train-steps", 2, *words)
    assert trained.code == 0, trained.err
    assert json.loads((out / "card.json").read_text())["task"] == "sudoku16"
    judged = cli("eval", "--ckpt", out, "--puzzles", val, "--steps", 2, "--json")
    assert judged.code == 0 and json.loads(judged.out)["n"] == 3, judged.err
    solved = cli("solve", PUZZLE, "--ckpt", out)
    assert "A" in solved.out and solved.code in (0, 1), solved.err
    rated = cli("data", "rate", train)
    assert rated.out.splitlines()[1].endswith(",104")
