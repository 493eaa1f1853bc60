"""The folder of a store while it is written: one writer at a time, agreed with what is there."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from trm_interp.recording.hdf5 import STORE, virtual_problems, write_virtual
from trm_interp.recording.manifest import MANIFEST, Manifest, Shard
from trm_interp.recording.schema import StoreError, check_space, estimate_bytes
from trm_interp.runtime.existing import OutputExists
from trm_interp.runtime.files import remove_leftovers
from trm_interp.runtime.identity import require_same
from trm_interp.runtime.limits import counted
from trm_interp.runtime.locks import LOCK
from trm_interp.runtime.outputs import MARKER
from trm_interp.runtime.runs import Run

LONG = 1e9  # bytes whose checking takes long enough to be announced
OWN = re.compile(r"(shard-\d{5,9}|store)\.h5(\.partial)?")  # names of all files of a store


@dataclass(eq=False)
class Claim(Run):
    """Holds the folder of a store inside a block, as `Run` does other outputs.

    A store's manifest is its marker, its identity and its account of what is done, so that stores
    need no other file. `new`: the manifest of the store to be; `records`: which of its shards, by
    their index, are recorded here and need room. In the block, `manifest` is what to go on from: on
    disk, with no file of a store next to it that it does not list. `begun` says whether it lists
    shards.
    """

    new: Manifest = field(kw_only=True)
    records: Callable[[int], bool] = field(default=lambda index: True, kw_only=True)

    @property
    def manifest(self) -> Manifest:
        """What is on disk, as the first process has left it."""
        return Manifest.read(self.out)

    def _claim(self) -> bool:
        path = self.out
        remove_leftovers(path)
        names = {file.name for file in path.iterdir()}
        if MANIFEST not in names and names - {LOCK, MARKER}:
            raise OutputExists(f"{path} is not empty and holds no store: choose another output")
        manifest = self._agreed()
        has_all = len(manifest.missing_shards) == 0
        if has_all and (not manifest.complete or virtual_problems(path, manifest)):
            complete(path, manifest)
        return bool(manifest.shards)

    def _agreed(self) -> Manifest:
        """Under the lock: the manifest to go on from, on disk, with no other file of a store."""
        path, manifest, freed = self.out, self.new, 0
        old = Manifest.read(path) if (path / MANIFEST).exists() else None
        if old is not None:
            self.existing.require_choice(
                path, f"a store with {old.done} of {counted(old.n_puzzles, 'puzzle')}"
            )
            if self.resume:
                there, now = old.identity(), self.new.identity()
                if old.recorded.identity.task is None:  # of before there were others
                    there["task"] = now.get("task")
                require_same(path, there, now, error=StoreError)
                manifest = self._intact(old)
            else:
                freed = sum(shard.bytes for shard in old.shards)
        size, n = manifest.shard_puzzles, manifest.n_puzzles
        missing = filter(self.records, manifest.missing_shards)
        n_missing = sum(min(size, n - index * size) for index in missing)
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
