"""The manifest of an activation store: what was recorded, checked field by field when it is read.

A store is a directory:

    manifest.json     what was recorded, and every finished shard with its sha256
    shard-00000.h5    `shard_puzzles` puzzles each, all arrays
    store.h5          once complete: each array whole, as a virtual dataset over the shards

A shard is written as `*.partial`, closed, fsynced, renamed and only then named in the manifest,
so a killed run loses at most one shard and `resume` goes on after the last one that is named.
"""

import math
import stat
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from trm_interp.recording.recorded import Axis, Index, Puzzles, Recorded, Text
from trm_interp.recording.recorded import Identity as Identity
from trm_interp.recording.recorded import ModelShape as ModelShape
from trm_interp.recording.schema import (
    LARGEST_AXIS,
    MOST_AXES,
    MOST_KEPT,
    MOST_PUZZLES,
    MOST_TICKS,
    Site,
    StoreError,
    readouts,
    trm_recursion,
)
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import sha256_of, write_json
from trm_interp.runtime.schema import convert, read_json

FORMAT = "trm_interp activation store"
SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
ADVICE = "restore it, or delete the store and record again"
RESTORE = "restore it, or record it again with `collect --resume`"
COPY = "copy the store with its files (`cp -rL`)"


@dataclass(frozen=True)
class Shard:
    """A finished shard, as the manifest names it."""

    file: Text
    first_puzzle: Annotated[int, Meta(ge=0, lt=MOST_PUZZLES)]
    n_puzzles: Puzzles
    bytes: Annotated[int, Meta(ge=1, le=10**15)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]

    def problem(self, path: Path) -> str | None:
        """What is wrong with the file in store `path`, judged by presence, kind and size."""
        file = path / self.file
        try:
            stats = file.lstat()
        except FileNotFoundError:
            return f"{file} is missing: {RESTORE}"
        if stat.S_ISLNK(stats.st_mode):
            return f"{file} is a link, which files of a store must not be: {COPY}"
        if not stat.S_ISREG(stats.st_mode):
            return f"{file} is not a regular file, which a shard must be: {RESTORE}"
        if stats.st_size != self.bytes:
            return f"{file} has {stats.st_size} bytes instead of {self.bytes}: {RESTORE}"
        return None

    def altered(self, path: Path) -> str | None:
        """What is wrong with its content; reads the whole file."""
        file = path / self.file
        if sha256_of(file) != self.sha256:
            return f"{file} was altered (sha256 differs): {RESTORE}"
        return None


def shard_name(index: int) -> str:
    """
    >>> shard_name(7)
    'shard-00007.h5'
    """
    return f"shard-{index:05d}.h5"


