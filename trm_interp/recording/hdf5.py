"""HDF5 files of a store: written so that a full disk is an error, read so that nothing leads out.

HDF5 crashes when a file cannot be closed for want of room, takes locks that some file systems do
not have, and follows links, external files and virtual datasets wherever they lead.
"""

import io
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from trm_interp.recording.manifest import ADVICE, COPY, FORMAT, SCHEMA_VERSION, Manifest
from trm_interp.recording.schema import Site, StoreError
from trm_interp.runtime.errors import first_line, is_out_of_memory
from trm_interp.runtime.files import disk_errors, publish

STORE = "store.h5"
AGAIN = "the same `collect` with --resume writes it again"


class Output(io.FileIO):
    """A new file `*.partial` that HDF5 writes through; `check` raises what went wrong.

    After a failed write it accepts everything and keeps nothing, so that HDF5 can always close.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "x+")
        self.path = path
        self.error: OSError | None = None

    def write(self, data: Any, /) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest and self.error is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None, /) -> int:
        try:
            if self.error is None:
                super().truncate(size)
        except OSError as error:
            self.error = error
        return self.tell() if size is None else size

    def check(self) -> None:
        if self.error is not None:
            with disk_errors(self.path.with_suffix("")):
                raise self.error


class ShardFile:
    """A shard that is being written: states in one chunk per puzzle and supervision step,
    uncompressed; read-outs contiguous."""

    def __init__(self, partial: Path, manifest: Manifest, first: int, n: int) -> None:
        self.path, self.first = partial, first
        self._output = Output(partial)
        self._file = h5py.File(self._output, "w")
        try:
            self._begin(manifest, n)
        except BaseException:
            self.drop()
            raise

    def _begin(self, manifest: Manifest, n: int) -> None:
        _describe(self._file, manifest, {"identity": manifest.meta.get("identity", {})})
        self._file.attrs["first_puzzle"] = self.first
        for site in manifest.arrays.values():
            shape = (n, *site.stored_shape)
            sizes = zip(site.dims, site.stored_shape, strict=True)
            chunks = (1, *(1 if dim == "step" else size for dim, size in sizes))
            is_state = site in manifest.sites
            data = self._file.create_dataset(
                site.name, shape, site.dtype, chunks=chunks if is_state else None
            )
            _label(data, site)
        self._output.check()

    def write_chunks(self, name: str, row: int, at: tuple[int, ...], values: np.ndarray) -> None:
        """Rows of an array from `row` on, each a whole chunk, bypassing HDF5's cache."""
        data = dataset(self._file, name).id
        inner = (0,) * (values.ndim - 1)
        for i, one in enumerate(np.ascontiguousarray(values)):
            data.write_direct_chunk((row + i, *at, *inner), one)
        self._output.check()

    def write_rows(self, name: str, row: int, values: np.ndarray) -> None:
        dataset(self._file, name)[row : row + len(values)] = values
        self._output.check()

    def publish(self, path: Path) -> None:
        """Close the shard and give it its name."""
        self._file.close()
        self._output.close()
        self._output.check()
        with disk_errors(path):
            publish(self.path, path)

    def drop(self) -> None:
        """Close it and remove it."""
        self._output.error = self._output.error or OSError("dropped")
        with suppress(Exception):  # the file is deleted anyway
            self._file.close()
        self._output.close()
        self.path.unlink(missing_ok=True)


def write_virtual(path: Path, manifest: Manifest) -> None:
    """Write store.h5. Where a shard is lost, plain HDF5 readers see NaN instead of an error."""
    partial = path / f"{STORE}.partial"
    output = Output(partial)
    try:
        with h5py.File(output, "w") as file:
            _describe(file, manifest, manifest.meta)
            for site in manifest.arrays.values():
                layout = h5py.VirtualLayout((manifest.n_puzzles, *site.stored_shape), site.dtype)
                layout.dcpl.set_obj_track_times(False)  # the same bytes whenever it is written
                for shard in manifest.shards:
                    rows = slice(shard.first_puzzle, shard.first_puzzle + shard.n_puzzles)
                    layout[rows] = h5py.VirtualSource(
                        shard.file, site.name, (shard.n_puzzles, *site.stored_shape)
                    )
                fill = np.nan if np.dtype(site.dtype).kind == "f" else None
                _label(file.create_virtual_dataset(site.name, layout, fillvalue=fill), site)
        output.close()
        output.check()
        with disk_errors(path / STORE):
            publish(partial, path / STORE)
    finally:
        output.close()
        partial.unlink(missing_ok=True)


def _describe(file: h5py.File, manifest: Manifest, meta: dict[str, Any]) -> None:
    file.attrs["format"] = FORMAT
    file.attrs["schema_version"] = SCHEMA_VERSION
    file.attrs["steps"] = manifest.kept("step")
    file.attrs["positions"] = manifest.kept("pos")
    file.attrs["meta"] = json.dumps(meta)


def _label(data: h5py.Dataset, site: Site) -> None:
    for axis, label in zip(data.dims, site.labels, strict=True):
        axis.label = label


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """The dataset `name`; StoreError if the file has none."""
    data = file.get(name)
    if not isinstance(data, h5py.Dataset):
        raise StoreError(f"{file.filename} has no dataset {name}: record again")
    return data


