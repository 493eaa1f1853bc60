"""What makes the trajectories of a puzzle differ: noise on the states, symmetric copies.

Every draw is named by seed, puzzle, trajectory, step and state (`core/counter.py`), so it does not
depend on what else is in the batch, on the order of the puzzles or on how often a run was resumed.
"""

from torch import Tensor

from trm_interp.core.counter import hash64, normal
from trm_interp.core.models.trm import State
from trm_interp.runtime.shapes import Int
from trm_interp.search.config import SearchConfig
from trm_interp.tasks.sudoku.augment import random_symmetry
from trm_interp.tasks.sudoku.grid import Shape
from trm_interp.tasks.symmetry import Symmetry

Z_H, Z_L, SYMMETRY = 0, 1, 2  # what a draw is for
TARGETS = {"z_H": (Z_H,), "z_L": (Z_L,), "both": (Z_H, Z_L)}


def puzzle_keys(tokens: Int[Tensor, "puzzle cell"]) -> Int[Tensor, " puzzle"]:
    """A puzzle's name in the random streams: a hash of its digits. Equal puzzles share it."""
    return hash64(*tokens.unbind(1))


def perturb(
    state: State,
    rows: Int[Tensor, " row"],
    keys: Int[Tensor, " row"],
    trajectory: Int[Tensor, " row"],
    step: Int[Tensor, " row"],
    config: SearchConfig,
) -> State:
    """Add noise of standard deviation sigma to the target states of these rows of the batch.

    PTRM (arXiv 2605.19943) is target z_L before every step at all positions. `shared` draws one
    vector of d_model numbers for all positions instead.
    """
    if not (config.sigma and len(rows)):
        return state
    changed = list(state)
    for which in TARGETS[config.target]:
        z = changed[which]
        shape = (1 if config.shared else z.shape[1], z.shape[2])
        drawn = normal(shape[0] * shape[1], config.seed, keys, trajectory, step, which)
        noise = (config.sigma * drawn.unflatten(1, shape)).to(z.dtype)
        changed[which] = z.index_add(0, rows, noise.expand(-1, *z.shape[1:]))
    return State(*changed)


def symmetric_copies(
    keys: Int[Tensor, " row"], trajectory: Int[Tensor, " row"], seed: int, shape: Shape
) -> Symmetry:
    """The symmetry that each trajectory looks at its puzzle through."""
    return random_symmetry(hash64(seed, keys, trajectory, SYMMETRY), shape)
