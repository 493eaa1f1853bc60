"""Tables of settling: counts and bands with their intervals.

What they are made of is in `settling`, without pandas, which takes a third of a second to load.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from trm_interp.analysis.outcomes import share_with_bounds, wilson
from trm_interp.analysis.resample import mean_with_bounds
from trm_interp.analysis.settling import FATES, log_drift
from trm_interp.runtime.shapes import Bool, Float


def settled_by_solved(
    settled: Bool[np.ndarray, " puzzle"], solved: Bool[np.ndarray, " puzzle"]
) -> pd.DataFrame:
    """The 2 x 2 table, one row a cell.

    `of_outcome`: share that is settled, or not, of the puzzles with this outcome; `of_settling`:
    share of this outcome among the puzzles that settled, or did not. 95 % Wilson intervals.

    >>> table = settled_by_solved(np.array([True, True, False]), np.array([True, False, False]))
    >>> table[["outcome", "settled", "n", "of_outcome", "of_settling"]].to_numpy().tolist()[0]
    ['solved', True, 1, 1.0, 0.5]
    """
    rows = []
    for outcome, with_outcome in (("solved", solved), ("failed", ~solved)):
        for rests, kind in ((True, settled), (False, ~settled)):
            n = int((with_outcome & kind).sum())
            row = {"outcome": outcome, "settled": rests, "n": n}
            for name, of in (("of_outcome", with_outcome), ("of_settling", kind)):
                low, high = wilson(n, int(of.sum()))
                share = n / of.sum() if of.any() else np.nan
                row |= {name: share, f"{name}_low": low, f"{name}_high": high}
            rows.append(row)
    return pd.DataFrame(rows)


def fates_of_failures(runs: pd.DataFrame, horizons: Sequence[int]) -> pd.DataFrame:
    """What failed runs became by each horizon: solved, or else their fate. Shares as in
    `share_with_bounds`, with columns steps and became.

    runs: a row a run and horizon with outcome (at the first horizon), steps, solved and fate.
    """
    rows = []
    for horizon in horizons:
        failed = runs[(runs["outcome"] == "failed") & (runs["steps"] == horizon)]
        became = np.where(failed["solved"], "solved", failed["fate"])
        for name in ("solved", *FATES):
            rows.append({"steps": horizon, "became": name, **share_with_bounds(became == name)})
    return pd.DataFrame(rows)


def same_phase_bands(
    per_cycle: Float[np.ndarray, "puzzle cycle state"],
    states: Sequence[str],
    outcomes: Mapping[str, Bool[np.ndarray, " puzzle"]],
    h_cycles: int,
    seed: int,
) -> pd.DataFrame:
    """Change of every state from one H-cycle's end to the next: the geometric mean over puzzles
    with its 95 % bootstrap interval. Columns state, outcome,
    steps_done (supervision steps, in fractions by H-cycle), mean, low, high."""
    steps = np.arange(1, per_cycle.shape[1] + 1) / h_cycles
    parts = []
    for outcome, group in outcomes.items():
        for i, state in enumerate(states if group.any() else ()):
            band = mean_with_bounds(log_drift(per_cycle[group, :, i]), seed)
            mean, low, high = (10**bound for bound in band)
            columns = {"state": state, "outcome": outcome, "steps_done": steps}
            parts.append(pd.DataFrame(columns | {"mean": mean, "low": low, "high": high}))
    return pd.concat(parts)


def recurrence_bands(
    back: Float[np.ndarray, "puzzle moment lag"],
    outcomes: Mapping[str, Bool[np.ndarray, " puzzle"]],
    seed: int,
) -> pd.DataFrame:
    """Distance of late states to their own past: mean over puzzles with its 95 % bootstrap
    interval. Columns outcome, lag (from 1), mean, low, high."""
    parts = []
    for outcome, group in outcomes.items():
        if group.any():
            mean, low, high = mean_with_bounds(np.nanmean(back[group], axis=1), seed)
            columns = {"outcome": outcome, "lag": np.arange(1, back.shape[2] + 1)}
            parts.append(pd.DataFrame(columns | {"mean": mean, "low": low, "high": high}))
    return pd.concat(parts)
