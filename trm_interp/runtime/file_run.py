"""Work that writes one file, or a few that belong together."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import plain, require_apart, write_json, write_text
from trm_interp.runtime.locks import locked_beside
from trm_interp.runtime.work import Work


@dataclass(eq=False)
class FileRun(Work):
    """Work that writes one file.

    `is_own(file)` raises a UserError unless what is there is an earlier result of the command:
    `outputs.own_table(columns)` and `outputs.own_json(kind, command)` make such functions. Only
    such a file is replaced with `overwrite`. `companions`: files that are written with it and share
    its fate. `lock`: the path whose lock protects them, `out` unless it is given. `inputs`: the
    files that the command reads, by name of their option; the output may be none of them.
    """

    is_own: Callable[[Path], None]
    companions: Sequence[Path] = field(default=(), kw_only=True)
    lock: Path | None = field(default=None, kw_only=True)
    inputs: Mapping[str, Path | str | None] = field(default_factory=dict, kw_only=True)
    resumable: bool = field(default=False, kw_only=True)

    @contextmanager
    def _held(self) -> Iterator[bool]:
        for path in (self.out, *self.companions):
            require_apart(path, **self.inputs)
            if path.is_dir():
                raise UserError(f"{path} is a folder: choose another output")
        made = [folder for folder in self.out.parents if not folder.exists()]
        try:
            with locked_beside(self.lock or self.out):
                yield self._claim()
        finally:
            for folder in made:
                with suppress(OSError):  # it is not empty
                    folder.rmdir()

    def _claim(self) -> bool:
        """Whether there is an earlier result; UserError unless it may be replaced."""
        present = [path for path in (self.out, *self.companions) if os.path.lexists(path)]
        if any(path.exists() for path in present):  # a dangling link is written through
            self.is_own(self.out)
        if present:
            self.existing.require_choice(present[0])
        return bool(present)

    def write_text(self, text: str) -> None:
        """Write the file, atomically."""
        if self.is_first:
            write_text(self.out, text)

    def write_json(self, value: Any) -> None:
        """Write the file as JSON, atomically; NaN and infinity become null."""
        if self.is_first:
            write_json(self.out, plain(value))
