"""Files of arrays (.npz) that are complete or absent, and checked before they are read."""

import math
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np

from trm_interp.runtime.files import replacing, require_regular

# what reading a damaged zip raises; zipfile's NotImplementedError: a compression that it lacks
BAD_ZIP = (BadZipFile, NotImplementedError, ValueError, EOFError)
DAMAGED = (OSError, *BAD_ZIP)
NUMBER, HEADER = 16, 4096  # bytes: the widest number of an array, and room for its description
Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]  # of every array of a file


def write_arrays(file: Path, arrays: Arrays) -> None:
    """Write an .npz file, atomically."""
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
