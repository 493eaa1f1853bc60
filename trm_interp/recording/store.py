"""Reading an activation store: lazily, by puzzle and by true supervision step.

    with Store("runs/a") as store:
        store["z_L"][5, 3, 0, 2]            # puzzle 5, step 3, H-cycle 0, L-cycle 2: [pos, d_model]
        store["z_H"][:, 15, -1]             # last answer state of every puzzle
        store.at(tick, puzzles=range(8))    # the state that a tick wrote: [puzzle, pos, d_model]
        store.frame()                       # solved, loss, q_halt per puzzle and step
        store.to_xarray()                   # everything, labelled and lazy

What the arrays are called, and which evaluation wrote what, depends on the architecture: `states`,
`answer`, `latent` and `schedule` say it, `task` which puzzles they are of.

`manifest.py` describes the format, `writer.py` writes it, `validate.py` checks it; their public
names are here too.
"""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from trm_interp.core.clock import Schedule, Tick
from trm_interp.recording.hdf5 import dataset, open_file, open_shard
from trm_interp.recording.manifest import MANIFEST, Identity, Manifest, ModelShape
from trm_interp.recording.schema import (
    Recursion,
    Site,
    StoreError,
    check_space,
    estimate_bytes,
    halt_steps,
    plan_shards,
    readouts,
)
from trm_interp.recording.stored_array import Puzzles, StoredArray
from trm_interp.recording.validate import unfinished, validate
from trm_interp.recording.writer import StoreWriter
from trm_interp.runtime.hub import Remote, is_remote, remote
from trm_interp.runtime.shapes import Float

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from trm_interp.tasks.base import PuzzleTensors, Task

__all__ = [
    "Recursion",
    "Site",
    "Store",
    "StoreError",
    "StoreWriter",
    "StoredArray",
    "check_space",
    "estimate_bytes",
    "halt_steps",
    "plan_shards",
    "readouts",
    "validate",
]

MAX_OPEN = 8  # shards kept open by one Store


