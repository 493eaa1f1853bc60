"""What features do over time in each run: transient, recurrence, period, drift."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binom

from trm_interp.analysis.aperiodic import LEVEL, lowest_of_half_periodic
from trm_interp.analysis.estimates import Number
from trm_interp.analysis.recurrence import (
    FEWEST,
    STILL,
    recurrence,
    tail_length,
    transient_cycles,
)
from trm_interp.analysis.resample import LEAST, adjusted
from trm_interp.runtime.shapes import Bool, Float
from trm_interp.sae.applied import AppliedSAE
from trm_interp.sae.gather import Observations
from trm_interp.sae.results import RecurrenceTest, RunsOfFeatures

AT_ONCE = 512  # features whose series are transformed together: bounds the memory
NULL = "aperiodic"  # see `analysis.aperiodic`
MEASURES = ("transient", "recurrence", "period", "drift")


@dataclass(frozen=True)
class Dynamics:
    """Each [puzzle, feature], NaN where a feature does not fire in a run, or does not move.

    `transient` and `period` in network evaluations. `recurrence`: the excess of its peak over those
    of aperiodic series. `recurs`: 1 where p is at most LEVEL, 0 where it is not or nothing moves,
    NaN in runs with too few H-cycles. `may_recur`: 1 also where the peak is as high as those of
    half-periodic series (`lowest_of_half_periodic`), so that a period cannot be excluded.
    `h_cycles`: how many the tail of a run has.
    """

    transient: Float[np.ndarray, "puzzle feature"]
    recurrence: Float[np.ndarray, "puzzle feature"]
    period: Float[np.ndarray, "puzzle feature"]
    drift: Float[np.ndarray, "puzzle feature"]
    recurs: Float[np.ndarray, "puzzle feature"]
    may_recur: Float[np.ndarray, "puzzle feature"]
    h_cycles: int

    def pooled(
        self, chosen: Bool[np.ndarray, " puzzle"], alive: Bool[np.ndarray, " feature"]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each feature, over some puzzles: the share of runs in which it recurs, p and q.

        p is that of as many runs or more if each recurred with probability LEVEL: a puzzle counts
        once, and one run alone, however periodic, is not enough. q is adjusted for the false
        discovery rate (Benjamini & Hochberg 1995) over the features that are `alive`. Features of
        one run follow the same states, so that their tests go up together; the procedure holds for
        such positive dependence (Benjamini & Yekutieli 2001).
        """
        recurs = self.recurs[chosen]
        runs, hits = np.isfinite(recurs).sum(0), np.nansum(recurs, axis=0)
        p = np.where(runs >= LEAST, binom.sf(hits - 1, runs, LEVEL), np.nan)
        share = np.divide(hits, runs, out=np.full(len(runs), np.nan), where=runs > 0)
        return share, p, adjusted(np.where(alive, p, np.nan))

    def test(
        self, by_outcome: dict[str, np.ndarray], top: np.ndarray, draws: int
    ) -> RecurrenceTest:
        """How recurrence was tested, and what the `top` features do in each run."""
        return RecurrenceTest(
            null=NULL,
            draws=draws,
            h_cycles=self.h_cycles,
            **{outcome: self._runs(chosen, top) for outcome, chosen in by_outcome.items()},
        )

    def _runs(self, chosen: np.ndarray, top: np.ndarray) -> RunsOfFeatures:
        recurs, may_recur, transient = (
            pd.DataFrame(values[chosen][:, top])
            for values in (self.recurs, self.may_recur, self.transient)
        )
        return RunsOfFeatures(
            recurs=_numbers(recurs.mean(axis=1)),
            may_recur=_numbers(may_recur.mean(axis=1)),
            transient=_numbers(transient.median(axis=1)),
        )


def _numbers(runs: pd.Series) -> list[Number]:
    """None where no feature of a run has a number."""
    return [None if np.isnan(one) else float(one) for one in runs]


def dynamics_of(applied: AppliedSAE, observed: Observations, draws: int, seed: int) -> Dynamics:
    """Of every feature in every run; `draws`: aperiodic series of each kind behind p."""
    cycle = applied.reader.ticks_per_cycle
    per_cycle = len(applied.store.schedule.cycle)
    series = np.moveaxis(observed.level, 1, 2)  # [puzzle, feature, tick]
    still = STILL * series.max(axis=(0, 2))
    fires = series.max(-1) > np.maximum(still, 1e-12)
    parts = [slice(first, first + AT_ONCE) for first in range(0, applied.d_sae, AT_ONCE)]
    back = [recurrence(series[:, part], cycle, draws, seed, still[part]) for part in parts]
    settled = [transient_cycles(series[:, part], cycle) for part in parts]
    score, p, excess, period = (
        np.concatenate([getattr(one, name) for one in back], axis=1)
        for name in ("score", "p", "excess", "period")
    )
    h_cycles = tail_length(series.shape[-1], cycle) // cycle
    recurs = p <= LEVEL
    lowest = lowest_of_half_periodic(h_cycles, draws, seed) if h_cycles >= FEWEST else 0.0
    tested = fires & (h_cycles >= FEWEST)
    return Dynamics(
        transient=np.where(fires, np.concatenate(settled, axis=1) * float(per_cycle), np.nan),
        recurrence=excess,
        period=period / cycle * per_cycle,
        drift=observed.drift,
        recurs=np.where(tested, recurs, np.nan),
        may_recur=np.where(tested, recurs | (score >= lowest), np.nan),
        h_cycles=h_cycles,
    )
