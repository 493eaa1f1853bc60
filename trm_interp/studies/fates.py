"""Fates of runs, counted by outcome: at one tolerance, at several, and after long runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from trm_interp.analysis.estimates import ByOutcome, Share
from trm_interp.analysis.outcomes import share_with_bounds
from trm_interp.analysis.settling import FATES, fate_counts, fate_of, period
from trm_interp.runtime.records import Record

# The draft's settled band: a mean change of the answer state of 18.5 a step, of states of norm 223.
PUBLISHED_BAND = 0.083  # RMS a step
TOLERANCES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, PUBLISHED_BAND, 1e-1)


@dataclass(frozen=True, kw_only=True)
class Fates(Record):
    """Runs by fate; `settled`: at rest."""

    settled: int
    cycling: int
    wandering: int

    @property
    def text(self) -> str:
        """The counts in words."""
        return f"{self.settled} at rest, {self.cycling} cycling, {self.wandering} wandering"


@dataclass(frozen=True, kw_only=True)
class FatesWithin(Record):
    """Fates by outcome, where a run counts as back within `tolerance` (RMS). `longest_lag`: in
    H-cycles, beyond which no period is looked for."""

    tolerance: float
    longest_lag: int
    solved: Fates
    failed: Fates


class Resting(NamedTuple):
    """Runs that rest by some measure, of how many, by outcome."""

    measure: str
    solved: tuple[int, int]
    failed: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Became(Share):
    """Share of the failed runs that are solved at a horizon, or else have this fate."""

    steps: int
    became: str


@dataclass(frozen=True, kw_only=True)
class LongRuns(Record):
    """`n` runs until the last of `horizons` (steps). `escaped`: failed at the first horizon, solved
    at some later step; `lost`: solved at the first, not at the last. `dynamics`: fates at the last,
    by the outcome at the first."""

    n: int
    horizons: list[int]
    failed: list[Became]
    escaped: Share
    lost: Share
    dynamics: ByOutcome[Fates]


def fates_by_outcome(fates: np.ndarray, solved: np.ndarray) -> ByOutcome[Fates]:
    """Counts of the fates of runs, by outcome."""
    return ByOutcome(
        solved=Fates.of(fate_counts(fates[solved])), failed=Fates.of(fate_counts(fates[~solved]))
    )


def fates_within(back: np.ndarray, solved: np.ndarray, tolerance: float) -> list[FatesWithin]:
    """Fates within each of TOLERANCES and `tolerance`, in ascending order. back [run, moment, lag]:
    distances of late states to their own past, lags in H-cycles from 1."""
    late = np.moveaxis(back, 0, -1)
    counted = []
    for limit in sorted({*TOLERANCES, tolerance}):
        fates = fates_by_outcome(fate_of(period(late, limit)), solved)
        counted.append(
            FatesWithin(
                tolerance=limit,
                longest_lag=back.shape[2],
                solved=fates.solved,
                failed=fates.failed,
            )
        )
    return counted


def shares_within_band(drift: np.ndarray, solved: np.ndarray) -> ByOutcome[Share]:
    """Share of the runs whose late drift is at most PUBLISHED_BAND, by outcome."""
    within = drift <= PUBLISHED_BAND
    return ByOutcome(
        solved=Share.of(share_with_bounds(within[solved])),
        failed=Share.of(share_with_bounds(within[~solved])),
    )


def within_table(within: Sequence[FatesWithin]) -> pd.DataFrame:
    """A row a tolerance, outcome and fate, with shares as in `share_with_bounds`. Lags are in
    H-cycles, and `longest_lag` is the longest period that is looked for."""
    rows = []
    for one in within:
        for outcome, fates in (("solved", one.solved), ("failed", one.failed)):
            counts = fates.to_json()
            runs = np.repeat(FATES, [counts[fate] for fate in FATES])
            row = {"tolerance": one.tolerance, "lag": "H-cycle", "longest_lag": one.longest_lag}
            for fate in FATES:
                share = share_with_bounds(runs == fate)
                rows.append(row | {"outcome": outcome, "fate": fate} | share)
    return pd.DataFrame(rows)
