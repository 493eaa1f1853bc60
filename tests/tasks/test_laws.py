"""What holds for every task, tried on all sizes of Sudoku, on mazes, on ARC and on a toy of the
tests."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from arc_puzzles import arc_puzzles
from maze_puzzles import maze_puzzles
from sudoku16 import puzzles16
from toy_task import Latin, latin_puzzles

from trm_interp.tasks.base import PuzzleSet, Task
from trm_interp.tasks.registry import (
    families,
    family,
    load_puzzles,
    task_named,
    task_of_shape,
)
from trm_interp.tasks.sudoku.forge.generate import generate
from trm_interp.tasks.sudoku.grid import SHAPES, to_tokens
from trm_interp.tasks.sudoku.task import Sudoku


def sudokus(side: int) -> Callable[[], PuzzleSet]:
    def make() -> PuzzleSet:
        puzzles, solutions = map(to_tokens, generate(SHAPES[side], 6, seed=3))
        lines = np.arange(len(puzzles)) + 1
        return PuzzleSet(Sudoku(side), puzzles, solutions, lines, "made", {})

    return make


MADE = {"sudoku4": sudokus(4), "sudoku6": sudokus(6), "sudoku9": sudokus(9)}
MADE["sudoku16"] = lambda: puzzles16(6)
MADE["latin3"] = lambda: latin_puzzles(6)
MADE |= {f"maze{side}": lambda side=side: maze_puzzles(6, side) for side in (10, 30)}
MADE |= {f"arc{side}": lambda side=side: arc_puzzles(6, side) for side in (10, 30)}
WHOLE = {"arc"}  # families that ask for a whole board, and whose rules prove nothing
SQUARES = {"sudoku", "latin"}  # families whose rules are about the places of symbols
ROW = np.arange(6)


@pytest.fixture(params=MADE, scope="module")
def puzzles(request: pytest.FixtureRequest) -> PuzzleSet:
    return MADE[request.param]()


@pytest.fixture
def task(puzzles: PuzzleSet) -> Task:
    return puzzles.task


def test_every_task_is_tried():
    """A new family needs puzzles of every size in MADE."""
    assert set(MADE) == {task.name for name in families() for task in family(name).sizes()}


def test_names_and_shapes_find_the_task_again(task: Task):
    assert task_named(task.name) == task == type(task).named(task.name)
    assert task_of_shape(task.cells, task.vocab) == task
    assert task.grid[0] * task.grid[1] == task.cells
    assert len(task.tokens) == task.vocab == len(set(task.tokens))
    assert hash(task) == hash(task_named(task.name)) and task != object()


def test_asked_cells_and_givens(task: Task, puzzles: PuzzleSet):
    asked = task.asked(puzzles.inputs)
    assert asked.any() and asked.all() == (task.family in WHOLE)
    if task.family in WHOLE:
        judged = puzzles.labels != 0
        assert np.isin(puzzles.labels[judged], task.answer_tokens).all()
        np.testing.assert_array_equal(task.filled(puzzles.labels), judged)
        assert task.keeps_givens(puzzles.inputs, puzzles.labels).all()
        return
    still_asked = task.asked(puzzles.labels)  # none, unless a cell may stay as it is asked
    assert np.isin(puzzles.labels[still_asked], task.answer_tokens).all()
    assert task.filled(puzzles.labels)[asked].any()
    assert not task.filled(np.where(asked, puzzles.inputs, 0)).any()
    assert task.keeps_givens(puzzles.inputs, puzzles.labels).all()
    assert np.isin(puzzles.labels[asked], task.answer_tokens).all()
    changed = np.where(asked, puzzles.labels, np.roll(puzzles.labels, 1, axis=1))
    differs = changed != puzzles.labels
    np.testing.assert_array_equal(task.keeps_givens(puzzles.inputs, changed), ~differs)


def test_solutions_are_proved_and_every_other_answer_is_not(task: Task, puzzles: PuzzleSet):
    verdict = task.verify(puzzles.inputs, puzzles.labels)
    assert verdict.proved.all() == task.can_prove != (task.family in WHOLE)
    assert not verdict.broken.any()
    assert not task.conflicts(puzzles.labels).any()
    if not task.can_prove:
        assert not verdict.proved.any()
        return
    rng = np.random.default_rng(0)
    for _ in range(20):
        answers = puzzles.labels.copy()
        cell = rng.integers(task.cells, size=len(answers))
        answers[ROW, cell] = rng.integers(task.vocab, size=len(answers))
        changed = answers[ROW, cell] != puzzles.labels[ROW, cell]
        verdict = task.verify(puzzles.inputs, answers)
        np.testing.assert_array_equal(verdict.proved, ~changed)  # each has one solution
        np.testing.assert_array_equal(verdict.proved, ~verdict.broken.any(1))
        assert verdict.broken[ROW, cell][changed].all()
        np.testing.assert_array_equal(task.proves(puzzles.inputs, answers), ~changed)
    assert not task.has_several_solutions(puzzles.inputs).any()
    assert not task.proves(puzzles.inputs, puzzles.inputs).any()
    if task.family in SQUARES:  # a puzzle without givens
        no_givens = np.full_like(puzzles.inputs, puzzles.inputs[task.asked(puzzles.inputs)][0])
        assert task.asked(no_givens).all() and task.has_several_solutions(no_givens).all()


def test_broken_rules_are_named(task: Task, puzzles: PuzzleSet):
    assert all(len(set(place.tolist())) > 1 for place in task.places().values())
    answers = np.full_like(puzzles.labels, task.answer_tokens[0])  # one symbol everywhere
    violations = task.violations(answers)
    assert all(broken.shape == answers.shape for broken in violations.values())
    np.testing.assert_array_equal(task.conflicts(answers), sum(violations.values()) > 0)
    assert task.conflicts(answers).all()
    single = task.violations(answers[0])
    assert all((single[rule] == broken[0]).all() for rule, broken in violations.items())
    if task.family in SQUARES:
        assert set(violations) == set(task.places())
        assert all(broken.all() for broken in violations.values())


def test_what_can_be_completed_keeps_the_givens_and_is_part_of_a_solution(
    task: Task, puzzles: PuzzleSet
):
    wrong = np.roll(puzzles.labels, 1, axis=1)
    for inputs, labels, answer in zip(puzzles.inputs, puzzles.labels, wrong, strict=True):
        part = task.completable(inputs, answer)
        kept = ~task.asked(inputs) | task.filled(part)
        assert not task.asked(part)[kept].any()
        np.testing.assert_array_equal(part[kept], labels[kept])
        assert kept[~task.asked(inputs)].all()


def test_symmetries_undo_join_and_are_named_by_their_keys(task: Task, puzzles: PuzzleSet):
    inputs, labels = torch.from_numpy(puzzles.inputs), torch.from_numpy(puzzles.labels)
    keys = torch.arange(100, 106)
    symmetry = task.symmetry(keys)
    if task.family in WHOLE:  # laid down when a data set is made
        assert symmetry is None and task.augment(inputs, labels, keys) == (inputs, labels)
        return
    assert symmetry is not None
    moved = symmetry.apply(inputs)
    assert moved.dtype == inputs.dtype and not torch.equal(moved, inputs)
    assert torch.equal(symmetry.invert().apply(moved), inputs)
    halves = [task.symmetry(keys[:2]), task.symmetry(keys[2:])]
    joined = type(symmetry).join([half for half in halves if half is not None])
    assert torch.equal(joined.apply(inputs), moved)
    rows = torch.tensor([4, 1])
    assert torch.equal(symmetry.take(rows).apply(inputs[rows]), moved[rows])
    plain = torch.tensor([True, False] * 3)
    some = symmetry.keep_plain(plain).apply(inputs)
    assert torch.equal(some, torch.where(plain[:, None], inputs, moved))
    again = task.augment(inputs, labels, keys)
    assert torch.equal(again[0], moved) and torch.equal(again[1], symmetry.apply(labels))


def test_symmetries_carry_puzzles_to_puzzles_of_their_class(task: Task, puzzles: PuzzleSet):
    inputs, labels = torch.from_numpy(puzzles.inputs), torch.from_numpy(puzzles.labels)
    if task.family in WHOLE:
        assert task.class_keys(puzzles.inputs) is None
        return
    for key in range(20):
        keys = torch.arange(6) * 20 + key
        moved, solved = (part.numpy() for part in task.augment(inputs, labels, keys))
        np.testing.assert_array_equal(task.asked(moved).sum(1), task.asked(puzzles.inputs).sum(1))
        assert task.proves(moved, solved).all()
        own, others = task.class_keys(puzzles.inputs), task.class_keys(moved)
        assert own is not None and others is not None
        np.testing.assert_array_equal(own, others)
    keys = task.class_keys(np.concatenate([puzzles.inputs, puzzles.labels]))
    assert keys is not None and not set(keys[:6].tolist()) & set(keys[6:].tolist())


def test_files_are_read_as_they_were_written(task: Task, puzzles: PuzzleSet, tmp_path: Path):
    file = tmp_path / "puzzles.txt"
    sha256 = task.save(file, puzzles)
    read = load_puzzles(file)
    assert read.task == task and read.sha256 == {"puzzles.txt": sha256}
    np.testing.assert_array_equal(read.inputs, puzzles.inputs)
    np.testing.assert_array_equal(read.labels, puzzles.labels)
    np.testing.assert_array_equal(read.given_identifiers, puzzles.given_identifiers)
    np.testing.assert_array_equal(read.names, puzzles.names)
    assert len(load_puzzles(file, limit=2)) == 2


def test_a_line_of_text_is_a_puzzle(task: Task, puzzles: PuzzleSet):
    for inputs in puzzles.inputs:
        text = task.typed(task.text(inputs))
        assert (text is None) == (task.family in WHOLE)  # the rules tell no solution
        if text is None:
            continue
        read = task.load_text(text, "typed")
        assert read.task == task and read.source == "typed"
        np.testing.assert_array_equal(read.inputs, inputs[None])
    assert task.typed("puzzles.txt") is None and task.typed("runs/a b/x.csv") is None


def test_drawings_show_every_cell_once_in_its_place(task: Task, puzzles: PuzzleSet):
    tokens = puzzles.inputs[0]
    glyphs = task.glyphs(puzzles.inputs)
    assert glyphs.shape == puzzles.inputs.shape
    is_blank = puzzles.inputs == 0 if task.family in WHOLE else task.asked(puzzles.inputs)
    np.testing.assert_array_equal(glyphs == "", is_blank)
    for marks in ("", "*" * task.cells):
        drawn = task.drawing(tokens, marks)
        cells = [(text, cell) for line in drawn for text, cell in line if cell is not None]
        assert [cell for _, cell in cells] == list(range(task.cells))
        assert [text for text, _ in cells] == [glyph or "." for glyph in glyphs[0].tolist()]
        assert len({len(line) for line in task.lines(tokens, marks)}) == 1
    shown = [line for line in drawn if any(cell is not None for _, cell in line)]
    assert len(shown) == task.grid[0]


def test_ratings_and_facts_have_their_names(task: Task, puzzles: PuzzleSet):
    calls = []
    ratings = task.rate(puzzles, seed=1, progress=lambda done, of: calls.append((done, of)))
    assert tuple(ratings) == task.ratings() and calls[-1] == (6, 6)
    assert all(len(values) == len(puzzles) for values in ratings.values())
    assert {task.main_rating(), *task.controls()} <= set(ratings)
    candidates = task.candidates(puzzles.inputs[0])
    assert (candidates is not None) == (task.family in SQUARES)
    if candidates is not None:
        names, possible = candidates
        assert possible.shape == (task.cells, len(names))
        of_solution = [task.tokens[token] for token in puzzles.labels[0]]
        columns = [names.index(name) for name in of_solution]
        assert possible[np.arange(task.cells), columns].all()  # none excludes the solution
    assert candidates is not None or task.board_facts(puzzles.inputs[0], puzzles.labels[0])
    for fact in task.board_facts(puzzles.inputs[0], puzzles.labels[0]).values():
        assert fact.shape == (task.cells,) and fact.dtype == bool


def test_an_identifier_depends_on_its_puzzle_alone(puzzles: PuzzleSet):
    every, part = puzzles.identifiers, puzzles.subset([4, 1])
    assert (part.identifiers is None) == (every is None)
    if every is not None and part.identifiers is not None:
        assert every.dtype == np.int64 and every.shape == (len(puzzles),) and every.min() >= 0
        np.testing.assert_array_equal(part.identifiers, every[[4, 1]])
    assert (part.names is None) == (puzzles.names is None) == (puzzles.given_identifiers is None)
    if part.names is not None and puzzles.names is not None:
        np.testing.assert_array_equal(part.names, puzzles.names[[4, 1]])
    read = puzzles.tensors.at(slice(1, 3))
    np.testing.assert_array_equal(read.inputs.numpy(), puzzles.inputs[1:3])
    assert (read.identifiers is None) == (every is None)


def test_a_set_refuses_what_does_not_belong_together(puzzles: PuzzleSet):
    with pytest.raises(ValueError, match="belong together"):
        PuzzleSet(puzzles.task, puzzles.inputs, puzzles.labels[:2], puzzles.lines, "", {})
    other = Latin() if puzzles.task.cells != Latin().cells else Sudoku(4)
    with pytest.raises(ValueError, match="cells"):
        PuzzleSet(other, puzzles.inputs, puzzles.labels, puzzles.lines, "", {})


def test_padding_is_no_answer(task: Task):
    """Losses leave out labels of token 0: as an answer it would be solved for free."""
    assert task.tokens[0] == "pad" and 0 not in task.answer_tokens


def test_colours_are_of_tokens(task: Task):
    colours = task.colours()
    assert len(colours) in (0, task.vocab)
    assert all(colour == "" or re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)


def test_a_task_that_cannot_prove_proves_nothing(puzzles: PuzzleSet, monkeypatch):
    task = puzzles.task
    assert task.proves(puzzles.inputs, puzzles.labels).all() == task.can_prove
    monkeypatch.setattr(type(task), "can_prove", False)
    assert not task.verify(puzzles.inputs, puzzles.labels).proved.any()


def test_relations_of_cells(task: Task, puzzles: PuzzleSet):
    """Every cell has one; the first is the cell itself, the last that of cells without another."""
    for cell in (0, task.cells // 2):
        first, *others = [task.related(inputs, cell) for inputs in puzzles.inputs[:2]]
        assert all(list(of) == list(first) for of in others) and len(first) > 2
        names, masks = list(first), np.stack([*first.values()])
        assert masks.shape == (len(names), task.cells) and masks.dtype == bool
        assert np.flatnonzero(masks[0]).tolist() == [cell]
        assert (masks[-1] == ~masks[:-1].any(0)).all()
