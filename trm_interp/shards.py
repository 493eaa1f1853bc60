"""Writing an activation store: `layout.py` says what is in one, `store.py` reads it."""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from trm_interp.files import publish, remove_leftovers, sha256_of
from trm_interp.layout import (
    FORMAT,
    SCHEMA_VERSION,
    Manifest,
    Shard,
    Site,
    StoreError,
    check_space,
    estimate_bytes,
    halt_steps,
    readouts,
)


class Team(Protocol):
    """The processes that write a store together, each its own shards (`core.ranks.Ranks`)."""

    rank: int
    size: int

    def objects(self, mine: Any) -> list[Any]: ...


class Alone:
    rank, size = 0, 1

    def objects(self, mine: Any) -> list[Any]:
        return [mine]


class StoreWriter:
    """Writes a store, batch after batch, in puzzle order. Open one with `create`.

        with StoreWriter.create("runs/a", meta, sites, ...) as writer:
            while writer.done < n_puzzles:
                writer.start_batch(32)
                writer.write("z_L", states, step=0)      # [batch, h_cycle, l_cycle, pos, d_model]
                ...                                      # every site, every kept step
                writer.end_batch(inputs=inputs, labels=labels, ...)
            writer.finish()

    Memory stays at one step of one batch, the caller's. Leaving the block early drops the
    unfinished shard; the finished ones stay for `resume`. In a team the shards go round: after
    each of its own a process waits for the others, and the first one names them all.
    """

    def __init__(self, path: Path, manifest: Manifest, lock: int, team: Team) -> None:
        self.path, self.manifest, self.team = path, manifest, team
        size = manifest.shard_puzzles
        n_shards, written = -(-manifest.n_puzzles // size), -(-manifest.done // size)
        # where the next batch of this process starts; alone, the puzzles written so far
        self.done = min((written + team.rank) * size, manifest.n_puzzles)
        self._rounds = -(-(n_shards - written) // team.size)
        self._lock = lock
        self._file: h5py.File | None = None
        self._first = 0  # puzzle of the open shard
        self._batch = 0  # puzzles in the open batch; 0: none is open
        self._missing: set[tuple[str, int | None]] = set()

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        meta: dict[str, Any],
        sites: Iterable[Site],
        *,
        n_puzzles: int,
        n_steps: int,
        n_cells: int,
        shard_puzzles: int,
        resume: bool = False,
        overwrite: bool = False,
        team: Team | None = None,
    ) -> "StoreWriter":
        """Start a store, or with `resume` go on at `writer.done`.

        meta["identity"] holds what makes two runs the same (sha256 of checkpoint and data,
        selection, batch size ...); resuming with another is a StoreError that names the keys.
        FileExistsError if there is a store and neither flag is set, or anything else in `path`.
        `overwrite` removes the old store's files and no others.
        """
        path, team = Path(path), team or Alone()
        if team.rank:  # the first process has made the store when it answers
            team.objects(None)
            return cls(path, Manifest.read(path), -1, team)
        if resume and overwrite:
            raise StoreError(f"{path}: give one of --resume and --overwrite")
        manifest = Manifest(
            json.loads(json.dumps(meta)), tuple(sites), n_puzzles, n_steps, n_cells, shard_puzzles
        )
        _refuse_foreign(path)
        is_new = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        lock = _acquire(path)
        try:
            writer = cls(path, _agreed(path, manifest, resume, overwrite), lock, team)
            if writer.manifest.done == n_puzzles and not writer.manifest.complete:
                writer._complete()
            team.objects(None)
        except BaseException:
            if is_new and not (path / "manifest.json").exists():
                shutil.rmtree(path)
            os.close(lock)
            raise
        return writer

    def start_batch(self, n: int) -> None:
        """The next `n` puzzles follow. A batch must not straddle two shards."""
        first = self.done // self.manifest.shard_puzzles * self.manifest.shard_puzzles
        end = min(first + self.manifest.shard_puzzles, self.manifest.n_puzzles)
        if self._batch or n < 1 or self.done + n > end:
            raise ValueError(
                f"cannot start a batch of {n} at puzzle {self.done}: the shard ends at {end}, "
                f"and {self._batch or 'no'} puzzles are in an open batch"
            )
        if self._file is None:
            self._first = first
            self._file = _new_shard(self._partial, self.manifest, first, end - first)
        self._batch = n
        self._missing = {
            (site.name, step)
            for site in self.manifest.sites
            for step in (site.indices("step") if "step" in site.dims else [None])
        }

    def write(self, name: str, values: np.ndarray, step: int | None = None) -> None:
        """One site at one supervision step (numbered as in the run; None if it has no step axis).

        values: [batch, ...] as stored, without the step axis, in the dtype of the site: rounding
        is the caller's decision.
        """
        if (name, step) not in self._missing:
            raise ValueError(
                f"{name} at step {step} is not awaited: the store keeps {sorted(self._names())} "
                f"at steps {self.manifest.kept('step')}, each once per batch"
            )
        site = self.manifest.arrays[name]
        shape = (self._batch, *site.stored_shape[step is not None :])
        if values.shape != shape or values.dtype != np.dtype(site.dtype):
            raise ValueError(
                f"{name} wants {site.dtype}{list(shape)}, got {values.dtype}{list(values.shape)}"
            )
        at = () if step is None else (site.indices("step").index(step),)
        data = dataset(self._open_file, name).id
        row = self.done % self.manifest.shard_puzzles
        inner = (0,) * (len(shape) - 1)
        for i, one in enumerate(np.ascontiguousarray(values)):
            data.write_direct_chunk((row + i, *at, *inner), one)  # one chunk, past the cache
        self._missing.remove((name, step))

    def end_batch(self, **values: np.ndarray) -> None:
        """Close the batch with its read-outs, each [batch, ...]: all of `readouts` but halt_step.

        halt_step follows from q_halt. Closes a full shard, and the store after the last batch.
        """
        if self._missing or not self._batch:
            raise ValueError(f"the batch lacks {sorted(self._missing, key=str)} or is not open")
        wanted = readouts(self.manifest.n_steps, self.manifest.n_cells)
        if values.keys() != {site.name for site in wanted} - {"halt_step"}:
            raise ValueError(f"read-outs are {[s.name for s in wanted]}, got {sorted(values)}")
        values = values | {"halt_step": halt_steps(np.asarray(values["q_halt"]))}
        row = self.done % self.manifest.shard_puzzles
        for site in wanted:
            exact = _fit(site, np.asarray(values[site.name]), self._batch)
            dataset(self._open_file, site.name)[row : row + self._batch] = exact
        self.done += self._batch
        self._batch = 0
        if self.done % self.manifest.shard_puzzles == 0 or self.done == self.manifest.n_puzzles:
            self._finish_shard()

    def finish(self) -> None:
        """Wait until the shards of all processes are named: the store is complete."""
        while self._rounds:
            self._exchange(None)

    def close(self) -> None:
        """Drop an unfinished shard and let the next writer in."""
        file, self._file = self._file, None
        lock, self._lock = self._lock, -1
        try:
            if file is not None:
                file.close()
                self._partial.unlink()
        finally:
            if lock >= 0:
                os.close(lock)  # releases the flock, as does a kill

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def _open_file(self) -> h5py.File:
        if self._file is None:
            raise ValueError("no batch is open: call start_batch first")
        return self._file

    @property
    def _partial(self) -> Path:
        return self.path / f"{_shard_name(self._first // self.manifest.shard_puzzles)}.partial"

    def _names(self) -> set[str]:
        return {site.name for site in self.manifest.sites}

    def _finish_shard(self) -> None:
        partial, file = self._partial, self._partial.with_suffix("")
        size, first = self.manifest.shard_puzzles, self._first
        self._open_file.close()
        self._file = None
        publish(partial, file)
        shard = Shard(file.name, first, self.done - first, file.stat().st_size, sha256_of(file))
        self.done = min(first + self.team.size * size, self.manifest.n_puzzles)
        self._exchange(shard)

    def _exchange(self, mine: Shard | None) -> None:
        """The end of a round: every process has finished a shard, or had none left."""
        finished = [shard for shard in self.team.objects(mine) if shard is not None]
        self._rounds -= 1
        self.manifest = replace(self.manifest, shards=(*self.manifest.shards, *finished))
        if self.team.rank:
            return
        self.manifest.write(self.path)
        if self._rounds == 0:
            self._complete()

    def _complete(self) -> None:
        _write_virtual(self.path, self.manifest)
        self.manifest = replace(self.manifest, complete=True)
        self.manifest.write(self.path)


def _shard_name(index: int) -> str:
    return f"shard-{index:05d}.h5"


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """The dataset `name`; StoreError if the file has none."""
    data = file.get(name)
    if not isinstance(data, h5py.Dataset):
        raise StoreError(f"{file.filename} has no dataset {name}: record again")
    return data


def _fit(site: Site, values: np.ndarray, n: int) -> np.ndarray:
    """A read-out in its dtype; ValueError on another shape or on integers that do not fit."""
    if values.shape != (n, *site.shape):
        raise ValueError(f"{site.name} wants shape {(n, *site.shape)}, got {values.shape}")
    fitted = values.astype(site.dtype)
    if fitted.dtype.kind != "f" and not np.array_equal(fitted, values):
        raise ValueError(f"{site.name} does not fit {site.dtype}: {values.min()}..{values.max()}")
    return fitted


def _refuse_foreign(path: Path) -> None:
    """FileExistsError if `path` is a file, or a directory with things that are not a store's."""
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"{path} is a file: choose another output")
    remove_leftovers(path)
    held = {file.name for file in path.iterdir()}
    if "manifest.json" not in held and held - {".lock"}:
        raise FileExistsError(f"{path} is not empty and holds no store: choose another output")


