"""What a run on the page is: a puzzle, and changes that were made to it on the way.

A moment is the number of evaluations (of spans of them, where a model does something of its own
between evaluations) that are done: 0 is the start. An edit at a moment changes the states or the
puzzle of that moment, and everything after it follows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from trm_interp.core.counter import normal
from trm_interp.core.models.base import States
from trm_interp.core.models.config import ModelConfig
from trm_interp.patch.places import positions_of
from trm_interp.tasks.base import Tokens


@dataclass(frozen=True)
class Puzzle:
    """A checked puzzle. `tokens` and `solution`: uint8 [cell] as bytes, so that equal ones are one.

    `index`: its place in the file that is open, or that of the puzzle that it was edited from;
    None for one that was typed. `identifier`: which embedding of its own it has, if any has one.
    `several`: it has more than one solution, of which this is one.
    """

    tokens: bytes
    solution: bytes
    identifier: int | None = None
    index: int | None = field(default=None, compare=False)
    several: bool = field(default=False, compare=False)

    @property
    def inputs(self) -> Tokens:
        return np.frombuffer(self.tokens, np.uint8)

    @property
    def labels(self) -> Tokens:
        return np.frombuffer(self.solution, np.uint8)


@dataclass(frozen=True)
class Noise:
    """Normal noise of standard deviation `size` on some states; states have RMS 1.

    `cells`: only on these, by their numbers from 0; None: on all positions, the prefix included.
    The noise is named by seed, moment and state alone, so it is the same in every session.
    """

    at: int
    states: tuple[str, ...]
    size: float
    seed: int = 0
    cells: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Copied:
    """States of another run (`source`) at one of its moments, in the place of the run's own."""

    at: int
    states: tuple[str, ...]
    source: "Node"
    moment: int
    cells: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Given:
    """Another token in a cell of the puzzle, from this moment on."""

    at: int
    cell: int
    token: int


FeatureMode = Literal["ablate", "clamp", "steer"]
FEATURE_MODES: tuple[FeatureMode, ...] = get_args(FeatureMode)


@dataclass(frozen=True)
class Feature:
    """A feature of the session's SAE: to 0 (ablate), to `value` (clamp), `value` more (steer).

    `lasts`: again whenever an evaluation writes the SAE's state; else at this moment only.
    `cells`: only on these; None: on all positions. What the SAE does not explain stays.
    """

    at: int
    feature: int
    mode: FeatureMode
    value: float = 0.0
    lasts: bool = False
    cells: tuple[int, ...] | None = None


Edit = Noise | Copied | Given | Feature


@dataclass(frozen=True)
class Node:
    """A run: that of a puzzle from the model's own start, or a fork of another run.

    A fork is its parent up to the moment of its edit. Two with different names are the same run.
    """

    puzzle: Puzzle
    name: str = field(default="plain run", compare=False)
    parent: "Node | None" = None
    edit: Edit | None = None

    def fork(self, edit: Edit, name: str = "") -> "Node":
        """The run that follows this one up to `edit.at`, is changed there, and goes on freely.

        Before the edit of this run it is a fork of the run that this one is a fork of.
        """
        return Node(self.puzzle, name or described(edit), self.at(edit.at), edit)

    @property
    def root(self) -> "Node":
        return self if self.parent is None else self.parent.root

    def at(self, moment: int) -> "Node":
        """The run, of this one and those that it is a fork of, to which the moment belongs."""
        here = self
        while here.parent is not None and here.edit is not None and moment < here.edit.at:
            here = here.parent
        return here

    def lineage(self) -> Iterator["Node"]:
        """The plain run, its fork, the fork of that, and so on to this one."""
        if self.parent is not None:
            yield from self.parent.lineage()
        yield self


def described(edit: Edit) -> str:
    """A name for a fork.

    >>> described(Noise(21, ("z_H",), 0.5, 7))
    'noise 0.5 on z_H, seed 7'
    """
    if isinstance(edit, Given):
        return f"cell {edit.cell + 1} changed"
    where = _named(edit.cells)
    if isinstance(edit, Noise):
        what = f"noise {edit.size:g}" if edit.at else f"start moved by {edit.size:g}"
        return f"{what} on {' and '.join(edit.states)}{where}, seed {edit.seed}"
    if isinstance(edit, Copied):
        return f"{' and '.join(edit.states)}{where} of {edit.source.name} at {edit.moment}"
    done = {"ablate": "ablated", "clamp": f"clamped to {edit.value:g}"}
    how = done.get(edit.mode, f"{edit.value:+g}")
    return f"feature {edit.feature}{where} {how}{' from here on' if edit.lasts else ''}"


def _named(cells: tuple[int, ...] | None) -> str:
    """Which cells, from 1 on, for a name."""
    if cells is None:
        return ""
    return f" in cell {cells[0] + 1}" if len(cells) == 1 else f" in {len(cells)} cells"


def with_noise(state: States, edit: Noise, config: ModelConfig) -> States:
    """The states [1, pos, d_model] with the noise of an edit added."""
    for name in edit.states:
        z = getattr(state, name)
        drawn = normal(z[0].numel(), edit.seed, edit.at, state._fields.index(name))
        new = z + edit.size * drawn.view_as(z).to(z.device, z.dtype)
        state = state._replace(**{name: _only_at(edit.cells, z, new, config)})
    return state


def with_copies(state: States, edit: Copied, other: States, config: ModelConfig) -> States:
    """The states with those that an edit names taken from `other`."""
    for name in edit.states:
        mixed = _only_at(edit.cells, getattr(state, name), getattr(other, name), config)
        state = state._replace(**{name: mixed})
    return state


def _only_at(
    cells: tuple[int, ...] | None, now: Tensor, new: Tensor, config: ModelConfig
) -> Tensor:
    """`new` at the positions of these cells, elsewhere `now`."""
    if cells is None:
        return new
    mask = positions_of(config, cells).to(now.device)
    return torch.where(mask[:, None], new, now)
