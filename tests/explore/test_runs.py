"""What is read from a run, in numbers that are known."""

import numpy as np
import pytest
from explore_worlds import session_of, toy_session

from trm_interp.explore.edits import Given, Noise
from trm_interp.explore.runs import (
    CHANGED,
    CONFLICT,
    GIVEN,
    WRONG,
    Reading,
    Run,
    axes_of,
)
from trm_interp.tasks.sudoku.grid import parse, to_tokens
from trm_interp.tasks.sudoku.task import Sudoku


def test_axes_are_principal_ones():
    """Ten states on a line with a little sideways: shares as numpy's own decomposition has them."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(10, 40)).astype(np.float32) * np.linspace(3, 0.1, 40)
    axes = axes_of(states)
    moved = states - states[0]
    _, size, rows = np.linalg.svd(moved - moved.mean(0), full_matrices=False)
    np.testing.assert_allclose(axes.explained, size[:3] ** 2 / (size**2).sum(), rtol=1e-5)
    np.testing.assert_allclose(np.abs((axes.axes * rows[:3]).sum(1)), 1, rtol=1e-4)
    np.testing.assert_allclose(axes.place(states), moved @ axes.axes.T, rtol=1e-4, atol=1e-4)
    assert (axes.place(states)[0] == 0).all()
    strongest = np.abs(axes.axes).argmax(1)
    assert (axes.axes[range(3), strongest] > 0).all()


@pytest.mark.parametrize("n", [1, 2, 4])
def test_axes_of_states_that_hardly_move(n: int):
    """Along a line there is one axis; the others are zero."""
    states = np.outer(np.arange(n), np.ones(5)).astype(np.float32)
    axes = axes_of(states)
    assert axes.axes.shape == (3, 5) and np.isfinite(axes.axes).all()
    np.testing.assert_allclose(axes.explained, [float(n > 1), 0, 0], atol=1e-6)
    expected = np.arange(n) * np.sqrt(5)
    np.testing.assert_allclose(axes.place(states)[:, 0], expected, rtol=1e-5, atol=1e-6)


def made(tokens: list[str], given: str, solution: str) -> Run:
    """A run that guesses these grids."""
    boards = np.stack([to_tokens(parse(text)) for text in tokens])
    n, cells = boards.shape
    zero, per_cell = np.zeros(n, np.float32), np.zeros((n, cells), np.float32)
    probability = np.full((n, cells, 6), 1 / 6, np.float16)
    reading = Reading(boards, probability, zero, per_cell, zero, np.zeros((n, 3), np.float32))
    inputs, labels = (np.tile(to_tokens(parse(of)), (n, 1)) for of in (given, solution))
    session = session_of()
    node, moments = session.plain(0), session.moments[:n]
    return Run(node, moments, {"z_H": reading}, zero, zero > 0, inputs, labels, {}, {})


def test_flags_of_cells():
    """The first row's solution is 1 2 3 4, of which 1 is given."""
    rest = "341221434321"
    solution = "1234" + rest
    run = made(["1134" + rest, "1234" + rest, "2234" + rest], "1" + "." * 15, solution)
    flags = run.flags("z_H", Sudoku(4))
    assert flags[0, :3].tolist() == [GIVEN + CONFLICT, WRONG + CONFLICT, 0]
    # the 1 in the second column: (row 1, column 2) against that of the third row
    assert flags[0, 9] & CONFLICT and not flags[0, 10] & CONFLICT
    assert flags[1, :2].tolist() == [GIVEN, CHANGED] and not flags[1, 2:].any()
    assert flags[2, 0] == GIVEN + WRONG + CONFLICT + CHANGED
    assert run.right("z_H").tolist() == [15, 16, 15]
    assert run.solved("z_H").tolist() == [False, True, False]


def test_certainty_and_entropy():
    run = made(["1234341221434321"], "." * 16, "1234341221434321")
    reading = run.answer
    np.testing.assert_allclose(reading.certainty, 1 / 6, rtol=1e-3)
    np.testing.assert_allclose(reading.entropy, np.log(6), rtol=1e-3)  # uniform over six tokens


def test_the_copier_solves_full_squares_and_no_others():
    session = toy_session()
    full, blank = (session.run(session.plain(index)) for index in (0, 8))
    answer, task = session.model.answer, session.task
    assert full.solved(answer)[-1] and not blank.solved(answer)[-1]
    asked = task.asked(blank.inputs[-1])
    flags = blank.flags(answer, task)[-1]
    assert ((flags & WRONG > 0) == asked).all() and ((flags & GIVEN > 0) != asked).all()
    changed = session.run(full.node.fork(Given(session.last - 1, 0, 4)))
    assert (changed.flags(answer, task)[-1] & GIVEN == 0)[0]


def test_moments_have_labels_for_people():
    labels = [moment.label for moment in session_of().moments]
    assert labels[:4] == [
        "start",
        "step 1, H-cycle 1, evaluation 1 (z_L)",
        "step 1, H-cycle 1, evaluation 2 (z_L)",
        "step 1, H-cycle 1, evaluation 3 (z_H)",
    ]
    assert labels[-1] == "step 3, H-cycle 2, evaluation 3 (z_H)"


def test_bytes_are_those_of_the_arrays():
    session = session_of()
    run = session.run(session.plain(0).fork(Noise(3, ("z_L",), 1.0)))
    moments, cells, vocab = session.last + 1, 16, 6
    reading = run.answer
    assert reading.nbytes == moments * (cells * (1 + 2 * vocab + 4) + 4 + 4 + 12)
    assert run.nbytes > 2 * reading.nbytes
