"""What an activation store holds: its arrays, its sizes, its manifest.

A store is a directory:

    manifest.json     what was recorded, and every finished shard with its sha256
    shard-00000.h5    `shard_puzzles` puzzles each, all arrays
    store.h5          once complete: each array whole, as a virtual dataset over the shards

A shard is written as `*.partial`, closed, fsynced, renamed and only then named in the manifest,
so a killed run loses at most one shard and `resume` goes on after the last one that is named.
"""

import errno
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trm_interp.errors import UserError
from trm_interp.files import write_json
from trm_interp.shapes import Float, Int

FORMAT = "trm_interp activation store"
SCHEMA_VERSION = 1
MANIFEST = "manifest.json"


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
        if "step" in self.dims[1:] or "/" in self.name:
            raise ValueError(f"{self.name}: `step` must be the first axis, and a name has no '/'")

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
                raise ValueError(f"{self.name} has {dim} 0..{size - 1}, got {list(indices)}")
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


def readouts(n_steps: int, n_cells: int) -> tuple[Site, ...]:
    """What every store holds for all supervision steps, whichever states it keeps.

    inputs, labels, predictions: tokens. solved: all cells right. loss: stablemax cross-entropy,
    nats per cell. q_halt: halting logit. halt_step: first step with q_halt > 0, or -1.
    puzzle_id: line in the source file, from 1 (a public data folder: row, from 0).
    """
    run = ("step",), (n_steps,)
    return (
        Site("inputs", ("cell",), (n_cells,), "uint8"),
        Site("labels", ("cell",), (n_cells,), "uint8"),
        Site("predictions", ("step", "cell"), (n_steps, n_cells), "uint8"),
        Site("solved", *run, "bool"),
        Site("loss", *run, "float32"),
        Site("q_halt", *run, "float32"),
        Site("halt_step", (), (), "int16"),
        Site("puzzle_id", (), (), "int64"),
    )


def halt_steps(q_halt: Float[np.ndarray, "puzzle step"]) -> Int[np.ndarray, " puzzle"]:
    """First supervision step with q_halt > 0, or -1.

    >>> halt_steps(np.array([[-1.0, 2.0, 3.0], [-1.0, 0.0, -1.0]])).tolist()
    [1, -1]
    """
    halts = q_halt > 0
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


def check_space(path: str | os.PathLike[str], n_bytes: int) -> None:
    """OSError with both numbers if the disk that holds (or will hold) `path` is too full."""
    where = Path(path).absolute()
    while not where.exists():
        where = where.parent
    free = shutil.disk_usage(where).free
    if n_bytes > free:
        raise OSError(
            errno.ENOSPC,
            f"{path} needs {n_bytes / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB free: "
            "keep fewer --puzzles, --sites, --steps or --positions",
        )


class Shard(NamedTuple):
    """A finished shard, as the manifest names it."""

    file: str
    first_puzzle: int
    n_puzzles: int
    bytes: int
    sha256: str

    def problem(self, path: Path) -> str | None:
        """What is wrong with the file in store `path`, by presence and size alone."""
        file = path / self.file
        if not file.is_file():
            return f"{file} is missing: restore it, or record again with `collect --overwrite`"
        if (size := file.stat().st_size) != self.bytes:
            return (
                f"{file} has {size} bytes instead of {self.bytes}: restore it, "
                "or record again with `collect --overwrite`"
            )


@dataclass(frozen=True)
class Manifest:
    """What a store holds. `sites` carry the selection; `meta` is free but for `identity`."""

    meta: dict[str, Any]
    sites: tuple[Site, ...]
    n_puzzles: int
    n_steps: int
    n_cells: int
    shard_puzzles: int
    shards: tuple[Shard, ...] = ()
    complete: bool = False

    def __post_init__(self) -> None:
        for name in ("n_puzzles", "n_steps", "n_cells", "shard_puzzles"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        names = [s.name for s in (*self.sites, *readouts(self.n_steps, self.n_cells))]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two arrays of one name: {twice}")
        stepped = [s for s in self.sites if "step" in s.dims]
        if any(s.shape[0] != self.n_steps for s in stepped):
            raise ValueError(f"{[(s.name, s.shape[0]) for s in stepped]}: not {self.n_steps} steps")
        for dim in ("step", "pos"):
            if len({tuple(s.indices(dim)) for s in self.sites if dim in s.dims}) > 1:
                raise ValueError(f"all sites must keep the same indices of {dim}")

    @cached_property
    def arrays(self) -> dict[str, Site]:
        """Sites and read-outs by name."""
        return {s.name: s for s in (*self.sites, *readouts(self.n_steps, self.n_cells))}

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

    def identity(self) -> dict[str, Any]:
        """What must agree for a run to be resumed, as flat keys."""
        sites = {s.name: f"{s.dtype} {dict(zip(s.dims, s.shape, strict=True))}" for s in self.sites}
        sizes = ("n_puzzles", "n_steps", "n_cells", "shard_puzzles")
        return _flat(self.meta.get("identity", {})) | {
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
            "shards": [shard._asdict() for shard in self.shards],
        }
        write_json(path / MANIFEST, head | body)

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        file = path / MANIFEST
        if not file.is_file():
            raise StoreError(f"{path} has no manifest.json: record a store with `collect` first")
        try:
            raw = json.loads(file.read_bytes())
            name, version = raw.pop("format"), raw.pop("schema_version")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise StoreError(f"{file} cannot be read ({error!r}): restore it") from None
        if name != FORMAT:
            raise StoreError(f"{file} describes a {name!r}, not a {FORMAT!r}")
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{file} has schema version {version}, this trm_interp reads {SCHEMA_VERSION}: "
                "use the trm_interp that wrote it, or delete it and record again"
            )
        try:
            steps, positions = raw.pop("steps"), raw.pop("positions")
            raw["sites"] = tuple(
                Site(s["name"], tuple(s["dims"]), tuple(s["shape"]), s["dtype"]).select(
                    steps, positions
                )
                for s in raw["sites"]
            )
            raw["shards"] = tuple(Shard(**shard) for shard in raw["shards"])
            return cls(**raw)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{file} is damaged ({error!r}): restore it or record again") from None


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat
