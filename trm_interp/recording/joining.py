"""A store in parts: which of its files a shard of `collect` writes, and how a merge joins them."""

from collections.abc import Callable
from pathlib import Path

from trm_interp.recording.manifest import Manifest, Shard, shard_name
from trm_interp.recording.schema import StoreError
from trm_interp.recording.writer import StoreWriter, every
from trm_interp.runtime import shards
from trm_interp.runtime.identity import require_same


def own_shards() -> Callable[[int], bool]:
    """Which files of the store this process writes, by their index."""
    now = shards.division()
    if not isinstance(now, shards.OneShard):
        return every
    number, of = now.shard
    return lambda index: index % of == number - 1


def shard_ends(writer: StoreWriter) -> None:
    """A shard ends here, and keeps its part of the store."""
    now = shards.division()
    if isinstance(now, shards.OneShard):
        manifest = writer.manifest
        n_files = -(-manifest.n_puzzles // manifest.shard_puzzles)
        now.planned = [shard_name(index) for index in range(n_files)]
        now.done = {shard.file: shard.sha256 for shard in manifest.shards}
        now.keeps_work = True
    shards.shard_ends()


def join(writer: StoreWriter, merging: shards.Merging) -> None:
    """Take all files from the shards. StoreError names one that is missing, or altered."""
    listed: dict[str, tuple[Path, Shard]] = {}
    for folder, _ in merging.shards:
        place = folder / shards.WORK
        part = Manifest.read(place)
        require_same(place, part.identity(), writer.manifest.identity(), error=StoreError)
        listed |= {shard.file: (place, shard) for shard in part.shards}
    while writer.done < writer.manifest.n_puzzles:
        name = shard_name(writer.done // writer.manifest.shard_puzzles)
        if name not in listed:
            raise StoreError(f"{name} is in none of the shards: run theirs again with --resume")
        writer.adopt(*listed[name], merging.move)
