"""Controls for models that know puzzles by embeddings of their own: blank and swapped ones."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trm_interp.core.models.config import ModelConfig
from trm_interp.runtime.errors import UserError
from trm_interp.subjects.settings import Identifiers
from trm_interp.tasks.base import PuzzleSet

BLANK = 0  # what models take where no identifier is given, and no puzzle of public ARC data has


def with_identifiers(puzzles: PuzzleSet, which: Identifiers, config: ModelConfig) -> PuzzleSet:
    """The puzzles with their true identifiers, with blank ones, or with those of other puzzles.

    UserError where puzzles have none of their own, the model reads none, or there is nothing to
    swap.
    """
    if which == "true":
        return puzzles
    own = puzzles.identifiers
    option = f"--identifiers {which}"
    if own is None:
        raise UserError(f"{option}: {puzzles.source} has no identifiers of puzzles")
    if not config.n_identifiers:
        raise UserError(f"{option}: the model has no embeddings of puzzles, and reads none")
    changed = np.full_like(own, BLANK) if which == "blank" else swapped(own)
    if (changed == own).any() and which == "swapped":
        raise UserError(f"{option}: all puzzles of {puzzles.source} share one identifier")
    return replace(puzzles, rows=changed)


def swapped(identifiers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every identifier replaced by another that occurs: half way round the sorted ones.

    Augmentations of a task lie side by side, so that it is one of another task where no task has
    more than half of all.

    >>> swapped(np.array([3, 5, 5, 8, 9])).tolist()
    [8, 9, 9, 3, 5]
    """
    distinct, at = np.unique(identifiers, return_inverse=True)
    return np.roll(distinct, -(len(distinct) // 2))[at]
