"""Folders that appear complete or not at all: filled under a hidden name, then renamed."""

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
    """Lock `out`, which need not exist, for `command`; yields its path without symbolic links.

    First, scratch folders that killed runs of the command left next to it are removed: those with
    the command's marker whose process is dead. UserError if another process writes to `out`.
    """
    out = Path(os.path.realpath(out))
    with locked_beside(out):
        for left in leftovers(out.parent, out.name):
            if left.is_dir() and not left.is_symlink():
                _tidy(left, out, command)
        yield out


@contextmanager
def filled(out: Path, command: str) -> Iterator[Path]:
    """Yield a new folder to fill, which replaces `out` at the end; after an error it is removed.

    For use under `held`. An existing `out` is deleted: the caller decides whether it may be.
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
    """Remove a scratch folder, after restoring what it had moved out of the way in vain."""
    if maker(scratch) == command:
        if (scratch / "old").exists() and not out.exists():
            (scratch / "old").rename(out)
        shutil.rmtree(scratch, ignore_errors=True)
    else:  # killed before it was marked
        remove_leftovers(scratch)
        with suppress(OSError):
            scratch.rmdir()
