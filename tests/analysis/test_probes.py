"""Linear probes find what is planted, controls do not, and puzzles are kept apart."""

import numpy as np
import pytest

from trm_interp.analysis.probes import (
    auc_by_puzzle,
    probe_scores,
    scores_by_cell,
    shuffled_in_puzzles,
)

RNG = np.random.default_rng(0)
PUZZLE = np.repeat(np.arange(40), 20)
PLANTED = RNG.standard_normal((800, 12)).astype(np.float32)
LABELS = np.stack([PLANTED[:, 0] + PLANTED[:, 3] > 0.4, PLANTED[:, 1] * PLANTED[:, 2] > 0], 1)
TEST = PUZZLE >= 28


def mean_auc(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    scores = probe_scores(rows[~TEST], labels[~TEST], rows[TEST])
    return np.nanmean(auc_by_puzzle(scores, labels[TEST], PUZZLE[TEST]), axis=0)


def test_a_linear_label_is_read_and_a_product_of_two_numbers_is_not():
    linear, product = mean_auc(PLANTED, LABELS)
    assert linear > 0.97 and abs(product - 0.5) < 0.08


def test_shuffled_labels_are_chance_and_stay_in_their_puzzle():
    shuffled = shuffled_in_puzzles(LABELS, PUZZLE, np.random.default_rng(1))
    assert not np.array_equal(shuffled, LABELS)
    rows = {tuple(row) for row in LABELS.tolist()}
    for puzzle in range(40):
        here = puzzle == PUZZLE
        for row in rows:  # whole rows trade places
            assert (shuffled[here] == row).all(1).sum() == (LABELS[here] == row).all(1).sum()
    assert abs(mean_auc(PLANTED, shuffled) - 0.5).max() < 0.08


def test_rows_need_not_stand_together():
    order = RNG.permutation(800)
    shuffled = shuffled_in_puzzles(LABELS[order], PUZZLE[order], np.random.default_rng(1))
    for puzzle in range(40):
        here = PUZZLE[order] == puzzle
        assert (shuffled[here].sum(0) == LABELS[order][here].sum(0)).all()


def test_what_tells_puzzles_apart_only_is_worth_nothing():
    # the number is the puzzle's share of positives: over all rows its AUC is far above 1/2
    share = np.repeat(np.linspace(0.05, 0.95, 40), 20)[:, None].astype(np.float32)
    labels = RNG.random((800, 1)) < share
    scores = probe_scores(share[::2], labels[::2], share[1::2])
    within = auc_by_puzzle(scores, labels[1::2], PUZZLE[1::2])
    assert np.unique(within[np.isfinite(within)]).tolist() == [0.5]


def test_auc_by_hand_and_where_there_is_none():
    # puzzle 3: 0.9, 0.2 against 0.5: 1 and 0 of one pair each: 1/2; puzzle 8 has positives only
    scores = np.array([[0.9], [0.5], [0.2], [1.0]])
    labels = np.array([[True], [False], [True], [True]])
    auc = auc_by_puzzle(scores, labels, np.array([3, 3, 3, 8]))
    assert auc[0, 0] == 0.5 and np.isnan(auc[1, 0])
    one_kind = probe_scores(PLANTED[:9], np.ones((9, 1), bool), PLANTED[9:12])
    assert np.isnan(one_kind).all()


def test_scale_and_constants_of_the_input_do_not_matter():
    wide = np.concatenate([1000 * PLANTED + 7, np.ones((800, 1), np.float32)], 1)
    np.testing.assert_allclose(
        probe_scores(wide[~TEST], LABELS[~TEST], wide[TEST]),
        probe_scores(PLANTED[~TEST], LABELS[~TEST], PLANTED[TEST]),
        atol=1e-2,
    )


def test_cells_have_probes_of_their_own():
    # at cell 0 the label is input 0, at cell 1 its opposite; cell 2 is new to the probe
    cell = np.arange(800) % 2
    labels = ((PLANTED[:, 0] > 0) ^ (cell == 1))[:, None]
    scores = scores_by_cell(PLANTED[~TEST], labels[~TEST], cell[~TEST], PLANTED[TEST], cell[TEST])
    auc = auc_by_puzzle(scores, labels[TEST], PUZZLE[TEST])
    assert np.nanmean(auc) > 0.9
    assert abs(mean_auc(PLANTED, labels)[0] - 0.5) < 0.1  # one probe for all cells cannot
    new = scores_by_cell(PLANTED[~TEST], labels[~TEST], cell[~TEST], PLANTED[:3], np.full(3, 2))
    assert (new == 0).all()
    # a cell whose training labels are all alike: log 5 / 1
    alike = scores_by_cell(
        PLANTED[:4], np.ones((4, 1), bool), np.zeros(4, int), PLANTED[:1], np.zeros(1, int)
    )
    assert alike.item() == pytest.approx(np.log(5))
