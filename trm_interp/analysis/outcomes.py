"""Which puzzles are solved when: accuracy at a step, ever solved by it, lost again."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from trm_interp.runtime.shapes import Bool, Float, Int


def wilson_bounds(
    successes: Float[np.ndarray, "*share"] | Int[np.ndarray, "*share"],
    n: Int[np.ndarray, "*share"],
    level: float = 0.95,
) -> tuple[Float[np.ndarray, "*share"], Float[np.ndarray, "*share"]]:
    """Wilson score intervals of proportions (Wilson 1927), their lower and upper bounds.

    `successes` may be fractions, as of means over observations that are not independent. NaN where
    n is 0; exactly 0 and 1 where none and all of them are successes.
    """
    from statsmodels.stats.proportion import proportion_confint  # slow to import

    some = np.where(n > 0, n, 1)
    low, high = proportion_confint(np.minimum(successes, some), some, 1 - level, method="wilson")
    low = np.where(successes == 0, 0.0, low)  # without what rounding leaves
    high = np.where(successes == n, 1.0, high)
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def wilson(successes: int | float, n: int, level: float = 0.95) -> tuple[float, float]:
    """`wilson_bounds` of one proportion.

    >>> [round(bound, 4) for bound in wilson(0, 10)], [round(b, 4) for b in wilson(50, 100)]
    ([0.0, 0.2775], [0.4038, 0.5962])
    """
    low, high = wilson_bounds(np.array(successes), np.array(n), level)
    return float(low), float(high)


def paired_difference(
    both: int | float, gained: int | float, lost: int | float, neither: int | float
) -> tuple[float, float, float]:
    """Share that one run solves less that of another, of the same puzzles, and its 95 % bounds.

    Puzzles that both solve, only the first, only the second and neither. The interval is Newcombe's
    for paired proportions (1998, Statistics in Medicine 17, 2635, his method 10): Wilson's of both
    shares, and their correlation with a continuity correction.

    >>> [round(one, 4) for one in paired_difference(36, 12, 2, 0)]  # of his table II
    [0.2, 0.0569, 0.3404]
    """
    n = round(both + gained + lost + neither)
    p, q = (both + gained) / n, (both + lost) / n
    (low_p, high_p), (low_q, high_q) = wilson(p * n, n), wilson(q * n, n)
    product = both * neither - gained * lost
    scale = math.sqrt((both + gained) * (lost + neither) * (both + lost) * (gained + neither))
    corrected = max(product - n / 2, 0.0) if product > 0 else product
    phi = corrected / scale if scale else 0.0

    def side(a: float, b: float) -> float:
        return math.sqrt(a**2 - 2 * phi * a * b + b**2)

    below, above = side(p - low_p, high_q - q), side(high_p - p, q - low_q)
    return p - q, p - q - below, p - q + above


def share_with_bounds(hits: Bool[np.ndarray, " run"]) -> dict[str, float]:
    """`share` of the runs that are hits with its 95 % Wilson interval (`low`, `high`), `hits`, `n`.

    >>> share_with_bounds(np.array([True, False]))["share"]
    0.5
    """
    count, n = int(hits.sum()), len(hits)
    low, high = wilson(count, n)
    return {"share": count / n if n else math.nan, "low": low, "high": high, "hits": count, "n": n}


def named_share(name: str, hits: Bool[np.ndarray, " run"]) -> dict[str, float]:
    """The same as columns NAME, NAME_low and NAME_high."""
    share = share_with_bounds(hits)
    return {name: share["share"], f"{name}_low": share["low"], f"{name}_high": share["high"]}


def outcome_table(solved: Bool[np.ndarray, "puzzle step"]) -> pd.DataFrame:
    """One row per supervision step, shares with 95 % Wilson intervals over puzzles.

    `exact`: solved at this step. `ever`: at this step or an earlier one. `lost_again`: of the
    puzzles solved at the step before, the share that is not solved now (NaN at step 0 or where
    there are none). Each has columns `_low` and `_high`; `n` counts puzzles.

    >>> table = outcome_table(np.array([[True, False], [False, False]]))
    >>> table[["exact", "ever", "lost_again"]].to_numpy().tolist()
    [[0.5, 0.5, nan], [0.0, 0.5, 1.0]]
    """
    n = len(solved)
    ever = np.logical_or.accumulate(solved, axis=1)
    before = np.pad(solved, ((0, 0), (1, 0)))[:, :-1]
    counts = {
        "exact": (solved.sum(0), np.full(solved.shape[1], n)),
        "ever": (ever.sum(0), np.full(solved.shape[1], n)),
        "lost_again": ((before & ~solved).sum(0), before.sum(0)),
    }
    table = pd.DataFrame({"step": np.arange(solved.shape[1]), "n": n})
    for name, (hits, of) in counts.items():
        with np.errstate(invalid="ignore"):
            table[name] = hits / of
        table[f"{name}_low"], table[f"{name}_high"] = wilson_bounds(hits, of)
    return table


def calibration_table(
    q_halt: Float[np.ndarray, "puzzle step"],
    solved: Bool[np.ndarray, "puzzle step"],
    bins: int = 10,
) -> pd.DataFrame:
    """Is the halting head right? Confidence sigmoid(q_halt) against the share solved, in bins.

    Every puzzle at every step is one prediction. Columns from, to (of the confidence), n,
    `puzzles` that they are of, confidence (mean), solved (share), low, high: Wilson's bounds as if
    a puzzle were one observation however many steps of it are in the bin, for they are not
    independent. Bins without a prediction are left out.
    """
    confidence = 1 / (1 + np.exp(-q_halt.astype(np.float64)))
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = []
    for bin_ in np.unique(place):
        inside = place == bin_
        share, puzzles = float(solved[inside].mean()), int(inside.any(1).sum())
        low, high = wilson(share * puzzles, puzzles)
        edges = {"from": bin_ / bins, "to": (bin_ + 1) / bins}
        sizes = {"n": int(inside.sum()), "puzzles": puzzles}
        means = {"confidence": confidence[inside].mean(), "solved": share}
        rows.append(edges | sizes | means | {"low": low, "high": high})
    return pd.DataFrame(rows)


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error: mean |confidence - share solved|, bins weighed by their size.

    >>> calibration_error(pd.DataFrame({"n": [1, 3], "confidence": [0.5, 1.0], "solved": [1, 1]}))
    0.125
    """
    gap = (table["confidence"] - table["solved"]).abs()
    return float(np.average(gap, weights=table["n"]))