def _acquire(path: Path) -> int:
    """The store's lock, as an open file handle: held until that is closed or the process dies."""
    import fcntl  # POSIX only; reading a store works without

    lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StoreError(f"{path} is being written by another process: wait for it") from None
    return lock


def _agreed(path: Path, new: Manifest, resume: bool, overwrite: bool) -> Manifest:
    """Under the lock: the manifest to go on from, on disk, with nothing beside it unlisted."""
    manifest, freed = new, 0
    if (path / "manifest.json").exists():
        old = Manifest.read(path)
        if not (resume or overwrite):
            raise FileExistsError(
                f"{path} holds a store with {old.done} of {old.n_puzzles} puzzles: "
                "use --resume to finish it or --overwrite to replace it"
            )
        if resume:
            _compare(path, old, new)
            if problem := next(filter(None, (shard.problem(path) for shard in old.shards)), None):
                raise StoreError(problem)
            manifest = old
        else:
            freed = sum(shard.bytes for shard in old.shards)
    check_space(path, estimate_bytes(new.sites, new.n_puzzles - manifest.done) - freed)
    if manifest is new:
        manifest.write(path)
    listed = {shard.file for shard in manifest.shards}
    if manifest.complete:
        listed.add("store.h5")
    for pattern in ("shard-*.h5", "store.h5", "*.h5.partial"):
        for file in path.glob(pattern):
            if file.name not in listed:
                file.unlink()
    return manifest


