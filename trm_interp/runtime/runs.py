"""One piece of work that writes an output: ownership, resuming, atomic results, interruption.

A command opens a `Run` on its output folder, or a `FileRun` on a single file, and does its work
inside the block:

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
- earlier work needs --resume or --overwrite, and can be resumed only with the same identity; fields
  that differ are named. Work that keeps its identity elsewhere, such as in a training state, leaves
  `identity_file` out and calls `identity.require_same` itself;
- files are complete or absent, parts that exist are read instead of computed, and the summary is
  written last;
- the time left counts what this process computes, not what it reads;
- SIGTERM ends the block as Ctrl-C does, with an `Interrupted` that says how to resume. With
  `stops_at_steps` a loop asks `run.should_stop()` instead, and can save after a complete step; a
  second Ctrl-C ends the block at once.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from trm_interp.runtime.arrays import Arrays, Shapes, read_arrays, write_arrays
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import (
    plain,
    replacing,
    require_apart,
    write_json,
    write_text,
)
from trm_interp.runtime.identity import require_same
from trm_interp.runtime.locks import locked_beside
from trm_interp.runtime.outputs import (
    Team,
    by_the_first,
    maker,
    mark,
    remove_own,
    writing,
)
from trm_interp.runtime.progress import Meter, Update
from trm_interp.runtime.schema import read_json
from trm_interp.runtime.signals import how_to_resume, stop_signals, terminated_as_interrupted

SUMMARY = "summary.json"
Tell = Callable[[str], None]


class Interrupted(KeyboardInterrupt):
    """The work was interrupted; the message says how to resume it, or is empty."""


def quiet(done: int, of: int) -> None:
    """Ignore progress."""


def silent(line: str) -> None:
    """Ignore a message."""


class Work(ABC):
    """What `Run` and `FileRun` share: the lock, progress and interruption."""

    def __init__(
        self,
        out: Path,
        command: str,
        *,
        resumable: bool,
        overwrite: bool,
        team: Team | None,
        tell: Tell,
        progress: Update,
        stops_at_steps: bool,
        on_signal: Callable[[FrameType | None], None],
    ) -> None:
        self.out, self.command, self.overwrite, self.resumable = out, command, overwrite, resumable
        self.team = team
        self.is_first = team is None or team.rank == 0
        self.tell = tell if self.is_first else silent
        self.begun = False
        self._progress = progress if self.is_first else quiet
        self._stops_at_steps, self._on_signal = stops_at_steps, on_signal
        self._asked_to_stop: Callable[[], bool] = lambda: False
        self._done = 0
        self._reused = False
        self._open = ExitStack()

    @abstractmethod
    def _held(self) -> AbstractContextManager[bool]:
        """Lock the output; yields whether there is earlier work to resume."""

    def should_stop(self) -> bool:
        """With `stops_at_steps`: whether a signal has asked the loop to save and stop."""
        return self._asked_to_stop()

    def advance(self, done: int, of: int) -> None:
        """Report progress; parts that were read from earlier work do not count for the rate."""
        if self._reused and isinstance(self._progress, Meter):
            self._progress.reuse(done - self._done)
        self._done, self._reused = done, False
        self._progress(done, of)

    def stage(self, label: str) -> None:
        """Begin another stage of the work, with its own progress."""
        self._done, self._reused = 0, False
        if isinstance(self._progress, Meter):
            self._progress.start(label)

    def note(self, text: str) -> None:
        """Show a short text with the progress, such as the loss."""
        if isinstance(self._progress, Meter):
            self._progress.note = text

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            held = self._held() if self.team is None else by_the_first(self.team, self._held())
            self.begun = stack.enter_context(held)
            if self._stops_at_steps:
                self._asked_to_stop = stack.enter_context(stop_signals(self._on_signal))
            else:
                stack.enter_context(terminated_as_interrupted())
            self._open = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, trace)
        if isinstance(error, KeyboardInterrupt) and not isinstance(error, Interrupted):
            raise Interrupted(how_to_resume(self.overwrite) if self.resumable else "") from error


class Run(Work):
    """Work that fills a folder. See the module's docstring for an example.

    `names`: patterns (`*.csv`) of what the command writes; a pattern that ends in `/` matches its
    own subfolders, which carry the same marker. `identity`: what the results depend on, as JSON;
    it is kept in `identity_file`, a path inside the folder, and compared with what is there.
    `older`: values of identity fields that outputs of earlier versions lack. `resumable`: whether
    the command has --resume. `clear`: whether `overwrite` deletes earlier work at once; a command
    that may fail before it has new results calls `clear()` itself. `team`: the processes of a
    torchrun. `unmarked`: recognises a folder from before there were markers; such a folder can be
    resumed, not overwritten. `on_signal` is called with the frame in which a signal arrives.

    `begun` says whether there is earlier work to resume. UserError if another process writes to
    the folder, if it contains anything that this command did not make, if it contains earlier work
    and neither flag is given, or if the earlier work has another identity. A folder that the block
    leaves empty is removed.
    """

    def __init__(
        self,
        out: Path,
        command: str,
        names: Sequence[str],
        *,
        identity: Mapping[str, Any] | None = None,
        identity_file: str = "",
        older: Mapping[str, Any] | None = None,
        resume: bool = False,
        overwrite: bool = False,
        resumable: bool = True,
        clear: bool = True,
        team: Team | None = None,
        tell: Tell = print,
        progress: Update = quiet,
        unmarked: Callable[[Path], bool] = lambda folder: False,
        stops_at_steps: bool = False,
        on_signal: Callable[[FrameType | None], None] = lambda frame: None,
    ) -> None:
        super().__init__(
            out,
            command,
            resumable=resumable,
            overwrite=overwrite,
            team=team,
            tell=tell,
            progress=progress,
            stops_at_steps=stops_at_steps,
            on_signal=on_signal,
        )
        self.names, self.resume = tuple(names), resume
        self.identity: dict[str, Any] = plain(dict(identity or {}))
        self._identity_file, self._older = identity_file, dict(older or {})
        self._clear, self._unmarked = clear, unmarked

    @contextmanager
    def _held(self) -> Iterator[bool]:
        with writing(
            self.out,
            self.command,
            self.names,
            resume=self.resume,
            overwrite=self.overwrite,
            resumable=self.resumable,
            clear=self._clear,
            unmarked=self._unmarked,
        ) as begun:
            if self._identity_file:
                self._agree()
            yield begun

    def _agree(self) -> None:
        """Write the identity if there is none; UserError if there is another one."""
        file = self.out / self._identity_file
        folder = file.parent
        if self.overwrite and maker(folder) == self.command:  # parts of other settings
            own = [name for name in self.names if name.endswith(".npz")]
            own = [file.name, *own] if folder == self.out else [f"{folder.name}/"]
            remove_own(self.out, self.command, own)
        there = read_identity(file)
        if there is None and folder.exists() and maker(folder) != self.command:
            raise UserError(f"{folder} was not made by `{self.command}`: choose another output")
        if there is not None:
            require_same(folder, {**self._older, **there}, self.identity)
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
        file = self.out / Path(self._identity_file).parent / f"{name}.npz"
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


class FileRun(Work):
    """Work that writes one file.

    `is_own(file)` raises a UserError unless an existing file is an earlier result of the command:
    `outputs.own_table(columns)` and `outputs.own_json(kind, command)` make such functions. Only
    such a file is replaced with `overwrite`. `inputs`: the files that the command reads, by name of
    their option; the output may be none of them.
    """

    def __init__(
        self,
        out: Path,
        command: str,
        is_own: Callable[[Path], None],
        *,
        overwrite: bool = False,
        inputs: Mapping[str, Path | str | None] | None = None,
        team: Team | None = None,
        tell: Tell = print,
        progress: Update = quiet,
        stops_at_steps: bool = False,
        on_signal: Callable[[FrameType | None], None] = lambda frame: None,
    ) -> None:
        super().__init__(
            out,
            command,
            resumable=False,
            overwrite=overwrite,
            team=team,
            tell=tell,
            progress=progress,
            stops_at_steps=stops_at_steps,
            on_signal=on_signal,
        )
        self._is_own, self._inputs = is_own, dict(inputs or {})

    @contextmanager
    def _held(self) -> Iterator[bool]:
        require_apart(self.out, **self._inputs)
        if self.out.is_dir():
            raise UserError(f"{self.out} is a folder: choose another output")
        made = [folder for folder in self.out.parents if not folder.exists()]
        try:
            with locked_beside(self.out):
                yield self._claim()
        finally:
            for folder in made:
                with suppress(OSError):  # it is not empty
                    folder.rmdir()

    def _claim(self) -> bool:
        """Whether the file exists; UserError unless it may be replaced."""
        is_there = os.path.lexists(self.out)
        if is_there and not self.overwrite:
            raise UserError(
                f"{self.out} exists: use --overwrite to replace it, or choose another output"
            )
        if self.out.exists():  # a dangling link is written through
            self._is_own(self.out)
        return is_there

    def write_text(self, text: str) -> None:
        """Write the file, atomically."""
        if self.is_first:
            write_text(self.out, text)

    def write_json(self, value: Any) -> None:
        """Write the file as JSON, atomically; NaN and infinity become null."""
        if self.is_first:
            write_json(self.out, plain(value))


def read_identity(file: Path) -> dict[str, Any] | None:
    """The identity of the run that began a folder; None if there is none."""
    try:
        return read_json(file, dict[str, Any], advice="start over in another folder")
    except (FileNotFoundError, NotADirectoryError):
        return None