def by_rating(
    rating: Float[np.ndarray, " puzzle"], solved: Bool[np.ndarray, " puzzle"], groups: int = 5
) -> pd.DataFrame:
    """Accuracy by rating: about `groups` groups of equal size, equal ratings in one group.

    Columns from, to (ratings in the group), n, exact, low, high (Wilson).

    >>> by_rating(np.array([1.0, 1, 2, 3]), np.array([True, False, True, False]), 2)["n"].tolist()
    [2, 2]
    """
    rows = []
    for inside, span in _groups(rating, groups):
        hits, n = int(solved[inside].sum()), int(inside.sum())
        low, high = wilson(hits, n)
        rows.append(span | {"n": n, "exact": hits / n, "low": low, "high": high})
    return pd.DataFrame(rows)


def outcomes_by_rating(
    rating: Float[np.ndarray, " puzzle"],
    solved: Bool[np.ndarray, "puzzle step"],
    q_halt: Float[np.ndarray, "puzzle step"],
    groups: int = 5,
) -> pd.DataFrame:
    """`outcome_table` of each group of `by_rating`, with its columns from and to, and the group's
    `calibration_error`."""
    parts = []
    for inside, span in _groups(rating, groups):
        error = calibration_error(calibration_table(q_halt[inside], solved[inside]))
        parts.append(outcome_table(solved[inside]).assign(**span, calibration_error=error))
    return pd.concat(parts, ignore_index=True)


def _groups(rating: np.ndarray, groups: int) -> Iterator[tuple[np.ndarray, dict[str, float]]]:
    """Mask and span (from, to) of each group."""
    edges = np.unique(np.quantile(rating, np.linspace(0, 1, groups + 1)[1:-1]))
    group = np.searchsorted(edges, rating, side="left")
    for value in np.unique(group):
        inside = group == value
        yield inside, {"from": float(rating[inside].min()), "to": float(rating[inside].max())}


def half_failed(solved: Bool[np.ndarray, " puzzle"], n: int) -> list[int]:
    """The first puzzles of each outcome, half and half as far as they go, in file order.

    >>> half_failed(np.array([True, True, False, True, False]), 2)
    [0, 2]
    """
    failed, fine = np.flatnonzero(~solved), np.flatnonzero(solved)
    n_failed = min(len(failed), max(n // 2, n - len(fine)))
    return sorted(int(i) for i in (*failed[:n_failed], *fine[: n - n_failed]))


def first_solved(solved: Bool[np.ndarray, "*run step"]) -> Int[np.ndarray, "*run"]:
    """First supervision step at which it is solved, -1 where there is none.

    >>> first_solved(np.array([[False, True, False], [False, False, False]])).tolist()
    [1, -1]
    """
    return np.where(solved.any(-1), solved.argmax(-1), -1)


def solved_from(solved: Bool[np.ndarray, "*run step"]) -> Int[np.ndarray, "*run"]:
    """First supervision step from which it stays solved, -1 where it is not solved at the end.

    >>> solved_from(np.array([[True, False, True], [True, True, False]])).tolist()
    [2, -1]
    """
    stays = np.flip(np.logical_and.accumulate(np.flip(solved, -1), axis=-1), -1)
    return first_solved(stays)
