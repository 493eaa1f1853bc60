"""One piece of work that writes an output: whose it is, what is there, how it ends and goes on.

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

- the output is locked: a second process is refused with one line, in a torchrun the first process
  acts for all;
- a marker says which command made the folder; what others made is neither mixed with nor deleted;
- earlier work needs --resume or --overwrite, and to be resumed it must have the same identity; the
  fields that differ are named. Work that keeps its identity elsewhere (in a training state, say)
  leaves `identity_file` out and calls `identity.require_same` itself;
- files are whole or absent, parts that are there are read instead of computed, and the summary
  comes last;
- the time left counts what this process does, not what it reads;
- SIGTERM ends the block as Ctrl-C does, in an `Interrupted` that says how to go on. With
  `stops_at_steps` both are questions that a loop asks with `run.should_stop()`, so that it can save
  a whole step; a second Ctrl-C ends the block at once.
"""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self
from zipfile import BadZipFile, ZipFile

import numpy as np

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import (
    plain,
    replacing,
    require_apart,
    require_regular,
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
from trm_interp.runtime.signals import how_to_go_on, stop_signals, terminated_as_interrupted

SUMMARY = "summary.json"
DAMAGED = (OSError, ValueError, EOFError, NotImplementedError, BadZipFile)
NUMBER, HEADER = 16, 4096  # bytes: the widest number of an array, and room for what describes one
Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]  # of every array of a part
Tell = Callable[[str], None]


class Interrupted(KeyboardInterrupt):
    """The work was stopped from outside; the message says how to go on, or is empty."""


def quiet(done: int, of: int) -> None:
    """Progress that nobody watches."""


def silent(line: str) -> None:
    """Messages that nobody reads."""


class Work(ABC):
    """What runs on folders and on files share: the lock, progress and interruption."""

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
        """Hold the output; whether earlier work is there to go on from."""

    def should_stop(self) -> bool:
        """With `stops_at_steps`: whether a signal has asked the loop to save and leave."""
        return self._asked_to_stop()

    def advance(self, done: int, of: int) -> None:
        """So much is done, of so much. What was read from earlier work counts for no rate."""
        if self._reused and isinstance(self._progress, Meter):
            self._progress.reuse(done - self._done)
        self._done, self._reused = done, False
        self._progress(done, of)

    def stage(self, label: str) -> None:
        """What follows is another stage of the work, with a progress of its own."""
        self._done, self._reused = 0, False
        if isinstance(self._progress, Meter):
            self._progress.start(label)

    def note(self, text: str) -> None:
        """A few words that stand behind the progress, such as the loss."""
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
            raise Interrupted(how_to_go_on(self.overwrite) if self.resumable else "") from error


