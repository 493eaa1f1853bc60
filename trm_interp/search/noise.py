"""What makes the trajectories of a puzzle differ: noise on the states, symmetric copies.

Every draw is named by seed, puzzle, trajectory, step and state (`core/counter.py`), so it does not
depend on what else is in the batch, on the order of the puzzles or on how often a run was resumed.
"""

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from trm_interp.core.counter import hash64, normal
from trm_interp.core.models.base import RecursiveModel, States
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import shown
from trm_interp.runtime.shapes import Int
from trm_interp.search.settings import ALL_STATES, ROLES, SearchConfig
from trm_interp.tasks.base import PuzzleSet, Task
from trm_interp.tasks.symmetric import Copies
from trm_interp.tasks.symmetry import Symmetry

SYMMETRY = 2  # stands in a name of a draw where noise has the number of its state


def target_states(model: RecursiveModel, target: str) -> tuple[str, ...]:
    """The states that `--target` names: one by its name or its role, or all.

    UserError for a name that the model does not have.
    """
    names = model.state_names
    if target in names:
        return (target,)
    if target in ALL_STATES:
        return names
    if target in ROLES:
        return (getattr(model, target),)
    choices = ", ".join((*names, *ROLES, *ALL_STATES))
    raise UserError(f"--target {shown(target)!r}: no such state; give one of {choices}")


def puzzle_keys(tokens: Int[Tensor, "puzzle cell"]) -> Int[Tensor, " puzzle"]:
    """A puzzle's name in the random streams: a hash of its tokens. Equal puzzles share it."""
    return hash64(*tokens.unbind(1))


def perturb(
    state: States,
    targets: Sequence[str],
    rows: Int[Tensor, " row"],
    keys: Int[Tensor, " row"],
    trajectory: Int[Tensor, " row"],
    step: Int[Tensor, " row"],
    config: SearchConfig,
) -> States:
    """Add noise of standard deviation sigma to the states `targets` of these rows of the batch.

    PTRM (arXiv 2605.19943) adds it to z_L before every step at all positions. `shared` draws one
    vector of d_model numbers for all positions instead.
    """
    if not (config.sigma and len(rows)):
        return state
    for name in targets:
        z = getattr(state, name)
        shape = (1 if config.shared else z.shape[1], z.shape[2])
        which = state._fields.index(name)
        drawn = normal(shape[0] * shape[1], config.seed, keys, trajectory, step, which)
        noise = (config.sigma * drawn.unflatten(1, shape)).to(z.dtype)
        changed = z.index_add(0, rows, noise.expand(-1, *z.shape[1:]))
        state = state._replace(**{name: changed})
    return state


def symmetric_copies(
    task: Task, keys: Int[Tensor, " row"], trajectory: Int[Tensor, " row"], seed: int
) -> Symmetry:
    """The symmetry that each trajectory looks at its puzzle through.

    UserError for a task that has none.
    """
    drawn = task.symmetry(hash64(seed, keys, trajectory, SYMMETRY))
    return drawn if drawn is not None else _refuse(task)


def copies_for(config: SearchConfig, puzzles: PuzzleSet) -> Copies | None:
    """The copies that the file has laid down, where the search looks at symmetric ones and the task
    draws none."""
    if not config.symmetry or has_symmetries(puzzles.task):
        return None
    return puzzles.task.copies(puzzles)


def require_symmetries(puzzles: PuzzleSet) -> None:
    """UserError for puzzles that have none: neither drawn by the task nor laid down beside them."""
    if not (has_symmetries(puzzles.task) or puzzles.task.copies(puzzles)):
        _refuse(puzzles.task, f"{puzzles.source}: ")


def has_symmetries(task: Task) -> bool:
    """Whether its puzzles have copies that are as hard."""
    return task.symmetry(torch.zeros(1, dtype=torch.int64)) is not None


def _refuse(task: Task, where: str = "") -> NoReturn:
    raise UserError(f"{where}{task.title} has no symmetries here: search without --symmetry")
