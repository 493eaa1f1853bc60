"""Folders that appear whole or not at all: filled under a hidden name, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trm_interp.runtime.files import leftovers, partial_name, remove_leftovers
from trm_interp.runtime.locks import locked_beside
from trm_interp.runtime.outputs import maker, mark


@contextmanager
def held(out: Path, command: str) -> Iterator[Path]:
    """Hold `out`, a folder to be, for `command`; yields its path without symbolic links.

    What killed runs of the command left beside it goes first: scratch folders with its marker,
    whose process is dead. UserError where another process writes there.
    """
    out = Path(os.path.realpath(out))
    with locked_beside(out):
        for left in leftovers(out.parent, out.name):
            if left.is_dir() and not left.is_symlink():
                _tidy(left, out, command)
        yield out


@contextmanager
def filled(out: Path, command: str) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `out` at the end and goes after an error.

    For use under `held`. What `out` was is deleted: whether it may be is for the caller to say.
    """
    scratch = out.with_name(partial_name(out.name))
    mark(scratch, command)
    old = scratch / "old"
    try:
        fresh = scratch / "new"
        fresh.mkdir()
        yield fresh
        if out.exists():
            out.rename(old)
        fresh.rename(out)
    finally:
        _tidy(scratch, out, command)


def _tidy(scratch: Path, out: Path, command: str) -> None:
    """Remove a scratch folder; what it had moved out of the way for nothing goes back first."""
    if maker(scratch) == command:
        if (scratch / "old").exists() and not out.exists():
            (scratch / "old").rename(out)
        shutil.rmtree(scratch, ignore_errors=True)
    else:  # killed before it was marked
        remove_leftovers(scratch)
        with suppress(OSError):
            scratch.rmdir()
