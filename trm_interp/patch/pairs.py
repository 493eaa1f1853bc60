"""Pairs of a solved and a failed run of one puzzle, which differ in where they start."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trm_interp.core.counter import normal
from trm_interp.core.models.base import States
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import counted
from trm_interp.runtime.shapes import Bool, Int


def noisy_starts(
    state: States,
    start: Int[Tensor, " run"],
    targets: Sequence[str],
    sigma: float = 1.0,
    shared: bool = False,
    seed: int = 0,
) -> States:
    """The states with the noise of each run's start added to the `targets`; start 0 stays.

    The noise is named by seed, start and state alone: the same for all puzzles, in any company.
    `sigma`: its standard deviation; states have RMS 1. `shared`: one vector for all positions.
    """
    for name in targets:
        z = getattr(state, name)
        places = 1 if shared else z.shape[1]
        drawn = normal(places * z.shape[2], seed, start.to(z.device), state._fields.index(name))
        noise = sigma * drawn.unflatten(1, (places, z.shape[2]))
        noise = torch.where((start == 0).to(z.device)[:, None, None], 0.0, noise)
        state = state._replace(**{name: z + noise.to(z.dtype)})
    return state


class Pairs(NamedTuple):
    """One pair of a puzzle each: places of the puzzles, and numbers of the starts [pair].

    `again`: another start that solves the puzzle, -1 where there is none.
    """

    puzzle: Int[np.ndarray, " pair"]
    solved: Int[np.ndarray, " pair"]
    failed: Int[np.ndarray, " pair"]
    again: Int[np.ndarray, " pair"]

    def __len__(self) -> int:
        return len(self.puzzle)


def pairs_among(solved: Bool[np.ndarray, "puzzle start"], most: int | None = None) -> Pairs:
    """The first solved and the first failed start of every puzzle that has both.

    `most`: pairs at most. UserError where no puzzle has both: it says how many were tried.

    >>> pairs_among(np.array([[True, True], [False, True]]))
    Pairs(puzzle=array([1]), solved=array([1]), failed=array([0]), again=array([-1]))
    """
    both = np.flatnonzero(solved.any(1) & ~solved.all(1))[:most]
    if not len(both):
        n, starts = solved.shape
        always = int(solved.all(1).sum())
        raise UserError(
            f"no pair of a solved and a failed run among {counted(n, 'puzzle')} x {starts} starts: "
            f"{always} are solved from every start, {n - always} from none; try more puzzles "
            "(--limit), more starts (--starts) or another noise (--sigma)"
        )
    of = solved[both]
    first = of.argmax(1)
    others = of & (np.arange(of.shape[1]) != first[:, None])
    again = np.where(others.any(1), others.argmax(1), -1)
    return Pairs(both, first, (~of).argmax(1), again)