def _compare(path: Path, old: Manifest, new: Manifest) -> None:
    """StoreError naming each key of the identity that differs, with both values."""
    there, now = old.identity(), new.identity()
    if differing := [
        f"{key} ({there.get(key)!r} there, {now.get(key)!r} now)"
        for key in sorted(there | now)
        if there.get(key) != now.get(key)
    ]:
        raise StoreError(f"cannot resume {path} with other settings: {'; '.join(differing)}")


def _describe(file: h5py.File, manifest: Manifest, meta: dict[str, Any]) -> None:
    file.attrs["format"] = FORMAT
    file.attrs["schema_version"] = SCHEMA_VERSION
    file.attrs["steps"] = manifest.kept("step")
    file.attrs["positions"] = manifest.kept("pos")
    file.attrs["meta"] = json.dumps(meta)


def _label(data: h5py.Dataset, site: Site) -> None:
    for axis, label in zip(data.dims, site.labels, strict=True):
        axis.label = label


def _new_shard(partial: Path, manifest: Manifest, first: int, n: int) -> h5py.File:
    """States in one chunk per puzzle and supervision step, uncompressed; read-outs contiguous."""
    file = h5py.File(partial, "w")
    _describe(file, manifest, {"identity": manifest.meta.get("identity", {})})
    file.attrs["first_puzzle"] = first
    for site in manifest.arrays.values():
        shape = (n, *site.stored_shape)
        chunks = (
            1,
            *(
                1 if dim == "step" else size
                for dim, size in zip(site.dims, site.stored_shape, strict=True)
            ),
        )
        is_state = site in manifest.sites
        data = file.create_dataset(
            site.name, shape, site.dtype, chunks=chunks if is_state else None
        )
        _label(data, site)
    return file


def _write_virtual(path: Path, manifest: Manifest) -> None:
    """store.h5; where a shard is lost, plain HDF5 readers see NaN in it instead of an error."""
    partial = path / "store.h5.partial"
    with h5py.File(partial, "w") as file:
        _describe(file, manifest, manifest.meta)
        for site in manifest.arrays.values():
            layout = h5py.VirtualLayout((manifest.n_puzzles, *site.stored_shape), site.dtype)
            for shard in manifest.shards:
                rows = slice(shard.first_puzzle, shard.first_puzzle + shard.n_puzzles)
                layout[rows] = h5py.VirtualSource(
                    shard.file, site.name, (shard.n_puzzles, *site.stored_shape)
                )
            fill = np.nan if np.dtype(site.dtype).kind == "f" else None
            _label(file.create_virtual_dataset(site.name, layout, fillvalue=fill), site)
    publish(partial, path / "store.h5")
