"""Checks whether a store is intact, and names every problem."""

import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from trm_interp.recording.claim import left_over
from trm_interp.recording.hdf5 import STORE, dataset, open_file, shard_problems, virtual_problems
from trm_interp.recording.manifest import Manifest, Shard
from trm_interp.recording.schema import StoreError


def validate(path: str | os.PathLike[str], thorough: bool = True) -> list[str]:
    """Every problem of a store, one line each; empty if it is intact.

    Looks for gaps, shards that are missing or of another size, arrays that are of another shape,
    type or labels or lie in another file, and leftovers of a killed run. A `thorough` check, which
    reads the whole store, also looks for altered shards (sha256) and values that are not finite.
    Of an unfinished store that is the first problem; its leftovers are no problem, since
    `collect --resume` removes them.
    """
    path = Path(path)
    try:
        manifest = Manifest.read(path)
    except StoreError as error:
        return [str(error)]
    problems = [] if manifest.complete else [unfinished(path, manifest)]
    expected = 0
    for shard in sorted(manifest.shards, key=lambda shard: shard.first_puzzle):
        if shard.first_puzzle != expected:
            problems.append(f"{path}: puzzles {expected}..{shard.first_puzzle - 1} are in no shard")
        expected = shard.first_puzzle + shard.n_puzzles
        problems += _problems_of(path, manifest, shard, thorough)
    if not manifest.complete:
        return problems
    if expected != manifest.n_puzzles:
        problems.append(f"{path}: shards hold {expected} of {manifest.n_puzzles} puzzles")
    problems += virtual_problems(path, manifest)
    listed = {STORE, *(shard.file for shard in manifest.shards)}
    return problems + [f"{f} is left over: resume or delete it" for f in left_over(path, listed)]


def unfinished(path: Path, manifest: Manifest) -> str:
    """What to do with a store that is not complete."""
    return (
        f"{path} holds {manifest.done} of {manifest.n_puzzles} puzzles: finish it with "
        "`collect --resume`, or read what is there with allow_incomplete=True"
    )


def _problems_of(path: Path, manifest: Manifest, shard: Shard, thorough: bool) -> list[str]:
    file = path / shard.file
    if problem := shard.problem(path) or (thorough and shard.altered(path)):
        return [problem]
    try:
        with open_file(file) as opened:
            if problems := list(shard_problems(opened, file, manifest, shard.n_puzzles)):
                return problems
            return list(_not_finite(opened, file, manifest, shard)) if thorough else []
    except StoreError as error:
        return [str(error)]


def _not_finite(opened: h5py.File, file: Path, manifest: Manifest, shard: Shard) -> Iterator[str]:
    for site in manifest.arrays.values():
        if np.dtype(site.dtype).kind != "f":
            continue
        data = dataset(opened, site.name)
        for row in range(len(data)):  # one at a time, to need little memory
            if not np.isfinite(data[row]).all():
                puzzle = shard.first_puzzle + row
                yield f"{file}: {site.name} is not finite, first in puzzle {puzzle} (from 0)"
                break
