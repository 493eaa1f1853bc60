"""One array of a store, indexed as numpy indexes it, with the numbering of the run."""

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trm_interp.recording.schema import Site

if TYPE_CHECKING:
    from trm_interp.recording.store import Store

Puzzles = int | slice | range | Sequence[int] | np.ndarray


class StoredArray:
    """One array of a store. Indexing reads from disk and gives numpy, a scalar for ints alone.

    Puzzles: an int, a slice, a list in any order, or a mask over the store's puzzles. Other axes:
    ints and slices. `step` and `pos` are numbered as in the run, also where only some were kept:
    an int that was not kept is an IndexError, a slice gives the kept ones in its range.
    """

    def __init__(self, store: "Store", site: Site) -> None:
        self._store, self._site = store, site
        self.name, self.dims = site.name, site.labels
        self.shape = (store.n_puzzles, *site.stored_shape)
        self.dtype = np.dtype(site.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        axes = ", ".join(f"{dim} {n}" for dim, n in zip(self.dims, self.shape, strict=True))
        return f"StoredArray({self.name}: {self.dtype} [{axes}])"

    def __getitem__(self, key: Any) -> Any:
        puzzle_key, *rest_keys = _expand(key if isinstance(key, tuple) else (key,), len(self.shape))
        puzzles = self._puzzles(puzzle_key)
        self._store.require(puzzles)
        reads, picks = [], []
        for dim, axis_key in zip(self._site.dims, rest_keys, strict=True):
            read, pick = self._axis(dim, axis_key)
            reads.append(read)
            picks.append(pick)
        sizes = (len(range(*r.indices(n))) for r, n in zip(reads, self.shape[1:], strict=True))
        out = np.empty((len(puzzles), *sizes), self.dtype)
        if out.size:
            self._store.read_into(self.name, puzzles, tuple(reads), out)
        picks.insert(0, 0 if isinstance(puzzle_key, int | np.integer) else slice(None))
        for axis in reversed(range(out.ndim)):  # an int drops its axis: start from the last
            out = out[(slice(None),) * axis + (picks[axis],)]
        return out

    def _puzzles(self, key: Any) -> Sequence[int]:
        n = self.shape[0]
        if isinstance(key, slice):
            return range(*key.indices(n))
        keys = np.atleast_1d(np.asarray(key))
        if keys.dtype == bool and keys.shape == (n,):
            return np.flatnonzero(keys).tolist()
        if keys.ndim != 1 or (keys.size and keys.dtype.kind not in "iu"):
            raise IndexError(f"{self.name}: {key!r} is not a puzzle, slice, list, or mask of {n}")
        puzzles = [int(i) + n if i < 0 else int(i) for i in keys]
        if wrong := [i for i in puzzles if not 0 <= i < n]:
            raise IndexError(f"{self.name}: no puzzle {wrong[0]} (from 0); there are {n}")
        return puzzles

    def _axis(self, dim: str, key: Any) -> tuple[slice, int | slice | list[int]]:
        """What to read of an axis, and what to take of that."""
        size = self._site.shape[self._site.dims.index(dim)]
        kept = {index: at for at, index in enumerate(self._site.indices(dim))}
        if not isinstance(key, slice):
            try:
                index = operator.index(key)
            except TypeError:
                raise IndexError(f"{self.name}: {dim} takes an int or slice, got {key!r}") from None
            index += size if index < 0 else 0
            if index not in kept:
                raise IndexError(f"{self.name}: no {dim} {key}; recorded are {_spell(list(kept))}")
            return slice(kept[index], kept[index] + 1), 0
        asked = range(*key.indices(size))
        at = [kept[i] for i in asked if i in kept]
        if asked and not at:
            raise IndexError(f"{self.name}: no {dim} in {asked}; recorded are {_spell(list(kept))}")
        if not at:
            return slice(0, 0), slice(None)
        stride = max(1, at[1] - at[0]) if len(at) > 1 else 1
        if at == list(range(at[0], at[-1] + 1, stride)):
            return slice(at[0], at[-1] + 1, stride), slice(None)
        return slice(None), at  # uneven or backwards: read all, then take


def _expand(key: tuple[Any, ...], ndim: int) -> list[Any]:
    """One key per axis: `...` and the axes that are not named become full slices."""
    dots = [i for i, k in enumerate(key) if k is Ellipsis]
    at = dots[0] if dots else len(key)
    full = [slice(None)] * (ndim - len(key) + len(dots))
    if len(dots) > 1 or len(key) - len(dots) > ndim:
        raise IndexError(f"{len(key)} indices for {ndim} axes")
    return [*key[:at], *full, *key[at + len(dots) :]]


def _spell(indices: Sequence[int]) -> str:
    """
    >>> _spell([0, 1, 2]), _spell([0, 15])
    ('0..2', '0, 15')
    """
    whole = len(indices) > 2 and list(indices) == list(range(indices[0], indices[-1] + 1))
    return f"{indices[0]}..{indices[-1]}" if whole else ", ".join(map(str, indices))
