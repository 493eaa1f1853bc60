"""Fixed points near where runs end: the last stage of `stability`. All in float64."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from trm_interp.analysis.estimates import ByOutcome, Median, Share
from trm_interp.analysis.fixed_points import find_fixed_points, leading_eigenvalues, speed
from trm_interp.analysis.outcomes import share_with_bounds
from trm_interp.analysis.resample import median_with_bounds
from trm_interp.analysis.settling import distance
from trm_interp.core.joint import CycleMap
from trm_interp.figures.bands import where
from trm_interp.runtime.records import Record
from trm_interp.studies.results import Progress
from trm_interp.studies.settings import StabilityConfig
from trm_interp.studies.subject import Subject

TOLERANCE = 1e-8  # RMS of F(z) - z at a fixed point


@dataclass(frozen=True, kw_only=True)
class FixedPointsOf(Record):
    """Of `n` end points of one outcome: what Newton's method came to from there. `q` as in
    `fixed_points.speed`; `moved`: RMS distance from the end point to the fixed point."""

    n: int
    converged: Share
    right_of_converged: Share
    q_start: Median
    q: Median
    moved: Median
    largest_modulus: Median
    modulus_above_1: Share

    def line(self, outcome: str) -> str:
        """The numbers in words."""
        line = f"from {self.n} {outcome} ends: {self.converged.share:.0%} reach a fixed point"
        if self.right_of_converged.share is not None:
            line += f", {self.right_of_converged.share:.0%} of which decode right"
        if self.largest_modulus.n:
            line += f", largest eigenvalue {self.largest_modulus.median:.3f} (median)"
        return line


@dataclass(frozen=True, kw_only=True)
class FixedPointsResult(ByOutcome[FixedPointsOf]):
    """Of which `map`, to which `tolerance` (RMS)."""

    map: str
    tolerance: float


def seek(
    subject: Subject, ends: Tensor, config: StabilityConfig, progress: Progress
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """From the ends [run, dim] of runs: a row an end point, and a row an eigenvalue of those that
    converged.

    The map of one H-cycle: its fixed points are those of a supervision step too.
    """
    n = len(subject.puzzles)
    x = subject.embedded(dtype=torch.float64)
    cycle, start = CycleMap(subject.model, x), ends.double()
    ended = find_fixed_points(cycle.push, start, TOLERANCE)
    progress(n, 2 * n)
    right = cycle.right(ended.state, subject.labels.to(subject.device))
    q_start = speed(start, cycle(start))
    rows = pd.DataFrame(
        {
            "run": np.arange(n),
            "converged": ended.converged.cpu().numpy(),
            "newton_steps": ended.steps.cpu().numpy(),
            "q_start": q_start.cpu().numpy(),
            "q": ended.q.cpu().numpy(),
            "moved": distance(ended.state, start).cpu().numpy(),
            "right": right.cpu().numpy(),
        }
    )
    eigen = []
    for i in np.flatnonzero(rows["converged"]):
        one = cycle.rows(torch.tensor([int(i)], device=x.device))
        values = leading_eigenvalues(one.push, ended.state[int(i)], config.eigenvalues, config.seed)
        eigen += [(int(i), rank, v.real, v.imag, abs(v)) for rank, v in enumerate(values, 1)]
        progress(n + int(i), 2 * n)
    columns = ["run", "rank", "real", "imag", "modulus"]
    table = pd.DataFrame(eigen, columns=columns).astype({"run": int})
    largest = table.query("rank == 1").set_index("run")["modulus"]
    rows["largest_modulus"] = largest.reindex(rows["run"]).to_numpy()
    return rows, table


def of_outcomes(rows: pd.DataFrame, seed: int) -> FixedPointsResult:
    """The numbers of these end points; rows: those of `seek` with the outcome of their run."""
    by_outcome = {}
    for kind in ("solved", "failed"):
        of_kind = where(rows, rows["outcome"] == kind)
        there = where(of_kind, of_kind["converged"].to_numpy(bool))
        modulus = there["largest_modulus"].to_numpy(float)
        by_outcome[kind] = FixedPointsOf(
            n=len(of_kind),
            converged=Share.of(share_with_bounds(of_kind["converged"].to_numpy(bool))),
            right_of_converged=Share.of(share_with_bounds(there["right"].to_numpy(bool))),
            q_start=Median.of(median_with_bounds(of_kind["q_start"].to_numpy(float), seed)),
            q=Median.of(median_with_bounds(of_kind["q"].to_numpy(float), seed)),
            moved=Median.of(median_with_bounds(there["moved"].to_numpy(float), seed)),
            largest_modulus=Median.of(median_with_bounds(modulus[~np.isnan(modulus)], seed)),
            modulus_above_1=Share.of(share_with_bounds(modulus > 1)),
        )
    return FixedPointsResult(map="one H-cycle", tolerance=TOLERANCE, **by_outcome)
