"""What the arrays of an activation store are: their axes, their sizes on disk, the read-outs."""

import errno
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from trm_interp.core.clock import Schedule, Tick, trm_schedule
from trm_interp.core.models.registry import DEFAULT
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.shapes import Bool, Int

# sizes that no store has: what lies beyond is a mistake or a manipulated file
MOST_PUZZLES = 10**8
LARGEST_AXIS = 10**6
MOST_AXES = 16
MOST_KEPT = 8000  # steps or positions: an attribute of HDF5 has 64 KB
MOST_TICKS = 10**5  # network evaluations of a run
NAME = re.compile(r"\w[\w.]{0,99}")

RUN_SITES = ("embed", "logits")  # arrays of every architecture that are not states
MORE_READOUTS = ("q_continue", "identifier", "residual")  # read-outs that only some stores hold
GROUPS = ("states", "resid")  # words that stand for several arrays where sites are chosen
_EXPONENT = np.uint16(0x7C00)  # of a float16; all ones in infinities and NaN
_INSIDE = re.compile(r"(\w+\.)*hook_\w+")


class StoreError(UserError):
    """A store cannot be used as it is. One line: the file, what is wrong, what to do next."""


@dataclass(frozen=True)
class Site:
    """One array of a store: name, and its axes after `puzzle` with their sizes in the run.

    `kept` lists the indices that are stored of an axis that is not stored whole; see `select`.
    An array with a `step` axis has it first.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str = "float16"
    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.dims) != len(self.shape) or min(self.shape, default=1) < 1:
            raise ValueError(f"{self.name}: axes {self.dims} do not fit shape {self.shape}")
        if not NAME.fullmatch(self.name) or len(self.dims) > MOST_AXES:
            raise ValueError(f"{self.name[:99]!r} with {len(self.dims)} axes: not an array's name")
        if max(self.shape, default=1) > LARGEST_AXIS:
            raise ValueError(f"{self.name}: no axis has more than {LARGEST_AXIS}: {self.shape}")
        if "step" in self.dims[1:] or len({"puzzle", *self.dims}) <= len(self.dims):
            raise ValueError(
                f"{self.name}: `step` must be the first of different axes, got {self.dims}"
            )

    def select(
        self, steps: Iterable[int] | None = None, positions: Iterable[int] | None = None
    ) -> "Site":
        """The same array with only these supervision steps and positions stored (None: all)."""
        wanted = {"step": steps, "pos": positions}
        kept = {
            dim: tuple(sorted(set(indices)))
            for dim, indices in wanted.items()
            if indices is not None and dim in self.dims
        }
        for dim, indices in kept.items():
            size = self.shape[self.dims.index(dim)]
            if not indices or indices[0] < 0 or indices[-1] >= size:
                got = list(indices) if len(indices) < 9 else f"{indices[0]}..{indices[-1]}"
                raise ValueError(f"{self.name} has {dim} 0..{size - 1}, got {got}")
        return replace(self, kept=kept)

    def indices(self, dim: str) -> Sequence[int]:
        """Which indices of an axis are stored, in the numbering of the run."""
        return self.kept.get(dim, range(self.shape[self.dims.index(dim)]))

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape in the file without the puzzle axis.

        >>> Site("z_H", ("step", "pos"), (16, 97)).select(steps=[0, 15]).stored_shape
        (2, 97)
        """
        return tuple(len(self.indices(dim)) for dim in self.dims)

    @property
    def labels(self) -> tuple[str, ...]:
        return ("puzzle", *self.dims)


