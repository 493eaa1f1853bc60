"""SIGINT and SIGTERM: work that is stopped ends at a place where it can go on.

Signals are handled by the main thread only; in other threads these blocks change nothing.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def how_to_go_on(overwrite: bool = False) -> str:
    """After a stop: --resume takes the place of --overwrite, which would start anew.

    >>> how_to_go_on(overwrite=True)
    'the same command with --resume for --overwrite goes on'
    """
    return f"the same command with --resume{' for --overwrite' if overwrite else ''} goes on"


def _nothing(frame: FrameType | None) -> None:
    """A signal that comes at a good place."""


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM in the block is a KeyboardInterrupt, as Ctrl-C is, so that the block can clean up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling(interrupt, signal.SIGTERM):
        yield


@contextmanager
def stop_signals(
    before: Callable[[FrameType | None], None] = _nothing,
) -> Iterator[Callable[[], bool]]:
    """A question that SIGINT (once) or SIGTERM answers with yes, to be asked at each whole step.

    A second SIGINT is a KeyboardInterrupt. `before` gets the frame in which a signal arrives; it
    may raise where the step would take too long to wait for.
    """
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        before(frame)
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True

    with _handling(ask, signal.SIGINT, signal.SIGTERM):
        yield lambda: asked


@contextmanager
def _handling(
    handler: Callable[[int, FrameType | None], None], *numbers: signal.Signals
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in kept.items():
            signal.signal(number, earlier)
