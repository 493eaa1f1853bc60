"""Folders that appear complete or not at all: filled under a hidden name, then renamed."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from trm_interp.runtime.files import leftovers, partial_name, remove_leftovers
from trm_interp.runtime.locks import locked_beside
from trm_interp.runtime.outputs import IGNORED, entries, maker, mark
from trm_interp.runtime.work import Work


@dataclass(eq=False)
class FolderRun(Work):
    """Work that makes a folder which appears complete, or not at all.

    `is_own(folder)` raises a UserError unless a folder that is not empty is an earlier result of
    the command: only such a folder is replaced with `overwrite`. With `resume` and `begun` it is
    complete, and the block compares its settings instead of filling it again. A symbolic link is
    followed and stays one.
    """

    is_own: Callable[[Path], None]
    resumable: bool = field(default=False, kw_only=True)
    place: Path = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.place = Path(os.path.realpath(self.out))

    @contextmanager
    def _held(self) -> Iterator[bool]:
        with locked_beside(self.place):
            self._remove_leftovers()
            place = self.place
            is_there = place.exists() and (not place.is_dir() or bool(entries(place)))
            if is_there:
                self.is_own(place)
                self.existing.require_choice(self.out)
            yield is_there

    def _remove_leftovers(self) -> None:
        """Remove scratch folders that killed runs of the command left next to the output: those
        with its marker whose process is dead."""
        for left in leftovers(self.place.parent, self.place.name):
            if left.is_dir() and not left.is_symlink():
                self._tidy(left)

    @contextmanager
    def filling(self) -> Iterator[Path]:
        """Yield a new folder to fill, which becomes the output at the end of the block.

        After an error it is removed, and what was there stays.
        """
        scratch = self.place.with_name(partial_name(self.place.name))
        mark(scratch, self.command)
        old = scratch / "old"
        try:
            fresh = scratch / "new"
            fresh.mkdir()
            yield fresh
            for name in IGNORED:
                if os.path.lexists(self.place / name):
                    shutil.copy2(self.place / name, fresh / name, follow_symlinks=False)
            if self.place.exists():
                self.place.rename(old)
            fresh.rename(self.place)
        finally:
            self._tidy(scratch)

    def _tidy(self, scratch: Path) -> None:
        """Remove a scratch folder, after restoring what it had moved out of the way in vain."""
        if maker(scratch) == self.command:
            if (scratch / "old").exists() and not self.place.exists():
                (scratch / "old").rename(self.place)
            shutil.rmtree(scratch, ignore_errors=True)
        else:  # killed before it was marked
            remove_leftovers(scratch)
            with suppress(OSError):
                scratch.rmdir()
