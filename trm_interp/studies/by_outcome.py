"""Runs by outcome: whether there are enough of each to compare, and samples of both."""

from dataclasses import replace

import numpy as np

from trm_interp.analysis.auc import FEWEST
from trm_interp.studies.results import Tell
from trm_interp.studies.subject import Subject


def named(solved: np.ndarray) -> np.ndarray:
    """`solved` or `failed` for every run."""
    return np.where(solved, "solved", "failed")


def why_not_compared(solved: np.ndarray, tell: Tell) -> str | None:
    """Why there are too few runs to compare outcomes, also passed to `tell`; None where there are
    enough."""
    counts = {"solved": int(solved.sum()), "failed": int((~solved).sum())}
    few = [f"{n} {kind}" for kind, n in counts.items() if n < FEWEST]
    if not few:
        return None
    why = f"{' and '.join(few)} runs, {FEWEST} are needed: skipping the comparison of outcomes"
    tell(why)
    return why


def subset_of(subject: Subject, picked: np.ndarray) -> Subject:
    """The same with some of its puzzles."""
    return replace(subject, puzzles=subject.puzzles.subset(picked))