@dataclass(frozen=True)
class Manifest:
    """What a store holds. `sites` carry the selection; `meta` is free apart from `Recorded`."""

    meta: dict[str, Any]
    sites: tuple[Site, ...]
    n_puzzles: int
    n_steps: int
    n_cells: int
    shard_puzzles: int
    shards: tuple[Shard, ...] = ()
    complete: bool = False

    def __post_init__(self) -> None:
        limits = {"n_puzzles": MOST_PUZZLES, "shard_puzzles": MOST_PUZZLES}
        for name in ("n_puzzles", "n_steps", "n_cells", "shard_puzzles"):
            value, most = getattr(self, name), limits.get(name, LARGEST_AXIS)
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
            if value > most:
                raise ValueError(f"{name} must be at most {most}, got {value}")
        names = [s.name for s in (*self.sites, *self.readouts)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two arrays of one name: {twice}")
        stepped = [s for s in self.sites if "step" in s.dims]
        if any(s.shape[0] != self.n_steps for s in stepped):
            raise ValueError(f"{[(s.name, s.shape[0]) for s in stepped]}: not {self.n_steps} steps")
        for dim in ("step", "pos"):
            if len({tuple(s.indices(dim)) for s in self.sites if dim in s.dims}) > 1:
                raise ValueError(f"all sites must keep the same indices of {dim}")
            if len(self.kept(dim)) > MOST_KEPT:
                raise ValueError(f"a store keeps at most {MOST_KEPT} indices of {dim}")
        recursion = self.recorded.recursion or trm_recursion(1, 1)  # whose axes are all TRMs'
        for site in self.sites:
            if (expected := recursion.dims(site.name)) and site.dims != expected:
                raise ValueError(f"{site.name} has axes {', '.join(expected)}, got {site.dims}")
            if site.dtype not in ("float16", "float32", "float64"):
                raise ValueError(f"{site.name} must be of floats, got {site.dtype[:30]!r}")
        self._check_model()
        self._check_shards()

    def _check_model(self) -> None:
        """ValueError where `meta` says other sizes than the arrays have."""
        model, recursion = self.recorded.model, self.recorded.recursion
        if recursion is None:
            return
        cycles = "meta.model" if self.recorded.identity.schedule is None else "its schedule"
        sizes: dict[str, int | None] = {"h_cycle": recursion.schedule.h_cycles}
        evaluations = recursion.schedule.evaluations
        if self.n_steps * evaluations > MOST_TICKS:
            raise ValueError(
                f"{self.n_steps} steps of {evaluations} network evaluations are more "
                f"than a run has ({MOST_TICKS})"
            )
        if model is not None:
            if model.cells != self.n_cells:
                raise ValueError(f"meta.model.cells {model.cells} is not n_cells {self.n_cells}")
            if model.h_cycles != recursion.schedule.h_cycles:
                raise ValueError(
                    f"meta.model.h_cycles {model.h_cycles} is not that of the schedule, "
                    f"{recursion.schedule.h_cycles}"
                )
            sizes |= {"pos": model.prefix + model.cells, "d_model": model.d_model}
            sizes |= {"cell": model.cells, "vocab": model.vocab}
        for site in self.sites:
            for dim, size in zip(site.dims, site.shape, strict=True):
                expected = recursion.l_cycles(site.name) if dim == "l_cycle" else sizes.get(dim)
                if expected is not None and size != expected:
                    source = cycles if dim in ("h_cycle", "l_cycle") else "meta.model"
                    raise ValueError(f"{site.name}: {dim} {size}, but {source} says {expected}")

    def _check_shards(self) -> None:
        """ValueError where shards are not as `collect` cuts them, or too small for their puzzles.

        A shard's name follows from its place, so none of them can be outside the folder.
        """
        size, per_puzzle = self.shard_puzzles, self.bytes_per_puzzle
        for shard in self.shards:
            index, offset = divmod(shard.first_puzzle, size)
            length = min(size, self.n_puzzles - shard.first_puzzle)
            if shard.file != shard_name(index) or offset or shard.n_puzzles != length:
                raise ValueError(
                    f"shard {shard.file[:60]!r} with {shard.n_puzzles} puzzles from "
                    f"{shard.first_puzzle} on does not fit shards of {size}"
                )
            if shard.n_puzzles * per_puzzle > shard.bytes:
                raise ValueError(
                    f"{shard.file} has {shard.bytes} bytes, too few for {shard.n_puzzles} puzzles "
                    f"of {per_puzzle}"
                )
        if len({shard.file for shard in self.shards}) < len(self.shards):
            raise ValueError("a shard is listed twice")

    @cached_property
    def recorded(self) -> Recorded:
        return convert(self.meta, Recorded, "meta", StoreError, "record again")

    @cached_property
    def arrays(self) -> dict[str, Site]:
        """Sites and read-outs by name."""
        return {s.name: s for s in (*self.sites, *self.readouts)}

    @property
    def readouts(self) -> tuple[Site, ...]:
        """What it holds of every step, whichever sites were recorded."""
        schedule = self.recorded.identity.schedule
        h_cycles = 1 if schedule is None else schedule.h_cycles
        return readouts(self.n_steps, self.n_cells, self.recorded.more_readouts, h_cycles)

    @property
    def bytes_per_puzzle(self) -> int:
        """In a shard, without HDF5's own bytes."""
        sites = self.arrays.values()
        return sum(math.prod(s.stored_shape) * np.dtype(s.dtype).itemsize for s in sites)

    def kept(self, dim: str) -> list[int]:
        """Indices of `step` or `pos` whose states are stored; empty if no site has this axis."""
        return next((list(s.indices(dim)) for s in self.sites if dim in s.dims), [])

    @property
    def done(self) -> int:
        """Puzzles in finished shards, counted up to the first gap."""
        done = 0
        for shard in sorted(self.shards, key=lambda shard: shard.first_puzzle):
            if shard.first_puzzle != done:
                break
            done += shard.n_puzzles
        return done

    @property
    def missing_shards(self) -> list[int]:
        """Indices of the shards that are not finished, in order."""
        finished = {shard.first_puzzle // self.shard_puzzles for shard in self.shards}
        n_shards = -(-self.n_puzzles // self.shard_puzzles)
        return [index for index in range(n_shards) if index not in finished]

    def identity(self) -> dict[str, Any]:
        """What must agree for a run to be resumed.

        Stores from before there were other architectures name none; what they leave out is TRM's.
        """
        recursion = self.recorded.recursion
        sites = {s.name: f"{s.dtype} {dict(zip(s.dims, s.shape, strict=True))}" for s in self.sites}
        sizes = ("n_puzzles", "n_steps", "n_cells", "shard_puzzles")
        return {
            **({} if recursion is None else recursion.to_json()),
            **self.meta.get("identity", {}),
            **{name: getattr(self, name) for name in sizes},
            **{f"site {name}": text for name, text in sites.items()},
            "steps": self.kept("step"),
            "positions": self.kept("pos"),
        }

    def write(self, path: Path) -> None:
        head = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "complete": self.complete}
        sizes = ("meta", "n_puzzles", "n_steps", "n_cells", "shard_puzzles")
        body = {
            **{name: getattr(self, name) for name in sizes},
            "steps": self.kept("step"),
            "positions": self.kept("pos"),
            "sites": [{k: v for k, v in asdict(s).items() if k != "kept"} for s in self.sites],
            "shards": [asdict(shard) for shard in self.shards],
        }
        write_json(path / MANIFEST, head | body)

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """StoreError names the file, the field and what was expected there."""
        file = path / MANIFEST
        if not file.exists():
            raise StoreError(f"{path}: no store here; record one with `trm-interp collect`")
        try:
            document = read_json(file, dict[str, Any], StoreError, ADVICE)
        except UserError as error:  # a pipe, a device
            raise StoreError(str(error)) from None
        head = convert(document, _Head, str(file), StoreError, ADVICE)
        if head.format != FORMAT:
            raise StoreError(f"{file} describes a {head.format[:60]!r}, not a {FORMAT!r}")
        if head.schema_version != SCHEMA_VERSION:
            raise StoreError(
                f"{file} has schema version {head.schema_version}, this trm_interp reads "
                f"{SCHEMA_VERSION}: use the trm_interp that wrote it, or delete it and record again"
            )
        body = convert(document, _Body, str(file), StoreError, ADVICE)
        try:
            return cls(
                document["meta"],
                tuple(site.selected(body.steps, body.positions) for site in body.sites),
                body.n_puzzles,
                body.n_steps,
                body.n_cells,
                body.shard_puzzles,
                tuple(body.shards),
                body.complete,
            )
        except ValueError as error:
            raise StoreError(f"{file}: {str(error)[:200]}: {ADVICE}") from None


@dataclass
class _Head:
    format: str
    schema_version: int


@dataclass
class _Site:
    name: Annotated[str, Meta(max_length=100)]
    dims: Annotated[list[Annotated[str, Meta(max_length=30)]], Meta(max_length=MOST_AXES)]
    shape: Annotated[list[Axis], Meta(max_length=MOST_AXES)]
    dtype: str

    def selected(self, steps: Iterable[int], positions: Iterable[int]) -> Site:
        site = Site(self.name, tuple(self.dims), tuple(self.shape), self.dtype)
        return site.select(steps, positions)


@dataclass
class _Body:
    meta: Recorded
    n_puzzles: Puzzles
    n_steps: Axis
    n_cells: Axis
    shard_puzzles: Puzzles
    steps: Annotated[list[Index], Meta(max_length=LARGEST_AXIS)]
    positions: Annotated[list[Index], Meta(max_length=LARGEST_AXIS)]
    sites: Annotated[list[_Site], Meta(max_length=1000)]
    shards: list[Shard]
    complete: bool
