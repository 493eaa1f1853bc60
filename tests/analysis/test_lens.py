"""When cells are decided and how often they change, by hand."""

import numpy as np

from trm_interp.analysis.lens import agreement, decided, decided_share, mean_among, revisions

# cell 0 changes once, cell 1 three times and comes back, cell 2 never
ANSWERS = np.array([[1, 5, 3], [2, 6, 3], [2, 5, 3], [2, 6, 3]])


def test_decided_and_revised_by_hand():
    assert decided(ANSWERS).tolist() == [1, 3, 0]
    assert revisions(ANSWERS).tolist() == [1, 3, 0]
    assert (decided(np.stack([ANSWERS, ANSWERS[::-1]])) == [[1, 3, 0], [3, 3, 0]]).all()


def test_nothing_changes_from_where_it_is_decided_and_something_does_just_before():
    answers = np.random.default_rng(0).integers(0, 3, (20, 9, 30))
    at = decided(answers)
    for puzzle, cell in np.ndindex(at.shape):
        series, since = answers[puzzle, :, cell], at[puzzle, cell]
        assert (series[since:] == series[-1]).all()
        assert since == 0 or series[since - 1] != series[-1]


def test_agreement_counts_the_chosen_cells():
    # at the ticks, of cells 0 and 1 as 2 and 6: 0, 2, 1, 2
    target, among = np.array([2, 6, 9]), np.array([True, True, False])
    assert agreement(ANSWERS, target, among).tolist() == [0, 1, 0.5, 1]
    assert np.isnan(agreement(ANSWERS, target, np.zeros(3, bool))).all()


def test_shares_decided_rise_to_1():
    everything = np.ones(3, bool)
    np.testing.assert_allclose(
        decided_share(decided(ANSWERS), everything, 4), [1 / 3, 2 / 3, 2 / 3, 1]
    )
    assert mean_among(revisions(ANSWERS), everything) == 4 / 3
    assert np.isnan(mean_among(revisions(ANSWERS), np.zeros(3, bool)))
