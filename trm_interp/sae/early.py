"""Features that separate outcomes early, or that fire before a cell is decided."""

from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from trm_interp.analysis.auc import auc_of_ranks, auc_p
from trm_interp.analysis.resample import discoveries
from trm_interp.runtime.shapes import Bool, Float, Int

FLIPS = 10_000  # sign patterns behind a p-value


class Separation(NamedTuple):
    """AUC of a feature's activation for "failed at the end" and its p-value; `significant` at a
    false discovery rate of 5 % over all ticks and features. `by_chance`: how many tests are after
    the outcomes were shuffled."""

    auc: Float[np.ndarray, "tick feature"]
    p: Float[np.ndarray, "tick feature"]
    significant: Bool[np.ndarray, "tick feature"]
    by_chance: int


def separation(
    level: Float[np.ndarray, "puzzle tick feature"], solved: Bool[np.ndarray, " puzzle"], seed: int
) -> Separation:
    """At every tick: does a feature's mean activation separate failed runs from solved ones?"""
    shape = level.shape[1:]
    auc, p, p_chance = (np.full(shape, np.nan) for _ in range(3))
    failed = ~solved
    shuffled = np.random.default_rng([seed, 0xA0C]).permutation(failed)
    for tick in range(shape[0]):
        ranks = rankdata(level[:, tick], axis=0)
        auc[tick] = auc_of_ranks(ranks, failed)
        p[tick] = auc_p(ranks, failed)
        p_chance[tick] = auc_p(ranks, shuffled)
    return Separation(auc, p, discoveries(p), int(discoveries(p_chance).sum()))


def lead(
    by_step: Float[np.ndarray, "step cell feature"],
    decided: Int[np.ndarray, " cell"],
    asked: Bool[np.ndarray, " cell"],
) -> Float[np.ndarray, " feature"]:
    """Mean activation, one step ahead, at cells about to be decided less at cells that are not.

    Both kinds are asked cells, undecided, of one puzzle and at one step, so what time, puzzle and
    givens explain cancels. Steps count by their newly decided cells. NaN where no step has both.
    """
    total, weight = np.zeros(by_step.shape[-1]), 0
    for step in range(len(by_step) - 1):
        soon = asked & (decided == step + 1)
        later = asked & (decided > step + 1)
        if soon.any() and later.any():
            n = int(soon.sum())
            total += n * (by_step[step, soon].mean(0) - by_step[step, later].mean(0))
            weight += n
    return total / weight if weight else np.full(by_step.shape[-1], np.nan)


def sign_flip_p(
    differences: Float[np.ndarray, "puzzle feature"], seed: int, flips: int = FLIPS
) -> Float[np.ndarray, " feature"]:
    """Two-sided p-value of a mean of 0, were every puzzle's sign a coin; NaN rows are left out.

    1 where nothing differs at all; NaN without two puzzles.
    """
    kept = differences[np.isfinite(differences).all(1)]
    if len(kept) < 2:
        return np.full(differences.shape[1], np.nan)
    rng = np.random.default_rng([seed, 0xF11])
    signs = rng.integers(0, 2, (flips, len(kept))).astype(np.float32) * 2 - 1
    p = np.empty(kept.shape[1])
    for first in range(0, kept.shape[1], 256):
        part = kept[:, first : first + 256].astype(np.float32)
        null = np.abs(signs @ part)
        observed = np.abs(part.sum(0))
        p[first : first + 256] = (1 + (null >= observed * (1 - 1e-5)).sum(0)) / (1 + flips)
    return p
