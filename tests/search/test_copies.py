"""Searching through copies that a file has laid down: ARC pairs under several augmentations."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from trm_interp.core.infer import run_batch
from trm_interp.core.models.config import TRMConfig
from trm_interp.core.models.trm import TRM
from trm_interp.runtime.errors import UserError
from trm_interp.search.engine import search
from trm_interp.search.noise import copies_for, puzzle_keys, require_symmetries
from trm_interp.search.settings import SearchConfig
from trm_interp.tasks.arc.augmentations import Augmentation
from trm_interp.tasks.arc.grid import encode, parse, render
from trm_interp.tasks.arc.task import Arc
from trm_interp.tasks.base import PuzzleSet

SIDE, STEPS, K = 4, 2, 4
TURNED, MIRRORED = Augmentation(1, "0213456789"), Augmentation(4, "0987654321")
GRID = np.array([[1, 2, 3], [0, 5, 0]], np.uint8)
# row -> task, augmentation, input: three copies of one pair, a task and an input of their own
ROWS = [("a", Augmentation(), GRID), ("a", TURNED, GRID), ("b", TURNED, GRID)]
ROWS += [("a", MIRRORED, GRID), ("a", MIRRORED, GRID[:1])]


def pairs() -> PuzzleSet:
    names = [augmentation.name(task) for task, augmentation, _ in ROWS]
    tokens = np.stack([encode(augmentation.apply(grid), SIDE) for _, augmentation, grid in ROWS])
    n = len(ROWS)
    return PuzzleSet(
        Arc(SIDE), tokens, tokens, np.arange(n), "pairs", {},
        given_identifiers=np.arange(n), names=np.array(names),
    )  # fmt: skip


def test_copies_are_pairs_of_one_task_and_input():
    copies = Arc(SIDE).copies(pairs())
    assert copies is not None and copies.alike.tolist() == [0, 0, 1, 0, 2]
    assert Arc(SIDE).copies(pairs().subset([0, 2, 4])) is None
    assert Arc(SIDE).copies(replace(pairs(), names=None)) is None


def test_every_copy_is_drawn_before_one_is_drawn_again_and_the_puzzle_itself_last():
    copies = Arc(SIDE).copies(pairs())
    assert copies is not None
    keys = np.zeros(6, np.int64)
    rows = copies.drawn(np.zeros(6, np.int64), np.arange(6), keys, 0).tolist()
    assert sorted(rows[:2]) == [1, 3] and rows[2] == 0 and rows[3:] == rows[:3]
    orders = {tuple(copies.drawn(np.zeros(2, np.int64), np.arange(2), keys, s)) for s in range(9)}
    assert orders == {(1, 3), (3, 1)}  # the seed decides
    assert copies.at([4]).drawn(np.zeros(1, np.int64), np.arange(1), keys, 0).tolist() == [4]


def test_a_pair_that_is_there_twice_is_no_copy_of_itself():
    twice = pairs().subset([0, 0, 1, 1, 3, 2, 2])
    copies = Arc(SIDE).copies(twice)
    assert copies is not None
    for own, others in ((1, [2, 4]), (2, [0, 4]), (5, [])):
        drawn = copies.at([own]).drawn(np.zeros(9, np.int64), np.arange(9), np.zeros(9, int), 0)
        assert sorted(drawn[: len(others) + 1]) == sorted([*others, own])
        assert len(set(drawn)) == len(others) + 1
    assert Arc(SIDE).copies(twice.subset([0, 1, 5, 6])) is None


def test_an_answer_is_carried_over_by_hand():
    """Quarter turn counter-clockwise with 1 and 2 exchanged, undone: back to the plain task."""
    copies = Arc(SIDE).copies(pairs())
    assert copies is not None
    answer = parse("23|.14|.||....77")  # what lies beyond its end markers is not read
    turned, plain = np.array([1]), np.array([0])
    # colours exchanged, 13 above 24, and turned clockwise
    assert render(copies.carried(answer[None], turned, plain)[0]) == "21|.43|.||......"
    assert copies.carried(answer[None], plain, plain)[0].tobytes() == answer.tobytes()
    assert not copies.carried(np.zeros((1, 16), np.uint8), turned, plain).any()


def test_an_answer_without_room_at_its_place_is_none():
    puzzles, (row, column) = pairs(), (2, 3)
    small = np.array([[7]], np.uint8)
    for at, augmentation in ((0, Augmentation()), (1, TURNED)):
        place = (row, column) if at == 0 else (0, 0)
        puzzles.inputs[at] = encode(augmentation.apply(small), SIDE, *place)
    copies = Arc(SIDE).copies(puzzles)
    assert copies is not None and copies.alike[0] == copies.alike[1]
    answer, from_, to = encode(GRID, SIDE)[None], np.array([1]), np.array([0])
    assert not copies.carried(answer, from_, to).any()
    assert copies.carried(encode(small, SIDE)[None], from_, to)[0].argmax() == row * SIDE + column


@pytest.fixture(scope="module")
def model() -> TRM:
    torch.manual_seed(0)
    config = TRMConfig(
        cells=SIDE * SIDE, vocab=12, d_model=16, h_cycles=1, l_cycles=1, prefix=1,
        n_identifiers=len(ROWS),
    )  # fmt: skip
    model = TRM(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model.eval()


def test_a_trajectory_is_a_run_of_the_copy_with_the_identifier_of_the_copy(model: TRM):
    puzzles = pairs()
    task, given = puzzles.task, puzzles.tensors
    config = SearchConfig(k=K, steps=STEPS, sigma=0.0, symmetry=True, stop="never")
    copies = copies_for(config, puzzles)
    assert copies is not None
    plain = run_batch(model, given.inputs, given.labels, STEPS, identifiers=given.identifiers)
    q, answers = plain.q_halt.numpy(), plain.tokens.numpy().astype(np.uint8)
    assert len(np.unique(q[:, -1])) == len(ROWS)  # identifiers and augmentations tell them apart
    own = copies.at([3, 0])
    inputs, identifiers = given.inputs[[3, 0]], given.identifiers[[3, 0]]  # type: ignore[index]
    found = search(model, task, inputs, config, 3, torch.float32, lambda n: None, identifiers, own)
    for puzzle, row in enumerate((3, 0)):
        runs = [row, *own.drawn(np.full(3, puzzle), np.arange(3), _key(inputs[puzzle]), 0)]
        assert sorted(runs) == sorted([0, 1, 3, row])
        np.testing.assert_allclose(found.q[puzzle], q[runs], atol=1e-5)
        for column, source in enumerate(runs):
            wanted = own.carried(answers[source], np.full(2, source), np.full(2, row))
            np.testing.assert_array_equal(found.tokens[puzzle, column], wanted)


def _key(inputs: torch.Tensor) -> np.ndarray:
    return puzzle_keys(inputs[None]).numpy().repeat(3)


def test_votes_are_for_grids_whatever_stands_around_them():
    task, given = Arc(SIDE), encode(GRID, SIDE)
    answers = np.stack(
        [parse("23|.14|.||....77"), parse("23..14||...777.."), parse("23|.15|.||......")]
    )
    said = task.compared(np.repeat(given[None], 3, 0), answers)
    assert [render(row) for row in said] == [*["23|.14|.||......"] * 2, "23|.15|.||......"]


def test_puzzles_without_copies_are_refused():
    with pytest.raises(UserError, match="pairs: 4x4 ARC has no symmetries here"):
        require_symmetries(pairs().subset([0, 2, 4]))
    require_symmetries(pairs())
