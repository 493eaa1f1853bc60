"""Selection by hand: two puzzles of one cell and three trajectories, one of which may be unrun."""

import math

import numpy as np
import pytest
import torch

from trm_interp.analysis.outcomes import wilson
from trm_interp.search.batch import Answers, Batch
from trm_interp.search.engine import Trajectories, _Answers, grid_ids
from trm_interp.search.results import gained_of
from trm_interp.search.selection import SHARES, choose, outcome_frame, share_table
from trm_interp.search.settings import SearchConfig
from trm_interp.tasks.sudoku.task import Sudoku

A, B = 2, 3  # tokens of a grid of one cell


def trajectories(
    tokens: list, q: list, ran: list, valid: list | None = None, k: int = 3
) -> Trajectories:
    grids = np.array(tokens, np.uint8)[..., None, None]  # [puzzle, column, step, cell]
    halting = np.where(np.array(ran) > 0, np.array(q, np.float32), -np.inf).astype(np.float32)
    good = np.zeros_like(ran) if valid is None else np.array(valid)
    ran = np.array(ran, np.int16)
    return Trajectories(grids, halting[..., None], good[..., None] > 0, ran, k, grid_ids(grids))


@pytest.mark.parametrize(
    ("tokens", "q", "ran", "expected"),
    [
        # sigmoid(2) = 0.881 for A, 2 x sigmoid(-1) = 0.538 for B
        ([A, B, B], [2, -1, -1], [1, 1, 1], {"best_q": 0, "vote": 1, "vote_q": 0}),
        # sigmoid(0) = 0.5 for A, 2 x sigmoid(-0.5) = 0.755 for B
        ([A, B, B], [0, -0.5, -0.5], [1, 1, 1], {"best_q": 0, "vote": 1, "vote_q": 1}),
        # one each: the earlier one; sigmoid grows with q
        ([A, B, B], [1, 2, 9], [1, 1, 0], {"best_q": 1, "vote": 0, "vote_q": 1}),
        # trajectories that never ran hold zeros, which are no votes
        ([A, 0, 0], [-9, 0, 0], [1, 0, 0], {"best_q": 0, "vote": 0, "vote_q": 0}),
        # those that ran and say nothing have none either: sigmoid(-1) = 0.27 for A, 0 for pads
        ([0, 0, A], [3, 3, -1], [1, 1, 1], {"best_q": 0, "vote": 2, "vote_q": 2}),
    ],
)
def test_rules_by_hand(tokens: list, q: list, ran: list, expected: dict[str, int]):
    chosen = choose(trajectories([tokens], [q], [ran]))
    assert {rule: at.item() for rule, at in chosen.items()} == expected


def test_a_run_that_says_nothing_twice_does_not_end_its_puzzle():
    answers = _Answers(Sudoku(4), torch.zeros(2, 16), SearchConfig(k=1, steps=2, stop="q"))
    said = np.stack([np.zeros(16, np.uint8), np.full(16, A, np.uint8)])
    read = Answers(said, np.full(2, 9.0), np.full(2, 9.0))
    batch = object.__new__(Batch)  # of its rows alone
    for step, ended in ((0, [False, False]), (1, [False, True])):
        batch.puzzle, batch.column, batch.step = np.array([[0, 1], [0, 0], [step, step]])
        assert answers.record(batch, read).tolist() == ended


def test_fewer_trajectories_are_the_first_ones():
    many = trajectories([[A, B, B]], [[0, 1, 2]], [[1, 1, 1]])
    assert choose(many, k=2)["best_q"].item() == 1 and choose(many, k=1)["vote"].item() == 0


def test_equal_grids_share_a_number_and_others_do_not():
    grids = np.random.default_rng(0).integers(1, 11, (500, 81)).astype(np.uint8)
    grids[1] = grids[0]
    changed = grids[0].copy()
    changed[40] ^= 1
    ids = grid_ids(np.concatenate([grids, changed[None]]))
    assert ids[0] == ids[1] and len(np.unique(ids)) == 500  # 501 grids, one of them twice


def test_outcomes_of_two_puzzles():
    # puzzle 0, label A: baseline A right; best by q is B, wrong; the vote (A, A) is right
    # puzzle 1, label B: one trajectory, A, wrong; a valid grid that is not the label
    frame = outcome_frame(
        trajectories(
            [[A, A, B], [A, 0, 0]],
            [[-1, -1, 3], [2, 0, 0]],
            [[4, 2, 1], [3, 0, 0]],
            valid=[[0, 0, 0], [1, 0, 0]],
        ),
        np.array([[A], [B]], np.uint8),
    )
    rows = frame.to_dict("records")
    names = ("baseline", "best_q", "vote", "vote_q", "pass_at_k", "verified")
    # sigmoid(-1) twice = 0.54 for A, sigmoid(3) = 0.95 for B: vote_q is wrong
    assert [rows[0][name] for name in names] == [True, False, True, False, True, False]
    assert [rows[1][name] for name in names] == [False, False, False, False, False, True]
    assert [(row["right"], row["trajectories"], row["steps_run"]) for row in rows] == [
        (2, 3, 7),
        (0, 1, 3),
    ]
    assert (rows[0]["q"], rows[0]["chosen_best_q"]) == (3.0, 2)
    table = share_table(frame)
    assert table[list(SHARES)].to_numpy().tolist() == [[0.5, 0.0, 0.5, 0.0, 0.5, 0.5]]
    assert gained_of(frame) == [0]  # best_q loses the first and solves neither
    assert gained_of(frame.assign(best_q=[True, True], baseline=[True, False])) == [1]
    low, high = wilson(1, 2)
    assert math.isclose(table["vote_low"][0], low) and math.isclose(table["vote_high"][0], high)


def test_a_plain_run_beside_the_noisy_ones_is_the_baseline_and_takes_part_in_no_choice():
    both = trajectories([[B, B, A]], [[0, 0, 9]], [[1, 1, 5]], k=2)
    row = outcome_frame(both, np.array([[A]], np.uint8)).iloc[0]
    assert row["baseline"] and not row["best_q"] and not row["pass_at_k"]
    assert row["steps_run"] == 2 and row["trajectories"] == 2
