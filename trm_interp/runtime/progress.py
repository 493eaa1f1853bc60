"""Progress of long work on standard error: a bar in a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

SECONDS_BETWEEN_LINES = 30.0
Update = Callable[[int, int], None]  # done, of how many
_open: "Progress | None" = None  # what is on the terminal


@contextmanager
def progress(label: str, unit: str, note: Callable[[], str] = lambda: "") -> Iterator[Update]:
    """A function that is told (done, total); shows rate, time left and `note()`."""
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


@contextmanager
def _bar(label: str, unit: str, note: Callable[[], str], passes: bool = False) -> Iterator[Update]:
    with _display(passes) as bar:
        task = bar.add_task(label, total=None, unit=unit, note="")

        def update(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, note=note())

        try:
            yield update
        finally:
            if passes:
                bar.remove_task(task)


@contextmanager
def _display(passes: bool) -> Iterator["Progress"]:
    """The one display of this terminal, whose lines are tasks; it stays unless it `passes`."""
    global _open
    if _open is not None:
        yield _open
        return

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    text = partial(TextColumn, markup=False)  # names of files are no markup
    columns = (
        text("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        text("{task.fields[unit]}"),
        TimeElapsedColumn(),
        text("left"),
        TimeRemainingColumn(),
        text("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=passes) as _open:
        try:
            yield _open
        finally:
            _open = None


@contextmanager
def _lines(label: str, unit: str, note: Callable[[], str]) -> Iterator[Update]:
    began = shown = time.monotonic()
    first: int | None = None

    def update(done: int, total: int) -> None:
        nonlocal shown, first
        first = done if first is None else first
        now = time.monotonic()
        if now - shown < SECONDS_BETWEEN_LINES or done >= total:
            return
        shown = now
        rate = (done - first) / (now - began)
        left = f"{(total - done) / rate:.0f} s left" if rate > 0 else "time left unknown"
        print(f"{label}: {done}/{total} {unit}, {left} {note()}".rstrip(), file=sys.stderr)

    yield update
