"""Work in parts that survive a kill: each is computed once, saved whole, and read on a resume."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from trm_interp.errors import UserError
from trm_interp.files import plain, replacing, write_json

IDENTITY = "identity.json"
Arrays = dict[str, np.ndarray]


class Parts:
    """A folder of arrays by name. UserError where it holds another run's, unless told what to do.

    `identity`: everything that the numbers depend on.
    """

    def __init__(
        self, folder: Path, identity: dict[str, Any], resume: bool, overwrite: bool
    ) -> None:
        self.folder, known = folder, plain(identity)
        if overwrite and not resume:
            shutil.rmtree(folder, ignore_errors=True)
        found = self._found()
        if found is not None and not resume:
            raise UserError(f"{folder} holds a run: --resume goes on, --overwrite starts anew")
        if found is not None and found != known:
            other = sorted(k for k in {*found, *known} if found.get(k) != known.get(k))
            was = ", ".join(f"{k} {found.get(k)}" for k in other)
            raise UserError(
                f"{folder} was begun with {was}: give that, or --overwrite without --resume"
            )
        write_json(folder / IDENTITY, known)

    def _found(self) -> dict[str, Any] | None:
        file = self.folder / IDENTITY
        if not file.exists():
            return None
        try:
            return json.loads(file.read_text())
        except ValueError:
            raise UserError(f"{file} cannot be read: start anew with --overwrite") from None

    def get(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """What was saved under this name, else computed and saved now."""
        file = self.folder / f"{name}.npz"
        if file.exists():
            try:
                with np.load(file, allow_pickle=False) as saved:
                    return dict(saved)
            except (OSError, ValueError, EOFError, BadZipFile) as error:
                raise UserError(f"{file} cannot be read ({error}): delete it") from None
        found = compute()
        with replacing(file) as to, to.open("wb") as stream:
            np.savez(stream, **found)  # type: ignore[arg-type]
        return found
