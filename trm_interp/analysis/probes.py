"""Linear probes of states at single cells: L2 logistic regression, one for each label.

Scikit-learn's lbfgs on inputs of mean 0 and variance 1. Scores are judged by AUC within each
puzzle, then averaged over puzzles, so that nothing which only tells puzzles apart can help; the
interval is over puzzles. Compared with its controls, a probe shows what is linearly present in a
state, not what the network uses.
"""

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from trm_interp.analysis.auc import auc_of_ranks
from trm_interp.runtime.shapes import Bool, Float, Int

STRENGTH = 0.1  # scikit-learn's C: inverse of the L2 penalty
ITERATIONS = 200


class Probes(NamedTuple):
    """Fitted probes by number of the label, on inputs of mean 0 and variance 1; none for labels
    that training has of one kind only."""

    mean: np.ndarray
    scale: np.ndarray
    varies: np.ndarray
    labels: int
    fits: dict[int, LogisticRegression]

    def scores(self, test: Float[np.ndarray, "row number"]) -> Float[np.ndarray, "row label"]:
        """Log-odds of every label for these rows; NaN without a probe."""
        test = test.astype(np.float32)
        test = np.where(self.varies, (test - self.mean) / self.scale, 0.0)
        scores = np.full((len(test), self.labels), np.nan)
        for label, fitted in self.fits.items():
            scores[:, label] = fitted.decision_function(test)
        return scores

    def directions(self) -> tuple[Float[np.ndarray, "label number"], Float[np.ndarray, " label"]]:
        """Weights and offsets for rows as they are: log-odds are `rows @ weights.T + offsets`."""
        weights = np.full((self.labels, len(self.mean)), np.nan)
        offsets = np.full(self.labels, np.nan)
        for label, fitted in self.fits.items():
            weights[label] = np.where(self.varies, fitted.coef_[0] / self.scale, 0.0)
            intercept = float(np.ravel(fitted.intercept_)[0])
            offsets[label] = intercept - weights[label] @ self.mean
        return weights, offsets


def fitted_probes(
    train: Float[np.ndarray, "row number"],
    labels: Bool[np.ndarray, "row label"],
    strength: float = STRENGTH,
) -> Probes:
    """Probes of every label."""
    train = train.astype(np.float32)
    mean, scale, varies = _standardised(train)
    rows = np.where(varies, (train - mean) / scale, 0.0)
    return Probes(mean, scale, varies, labels.shape[1], dict(_fits(rows, labels, strength)))


def probe_scores(
    train: Float[np.ndarray, "row number"],
    labels: Bool[np.ndarray, "row label"],
    test: Float[np.ndarray, "row2 number"],
    strength: float = STRENGTH,
) -> Float[np.ndarray, "row2 label"]:
    """Log-odds of every label for the test rows. NaN for a label that training has of one kind
    only."""
    return fitted_probes(train, labels, strength).scores(test)


def probe_weights(
    train: Float[np.ndarray, "row number"],
    labels: Bool[np.ndarray, "row label"],
    strength: float = STRENGTH,
) -> tuple[Float[np.ndarray, "label number"], Float[np.ndarray, " label"]]:
    """The same probes as `rows @ weights.T + offsets`, the log-odds: directions of the state. NaN
    for a label that training has of one kind only."""
    return fitted_probes(train, labels, strength).directions()


def _standardised(train: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, scale and whether it varies, of every column."""
    mean, deviation = train.mean(0), train.std(0)
    varies = deviation > 1e-6  # a constant column carries no information, nor does its rounding
    return mean, np.where(varies, deviation, 1.0), varies


def _fits(
    rows: np.ndarray, labels: np.ndarray, strength: float
) -> Iterator[tuple[int, LogisticRegression]]:
    """A probe for every label of which there are both kinds."""
    for label in range(labels.shape[1]):
        wanted = labels[:, label]
        if wanted.all() or not wanted.any():
            continue
        with warnings.catch_warnings():  # 200 steps are near enough, and always the same
            warnings.simplefilter("ignore", ConvergenceWarning)
            yield label, LogisticRegression(C=strength, max_iter=ITERATIONS).fit(rows, wanted)


def scores_by_cell(
    train: Float[np.ndarray, "row number"],
    labels: Bool[np.ndarray, "row label"],
    train_cell: Int[np.ndarray, " row"],
    test: Float[np.ndarray, "row2 number"],
    test_cell: Int[np.ndarray, " row2"],
    strength: float = STRENGTH,
) -> Float[np.ndarray, "row2 label"]:
    """`probe_scores` with probes of its own for every cell, for inputs that are a whole board.

    A label of one kind only in training scores its log-odds there with one more of either kind,
    so that cells compare; 0 where the cell is not in training.
    """
    scores = np.zeros((len(test), labels.shape[1]))
    for cell in np.unique(test_cell):
        here, there = train_cell == cell, test_cell == cell
        if not here.any():
            continue
        fitted = probe_scores(train[here], labels[here], test[there], strength)
        yes = labels[here].sum(0)
        odds = np.log((yes + 1) / (here.sum() - yes + 1))
        scores[there] = np.where(np.isnan(fitted), odds, fitted)
    return scores


def auc_by_puzzle(
    scores: Float[np.ndarray, "row label"],
    labels: Bool[np.ndarray, "row label"],
    puzzle: Int[np.ndarray, " row"],
) -> Float[np.ndarray, "puzzle label"]:
    """AUC over the rows of each puzzle, in the order of `np.unique(puzzle)`; NaN where a label is
    of one kind only there, or has no score.

    >>> scores, labels = np.array([[0.1], [0.4], [0.3], [0.3]]), np.array([[0], [1], [0], [0]]) > 0
    >>> auc_by_puzzle(scores, labels, np.array([5, 5, 7, 7])).tolist()
    [[1.0], [nan]]
    """
    names = np.unique(puzzle)
    auc = np.full((len(names), scores.shape[1]), np.nan)
    for at, name in enumerate(names):
        rows = np.flatnonzero(puzzle == name)
        ranks = rankdata(scores[rows], axis=0)
        for label in range(scores.shape[1]):
            if np.isfinite(scores[rows, label]).all():
                auc[at, label] = auc_of_ranks(ranks[:, label], labels[rows, label])
    return auc


def shuffled_in_puzzles(
    labels: Bool[np.ndarray, "row label"],
    puzzle: Int[np.ndarray, " row"],
    rng: np.random.Generator,
) -> Bool[np.ndarray, "row label"]:
    """The control: rows of a puzzle trade their labels, all labels of a row together."""
    order = np.lexsort((rng.random(len(puzzle)), puzzle))
    shuffled = np.empty_like(labels)
    shuffled[np.argsort(puzzle, kind="stable")] = labels[order]
    return shuffled
