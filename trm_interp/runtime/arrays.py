"""Files of arrays (.npz) that are complete or absent, and checked before they are read."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile, ZipFile

import numpy as np

if TYPE_CHECKING:
    from pandas import DataFrame

from trm_interp.runtime.files import replacing, require_regular

# what reading a damaged zip raises; zipfile's NotImplementedError: a compression that it lacks
BAD_ZIP = (BadZipFile, NotImplementedError, ValueError, EOFError)
DAMAGED = (OSError, *BAD_ZIP)
NUMBER, HEADER = 16, 4096  # bytes: the widest number of an array, and room for its description
Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]  # of every array of a file


def concatenated(parts: Sequence[Arrays]) -> Arrays:
    """Arrays of the same names, joined along their first axis."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def columns_of(table: "DataFrame") -> Arrays:
    """The columns of a table, with texts as numpy keeps them; `DataFrame(columns)` is it again."""
    columns = {str(name): column.to_numpy() for name, column in table.items()}
    return {name: of.astype(str) if of.dtype.kind == "O" else of for name, of in columns.items()}


def write_arrays(file: Path, arrays: Arrays) -> None:
    """Write an .npz file, atomically. ValueError for objects, which would be pickled."""
    if objects := [name for name, of in arrays.items() if np.asarray(of).dtype.kind == "O"]:
        raise ValueError(f"{file}: {objects} are not arrays of numbers or texts")
    with replacing(file) as to, to.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def read_arrays(file: Path, shapes: Shapes | None) -> Arrays | None:
    """The arrays of an .npz file; None if it is missing, damaged or has other names or shapes.

    Sizes are checked before the content is read, so that a file cannot exhaust the memory.
    """
    try:
        require_regular(file)
        if shapes is not None:
            most = sum(math.prod(shape) * NUMBER + HEADER for shape in shapes.values())
            with ZipFile(file) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > most:
                    return None
        with np.load(file, allow_pickle=False) as saved:
            arrays = dict(saved)
    except (*DAMAGED, KeyError):
        return None
    if shapes is not None and {k: v.shape for k, v in arrays.items()} != dict(shapes):
        return None
    kinds = "biuf" if shapes is not None else "biufU"
    return arrays if all(values.dtype.kind in kinds for values in arrays.values()) else None
