"""Progress of long work on standard error: a bar in a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

SECONDS_BETWEEN_LINES = 30.0
Update = Callable[[int, int], None]  # done, of how many


@contextmanager
def progress(label: str, unit: str, note: Callable[[], str] = lambda: "") -> Iterator[Update]:
    """A function that is told (done, total); shows rate, time left and `note()`."""
    show = _bar if sys.stderr.isatty() else _lines
    with show(label, unit, note) as update:
        yield update


@contextmanager
def _bar(label: str, unit: str, note: Callable[[], str]) -> Iterator[Update]:
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
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None, unit=unit, note="")

        def update(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, note=note())

        yield update


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
