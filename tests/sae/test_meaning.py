"""Facts of a board, and how well an activation tells them, by hand."""

import numpy as np
import pytest
import scipy.sparse
from scipy.stats import rankdata

from trm_interp.analysis.auc import auc_of_ranks
from trm_interp.sae.meaning import facts_of, head_push, meaning_of, shuffled_cells, sparse_auc
from trm_interp.tasks.sudoku.grid import parse, to_tokens
from trm_interp.tasks.sudoku.logic import candidates, hidden_singles, naked_singles, places
from trm_interp.tasks.sudoku.task import Sudoku

#  1 2 | 3 .      row 0 lacks 4; cell 3 sees 1 2 3: naked single
#  . . | . .
#  ----+----
#  2 . | . .
#  . . | 2 .
PUZZLE = parse("123.....2.....2.")
ANSWER = parse("1234341221434321")
RNG = np.random.default_rng(0)


def test_candidates_and_singles_by_hand():
    possible = candidates(PUZZLE)
    digits = [(np.flatnonzero(row) + 1).tolist() for row in possible]
    assert digits[0] == [1] and digits[3] == [4]
    assert digits[4] == [3, 4]  # row 1 free; column 0 has 1, 2; box 0 has 1, 2
    assert digits[6] == [1, 4]  # column 2 has 3, 2; box 1 has 3
    assert digits[15] == [1, 3, 4]
    assert np.flatnonzero(naked_singles(PUZZLE)).tolist() == [3]
    hidden = hidden_singles(PUZZLE)
    assert hidden[3] and hidden[7]  # 2 of box 1: not in row 0 nor column 2, so cell 7
    assert not hidden[4] and not hidden[PUZZLE > 0].any()


def test_places_of_a_6x6_grid():
    # boxes of 2 rows and 3 columns: cell 20 is row 3, column 2, box 2
    assert places(36)[:, 20].tolist() == [3, 2, 2] and places(36)[2].max() == 5


def test_facts_by_hand():
    guess = ANSWER.copy()
    guess[3] = 1  # wrong, and in conflict with cell 0
    tokens = [to_tokens(grid) for grid in (PUZZLE, ANSWER)]
    predictions = np.stack([to_tokens(guess), to_tokens(ANSWER)])
    facts = facts_of(Sudoku(4), *tokens, predictions, [0, 1])
    values = {name: facts.values[:, i] for i, name in enumerate(facts.names)}
    assert values["given"][:4].tolist() == [True, True, True, False]
    assert np.flatnonzero(values["wrong"]).tolist() == [3]
    assert np.flatnonzero(values["about to change"]).tolist() == [3]  # not at the last step
    assert set(np.flatnonzero(values["conflict"])) == {0, 3, 6, 15}  # row, box, column
    assert values["solution 4"][3] and values["guess 1"][3] and not values["guess 1"][16 + 3]
    assert values["1 candidates"][3] and values["naked single"][3] and values["row 1"][3]
    assert values["box 2"][3] and values["column 4"][3]
    assert facts.asked.sum() == 2 * 11 and len(facts.values) == 32
    of_asked = {name for name, b in zip(facts.names, facts.of_asked, strict=True) if b}
    assert {"wrong", "conflict", "naked single"} <= of_asked and "given" not in of_asked


def test_auc_of_what_fires_is_the_auc_of_everything():
    dense = np.maximum(RNG.standard_normal((80, 6)) - 0.5, 0).round(1)  # zeros and other ties
    facts = RNG.random((80, 4)) < [0.1, 0.5, 0.9, 0.0]
    auc = sparse_auc(scipy.sparse.csc_matrix(dense), facts)
    for feature in range(6):
        ranks = rankdata(dense[:, feature])
        for fact in range(3):
            expected = auc_of_ranks(ranks, facts[:, fact])
            assert auc[feature, fact] == pytest.approx(float(expected), abs=1e-6)
    assert np.isnan(auc[:, 3]).all()


def test_the_control_trades_facts_inside_a_board_and_finds_nothing():
    tokens = [to_tokens(grid) for grid in (PUZZLE, ANSWER)]
    predictions = np.tile(tokens[1], (2, 1))
    predictions[0] = RNG.permutation(predictions[0])
    facts = [facts_of(Sudoku(4), *tokens, predictions, [0]) for _ in range(60)]
    shuffled = shuffled_cells(facts[0], 16, np.random.default_rng(1))
    assert np.array_equal(shuffled.values.sum(0), facts[0].values.sum(0))
    given = facts[0].names.index("given")
    assert np.array_equal(shuffled.values[:, given], facts[0].values[:, given])
    both = facts_of(Sudoku(4), *tokens, predictions, [0, 1])
    moved = shuffled_cells(both, 16, np.random.default_rng(1)).values
    lasting = both.names.index("solution 3")  # goes to the same cell at every step
    assert np.array_equal(moved[:16, lasting], moved[16:, lasting])
    wrong = facts[0].names.index("row 2")
    acts = np.concatenate([one.values[:, wrong] * RNG.random(16) for one in facts])[:, None]
    meant = meaning_of(scipy.sparse.csc_matrix(acts), facts, 16, seed=0)
    at, auc, control = meant.best()
    assert meant.names[at[0]] == "row 2" and auc[0] > 0.99
    assert abs(meant.control[0, wrong] - 0.5) < 0.1 and control[0] < 0.75


def test_the_head_is_read_for_answers_alone():
    head = np.array([[9.0, 9], [9, 9], [1, 0], [0, 1], [0, 0]])  # pad, blank, digits 1 to 3
    push = head_push(np.array([[3.0, 0.0]]), head, (2, 3, 4))
    np.testing.assert_allclose(push, [[2.0, -1.0, -1.0]])  # 3 0 0 less 1
