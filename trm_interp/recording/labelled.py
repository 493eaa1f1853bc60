"""Stores as xarray datasets and as long tables of pandas, with the labels of the run."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from trm_interp.recording.schema import StoreError
from trm_interp.recording.stored_array import Puzzles, StoredArray

if TYPE_CHECKING:
    import pandas as pd

    from trm_interp.recording.store import Store

MOST_ROWS = 50_000_000  # of a long table, whose rows take about 50 bytes each


class _OnDisk(BackendArray):
    """An array of a store as xarray's lazy arrays read it: by place, not by the run's numbers.

    `taken`: the places on the `step` axis that are shown; None for all.
    """

    def __init__(self, store: "Store", array: StoredArray, taken: list[int] | None) -> None:
        self._store, self._array, self._taken = store, array, taken
        self.dtype = array.dtype
        self.shape = tuple(
            len(taken) if taken is not None and dim == "step" else size
            for dim, size in zip(array.dims, array.shape, strict=True)
        )

    def __getitem__(self, key: Any) -> Any:
        support = indexing.IndexingSupport.BASIC
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> np.ndarray:
        ranges = [_range(one, size) for one, size in zip(key, self.shape, strict=True)]
        self._store.require(ranges[0])
        shape = list(map(len, ranges))
        rest = [slice(one.start, one.stop, one.step) for one in ranges[1:]]
        at = self._array.dims.index("step") if self._taken is not None else 0
        if self._taken is not None:  # read all of the axis, then take
            rest[at - 1], shape[at] = slice(None), self._array.shape[at]
        out = np.empty(shape, self.dtype)
        if out.size:
            self._store.read_into(self._array.name, ranges[0], tuple(rest), out)
        if self._taken is not None:
            out = out.take([self._taken[i] for i in ranges[at]], axis=at)
        return out[tuple(0 if isinstance(one, int | np.integer) else slice(None) for one in key)]


def _range(key: int | slice, size: int) -> range:
    """The places that an index takes of an axis.

    >>> _range(2, 5), _range(slice(1, None, 2), 5)
    (range(2, 3), range(1, 5, 2))
    """
    return range(*key.indices(size)) if isinstance(key, slice) else range(int(key), int(key) + 1)


def to_xarray(store: "Store", names: Sequence[str] | None, chunked: bool) -> xr.Dataset:
    """`Store.to_xarray`."""
    arrays = {name: store[name] for name in (store.names if names is None else names)}
    kept = store.steps if any(name in arrays for name in _partial(store)) else None
    lengths: dict[str, set[int]] = {}
    for array in arrays.values():
        for dim, size in zip(array.dims, array.shape, strict=True):
            lengths.setdefault(dim, set()).add(size)
    variables, labels = {}, {}
    for name, array in arrays.items():
        whole = kept is not None and "step" in array.dims and name not in _partial(store)
        data = _OnDisk(store, array, list(kept) if whole and kept is not None else None)
        dims = [
            dim if dim == "step" or size == min(lengths[dim]) else f"{dim}_{size}"
            for dim, size in zip(array.dims, data.shape, strict=True)
        ]
        labels |= {
            dim: (dim, _labels(store, array, plain, size, kept))
            for dim, plain, size in zip(dims, array.dims, data.shape, strict=True)
        }
        variables[name] = (dims, indexing.LazilyIndexedArray(data))
    coordinates: dict[str, Any] = dict(labels)
    coordinates["puzzle_id"] = ("puzzle", store["puzzle_id"][:])
    if "pos" in labels and (model := store._manifest.recorded.model) is not None:
        coordinates["cell_of_pos"] = ("pos", np.asarray(labels["pos"][1]) - model.prefix)
    variables.pop("puzzle_id", None)
    total = sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays.values())
    facts = {"store": str(store.path), "bytes": total, "numbering": "all axes count from 0"}
    data = xr.Dataset(variables, coordinates, facts)
    return data.chunk({"puzzle": store.shard_puzzles}) if chunked else data


def _partial(store: "Store") -> set[str]:
    """The arrays that hold the kept steps alone."""
    sites = store._manifest.sites
    return {site.name for site in sites if "step" in site.kept}


def _labels(
    store: "Store", array: StoredArray, dim: str, size: int, kept: Sequence[int] | None
) -> np.ndarray:
    """The run's numbers along an axis."""
    if dim == "step" and kept is not None:
        return np.asarray(kept)
    site = store._manifest.arrays[array.name]
    return np.asarray(site.indices(dim)) if dim in site.kept else np.arange(size)


def long_frame(store: "Store", name: str, puzzles: Puzzles) -> "pd.DataFrame":
    """`Store.long`."""
    import pandas as pd

    array = store[name]
    chosen = np.atleast_1d(np.arange(store.n_puzzles)[puzzles])
    shape = (len(chosen), *array.shape[1:])
    if (rows := math.prod(shape)) > MOST_ROWS:
        raise StoreError(
            f"{name} of {len(chosen)} puzzles has {rows:.2g} values, a row each; at most "
            f"{MOST_ROWS:.0g} make a table: take fewer puzzles, or `to_xarray`"
        )
    axes = [
        chosen,
        *(
            _labels(store, array, dim, size, None)
            for dim, size in zip(array.dims[1:], shape[1:], strict=True)
        ),
    ]
    index = np.meshgrid(*axes, indexing="ij")
    columns = {dim: one.ravel() for dim, one in zip(array.dims, index, strict=True)}
    return pd.DataFrame(columns | {"value": array[chosen].ravel()})
