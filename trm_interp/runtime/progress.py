"""Progress of long work on standard error: a bar in a terminal, a line now and then elsewhere."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

SECONDS_BETWEEN_LINES = 30.0
WINDOW = 60.0  # seconds of recent work that the time left is reckoned from
SAMPLES = 10  # that the window holds at least, where they are rare
Update = Callable[[int, int], None]  # done, of how many
_open: "Progress | None" = None  # what is on the terminal


class Meter:
    """A function that is told (done, total); it shows them, with the time left and a note.

    `label` says what is being done; work in stages names each with `start`. The time left is that
    of the work still to do at the rate of this process's own recent work: what an earlier run had
    done, be it told by the first call or by `reuse`, counts for no rate.
    """

    def __init__(
        self, show: Callable[["Meter"], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._show, self._clock = show, clock
        self.start("")

    def start(self, label: str) -> None:
        """What is told from now on is another stage of the work, with a count of its own."""
        self.label, self.note = label, ""
        self.done = self.total = 0
        self._before: int | None = None  # done by earlier runs
        self._recent: deque[tuple[float, int]] = deque()  # time, and work of this process so far

    def __call__(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        if self._before is None:
            self._before = done
        now = self._clock()
        recent, worked = self._recent, done - self._before
        if not recent or now - recent[-1][0] >= WINDOW / 60 or worked < recent[-1][1]:
            recent.append((now, worked))
        while len(recent) > SAMPLES and now - recent[0][0] > WINDOW:
            recent.popleft()
        self._show(self)

    def reuse(self, n: int) -> None:
        """`n` of what is done next was not done now but read from an earlier run."""
        self._before = (self._before or 0) + n

    def seconds_left(self) -> float | None:
        """At the recent rate; None before any work is done."""
        if self._before is None or not self._recent:
            return None
        then, before = self._recent[0]
        worked = self.done - self._before - before
        seconds = self._clock() - then
        return (self.total - self.done) * seconds / worked if worked > 0 and seconds > 0 else None


def duration(seconds: float) -> str:
    """For people.

    >>> duration(42.4), duration(200), duration(7500)
    ('42 s', '3 min 20 s', '2 h 05 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


@contextmanager
def progress(label: str, unit: str, note: Callable[[], str] = lambda: "") -> Iterator[Meter]:
    """A meter that is told (done, total); it shows the time left, and its own or the given note."""
    show = _bar if sys.stderr.isatty() else _lines
    with show(label, unit, note) as update:
        yield update


@contextmanager
def passing(label: str, unit: str) -> Iterator[Update]:
    """As `progress`, of work that is often none: shown once there is some, gone when it is done.

    It may be within another `progress`.
    """
    with ExitStack() as stack:
        shown: list[Update] = []

        def update(done: int, total: int) -> None:
            if not shown and done < total:
                show = partial(_bar, passes=True) if sys.stderr.isatty() else _lines
                shown.append(stack.enter_context(show(label, unit, lambda: "")))
            for tell in shown:
                tell(done, total)

        yield update


def _time_left(meter: Meter) -> str:
    seconds = meter.seconds_left()
    return "time left unknown" if seconds is None else f"{duration(seconds)} left"


@contextmanager
def _bar(label: str, unit: str, note: Callable[[], str], passes: bool = False) -> Iterator[Meter]:
    with _display(passes) as bar:
        tasks = {"": bar.add_task(label, total=None, unit=unit, left="", note="")}

        def show(meter: Meter) -> None:
            if meter.label not in tasks:
                if "" in tasks:  # nothing was told of it
                    bar.remove_task(tasks.pop(""))
                tasks[meter.label] = bar.add_task(meter.label, unit=unit, left="", note="")
            left = _time_left(meter) if meter.done < meter.total else ""
            text = meter.note or note()
            bar.update(
                tasks[meter.label], completed=meter.done, total=meter.total, left=left, note=text
            )

        try:
            yield Meter(show)
        finally:
            if passes:
                for task in tasks.values():
                    bar.remove_task(task)


@contextmanager
def _display(passes: bool) -> Iterator["Progress"]:
    """The one display of this terminal, whose lines are tasks; it stays unless it `passes`."""
    global _open
    if _open is not None:
        yield _open
        return

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    text = partial(TextColumn, markup=False)  # names of files are no markup
    columns = (
        text("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        text("{task.fields[unit]}"),
        TimeElapsedColumn(),
        text("{task.fields[left]}"),
        text("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=passes) as _open:
        try:
            yield _open
        finally:
            _open = None


@contextmanager
def _lines(label: str, unit: str, note: Callable[[], str]) -> Iterator[Meter]:
    shown = time.monotonic()

    def show(meter: Meter) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown < SECONDS_BETWEEN_LINES or meter.done >= meter.total:
            return
        shown = now
        counts = f"{meter.done}/{meter.total} {unit}"
        line = f"{meter.label or label}: {counts}, {_time_left(meter)} {meter.note or note()}"
        print(line.rstrip(), file=sys.stderr)

    yield Meter(show)
