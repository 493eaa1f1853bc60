"""What all work that writes an output shares: the lock, progress and interruption.

`runs.Run` fills a folder, `file_run.FileRun` writes a file, `fresh.FolderRun` makes a folder that
appears whole. `existing.py` has the law of what they do with earlier work.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from trm_interp.runtime.existing import Existing
from trm_interp.runtime.outputs import Team, by_the_first
from trm_interp.runtime.progress import Meter, Update
from trm_interp.runtime.signals import how_to_resume, stop_signals, terminated_as_interrupted

Tell = Callable[[str], None]


class Interrupted(KeyboardInterrupt):
    """The work was interrupted; the message says how to resume it, or is empty."""


def quiet(done: int, of: int) -> None:
    """Ignore progress."""


def silent(line: str) -> None:
    """Ignore a message."""


def anywhere(frame: FrameType | None) -> None:
    """Accept a signal in whatever frame it arrives."""


@dataclass(eq=False)
class Work(ABC):
    """Options of all work that writes the output `out`, and what its block can do.

    `resume`, `overwrite`: what to do with earlier work, `resumable`: whether the command has
    --resume (`existing.py`). `team`: the processes of a torchrun; the first one acts and speaks for
    all. `stops_at_steps`: the block asks `should_stop()` instead of being interrupted, and
    `on_signal` is called with the frame in which a signal arrives.

    `begun`: whether there is earlier work to resume.
    """

    out: Path
    command: str
    _: KW_ONLY
    resume: bool = False
    overwrite: bool = False
    resumable: bool = True
    team: Team | None = None
    tell: Tell = print
    progress: Update = quiet
    stops_at_steps: bool = False
    on_signal: Callable[[FrameType | None], None] = anywhere
    begun: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.existing = Existing(self.resume, self.overwrite, self.resumable)
        self.is_first = self.team is None or self.team.rank == 0
        if not self.is_first:
            self.tell, self.progress = silent, quiet
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
        if self._reused and isinstance(self.progress, Meter):
            self.progress.reuse(done - self._done)
        self._done, self._reused = done, False
        self.progress(done, of)

    def stage(self, label: str) -> None:
        """Begin another stage of the work, with its own progress."""
        self._done, self._reused = 0, False
        if isinstance(self.progress, Meter):
            self.progress.start(label)

    def note(self, text: str) -> None:
        """Show a short text with the progress, such as the loss."""
        if isinstance(self.progress, Meter):
            self.progress.note = text

    def tell_complete(self) -> None:
        """Say that --resume has nothing to do."""
        self.tell(f"{self.out} is complete")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            held = self._held() if self.team is None else by_the_first(self.team, self._held())
            self.begun = stack.enter_context(held)
            if self.stops_at_steps:
                self._asked_to_stop = stack.enter_context(stop_signals(self.on_signal))
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
            raise Interrupted(self._how_to_go_on()) from error

    def _how_to_go_on(self) -> str:
        """Advice after an interruption; none where the work begins anew."""
        if self.resumable:
            return how_to_resume(self.overwrite)
        return "to continue, run the same command again" if self.resume else ""
