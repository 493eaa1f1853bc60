"""What a feature correlates with on the board: AUC of its activation for facts about cells."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse
from scipy.stats import rankdata

from trm_interp.runtime.shapes import Bool, Float, Int
from trm_interp.tasks.sudoku.grid import conflicts, from_tokens, shape_of
from trm_interp.tasks.sudoku.logic import candidates, hidden_singles, naked_singles, places

Grid = Int[np.ndarray, " cell"]


class Facts(NamedTuple):
    """`values` [row, fact] for rows (step, cell) of one puzzle, and which rows are `blank` cells.

    Facts in `of_blanks` are asked of blank cells only: givens are never wrong and have no
    candidates, and a feature for "given" must not pass for one of those.
    """

    names: list[str]
    values: Bool[np.ndarray, "row fact"]
    blank: Bool[np.ndarray, " row"]
    of_blanks: Bool[np.ndarray, " fact"]


def facts_of(
    inputs: Grid, labels: Grid, predictions: Int[np.ndarray, "step cell"], steps: list[int]
) -> Facts:
    """Facts at the ends of these supervision steps; all arguments are tokens.

    About to change: the answer after the next step differs (none after the last one).
    """
    puzzle, answer = from_tokens(inputs), from_tokens(labels)
    guesses = from_tokens(predictions)
    shape = shape_of(len(puzzle))
    row, column, box = places(len(puzzle))
    n_candidates = candidates(puzzle).sum(1)
    digits = range(1, shape.side + 1)
    fixed: dict[str, np.ndarray] = {"given": puzzle > 0}
    for name, place in (("row", row), ("column", column), ("box", box)):
        fixed |= {f"{name} {i + 1}": place == i for i in range(shape.side)}
    fixed |= {f"solution {d}": answer == d for d in digits}
    blanks: dict[str, Callable[[int], np.ndarray]] = {
        **{f"{d} candidates": lambda s, d=d: n_candidates == d for d in digits},
        "naked single": lambda s: naked_singles(puzzle),
        "hidden single": lambda s: hidden_singles(puzzle),
        "conflict": lambda s: conflicts(guesses[s]),
        "about to change": lambda s: predictions[min(s + 1, len(guesses) - 1)] != predictions[s],
        "wrong": lambda s: guesses[s] != answer,
    }
    moving = {f"guess {d}": lambda s, d=d: guesses[s] == d for d in digits}
    per_step = []
    for step in steps:
        columns = [*fixed.values(), *(f(step) for f in moving.values())]
        per_step.append(np.stack([*columns, *(f(step) for f in blanks.values())], axis=1))
    names = [*fixed, *moving, *blanks]
    of_blanks = np.array([name in blanks for name in names])
    blank = np.tile(puzzle == 0, len(steps))
    return Facts(names, np.concatenate(per_step), blank, of_blanks)


def shuffled_cells(facts: Facts, n_cells: int, rng: np.random.Generator) -> Facts:
    """The control: cells of a puzzle trade their facts, blanks with blanks, givens with givens.

    One exchange for all steps: a fact that lasts is one observation, not one a step, and the
    control has to be as lucky.
    """
    blank = facts.blank[:n_cells]
    source = np.arange(n_cells)
    for kind in (np.flatnonzero(blank), np.flatnonzero(~blank)):
        source[kind] = rng.permutation(kind)
    steps = np.arange(0, len(facts.values), n_cells)[:, None]
    return facts._replace(values=facts.values[(steps + source).ravel()])


def sparse_auc(
    acts: scipy.sparse.csc_matrix, facts: Bool[np.ndarray, "row fact"]
) -> Float[np.ndarray, "feature fact"]:
    """AUC of every feature for every fact; activations [row, feature] are non-negative.

    Zeros tie at the bottom, so only what fires is ranked. NaN for facts that are always or never
    true.

    >>> one = scipy.sparse.csc_matrix(np.array([[0.0], [2.0], [0.0], [3.0]]))
    >>> sparse_auc(one, np.array([[False], [False], [True], [True]])).tolist()
    [[0.625]]
    """
    n = facts.shape[0]
    true = facts.sum(0).astype(float)
    as_float = facts.astype(np.float32)
    starts, indices = (np.asarray(part).astype(np.int64) for part in (acts.indptr, acts.indices))
    data = np.asarray(acts.data)
    auc = np.empty((len(starts) - 1, facts.shape[1]))
    for feature in range(len(auc)):
        span = slice(starts[feature], starts[feature + 1])
        rows, values = indices[span], data[span]
        silent = n - len(rows)
        here = as_float[rows]
        ranks = (rankdata(values) + silent) @ here
        auc[feature] = ranks + (true - here.sum(0)) * (silent + 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = (auc - true * (true + 1) / 2) / (true * (n - true))
    return np.where((true > 0) & (true < n), auc, np.nan)


class Meaning(NamedTuple):
    """`auc` [feature, fact], and the same for the shuffled control: NaN for facts that stay where
    they are when cells trade theirs (`given`), which have none."""

    names: list[str]
    auc: Float[np.ndarray, "feature fact"]
    control: Float[np.ndarray, "feature fact"]

    def best(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per feature: the fact that it tells apart best, its AUC, and |AUC - 0.5| + 0.5 of the
        control at its strongest."""
        gap = np.nan_to_num(np.abs(self.auc - 0.5))
        at = gap.argmax(1)
        strongest = np.nan_to_num(np.abs(self.control - 0.5)).max(1) + 0.5
        return at, self.auc[np.arange(len(at)), at], strongest


def meaning(acts: scipy.sparse.csc_matrix, facts: list[Facts], n_cells: int, seed: int) -> Meaning:
    """AUC over all rows, or over the blank ones for facts about blanks; and its control."""
    rng = np.random.default_rng([seed, 0xFAC7])
    shuffled = [shuffled_cells(one, n_cells, rng) for one in facts]
    blank = np.concatenate([one.blank for one in facts])
    of_blanks = facts[0].of_blanks
    among_blanks = scipy.sparse.csc_matrix(acts.tocsr()[np.flatnonzero(blank)])
    tables = []
    for source in (facts, shuffled):
        values = np.concatenate([one.values for one in source])
        auc = np.empty((len(np.asarray(acts.indptr)) - 1, len(of_blanks)))
        auc[:, ~of_blanks] = sparse_auc(acts, values[:, ~of_blanks])
        auc[:, of_blanks] = sparse_auc(among_blanks, values[blank][:, of_blanks])
        tables.append(auc)
    before, after = (np.concatenate([one.values for one in source]) for source in (facts, shuffled))
    tables[1][:, (before == after).all(0)] = np.nan
    return Meaning(facts[0].names, *tables)


def head_push(
    rows: Float[np.ndarray, "feature d_model"], head: Float[np.ndarray, "vocab d_model"]
) -> Float[np.ndarray, "feature digit"]:
    """Logits that a decoder row adds to each digit, less their mean: which digits it pushes.

    Direct only where the site is what the head reads (z_H at the end of a step); elsewhere a lens.
    """
    push = rows @ head[2:].T
    return push - push.mean(1, keepdims=True)