class Store:
    """A recorded run. Nothing is read before it is indexed.

    names: arrays it holds. meta: what the recorder wrote. n_puzzles: puzzles that can be read.
    steps, positions: the supervision steps and positions whose states were kept; read-outs are
    there for all steps. An incomplete store opens only with `allow_incomplete`, and then shows
    its finished shards. StoreError where the manifest is damaged or no shard is as it says.

    path: a folder, or `hf://owner/name` of one that was pushed, whose shards are fetched when they
    are first read; `path` is then where they are kept on this machine.
    """

    def __init__(self, path: str | os.PathLike[str], *, allow_incomplete: bool = False) -> None:
        self._remote = remote(path, "dataset") if is_remote(path) else None
        self.path = Path(path) if self._remote is None else _with_manifest(self._remote)
        self._manifest = Manifest.read(self.path)
        self.n_puzzles = self._manifest.done
        self.complete = self._manifest.complete
        self._files: OrderedDict[int, h5py.File] = OrderedDict()  # by shard, last used last
        self._checked: set[int] = set()  # shards whose content was compared with the manifest
        size = self._manifest.shard_puzzles
        self._shards = {shard.first_puzzle // size: shard for shard in self._manifest.shards}
        if not (self.complete or allow_incomplete):
            raise StoreError(unfinished(self.path, self._manifest))
        if self.complete and self.n_puzzles < self._manifest.n_puzzles:
            raise StoreError(
                f"{self.path} says that it is complete, but no shard has puzzle {self.n_puzzles}: "
                "restore its manifest.json, or delete the store and record again"
            )
        shards = self._manifest.shards
        if not self._remote and shards and all(shard.problem(self.path) for shard in shards):
            raise StoreError(str(shards[0].problem(self.path)))  # nothing confirms its sizes

    @property
    def names(self) -> list[str]:
        return list(self._manifest.arrays)

    @property
    def meta(self) -> dict[str, Any]:
        return self._manifest.meta

    @property
    def model(self) -> ModelShape:
        """Sizes of the recorded model. StoreError where the recorder did not write them."""
        if (model := self._manifest.recorded.model) is None:
            raise StoreError(self._lacks("model"))
        return model

    @property
    def recursion(self) -> Recursion:
        """Names of the recorded model's states, and which evaluation writes which.

        That of a TRM in a store that names no architecture. StoreError where the recorder wrote
        nothing of the model.
        """
        if (recursion := self._manifest.recorded.recursion) is None:
            raise StoreError(self._lacks("model"))
        return recursion

    @property
    def schedule(self) -> Schedule:
        """The evaluations of one supervision step; `schedule.ticks(n_steps)` are the run's."""
        return self.recursion.schedule

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the model's states, whether the store holds them or not."""
        return self.recursion.states

    @property
    def answer(self) -> str:
        """Name of the state that the read-outs read."""
        return self.recursion.answer

    @property
    def latent(self) -> str:
        """Name of the state that reasons."""
        return self.recursion.latent

    @cached_property
    def task(self) -> "Task":
        """The task of the puzzles: the recorded one, or the only one of these sizes.

        UserError where it is not registered, or where none or several have these sizes.
        """
        from trm_interp.tasks.registry import task_named, task_of_shape

        if (name := self.identity.task) is not None:
            return task_named(name)
        if (vocab := self.model.vocab) is None:
            raise StoreError(self._lacks("model.vocab"))
        return task_of_shape(self.model.cells, vocab, str(self.path))

    @property
    def identity(self) -> Identity:
        """What was recorded, from what, as far as the recorder wrote it."""
        return self._manifest.recorded.identity

    @property
    def checkpoint_sha256(self) -> str:
        """Of the recorded model's weights. StoreError where the recorder did not write it."""
        if (sha256 := self.identity.checkpoint_sha256) is None:
            raise StoreError(self._lacks("identity.checkpoint_sha256"))
        return sha256

    @property
    def checkpoint_path(self) -> str | None:
        """Where the recorded checkpoint was."""
        return self._manifest.recorded.checkpoint.path

    def _lacks(self, field: str) -> str:
        return f"{self.path / MANIFEST}: meta.{field} is missing: restore it, or record again"

    @property
    def sha256(self) -> str:
        """Of what can be read: the checksums of the finished shards, in order."""
        shards = sorted(self._manifest.shards, key=lambda shard: shard.first_puzzle)
        return hashlib.sha256(" ".join(s.sha256 for s in shards).encode()).hexdigest()

    @property
    def shard_puzzles(self) -> int:
        """Puzzles of every shard but the last, which may have fewer."""
        return self._manifest.shard_puzzles

    @property
    def n_steps(self) -> int:
        return self._manifest.n_steps

    @property
    def steps(self) -> list[int]:
        return self._manifest.kept("step")

    @property
    def positions(self) -> list[int]:
        return self._manifest.kept("pos")

    def __getitem__(self, name: str) -> StoredArray:
        if name not in self._manifest.arrays:
            raise KeyError(f"{self.path} holds no {name}; it holds {', '.join(self.names)}")
        return StoredArray(self, self._manifest.arrays[name])

    def at(
        self, tick: Tick, puzzles: Puzzles = slice(None)
    ) -> Float[np.ndarray, "*puzzle pos d_model"]:
        """The state that this tick wrote; without the puzzle axis for a single puzzle."""
        array, recursion = self[tick.writes], self._manifest.recorded.recursion
        if recursion is not None:
            place = recursion.place(tick, tick.writes)
        else:
            place = tick[1:3] if "l_cycle" in array.dims else tick[1:2]
        return array[puzzles, tick.step, *place]

    def tensors(self, puzzles: Puzzles = slice(None)) -> "PuzzleTensors":
        """What the model read of these puzzles, and their solutions."""
        from trm_interp.tasks.base import PuzzleTensors

        own = self["identifier"][puzzles] if "identifier" in self.names else None
        return PuzzleTensors.of(self["inputs"][puzzles], self["labels"][puzzles], own)

    def iter(self, name: str, puzzles_per_read: int = 1) -> Iterator[np.ndarray]:
        """All puzzles in order and whole, [puzzle, ...], at most `puzzles_per_read` at a time."""
        for first in range(0, self.n_puzzles, puzzles_per_read):
            puzzles = range(first, min(first + puzzles_per_read, self.n_puzzles))
            self.require(puzzles)
            out = np.empty((len(puzzles), *self[name].shape[1:]), self[name].dtype)
            self.read_into(name, puzzles, (slice(None),) * (out.ndim - 1), out)
            yield out

    def frame(self) -> "pd.DataFrame":
        """One row per puzzle and supervision step, in that order.

        Columns puzzle (index in this store), puzzle_id (line in the source file), step, solved,
        loss (stablemax, nats per cell), q_halt (logit), halt_step (-1: never); q_continue of models
        that have it; residual, the worst of the step's H-cycles, of models that solve for fixed
        points.
        """
        import pandas as pd

        n, steps = self.n_puzzles, self.n_steps
        return pd.DataFrame(
            {
                "puzzle": np.repeat(np.arange(n), steps),
                "puzzle_id": np.repeat(self["puzzle_id"][:], steps),
                "step": np.tile(np.arange(steps), n),
                **{name: self[name][:].ravel() for name in ("solved", "loss", "q_halt")},
                "halt_step": np.repeat(self["halt_step"][:], steps),
                **{name: self[name][:].ravel() for name in ("q_continue",) if name in self.names},
                **self._worst_residual(),
            }
        )

    def to_xarray(
        self, names: Sequence[str] | None = None, *, chunked: bool = False
    ) -> "xr.Dataset":
        """The arrays with labelled axes, read when they are used: `.sel(step=15).values`.

        names: which arrays; None for all. Labels are the run's numbers, from 0; puzzles have their
        `puzzle_id` (line in the source file), positions `cell_of_pos`, below 0 in the prefix.
        Where only some steps were kept, read-outs show the same ones (`frame` has all of them).
        An axis that is longer in some arrays is called by its length there, such as `l_cycle_7`.
        `attrs["bytes"]`: how much all of it would take in memory. chunked: as dask arrays, a shard
        of the store each; ImportError without dask.
        """
        from trm_interp.recording.labelled import to_xarray

        return to_xarray(self, names, chunked)

    def long(self, name: str, puzzles: Puzzles = slice(None)) -> "pd.DataFrame":
        """An array as a long table: a column an axis, numbered from 0 as in the run, and `value`.

        StoreError where that are more than 50 million rows: take fewer puzzles.
        """
        from trm_interp.recording.labelled import long_frame

        return long_frame(self, name, puzzles)

    def _worst_residual(self) -> dict[str, np.ndarray]:
        """Of each puzzle and step, where the store has it."""
        return {"residual": self["residual"][:].max(-1).ravel()} if "residual" in self.names else {}

    def close(self) -> None:
        while self._files:
            self._files.popitem()[1].close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        sites = ", ".join(site.name for site in self._manifest.sites)
        return f"Store({str(self.path)!r}: {self.n_puzzles} puzzles; {sites}; steps {self.steps})"

    def read_into(
        self, name: str, puzzles: Sequence[int], rest: tuple[slice, ...], out: np.ndarray
    ) -> None:
        """Fill `out`, one plain HDF5 read per run of neighbouring puzzles in a shard.

        `out` has all axes of the array: HDF5 is 100 times slower between arrays of unequal rank.
        """
        for index, row, place in _runs(puzzles, self._manifest.shard_puzzles):
            file = self._open(index)
            rows = slice(row, row + place.stop - place.start)
            try:
                dataset(file, name).read_direct(out[place], (rows, *rest))
            except (OSError, RuntimeError) as error:
                raise StoreError(f"{file.filename} cannot be read ({error}): restore it") from None

    def require(self, puzzles: Sequence[int]) -> None:
        """StoreError where a shard of these puzzles is not there, before memory is taken."""
        size = self._manifest.shard_puzzles
        if isinstance(puzzles, range) and len(puzzles):
            low, high = sorted((puzzles[0], puzzles[-1]))
            shards = set(range(low // size, high // size + 1))
        else:
            shards = {puzzle // size for puzzle in puzzles}
        for index in sorted(shards - self._files.keys()):
            self._fetch(index)
            if problem := self._shards[index].problem(self.path):
                raise StoreError(problem)

    def _fetch(self, index: int) -> Path:
        """Where a shard is, or should be; of a remote store it is there afterwards."""
        shard = self._shards[index]
        if self._remote is not None and shard.problem(self.path):
            try:
                self._remote.fetch(shard.file, renew=True)
            except FileNotFoundError as error:
                raise StoreError(f"{error}: push the store again") from None
        return self.path / shard.file

    def _open(self, index: int) -> h5py.File:
        if index not in self._files:
            if len(self._files) == MAX_OPEN:
                self._files.popitem(last=False)[1].close()
            path = self._fetch(index)
            if index in self._checked:
                self._files[index] = open_file(path)
            else:
                n_puzzles = self._shards[index].n_puzzles
                self._files[index] = open_shard(path, self._manifest, n_puzzles)
                self._checked.add(index)
        self._files.move_to_end(index)
        return self._files[index]


def _with_manifest(place: Remote) -> Path:
    """The mirror of a remote store, in which its manifest is."""
    try:
        place.fetch(MANIFEST)
    except FileNotFoundError as error:
        raise StoreError(f"{error}: no store was pushed there") from None
    return place.folder


def _runs(puzzles: Sequence[int], shard_puzzles: int) -> Iterator[tuple[int, int, slice]]:
    """Neighbouring puzzles of one shard: shard, its first row, place in `puzzles`.

    >>> list(_runs([2, 3, 4, 0], shard_puzzles=4))
    [(0, 2, slice(0, 2, None)), (1, 0, slice(2, 3, None)), (0, 0, slice(3, 4, None))]
    """
    start = 0
    for end in range(1, len(puzzles) + 1):
        same = end < len(puzzles) and puzzles[end] == puzzles[end - 1] + 1
        if not same or puzzles[end] % shard_puzzles == 0:
            yield *divmod(puzzles[start], shard_puzzles), slice(start, end)
            start = end