class Run(Work):
    """Work that fills a folder. See the module's docstring for an example.

    `names`: patterns (`*.csv`) of what the command writes; a pattern that ends in `/` names folders
    of its own inside, which carry the same marker. `identity`: what the results depend on, as JSON
    can have it; kept in `identity_file`, a path inside the folder, and compared with what is there.
    `older`: values of identity fields that outputs of earlier versions lack. `resumable`: whether
    the command has --resume. `clear`: whether `overwrite` deletes earlier work at once; a command
    that may fail before it has anything to put in its place calls `clear()` itself. `team`: the
    processes of a torchrun. `unmarked`: recognises a folder from before there were markers; such a
    one can be resumed, not overwritten. `on_signal` gets the frame in which a signal arrives.

    `begun` says whether earlier work is there to go on from. UserError where another process writes
    to the folder, where it holds anything that this command did not make, earlier work and neither
    flag is given, or earlier work of another identity. A folder that the block leaves empty goes.
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
        """Write the identity where none is; UserError where there is another one."""
        file = self.out / self._identity_file
        folder = file.parent
        if self.overwrite and maker(folder) == self.command:  # parts of other settings
            remove_own(self.out, self.command, [f"{folder.name}/", file.name, "*.npz"])
        there = read_identity(file)
        if there is None and folder.exists() and maker(folder) != self.command:
            raise UserError(f"{folder} was not made by `{self.command}`: choose another output")
        if there is not None:
            require_same(folder, {**self._older, **there}, self.identity)
        mark(folder, self.command)
        write_json(file, self.identity)

    def clear(self, names: Sequence[str] | None = None) -> None:
        """Delete what earlier runs of this command wrote under `names`; None: under all of its."""
        if self.is_first:
            remove_own(self.out, self.command, self.names if names is None else names)

    def part(self, name: str, shapes: Shapes | None, compute: Callable[[], Arrays]) -> Arrays:
        """The arrays of a part: those that were saved under this name, else computed and saved now.

        `name` may contain `/`. A file that is damaged, or that holds other arrays than those of
        `shapes`, is computed again; with None it may hold any numbers.
        """
        file = self.out / Path(self._identity_file).parent / f"{name}.npz"
        saved = read_arrays(file, shapes)
        if saved is not None:
            self._reused = True
            return saved
        if file.exists():
            self.tell(f"{file} is damaged: computing it again")
        computed = compute()
        write_arrays(file, computed)
        return computed

    def replacing(self, name: str) -> AbstractContextManager[Path]:
        """A new file to write to, which takes the name `name` in the folder when it is whole."""
        return replacing(self.out / name)

    def write_text(self, name: str, text: str) -> Path:
        """Write a whole file inside the folder; its path."""
        if self.is_first:
            write_text(self.out / name, text)
        return self.out / name

    def write_json(self, name: str, value: Any) -> Path:
        """Write numbers, arrays, lists and mappings as JSON; NaN and infinity become null."""
        if self.is_first:
            write_json(self.out / name, plain(value))
        return self.out / name

    def finish(self, summary: Mapping[str, Any], name: str = SUMMARY) -> dict[str, Any]:
        """Write the summary, with what computed it. Its presence says that the work is done."""
        from trm_interp.runtime.provenance import git_commit, versions

        done = plain({**summary, "versions": versions(), "git_commit": git_commit()})
        self.write_json(name, done)
        return done


class FileRun(Work):
    """Work that writes one file, and perhaps others beside it that go with it.

    `is_own(file)` raises a UserError unless what is there is an earlier result of the command:
    `outputs.own_table(columns)` and `outputs.own_json(kind, command)` make such functions. Only
    then does `overwrite` replace it. `inputs`: what the command reads, by the name of the option;
    none of them may be the output.
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
                with suppress(OSError):  # something came to be there
                    folder.rmdir()

    def _claim(self) -> bool:
        """Whether a file is there; UserError unless it may be replaced."""
        is_there = os.path.lexists(self.out)
        if is_there and not self.overwrite:
            raise UserError(
                f"{self.out} exists: use --overwrite to replace it, or choose another output"
            )
        if self.out.exists():  # a dangling link is written through
            self._is_own(self.out)
        return is_there

    def write_text(self, text: str) -> None:
        """Replace the file, whole or not at all."""
        if self.is_first:
            write_text(self.out, text)

    def write_json(self, value: Any) -> None:
        """Replace the file by JSON; NaN and infinity become null."""
        if self.is_first:
            write_json(self.out, plain(value))


def read_identity(file: Path) -> dict[str, Any] | None:
    """What a folder was begun with; None where there is nothing of it."""
    try:
        return read_json(file, dict[str, Any], advice="start anew in another folder")
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_arrays(file: Path, arrays: Arrays) -> None:
    """An .npz file, whole or absent."""
    with replacing(file) as to, to.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def read_arrays(file: Path, shapes: Shapes | None) -> Arrays | None:
    """Finished numbers of these names and shapes; None where the file is missing or differs.

    Its sizes are read before its content: it cannot ask for more memory than they need.
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