@dataclass(frozen=True)
class Recursion:
    """What readers of a store need to know of an architecture: who writes which state, and when.

    states: names of all states, in the architecture's order. answer: the one that the read-outs
    read. latent: the one that reasons. `schedule` says which evaluation writes which of them.
    `sites_of_some`: sites that only some evaluations have, with the states that these write.
    ValueError where these do not fit together.
    """

    schedule: Schedule
    states: tuple[str, ...]
    answer: str
    latent: str
    architecture: str
    sites_of_some: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in (*self.schedule.states, self.answer, self.latent):
            if name not in self.states:
                raise ValueError(f"{name[:60]!r} is none of the states {', '.join(self.states)}")
        taken = (*RUN_SITES, *GROUPS)
        for name in self.states:
            if not NAME.fullmatch(name) or is_inside(name) or name in taken:
                raise ValueError(f"{name[:60]!r} cannot be the name of a state")
        for name, states in self.sites_of_some.items():
            if not is_inside(name) or not states or set(states) - set(self.schedule.states):
                raise ValueError(f"{name[:60]!r} is no site of evaluations that write {states}")

    def dims(self, name: str) -> tuple[str, ...] | None:
        """The axes of an array that recordings have by this name; None for any other name.

        >>> trm_recursion(3, 6).dims("z_H")
        ('step', 'h_cycle', 'pos', 'd_model')
        >>> trm_recursion(3, 6).dims("embed")
        ('pos', 'd_model')
        """
        if name == "embed":
            return "pos", "d_model"
        if name == "logits":
            return "step", "cell", "vocab"
        if is_inside(name) or (name in self.states and not self.schedule.ends_cycle(name)):
            return "step", "h_cycle", "l_cycle", "pos", "d_model"
        return ("step", "h_cycle", "pos", "d_model") if name in self.states else None

    def written(self, name: str) -> tuple[str, ...]:
        """The states whose evaluations an array holds: itself, or those that have this site."""
        if name in self.states:
            return (name,)
        return self.sites_of_some.get(name, self.schedule.states)

    def l_cycles(self, name: str) -> int:
        """Length of the array's l_cycle axis: evaluations of an H-cycle that it holds."""
        return sum(map(self.schedule.writes_per_cycle, self.written(name)))

    def place(self, tick: Tick, name: str) -> tuple[int, ...]:
        """Where an array of one supervision step holds what the evaluation `tick` gave.

        >>> recursion = trm_recursion(3, 6)
        >>> tick = recursion.schedule.tick(0, 2, 6)
        >>> recursion.place(tick, "z_H"), recursion.place(tick, "blocks.0.hook_mlp_out")
        ((2,), (2, 6))
        """
        if name in self.states and self.schedule.ends_cycle(name):
            return (tick.h_cycle,)
        earlier = self.schedule.cycle[: tick.l_cycle]
        return tick.h_cycle, sum(map(earlier.count, self.written(name)))

    def to_json(self) -> dict[str, Any]:
        """As a manifest's identity has it."""
        return {
            "architecture": self.architecture,
            "schedule": self.schedule.to_json(),
            "states": list(self.states),
            "answer": self.answer,
            "latent": self.latent,
            **({"sites_of_some": dict(self.sites_of_some)} if self.sites_of_some else {}),
        }

    def ticks(self, name: str, n_steps: int) -> list[Tick]:
        """The evaluations that an array holds, in order: those that write the state, or that have
        the site, or else all.

        >>> [tick.name for tick in trm_recursion(2, 2).ticks("z_H", 1)]
        ['step.0.h.0', 'step.0.h.1']
        """
        states = self.written(name)
        return [tick for tick in self.schedule.ticks(n_steps) if tick.writes in states]


def trm_recursion(h_cycles: int, l_cycles: int) -> Recursion:
    """Of a TRM, which is what stores hold that do not name their architecture."""
    return Recursion(trm_schedule(h_cycles, l_cycles), ("z_H", "z_L"), "z_H", "z_L", DEFAULT)


def is_inside(name: str) -> bool:
    """Whether an array by this name holds what a site inside evaluations gave.

    >>> is_inside("blocks.0.hook_mlp_out"), is_inside("z_H")
    (True, False)
    """
    return _INSIDE.fullmatch(name) is not None