def open_file(path: Path, advice: str = ADVICE) -> h5py.File:
    """For reading: without a chunk cache, so that one tick of a step reads its own bytes only.

    With HDF5's own lock, which other readers of the file in this process take as well, or without
    where the file system has none: finished files do not need it.
    """
    if path.is_symlink():
        raise StoreError(f"{path} is a link, which files of a store must not be: {COPY}")
    if not path.exists():
        raise StoreError(f"{path} is missing: {advice}")
    try:
        try:
            return h5py.File(path, "r", rdcc_nbytes=0)
        except OSError as error:
            if "lock" not in str(error):
                raise
            return h5py.File(path, "r", rdcc_nbytes=0, locking=False)
    except Exception as error:  # a damaged file makes h5py raise many kinds
        if is_out_of_memory(error):
            raise
        raise StoreError(f"{path} cannot be read ({_short(error)}): {advice}") from None


def open_shard(path: Path, manifest: Manifest, n: int) -> h5py.File:
    """A shard of `n` puzzles; every array is as the manifest says, and in this file itself."""
    file = open_file(path)
    if problems := shard_problems(file, path, manifest, n):
        file.close()
        raise StoreError(problems[0])
    return file


def shard_problems(file: h5py.File, path: Path, manifest: Manifest, n: int) -> list[str]:
    """What differs from the manifest in an open shard of `n` puzzles, one line a problem."""
    return _in_words(path, _of_shard(file, path.stat().st_size, manifest, n))


def virtual_problems(path: Path, manifest: Manifest) -> list[str]:
    """Arrays of store.h5 that are not those of the manifest's shards, one line a problem."""
    try:
        with open_file(path / STORE, AGAIN) as file:
            return _in_words(path / STORE, _of_virtual(file, manifest), AGAIN)
    except StoreError as error:
        return [str(error)]


def _in_words(path: Path, problems: Iterator[str], advice: str = ADVICE) -> list[str]:
    try:
        return [f"{path}: {problem}: {advice}" for problem in problems]
    except Exception as error:  # a damaged file makes h5py raise many kinds
        if is_out_of_memory(error):
            raise
        return [f"{path} cannot be read ({_short(error)}): {advice}"]


def _of_shard(file: h5py.File, size: int, manifest: Manifest, n: int) -> Iterator[str]:
    for site, data in _arrays(file, manifest):
        if isinstance(data, str):
            yield data
        elif problem := _outside(data) or _unlike(data, site, n):
            yield problem
        else:
            size -= (stored := data.id.get_storage_size())
            if stored < data.nbytes or size < 0:
                yield f"{site.name} is incomplete"


def _of_virtual(file: h5py.File, manifest: Manifest) -> Iterator[str]:
    for site, data in _arrays(file, manifest):
        expected = {(s.file, site.name, s.first_puzzle, s.n_puzzles) for s in manifest.shards}
        if isinstance(data, str):
            yield data
        elif not data.is_virtual or set(_sources(data)) != expected:
            yield f"{site.name} does not lead to the shards of the manifest"
        elif problem := _unlike(data, site, manifest.n_puzzles):
            yield problem


def _arrays(file: h5py.File, manifest: Manifest) -> Iterator[tuple[Site, h5py.Dataset | str]]:
    """Each array of the manifest, or what is wrong with what the file has by that name."""
    if unlisted := sorted(set(file) - manifest.arrays.keys()):
        first = manifest.arrays[next(iter(manifest.arrays))]
        yield first, f"holds {unlisted[0][:60]!r}, which the manifest does not name"
    for site in manifest.arrays.values():
        if site.name not in file:
            yield site, f"{site.name} is missing"
        elif not isinstance(file.get(site.name, getlink=True), h5py.HardLink):
            yield site, f"{site.name} is a link to another place"
        elif not isinstance(data := file[site.name], h5py.Dataset):
            yield site, f"{site.name} is not an array"
        else:
            yield site, data


def _outside(data: h5py.Dataset) -> str | None:
    """Whether values come from elsewhere or are larger than on disk, as a message."""
    name = str(data.name).lstrip("/")
    if data.is_virtual or data.external:
        return f"{name} lies in another file, which a shard's must not"
    if data.id.get_create_plist().get_nfilters():
        return f"{name} is compressed, which a shard's is not"
    return None


def _unlike(data: h5py.Dataset, site: Site, n: int) -> str | None:
    actual = data.shape, data.dtype, tuple(str(axis.label) for axis in data.dims)
    expected = (n, *site.stored_shape), np.dtype(site.dtype), site.labels
    if actual == expected:
        return None
    return f"{site.name} is {_spell(*actual)}, not {_spell(*expected)}"


def _spell(shape: tuple[int, ...], dtype: np.dtype, labels: tuple[str, ...]) -> str:
    return f"{dtype}{list(shape)} [{' '.join(labels)}]"[:120]


def _sources(data: h5py.Dataset) -> Iterator[tuple[str, str, int, int]]:
    """File, array, first row and number of rows of each part of a virtual array."""
    for part in data.virtual_sources():
        first, last = part.vspace.get_select_bounds()
        yield part.file_name, part.dset_name.lstrip("/"), first[0], last[0] + 1 - first[0]


def _short(error: Exception) -> str:
    return " ".join(first_line(error)[:100].split())
