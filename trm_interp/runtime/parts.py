"""Work in parts that survive a kill: each is computed once, saved whole, and read on a resume."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import plain, replacing, require_regular, write_json
from trm_interp.runtime.outputs import maker, mark
from trm_interp.runtime.schema import read_json

IDENTITY = "identity.json"
DAMAGED = (OSError, ValueError, EOFError, NotImplementedError, BadZipFile)
NUMBER, HEADER = 16, 4096  # bytes: the widest number of an array, and room for what describes one
Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]  # of every array of a part


class Parts:
    """A folder of arrays by name. UserError where another command or another run made it.

    `identity`: everything that the numbers depend on. The folder carries the command's marker.
    `tell` is told which files are damaged.
    """

    def __init__(
        self, folder: Path, command: str, identity: dict[str, Any], tell: Callable[[str], None]
    ) -> None:
        self.folder, self.tell, known = folder, tell, plain(identity)
        found = read_identity(folder)
        if found is None and folder.exists() and maker(folder) != command:
            raise UserError(f"{folder} was not made by `{command}`: choose another output")
        if found is not None and found != known:
            other = sorted(k for k in {*found, *known} if found.get(k) != known.get(k))
            was = ", ".join(f"{k} {found.get(k)}" for k in other)[:150]
            raise UserError(f"{folder} was begun with {was}: give that, or start over")
        mark(folder, command)
        write_json(folder / IDENTITY, known)

    def get(self, name: str, shapes: Shapes, compute: Callable[[], Arrays]) -> Arrays:
        """What was saved under this name, else computed and saved now.

        A file that is damaged, or that holds other arrays than those of `shapes`, is replaced.
        """
        file = self.folder / f"{name}.npz"
        found = read_arrays(file, shapes)
        if found is not None:
            return found
        if file.exists():
            self.tell(f"{file} is damaged: computing it again")
        found = compute()
        with replacing(file) as to, to.open("wb") as stream:
            np.savez(stream, **found)  # type: ignore[arg-type]
        return found


def read_identity(folder: Path) -> dict[str, Any] | None:
    """What a folder of parts was begun with; None where there is nothing of it."""
    try:
        return read_json(folder / IDENTITY, dict[str, Any], advice="start over in another folder")
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_arrays(file: Path, shapes: Shapes) -> Arrays | None:
    """Finished numbers of these names and shapes; None where the file is missing or differs.

    Its sizes are read before its content: it cannot ask for more memory than they need.
    """
    most = sum(math.prod(shape) * NUMBER + HEADER for shape in shapes.values())
    try:
        require_regular(file)
        with ZipFile(file) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > most:
                return None
        with np.load(file, allow_pickle=False) as saved:
            found = dict(saved)
    except (*DAMAGED, KeyError):
        return None
    same = {name: values.shape for name, values in found.items()} == dict(shapes)
    return found if same and all(v.dtype.kind in "biuf" for v in found.values()) else None
