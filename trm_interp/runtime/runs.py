"""One piece of work that writes an output: ownership, resuming, atomic results, interruption.

A command opens a `Run` on its output folder, a `FileRun` on a single file (`file_run.py`), or a
`FolderRun` on a folder that appears whole (`fresh.py`), and does its work inside the block:

    with Run(
        config.out, "basins", ["*.csv", "summary.json", "parts/"],
        identity={"seed": config.seed, "checkpoint_sha256": sha256},
        identity_file="parts/identity.json",
        resume=config.resume, overwrite=config.overwrite, tell=tell, progress=progress,
    ) as run:
        for i, puzzle in enumerate(puzzles):
            arrays = run.part(f"puzzle-{puzzle}", {"answers": (100, 81)}, lambda: follow(puzzle))
            run.advance(i + 1, len(puzzles))
        run.write_text("answers.csv", table.to_csv(index=False))
        run.finish({"n": len(puzzles)})

What the block can rely on:

- the output is locked: a second process is refused with one line, and in a torchrun the first
  process acts for all;
- a marker names the command that made the folder; what others made is never mixed with or deleted;
- earlier work needs --resume or --overwrite (`existing.py`), and can be resumed only with the same
  identity; fields that differ are named. Work that keeps its identity elsewhere, such as in a
  training state, leaves `identity_file` out and calls `identity.require_same` itself;
- files are complete or absent, parts that exist are read instead of computed, and the summary is
  written last;
- the time left counts what this process computes, not what it reads;
- SIGTERM ends the block as Ctrl-C does, with an `Interrupted` that says how to resume. With
  `stops_at_steps` a loop asks `run.should_stop()` instead, and can save after a complete step; a
  second Ctrl-C ends the block at once.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trm_interp.runtime.arrays import Arrays, Shapes, read_arrays, write_arrays
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import plain, remove_leftovers, replacing, write_json, write_text
from trm_interp.runtime.identity import require_same
from trm_interp.runtime.locks import LOCK, locked_folder
from trm_interp.runtime.outputs import (
    MARKER,
    drop_if_empty,
    entries,
    foreign,
    maker,
    mark,
    matches,
    remove_own,
)
from trm_interp.runtime.schema import read_json
from trm_interp.runtime.work import Interrupted, Tell, Work, quiet, silent

__all__ = ["SUMMARY", "Interrupted", "Run", "Tell", "Work", "quiet", "read_identity", "silent"]
SUMMARY = "summary.json"


@dataclass(eq=False)
class Run(Work):
    """Work that fills a folder. See the module's docstring for an example.

    `names`: patterns (`*.csv`) of what the command writes; a pattern that ends in `/` matches its
    own subfolders, which carry the same marker. `identity`: what the results depend on, as JSON;
    it is kept in `identity_file`, a path inside the folder, and compared with what is there.
    `older`: values of identity fields that outputs of earlier versions lack. `clears_at_once`:
    whether `overwrite` deletes earlier work when the block begins; a command that may fail before
    it has new results calls `clear()` itself. `unmarked`: recognises a folder from before there
    were markers; such a folder can be resumed, not overwritten.

    UserError if another process writes to the folder, if it contains anything that this command
    did not make, if it contains earlier work and neither flag is given, or if the earlier work has
    another identity. A folder that the block leaves empty is removed.
    """

    names: Sequence[str]
    identity: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    identity_file: str = field(default="", kw_only=True)
    older: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    clears_at_once: bool = field(default=True, kw_only=True)
    unmarked: Callable[[Path], bool] = field(default=lambda folder: False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.identity = plain(dict(self.identity))

    @contextmanager
    def _held(self) -> Iterator[bool]:
        folder = self.out
        if folder.is_symlink() and not folder.exists():
            missing = os.readlink(folder)
            raise UserError(
                f"{folder} is a link to {missing}, which is missing: choose another output"
            )
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file: choose another output")
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        with locked_folder(folder):
            try:
                begun = self._claim()
                if self.identity_file:
                    self._agree()
                yield begun
            finally:
                if is_new:
                    drop_if_empty(folder)

    def _claim(self) -> bool:
        """Mark the locked folder as this command's; whether it contains earlier work."""
        folder, command = self.out, self.command
        remove_leftovers(folder)
        held = sorted({entry.name for entry in entries(folder)} - {LOCK, MARKER})
        made_by = maker(folder)
        if not held:
            mark(folder, command)
            return False
        is_ours = made_by == command or (made_by is None and self.unmarked(folder))
        if not is_ours:
            raise UserError(foreign(folder, command, made_by))
        work = [
            name
            for name in held
            if matches(f"{name}/" if (folder / name).is_dir() else name, self.names)
        ]
        if work:
            self.existing.require_choice(folder, replaceable=made_by is not None)
        if self.overwrite and made_by is None:
            raise UserError(foreign(folder, command, made_by))
        cleared = self.overwrite and self.clears_at_once
        if cleared:
            remove_own(folder, command, self.names)
        mark(folder, command)
        return bool(work) and not cleared

    def _agree(self) -> None:
        """Write the identity if there is none; UserError if there is another one."""
        file = self.out / self.identity_file
        folder, is_ours = file.parent, maker(file.parent) == self.command
        there = None if self.overwrite and is_ours else read_identity(file)
        if there is None and is_ours:  # parts of other settings, or of nobody knows which
            names = self.names if folder == self.out else [f"{folder.name}/"]
            remove_own(self.out, self.command, names)
        if there is None and folder.exists() and not is_ours:
            raise UserError(f"{folder} was not made by `{self.command}`: choose another output")
        if there is not None:
            require_same(folder, {**self.older, **there}, self.identity)
        mark(folder, self.command)
        write_json(file, self.identity)

    def clear(self, names: Sequence[str] | None = None) -> None:
        """Delete what earlier runs of this command wrote under `names` (None: all its names)."""
        if self.is_first:
            remove_own(self.out, self.command, self.names if names is None else names)

    def part(self, name: str, shapes: Shapes | None, compute: Callable[[], Arrays]) -> Arrays:
        """The arrays of a part: read if they were saved before, otherwise computed and saved.

        `name` may contain `/`. A damaged file, or one with arrays other than those of `shapes`, is
        computed again; with None any numbers are accepted.
        """
        file = self.out / Path(self.identity_file).parent / f"{name}.npz"
        saved = read_arrays(file, shapes)
        self._reused = saved is not None
        if saved is not None:
            return saved
        if file.exists():
            self.tell(f"{file} is damaged: computing it again")
        computed = compute()
        write_arrays(file, computed)
        return computed

    def replacing(self, name: str) -> AbstractContextManager[Path]:
        """A temporary file to write to, which becomes `name` in the folder when it is complete."""
        return replacing(self.out / name)

    def write_text(self, name: str, text: str) -> Path:
        """Write a file inside the folder, atomically; its path."""
        if self.is_first:
            write_text(self.out / name, text)
        return self.out / name

    def write_json(self, name: str, value: Any) -> Path:
        """Write JSON inside the folder, atomically; NaN and infinity become null."""
        if self.is_first:
            write_json(self.out / name, plain(value))
        return self.out / name

    def finish(self, summary: Mapping[str, Any], name: str = SUMMARY) -> dict[str, Any]:
        """Write the summary with versions and commit, last: its presence marks the work as done."""
        from trm_interp.runtime.provenance import git_commit, versions

        done = plain({**summary, "versions": versions(), "git_commit": git_commit()})
        self.write_json(name, done)
        return done


def read_identity(file: Path) -> dict[str, Any] | None:
    """The identity of the run that began a folder; None if there is none."""
    try:
        return read_json(file, dict[str, Any], advice="start over with --overwrite")
    except (FileNotFoundError, NotADirectoryError):
        return None
