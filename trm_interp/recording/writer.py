"""Writing an activation store: `manifest.py` says what is in one, `store.py` reads it."""

import json
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from trm_interp.recording.hdf5 import STORE, ShardFile, virtual_problems, write_virtual
from trm_interp.recording.manifest import MANIFEST, Manifest, Shard, shard_name
from trm_interp.recording.schema import (
    Site,
    StoreError,
    check_space,
    estimate_bytes,
    halt_steps,
    readouts,
)
from trm_interp.runtime.files import remove_leftovers, sha256_of
from trm_interp.runtime.limits import shown
from trm_interp.runtime.locks import LOCK, Lock
from trm_interp.runtime.outputs import MARKER

LONG = 1e9  # bytes whose checking takes long enough to be told
OWN = re.compile(r"(shard-\d{5,9}|store)\.h5(\.partial)?")  # names of all files of a store


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

    def __init__(self, path: Path, manifest: Manifest, lock: Lock | None, team: Team) -> None:
        self.path, self.manifest, self.team = path, manifest, team
        size = manifest.shard_puzzles
        n_shards, written = -(-manifest.n_puzzles // size), -(-manifest.done // size)
        # where the next batch of this process starts; alone, the puzzles written so far
        self.done = min((written + team.rank) * size, manifest.n_puzzles)
        self._rounds = -(-(n_shards - written) // team.size)
        self._lock = lock
        self._file: ShardFile | None = None
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
        tell: Callable[[str], None] = lambda line: None,
    ) -> "StoreWriter":
        """Start a store, or with `resume` go on at `writer.done`.

        meta["identity"] holds what makes two runs the same (sha256 of checkpoint and data,
        selection, batch size ...); resuming with another is a StoreError that names the keys, and
        with shards that are not what was written (sha256) one that names the shard.
        FileExistsError if there is a store and neither flag is set, or anything else in `path`.
        `overwrite` removes the old store's files and no others.
        """
        path, team = Path(path), team or Alone()
        if team.rank:  # the first process has made the store when it answers
            team.objects(None)
            return cls(path, Manifest.read(path), None, team)
        if resume and overwrite:
            raise StoreError(f"{path}: give one of --resume and --overwrite")
        try:
            manifest = Manifest(
                json.loads(json.dumps(meta)),
                tuple(sites),
                n_puzzles,
                n_steps,
                n_cells,
                shard_puzzles,
            )
        except ValueError as error:
            raise StoreError(f"{path}: {error}") from None
        _refuse_foreign(path)
        is_new = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        lock = Lock(path / LOCK, path)
        try:
            agreed = _agreed(path, manifest, resume, overwrite, tell)
            writer = cls(path, agreed, lock, team)
            if agreed.done == n_puzzles and (not agreed.complete or virtual_problems(path, agreed)):
                writer._complete()
            team.objects(None)
        except BaseException:
            lock.release()
            if is_new:
                with suppress(OSError):
                    path.rmdir()  # where nothing came to be
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
            partial = self.path / f"{shard_name(first // self.manifest.shard_puzzles)}.partial"
            self._file = ShardFile(partial, self.manifest, first, end - first)
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
        self._open_file.write_chunks(name, self.done % self.manifest.shard_puzzles, at, values)
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
            self._open_file.write_rows(site.name, row, exact)
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
        lock, self._lock = self._lock, None
        try:
            if file is not None:
                file.drop()
        finally:
            if lock is not None:
                lock.release()

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def _open_file(self) -> ShardFile:
        if self._file is None:
            raise ValueError("no batch is open: call start_batch first")
        return self._file

    def _names(self) -> set[str]:
        return {site.name for site in self.manifest.sites}

    def _finish_shard(self) -> None:
        open_file, size = self._open_file, self.manifest.shard_puzzles
        first, file = open_file.first, open_file.path.with_suffix("")
        open_file.publish(file)
        self._file = None
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
        write_virtual(self.path, self.manifest)
        self.manifest = replace(self.manifest, complete=True)
        self.manifest.write(self.path)


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
    if MANIFEST not in held and held - {LOCK, MARKER}:
        raise FileExistsError(f"{path} is not empty and holds no store: choose another output")


def _agreed(
    path: Path, new: Manifest, resume: bool, overwrite: bool, tell: Callable[[str], None]
) -> Manifest:
    """Under the lock: the manifest to go on from, on disk, with nothing beside it unlisted."""
    manifest, freed = new, 0
    if (path / MANIFEST).exists():
        old = Manifest.read(path)
        if not (resume or overwrite):
            raise FileExistsError(
                f"{path} holds a store with {old.done} of {old.n_puzzles} puzzles: "
                "use --resume to finish it or --overwrite to replace it"
            )
        if resume:
            _compare(path, old, new)
            _check_shards(path, old, tell)
            manifest = old
        else:
            freed = sum(shard.bytes for shard in old.shards)
    check_space(path, estimate_bytes(new.sites, new.n_puzzles - manifest.done) - freed)
    if manifest is new:
        manifest.write(path)
    listed = {shard.file for shard in manifest.shards}
    if manifest.complete:
        listed.add(STORE)
    for file in left_over(path, listed):
        file.unlink()
    return manifest


def left_over(path: Path, listed: set[str]) -> list[Path]:
    """Files by the names of a store's own that are not of the finished part; no foreign ones."""
    return [f for f in sorted(path.iterdir()) if OWN.fullmatch(f.name) and f.name not in listed]


def _check_shards(path: Path, manifest: Manifest, tell: Callable[[str], None]) -> None:
    """StoreError for the first shard that is not what was written."""
    if (size := sum(shard.bytes for shard in manifest.shards)) > LONG:
        tell(f"checking the {len(manifest.shards)} shards that are kept ({size / 1e9:.1f} GB)")
    for shard in manifest.shards:
        if problem := shard.problem(path) or shard.altered(path):
            raise StoreError(problem)


def _compare(path: Path, old: Manifest, new: Manifest) -> None:
    """StoreError naming each key of the identity that differs, with both values."""
    there, now = old.identity(), new.identity()
    if differing := [
        f"{key} ({shown(repr(there.get(key)))} there, {shown(repr(now.get(key)))} now)"
        for key in sorted(there | now)
        if there.get(key) != now.get(key)
    ]:
        more = f"; and {len(differing) - 3} more" if len(differing) > 3 else ""
        said = "; ".join(differing[:3]) + more
        raise StoreError(f"cannot resume {path} with other settings: {said}")
