"""Reading an activation store: lazily, by puzzle and by true supervision step.

    with Store("runs/a") as store:
        store["z_L"][5, 3, 0, 2]            # puzzle 5, step 3, H-cycle 0, L-cycle 2: [pos, d_model]
        store["z_H"][:, 15, -1]             # last answer state of every puzzle
        store.at(tick, puzzles=range(8))    # the state that a tick wrote: [puzzle, pos, d_model]
        store.frame()                       # solved, loss, q_halt per puzzle and step

`layout.py` describes the format, `shards.py` writes it; their public names are here too.
"""

import hashlib
import operator
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from trm_interp.clock import Tick
from trm_interp.files import sha256_of
from trm_interp.layout import (
    Manifest,
    Shard,
    Site,
    StoreError,
    check_space,
    estimate_bytes,
    halt_steps,
    plan_shards,
    readouts,
)
from trm_interp.shapes import Float
from trm_interp.shards import StoreWriter, dataset

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
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

Puzzles = int | slice | range | Sequence[int] | np.ndarray
MAX_OPEN = 8  # shards kept open by one Store


class Store:
    """A recorded run. Nothing is read before it is indexed.

    names: arrays it holds. meta: what the recorder wrote. n_puzzles: puzzles that can be read.
    steps, positions: the supervision steps and positions whose states were kept; read-outs are
    there for all steps. An incomplete store opens only with `allow_incomplete`, and then shows
    its finished shards.
    """

    def __init__(self, path: str | os.PathLike[str], *, allow_incomplete: bool = False) -> None:
        self.path = Path(path)
        self._manifest = Manifest.read(self.path)
        self.n_puzzles = self._manifest.done
        self.complete = self._manifest.complete
        self._files: OrderedDict[int, h5py.File] = OrderedDict()  # by shard, last used last
        if not (self.complete or allow_incomplete):
            raise StoreError(_unfinished(self.path, self._manifest))

    @property
    def names(self) -> list[str]:
        return list(self._manifest.arrays)

    @property
    def meta(self) -> dict[str, Any]:
        return self._manifest.meta

    @property
    def sha256(self) -> str:
        """Of what can be read: the checksums of the finished shards, in order."""
        shards = sorted(self._manifest.shards, key=lambda shard: shard.first_puzzle)
        return hashlib.sha256(" ".join(s.sha256 for s in shards).encode()).hexdigest()

    @property
    def n_steps(self) -> int:
        return self._manifest.n_steps

    @property
    def steps(self) -> list[int]:
        return self._manifest.kept("step")

    @property
    def positions(self) -> list[int]:
        return self._manifest.kept("pos")

    def __getitem__(self, name: str) -> "StoredArray":
        if name not in self._manifest.arrays:
            raise KeyError(f"{self.path} holds no {name}; it holds {', '.join(self.names)}")
        return StoredArray(self, self._manifest.arrays[name])

    def at(
        self, tick: Tick, puzzles: Puzzles = slice(None)
    ) -> Float[np.ndarray, "*puzzle pos d_model"]:
        """The state that this tick wrote; without the puzzle axis for a single puzzle."""
        cycle = (tick.h_cycle, tick.l_cycle) if tick.writes == "z_L" else (tick.h_cycle,)
        return self[tick.writes][puzzles, tick.step, *cycle]

    def iter(self, name: str, puzzles_per_read: int = 1) -> Iterator[np.ndarray]:
        """All puzzles in order and whole, [puzzle, ...], at most `puzzles_per_read` at a time."""
        for first in range(0, self.n_puzzles, puzzles_per_read):
            puzzles = range(first, min(first + puzzles_per_read, self.n_puzzles))
            out = np.empty((len(puzzles), *self[name].shape[1:]), self[name].dtype)
            self._read(name, puzzles, (slice(None),) * (out.ndim - 1), out)
            yield out

    def frame(self) -> "pd.DataFrame":
        """One row per puzzle and supervision step, in that order.

        Columns puzzle (index in this store), puzzle_id (line in the source file), step, solved,
        loss (stablemax, nats per cell), q_halt (logit), halt_step (-1: never).
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
            }
        )

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

    def _read(
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
            except OSError as error:
                raise StoreError(f"{file.filename} cannot be read ({error}): restore it") from None

    def _open(self, index: int) -> h5py.File:
        if index not in self._files:
            first = index * self._manifest.shard_puzzles
            shard = next(s for s in self._manifest.shards if s.first_puzzle == first)
            if problem := shard.problem(self.path):
                raise StoreError(problem)
            if len(self._files) == MAX_OPEN:
                self._files.popitem(last=False)[1].close()
            self._files[index] = _open_shard(self.path / shard.file)
        self._files.move_to_end(index)
        return self._files[index]


class StoredArray:
    """One array of a store. Indexing reads from disk and gives numpy, a scalar for ints alone.

    Puzzles: an int, a slice, a list in any order, or a mask over the store's puzzles. Other axes:
    ints and slices. `step` and `pos` are numbered as in the run, also where only some were kept:
    an int that was not kept is an IndexError, a slice gives the kept ones in its range.
    """

    def __init__(self, store: Store, site: Site) -> None:
        self._store, self._site = store, site
        self.name, self.dims = site.name, site.labels
        self.shape = (store.n_puzzles, *site.stored_shape)
        self.dtype = np.dtype(site.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        axes = ", ".join(f"{dim} {n}" for dim, n in zip(self.dims, self.shape, strict=True))
        return f"StoredArray({self.name}: {self.dtype} [{axes}])"

    def __getitem__(self, key: Any) -> Any:
        puzzle_key, *rest_keys = _expand(key if isinstance(key, tuple) else (key,), len(self.shape))
        puzzles = self._puzzles(puzzle_key)
        reads, picks = [], []
        for dim, axis_key in zip(self._site.dims, rest_keys, strict=True):
            read, pick = self._axis(dim, axis_key)
            reads.append(read)
            picks.append(pick)
        sizes = (len(range(*r.indices(n))) for r, n in zip(reads, self.shape[1:], strict=True))
        out = np.empty((len(puzzles), *sizes), self.dtype)
        if out.size:
            self._store._read(self.name, puzzles, tuple(reads), out)
        picks.insert(0, 0 if isinstance(puzzle_key, int | np.integer) else slice(None))
        for axis in reversed(range(out.ndim)):  # an int drops its axis: start from the last
            out = out[(slice(None),) * axis + (picks[axis],)]
        return out

    def _puzzles(self, key: Any) -> Sequence[int]:
        n = self.shape[0]
        if isinstance(key, slice):
            return range(*key.indices(n))
        keys = np.atleast_1d(np.asarray(key))
        if keys.dtype == bool and keys.shape == (n,):
            return np.flatnonzero(keys).tolist()
        if keys.ndim != 1 or (keys.size and keys.dtype.kind not in "iu"):
            raise IndexError(f"{self.name}: {key!r} is not a puzzle, slice, list, or mask of {n}")
        puzzles = [int(i) + n if i < 0 else int(i) for i in keys]
        if wrong := [i for i in puzzles if not 0 <= i < n]:
            raise IndexError(f"{self.name}: no puzzle {wrong[0]}; there are {n}")
        return puzzles

    def _axis(self, dim: str, key: Any) -> tuple[slice, int | slice | list[int]]:
        """What to read of an axis, and what to take of that."""
        size = self._site.shape[self._site.dims.index(dim)]
        kept = {index: at for at, index in enumerate(self._site.indices(dim))}
        if not isinstance(key, slice):
            try:
                index = operator.index(key)
            except TypeError:
                raise IndexError(f"{self.name}: {dim} takes an int or slice, got {key!r}") from None
            index += size if index < 0 else 0
            if index not in kept:
                raise IndexError(f"{self.name}: no {dim} {key}; recorded are {_spell(list(kept))}")
            return slice(kept[index], kept[index] + 1), 0
        asked = range(*key.indices(size))
        at = [kept[i] for i in asked if i in kept]
        if asked and not at:
            raise IndexError(f"{self.name}: no {dim} in {asked}; recorded are {_spell(list(kept))}")
        if not at:
            return slice(0, 0), slice(None)
        stride = max(1, at[1] - at[0]) if len(at) > 1 else 1
        if at == list(range(at[0], at[-1] + 1, stride)):
            return slice(at[0], at[-1] + 1, stride), slice(None)
        return slice(None), at  # uneven or backwards: read all, then take


def validate(path: str | os.PathLike[str], thorough: bool = True) -> list[str]:
    """Every problem of a store, in words; empty if it is whole.

    Looks for missing shards, or such of another size, gaps, arrays of another shape, type or
    labels, and what a killed run left over; and `thorough`, which reads all of it, for altered
    shards (sha256) and values that are not finite.
    """
    path = Path(path)
    try:
        manifest = Manifest.read(path)
    except StoreError as error:
        return [str(error)]
    problems = [] if manifest.complete else [_unfinished(path, manifest)]
    expected = 0
    for shard in sorted(manifest.shards, key=lambda shard: shard.first_puzzle):
        if shard.first_puzzle != expected:
            problems.append(f"{path}: puzzles {expected}..{shard.first_puzzle - 1} are in no shard")
        expected = shard.first_puzzle + shard.n_puzzles
        problems += _shard_problems(path, manifest, shard, thorough)
    if manifest.complete and expected != manifest.n_puzzles:
        problems.append(f"{path}: shards hold {expected} of {manifest.n_puzzles} puzzles")
    if manifest.complete:
        problems += _content_problems(path / "store.h5", manifest, manifest.n_puzzles)
    listed = {shard.file for shard in manifest.shards}
    left = {file.name for file in (*path.glob("*.partial"), *path.glob("shard-*.h5"))} - listed
    return problems + [f"{path / name} is left over: resume or delete it" for name in sorted(left)]


def _shard_problems(path: Path, manifest: Manifest, shard: Shard, thorough: bool) -> list[str]:
    file = path / shard.file
    if problem := shard.problem(path):
        return [problem]
    if thorough and sha256_of(file) != shard.sha256:
        return [f"{file} was altered (sha256 differs): restore it or record again"]
    if problems := _content_problems(file, manifest, shard.n_puzzles):
        return problems
    if not thorough:
        return []
    with _open_shard(file) as opened:
        return [
            f"{file}: {site.name} is not finite, first in puzzle {shard.first_puzzle + row}"
            for site in manifest.arrays.values()
            if np.dtype(site.dtype).kind == "f"
            and (row := _first_not_finite(dataset(opened, site.name))) is not None
        ]


def _content_problems(file: Path, manifest: Manifest, n: int) -> list[str]:
    """Arrays of a shard or of store.h5 that are not as the manifest says."""
    try:
        with h5py.File(file, "r") as opened:
            found = {
                name: (data.shape, data.dtype, tuple(axis.label for axis in data.dims))
                for name, data in opened.items()
            }
    except Exception as error:  # a damaged file makes h5py raise many kinds
        return [f"{file} cannot be read ({error}): restore it or record again"]
    problems = []
    for site in manifest.arrays.values():
        wanted = ((n, *site.stored_shape), np.dtype(site.dtype), site.labels)
        if found.get(site.name) != wanted:
            problems.append(f"{file}: {site.name} is {found.get(site.name)}, not {wanted}")
    return problems


def _first_not_finite(data: h5py.Dataset) -> int | None:
    """Row of the first NaN or infinity, reading one row at a time."""
    return next((row for row in range(len(data)) if not np.isfinite(data[row]).all()), None)


def _open_shard(file: Path) -> h5py.File:
    """Without a chunk cache, so that one tick of a step reads its own bytes only."""
    try:
        return h5py.File(file, "r", rdcc_nbytes=0)
    except OSError as error:
        raise StoreError(f"{file} cannot be read ({error}): restore it or record again") from None


def _unfinished(path: Path, manifest: Manifest) -> str:
    return (
        f"{path} holds {manifest.done} of {manifest.n_puzzles} puzzles: finish it with "
        "`collect --resume`, or read what is there with allow_incomplete=True"
    )


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


def _expand(key: tuple[Any, ...], ndim: int) -> list[Any]:
    """One key per axis: `...` and the axes that are not named become full slices."""
    dots = [i for i, k in enumerate(key) if k is Ellipsis]
    at = dots[0] if dots else len(key)
    full = [slice(None)] * (ndim - len(key) + len(dots))
    if len(dots) > 1 or len(key) - len(dots) > ndim:
        raise IndexError(f"{len(key)} indices for {ndim} axes")
    return [*key[:at], *full, *key[at + len(dots) :]]


def _spell(indices: Sequence[int]) -> str:
    """
    >>> _spell([0, 1, 2]), _spell([0, 15])
    ('0..2', '0, 15')
    """
    whole = len(indices) > 2 and list(indices) == list(range(indices[0], indices[-1] + 1))
    return f"{indices[0]}..{indices[-1]}" if whole else ", ".join(map(str, indices))
