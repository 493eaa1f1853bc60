"""Runs by outcome: are there enough of either kind to compare, and which to look at closer."""

from dataclasses import replace

import numpy as np

from trm_interp.analysis.auc import FEWEST
from trm_interp.landscape.results import Tell
from trm_interp.landscape.subject import Subject


def named(solved: np.ndarray) -> np.ndarray:
    """`solved` or `failed` for every run."""
    return np.where(solved, "solved", "failed")


def compared(solved: np.ndarray, tell: Tell) -> str | None:
    """What keeps solved and failed runs from being compared; told, and None where nothing does."""
    counts = {"solved": int(solved.sum()), "failed": int((~solved).sum())}
    few = [f"{n} {kind}" for kind, n in counts.items() if n < FEWEST]
    if not few:
        return None
    why = f"{' and '.join(few)} runs, {FEWEST} are needed: outcomes are not compared, the rest is"
    tell(why)
    return why


def half_of_each(solved: np.ndarray, n: int) -> np.ndarray:
    """The first n // 2 failed and n - n // 2 solved, more of one where the other has fewer.

    Indices, ascending.

    >>> half_of_each(np.array([True, True, True, True, False]), 4).tolist()
    [0, 1, 2, 4]
    """
    good, bad = np.flatnonzero(solved), np.flatnonzero(~solved)
    failed = min(len(bad), max(n // 2, n - len(good)))
    return np.sort(np.concatenate([good[: n - failed], bad[:failed]]))


def part_of(subject: Subject, picked: np.ndarray) -> Subject:
    """The same with some of its puzzles."""
    return replace(subject, puzzles=subject.puzzles.subset(picked))
