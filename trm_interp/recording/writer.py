"""Writing an activation store: `manifest.py` says what is in one, `store.py` reads it."""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from trm_interp.recording.claim import Claim, complete
from trm_interp.recording.hdf5 import ShardFile
from trm_interp.recording.manifest import Manifest, Shard, shard_name
from trm_interp.recording.schema import Site, StoreError
from trm_interp.runtime.files import disk_errors, replacing, sha256_of
from trm_interp.runtime.progress import Update
from trm_interp.runtime.runs import Tell, quiet, silent


class Team(Protocol):
    """The processes that write a store together, each its own shards (`core.ranks.Ranks`)."""

    rank: int
    size: int

    def objects(self, mine: Any) -> list[Any]: ...


class SingleProcess:
    """A team of one."""

    rank, size = 0, 1

    def objects(self, mine: Any) -> list[Any]:
        return [mine]


def every(index: int) -> bool:
    """All shards."""
    return True


def none(index: int) -> bool:
    """No shard."""
    return False


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

    def __init__(self, claim: Claim, team: Team, is_own: Callable[[int], bool] = every) -> None:
        self.claim, self.team = claim, team
        self.path, self.manifest = claim.out, claim.manifest
        missing = [index for index in self.manifest.missing_shards if is_own(index)]
        self._rounds = -(-len(missing) // team.size)
        self._shards = missing[team.rank :: team.size]  # those that this process is to write
        self._file: ShardFile | None = None
        self._batch = 0  # puzzles in the open batch; 0: none is open
        self._awaited: set[tuple[str, int | None]] = set()
        self.done = self._next()

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
        is_own: Callable[[int], bool] = every,
        adopts: bool = False,
        tell: Tell = silent,
        progress: Update = quiet,
    ) -> "StoreWriter":
        """Start a store, or with `resume` go on with what it lacks, from puzzle `done` on.

        meta["identity"] holds what makes two runs the same (sha256 of checkpoint and data,
        selection, batch size ...); resuming with another is a StoreError that names the fields.
        Shards that are missing or not what was written (sha256) are recorded again.
        OutputExists if there is a store and neither flag is set, or anything else in `path`.
        `overwrite` removes the old store's files and no others. `is_own`: which shards, by their
        index, are written at all; the store stays unfinished without the others. `adopts`: whether
        they are taken from other stores, for which no room on the disk is required.
        """
        path = Path(path)
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
        claim = Claim(
            path,
            "collect",
            (),
            new=manifest,
            records=none if adopts else is_own,
            resume=resume,
            overwrite=overwrite,
            team=team,
            tell=tell,
            progress=progress,
        )
        claim.__enter__()
        try:
            return cls(claim, team or SingleProcess(), is_own)
        except BaseException:
            claim.__exit__(None, None, None)
            raise

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
        self._awaited = {
            (site.name, step)
            for site in self.manifest.sites
            for step in (site.indices("step") if "step" in site.dims else [None])
        }

    def write(self, name: str, values: np.ndarray, step: int | None = None) -> None:
        """One site at one supervision step (numbered as in the run; None if it has no step axis).

        values: [batch, ...] as stored, without the step axis, in the dtype of the site: rounding
        is the caller's decision.
        """
        if (name, step) not in self._awaited:
            raise ValueError(
                f"{name} at step {step} is not expected: the store keeps {sorted(self._names())} "
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
        self._awaited.remove((name, step))

    def end_batch(self, **values: np.ndarray) -> None:
        """Close the batch with its read-outs, each [batch, ...]: all of `schema.readouts`.

        Closes a full shard, and the store after the last batch.
        """
        if self._awaited or not self._batch:
            raise ValueError(f"the batch lacks {sorted(self._awaited, key=str)} or is not open")
        wanted = self.manifest.readouts
        if values.keys() != {site.name for site in wanted}:
            raise ValueError(f"read-outs are {[s.name for s in wanted]}, got {sorted(values)}")
        row = self.done % self.manifest.shard_puzzles
        for site in wanted:
            exact = _fit(site, np.asarray(values[site.name]), self._batch)
            self._open_file.write_rows(site.name, row, exact)
        self.done += self._batch
        self._batch = 0
        if self.done % self.manifest.shard_puzzles == 0 or self.done == self.manifest.n_puzzles:
            self._finish_shard()

    def finish(self) -> None:
        """Wait until the shards of all processes are listed: the store is complete."""
        while self._rounds:
            self._exchange(None)

    def adopt(self, source: Path, shard: Shard, move: bool) -> None:
        """Take the next shard from another store of the same identity: linked where that can be, or
        copied. StoreError where it is not what was recorded there.

        `move`: delete it there, once the manifest here names it, so that it is never in no store.
        """
        if problem := shard.problem(source) or shard.altered(source):
            raise StoreError(problem)
        to = self.path / shard.file
        with disk_errors(to):
            take(source / shard.file, to)
        del self._shards[0]
        self.done = self._next()
        self._exchange(shard)
        if move:
            (source / shard.file).unlink()

    def close(self) -> None:
        """Drop an unfinished shard and let the next writer in."""
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        file, self._file = self._file, None
        try:
            if file is not None:
                file.drop()
        finally:
            self.claim.__exit__(kind, error, trace)

    @property
    def left(self) -> int:
        """Puzzles that this process is still to write."""
        size, n = self.manifest.shard_puzzles, self.manifest.n_puzzles
        whole = sum(min(size, n - index * size) for index in self._shards)
        return whole - (self.done - self._next())

    @property
    def _open_file(self) -> ShardFile:
        if self._file is None:
            raise ValueError("no batch is open: call start_batch first")
        return self._file

    def _names(self) -> set[str]:
        return {site.name for site in self.manifest.sites}

    def _next(self) -> int:
        """First puzzle of the next shard that this process is to write; their number after all."""
        size = self.manifest.shard_puzzles
        return self._shards[0] * size if self._shards else self.manifest.n_puzzles

    def _finish_shard(self) -> None:
        open_file = self._open_file
        first, file = open_file.first, open_file.path.with_suffix("")
        open_file.publish(file)
        self._file = None
        shard = Shard(file.name, first, self.done - first, file.stat().st_size, sha256_of(file))
        del self._shards[0]
        self.done = self._next()
        self._exchange(shard)

    def _exchange(self, mine: Shard | None) -> None:
        """The end of a round: every process has finished a shard, or had none left."""
        finished = [shard for shard in self.team.objects(mine) if shard is not None]
        self._rounds -= 1
        self.manifest = replace(self.manifest, shards=(*self.manifest.shards, *finished))
        if self.team.rank:
            return
        self.manifest.write(self.path)
        if self._rounds == 0 and not self.manifest.missing_shards:
            self.manifest = complete(self.path, self.manifest)


def take(source: Path, to: Path) -> None:
    """Link or copy a file; it is complete under its new name, or not there."""
    with suppress(OSError):  # another file system, or one without links
        os.link(source, to)
        return
    with replacing(to) as partial:
        shutil.copyfile(source, partial)


def _fit(site: Site, values: np.ndarray, n: int) -> np.ndarray:
    """A read-out in its dtype; ValueError on another shape or on integers that do not fit."""
    if values.shape != (n, *site.shape):
        raise ValueError(f"{site.name} wants shape {(n, *site.shape)}, got {values.shape}")
    fitted = values.astype(site.dtype)
    if fitted.dtype.kind != "f" and not np.array_equal(fitted, values):
        raise ValueError(f"{site.name} does not fit {site.dtype}: {values.min()}..{values.max()}")
    return fitted
