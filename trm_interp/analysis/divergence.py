"""Distance to the successes: how far a run is from the mean solved run, tick by tick."""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from trm_interp.analysis.auc import auc_with_bounds
from trm_interp.analysis.control import auc_within
from trm_interp.analysis.pca import NotFinite
from trm_interp.analysis.resample import mean_with_bounds
from trm_interp.runtime.shapes import Bool, Float, Int


def distance_to_successes(
    read: Callable[[], Iterable[np.ndarray]], solved: Bool[np.ndarray, " run"]
) -> Float[np.ndarray, "run tick"]:
    """RMS distance of every state to the mean state of the solved runs at the same tick.

    Leave-one-out: a solved run is compared with the mean of the *other* solved runs, without which
    its distance would be too small by a factor of 1 - 1 / n. read: gives the states of one run
    after another, [tick, coordinate], each time it is called (twice). ValueError with fewer than
    two solved runs; NotFinite for a state that is not: its chunk is the run.
    """
    n = int(solved.sum())
    if n < 2:
        raise ValueError(f"{n} solved runs; a centroid that leaves one out needs 2")
    total: float | np.ndarray = 0.0
    for run, (states, ok) in enumerate(zip(read(), solved, strict=True)):
        if not np.isfinite(states).all():
            raise NotFinite(run)
        if ok:
            total = total + states.astype(np.float64)
    rows = []
    for states, ok in zip(read(), solved, strict=True):
        others, left = (total - states, n - 1) if ok else (total, n)
        rows.append(np.sqrt(np.square(states - others / left).mean(-1)))
    return np.stack(rows).astype(np.float32)


def bands(
    values: Float[np.ndarray, "puzzle tick"], solved: Bool[np.ndarray, " puzzle"], seed: int
) -> pd.DataFrame:
    """Mean over puzzles of either outcome at every update, with 95 % bootstrap bounds.

    Columns outcome, update (from 0), mean, low, high, sd, n. An outcome without puzzles has no
    rows. sd: standard deviation of the puzzles themselves, with n - 1; NaN of a single one.
    """
    parts = []
    for outcome, group in (("solved", solved), ("failed", ~solved)):
        if group.any():
            mean, low, high = mean_with_bounds(values[group], seed)
            columns = {"update": np.arange(values.shape[1]), "mean": mean, "low": low, "high": high}
            n = int(group.sum())
            sd = values[group].std(0, ddof=1) if n > 1 else np.full(values.shape[1], np.nan)
            parts.append(pd.DataFrame(columns).assign(sd=sd, outcome=outcome, n=n))
    return pd.concat(parts, ignore_index=True)


def auc_by_tick(
    values: Float[np.ndarray, "puzzle tick"],
    positive: Bool[np.ndarray, " puzzle"],
    seed: int,
    strata: Int[np.ndarray, " puzzle"] | None = None,
) -> pd.DataFrame:
    """`auc_with_bounds` at every update: columns update, auc, low, high, p. With strata,
    `auc_within` them: pairs instead of p."""
    if strata is None:
        rows = [auc_with_bounds(at, positive, seed) for at in values.T]
    else:
        rows = [auc_within(at, positive, strata, seed) for at in values.T]
    return pd.DataFrame(rows).assign(update=np.arange(values.shape[1]))


def slopes(values: Float[np.ndarray, "puzzle x"]) -> Float[np.ndarray, " puzzle"]:
    """Least-squares slope of every row, per column; NaN where there is one column.

    >>> slopes(np.array([[0.0, 1, 2], [1, 1, 1]])).tolist()
    [1.0, 0.0]
    """
    x = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
    return values @ x / (np.square(x).sum() or np.nan)
