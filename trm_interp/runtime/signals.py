"""SIGINT and SIGTERM: interrupted work ends where it can be resumed.

Signals are handled by the main thread only; in other threads these blocks change nothing.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def how_to_resume(overwrite: bool = False) -> str:
    """Advice after an interruption; --overwrite would start over, so --resume replaces it.

    >>> how_to_resume(overwrite=True)
    'to continue, run the same command with --resume instead of --overwrite'
    """
    instead = " instead of --overwrite" if overwrite else ""
    return f"to continue, run the same command with --resume{instead}"


def _nothing(frame: FrameType | None) -> None:
    """Accept a signal anywhere."""


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt in the block, as Ctrl-C does, so that it can clean up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling(interrupt, signal.SIGTERM):
        yield


@contextmanager
def stop_signals(
    before: Callable[[FrameType | None], None] = _nothing,
) -> Iterator[Callable[[], bool]]:
    """Yield a function that is True once SIGINT or SIGTERM has arrived; ask it after each step.

    A second SIGINT raises KeyboardInterrupt. `before` is called with the frame in which a signal
    arrives, and may raise if the current step would take too long to wait for.
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