def readouts(
    n_steps: int, n_cells: int, more: Sequence[str] = (), h_cycles: int = 1
) -> tuple[Site, ...]:
    """What every store holds for all supervision steps, whichever states it keeps.

    inputs, labels, predictions: tokens. solved: all cells right. loss: stablemax cross-entropy,
    nats per cell. q_halt: halting logit. halt_step: first step at which the model would halt, or
    -1. puzzle_id: line in the source file, from 1 (a public data folder: row, from 0).

    `more` are those of `MORE_READOUTS` that the store has too. q_continue: logit of going on, of
    models with two halting logits. identifier: which embedding of its own the puzzle has, of models
    that have such. residual: how far each of `h_cycles` H-cycles ends from its fixed point,
    relative, of models that solve for one; NaN where it is not known.
    """
    run = ("step",), (n_steps,)
    optional = {"q_continue": Site("q_continue", *run, "float32")}
    optional["identifier"] = Site("identifier", (), (), "int64")
    optional["residual"] = Site("residual", ("step", "h_cycle"), (n_steps, h_cycles), "float32")
    return (
        Site("inputs", ("cell",), (n_cells,), "uint8"),
        Site("labels", ("cell",), (n_cells,), "uint8"),
        Site("predictions", ("step", "cell"), (n_steps, n_cells), "uint8"),
        Site("solved", *run, "bool"),
        Site("loss", *run, "float32"),
        Site("q_halt", *run, "float32"),
        Site("halt_step", (), (), "int16"),
        Site("puzzle_id", (), (), "int64"),
        *(optional[name] for name in more),
    )


def halt_steps(halts: Bool[np.ndarray, "puzzle step"]) -> Int[np.ndarray, " puzzle"]:
    """First supervision step at which the model halts, or -1.

    >>> halt_steps(np.array([[False, True, True], [False, False, False]])).tolist()
    [1, -1]
    """
    return np.where(halts.any(axis=1), halts.argmax(axis=1), -1).astype(np.int16)


def estimate_bytes(sites: Iterable[Site], n_puzzles: int) -> int:
    """Bytes on disk of the states; read-outs add about n_steps * n_cells bytes a puzzle.

    >>> z_L = Site("z_L", ("step", "h_cycle", "l_cycle", "pos", "d_model"), (16, 3, 6, 97, 512))
    >>> estimate_bytes([z_L], 1)
    28606464
    """
    per_puzzle = sum(math.prod(s.stored_shape) * np.dtype(s.dtype).itemsize for s in sites)
    return per_puzzle * n_puzzles


def plan_shards(
    bytes_per_puzzle: int, batch_size: int, n_puzzles: int, target: float = 100e6
) -> int:
    """Puzzles per shard: whole batches, as near to `target` bytes as they come, at least one.

    >>> plan_shards(bytes_per_puzzle=1_000_000, batch_size=32, n_puzzles=1024)
    96
    """
    batches = round(target / (bytes_per_puzzle * batch_size))
    return batch_size * max(1, min(batches, math.ceil(n_puzzles / batch_size)))


def all_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite; fast for float16.

    >>> all_finite(np.array([1, 65504], "float16")), all_finite(np.array([np.nan, 0], "float16"))
    (True, False)
    """
    if values.dtype == np.float16 and values.flags.c_contiguous:
        # a sum of non-negative 16-bit masks is too slow; the largest exponent tells as much
        return int((values.view(np.uint16) & _EXPONENT).max(initial=0)) < int(_EXPONENT)
    return bool(np.isfinite(values).all())


def check_space(path: str | os.PathLike[str], n_bytes: int) -> None:
    """OSError with both numbers if the disk that holds (or will hold) `path` is too full."""
    where = Path(path).absolute()
    while not where.exists():
        where = where.parent
    free = shutil.disk_usage(where).free
    if n_bytes > free:
        raise OSError(
            errno.ENOSPC,
            f"{path} needs {size_text(n_bytes)} and the disk has {size_text(free)} free: "
            "lower --limit, or keep fewer --sites, --steps or --positions",
        )


def size_text(n_bytes: int) -> str:
    """In units for people.

    >>> size_text(1_250_000_000), size_text(70_000)
    ('1.25 GB', '0.07 MB')
    """
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e7 else f"{n_bytes / 1e6:.2f} MB"
