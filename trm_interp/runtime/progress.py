"""Progress of long work on standard error: a bar in a terminal, otherwise an occasional line."""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

SECONDS_BETWEEN_LINES = 30.0  # after the first minute
SECONDS_BETWEEN_FIRST = 4.0  # in the first minute
SECONDS_BEFORE_LINES = 3.0  # after SECONDS_BEFORE_WAITING without a word: at most 5 in all
SECONDS_BEFORE_WAITING = 2.0
FIRST_MINUTE = 60.0
WINDOW = 60.0  # seconds of recent work that the time left is reckoned from
SAMPLES = 10  # that the window holds at least, where they are rare
SLOW_START = 5.0  # times as slow as later work: a beginning that says nothing of it
Update = Callable[[int, int], None]  # done, of how many
_open: "Progress | None" = None  # the display on the terminal


class Meter:
    """Called with (done, total); shows them with the time left and a note.

    `label` names the current stage of the work; `start` begins another. The time left is estimated
    from the recent rate of this process alone: what an earlier run had done, as given by the first
    call or by `reuse`, does not count. `share`, set before every call, is the share of the work
    that is done, where later units cost more or less than earlier ones.
    """

    def __init__(
        self, show: Callable[["Meter"], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._show, self._clock = show, clock
        self.start("")

    def start(self, label: str) -> None:
        """Begin another stage of the work, which is counted from 0."""
        self.label, self.note = label, ""
        self.done = self.total = 0
        self.share: float | None = None
        self._before: int | None = None  # done by earlier runs
        # time, units of this process so far, and the share
        self._recent: deque[tuple[float, int, float | None]] = deque()

    def __call__(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        if self._before is None:
            self._before = done
        now = self._clock()
        recent, worked = self._recent, done - self._before
        if not recent or now - recent[-1][0] >= WINDOW / 60 or worked < recent[-1][1]:
            recent.append((now, worked, self.share))
        while len(recent) > SAMPLES and now - recent[0][0] > WINDOW:
            recent.popleft()
        if self.share is None and self._began_slowly():
            recent.popleft()
        self._show(self)

    def _began_slowly(self) -> bool:
        """Whether the window begins with work that took far longer than what came after it, such as
        a first unit in which something was compiled."""
        if len(self._recent) < 3:
            return False
        (then, before, _), (first, units, _), (now, worked, _) = (
            self._recent[at] for at in (0, 1, -1)
        )
        slow, rest = (first - then) * (worked - units), (now - first) * (units - before)
        return worked > units > before and slow > SLOW_START * rest

    def reuse(self, n: int) -> None:
        """`n` units of the next call were not computed now but read from an earlier run."""
        self._before = (self._before or 0) + n

    def seconds_left(self) -> float | None:
        """Seconds until the total is reached at the recent rate; None before any work is done."""
        if self._before is None or not self._recent:
            return None
        then, before, share = self._recent[0]
        worked, left = float(self.done - self._before - before), float(self.total - self.done)
        if self.share is not None and share is not None:
            worked, left = self.share - share, 1 - self.share
        seconds = self._clock() - then
        return left * seconds / worked if worked > 0 and seconds > 0 else None


def duration(seconds: float) -> str:
    """A number of seconds, in words.

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
    """Yield a meter to call with (done, total); `note` is shown where the meter has none."""
    show = _bar if sys.stderr.isatty() else _lines
    with show(label, unit, note) as update:
        yield update


@contextmanager
def passing(label: str, unit: str) -> Iterator[Update]:
    """As `progress`, for work that is often empty: shown only while there is work left.

    May be nested inside another `progress`.
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
                if "" in tasks:  # the stage before any other, never used
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
    """The display of this terminal, one line per task; it is cleared at the end if it `passes`."""
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
    began = shown = time.monotonic()
    pause = SECONDS_BEFORE_LINES
    lock = threading.Lock()

    def show(meter: Meter, finishing: bool = False) -> None:
        nonlocal shown, pause
        now = time.monotonic()
        is_done = 0 < meter.total <= meter.done
        if is_done and not finishing:
            return
        with lock:
            if now - shown < pause:
                return
            early = now - began < FIRST_MINUTE
            shown, pause = now, SECONDS_BETWEEN_FIRST if early else SECONDS_BETWEEN_LINES
        counts = f"{meter.done}/{meter.total or '?'} {unit}"
        left = "finishing" if is_done else _time_left(meter)
        line = f"{meter.label or label}: {counts}, {left} {meter.note or note()}"
        print(line.rstrip(), file=sys.stderr)

    meter = Meter(show)
    # also while one unit takes long, or what comes after the last one, such as drawing
    with _every(1.0, lambda: show(meter, finishing=True)):
        yield meter


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Say `text` on standard error if the block takes some seconds, and a dot for as many more."""
    said = False

    def tell() -> None:
        nonlocal said
        print("." if said else f"{text} ..", end="", file=sys.stderr, flush=True)
        said = True

    try:
        with _every(SECONDS_BEFORE_WAITING, tell):
            yield
    finally:
        if said:
            print(file=sys.stderr)


@contextmanager
def _every(seconds: float, do: Callable[[], None]) -> Iterator[None]:
    """Calls `do` every so many seconds while the block runs."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(seconds):
            do()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
