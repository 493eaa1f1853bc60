"""The folder of a store while it is written: one writer at a time, agreed with what is there."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from trm_interp.recording.hdf5 import STORE, virtual_problems, write_virtual
from trm_interp.recording.manifest import MANIFEST, Manifest, Shard
from trm_interp.recording.schema import StoreError, check_space, estimate_bytes
from trm_interp.runtime.files import remove_leftovers
from trm_interp.runtime.identity import require_same
from trm_interp.runtime.locks import LOCK, locked_folder
from trm_interp.runtime.outputs import MARKER, Team
from trm_interp.runtime.progress import Update
from trm_interp.runtime.runs import Tell, Work

LONG = 1e9  # bytes whose checking takes long enough to be announced
OWN = re.compile(r"(shard-\d{5,9}|store)\.h5(\.partial)?")  # names of all files of a store


class Claim(Work):
    """Holds the folder of a store inside a block, as `runtime.runs.Run` does other outputs.

    A store's manifest is its marker, its identity and its account of what is done, so that stores
    need no other file. In the block, `manifest` is what to go on from: on disk, with no file of a
    store beside it that it does not list. `begun` says whether it lists shards.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        *,
        resume: bool,
        overwrite: bool,
        team: Team | None,
        tell: Tell,
        progress: Update,
    ) -> None:
        super().__init__(
            path,
            "collect",
            resumable=True,
            overwrite=overwrite,
            team=team,
            tell=tell,
            progress=progress,
            stops_at_steps=False,
            on_signal=lambda frame: None,
        )
        self._new, self._resume = manifest, resume

    @property
    def manifest(self) -> Manifest:
        """What is on disk, as the first process has left it."""
        return Manifest.read(self.out)

    @contextmanager
    def _held(self) -> Iterator[bool]:
        path = self.out
        _refuse_foreign(path)
        is_new = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        try:
            with locked_folder(path):
                manifest = self._agree()
                has_all = len(manifest.missing_shards) == 0
                if has_all and (not manifest.complete or virtual_problems(path, manifest)):
                    complete(path, manifest)
                yield bool(manifest.shards)
        finally:
            if is_new:
                with suppress(OSError):
                    path.rmdir()  # where nothing was written

    def _agree(self) -> Manifest:
        """Under the lock: the manifest to go on from, on disk, with no other file of a store."""
        path, manifest, freed = self.out, self._new, 0
        old = Manifest.read(path) if (path / MANIFEST).exists() else None
        if old is not None:
            if not (self._resume or self.overwrite):
                raise FileExistsError(
                    f"{path} holds a store with {old.done} of {old.n_puzzles} puzzles: "
                    "use --resume to finish it or --overwrite to replace it"
                )
            if self._resume:
                there, now = old.identity(), self._new.identity()
                if old.recorded.identity.task is None:  # of before there were others
                    there["task"] = now.get("task")
                require_same(path, there, now, error=StoreError)
                manifest = self._intact(old)
            else:
                freed = sum(shard.bytes for shard in old.shards)
        n_missing = manifest.n_puzzles - sum(shard.n_puzzles for shard in manifest.shards)
        check_space(path, estimate_bytes(manifest.sites, n_missing) - freed)
        if manifest is not old:
            manifest.write(path)
        listed = {shard.file for shard in manifest.shards}
        if manifest.complete:
            listed.add(STORE)
        for file in left_over(path, listed):
            file.unlink()
        return manifest

    def _intact(self, manifest: Manifest) -> Manifest:
        """The manifest without shards that are missing or damaged: they are recorded again.

        StoreError for one that is there but is a link or no regular file.
        """
        if (size := sum(shard.bytes for shard in manifest.shards)) > LONG:
            self.tell(f"checking the {len(manifest.shards)} existing shards ({size / 1e9:.1f} GB)")
        intact: list[Shard] = []
        for shard in manifest.shards:
            file = self.out / shard.file
            if not (problem := shard.problem(self.out) or shard.altered(self.out)):
                intact.append(shard)
            elif file.is_symlink() or (file.exists() and not file.is_file()):
                raise StoreError(problem)
            else:
                self.tell(f"{file} is missing or damaged: recording its puzzles again")
        if len(intact) == len(manifest.shards):
            return manifest
        return replace(manifest, shards=tuple(intact), complete=False)


def complete(path: Path, manifest: Manifest) -> Manifest:
    """Write store.h5 over all shards, and in the manifest that the store is complete."""
    write_virtual(path, manifest)
    manifest = replace(manifest, complete=True)
    manifest.write(path)
    return manifest


def left_over(path: Path, listed: set[str]) -> list[Path]:
    """Files under the names of a store's own that are not listed; no foreign ones."""
    return [f for f in sorted(path.iterdir()) if OWN.fullmatch(f.name) and f.name not in listed]


def _refuse_foreign(path: Path) -> None:
    """FileExistsError if `path` is a file, or a directory with things that are not a store's."""
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"{path} is a file: choose another output")
    remove_leftovers(path)
    names = {file.name for file in path.iterdir()}
    if MANIFEST not in names and names - {LOCK, MARKER}:
        raise FileExistsError(f"{path} is not empty and holds no store: choose another output")
