"""Errors that users can cause, and fix."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """One line: the file or setting, the problem, the next step."""


def first_line(error: BaseException) -> str:
    """The first line of another library's error message, or the name of its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def one_line(error: BaseException) -> str:
    """An error as one line; for errors of the operating system, the file and the problem."""
    if isinstance(error, OSError) and error.strerror:
        name = error.filename2 or error.filename  # the target of a rename, not its source
        place = f"{name}: " if name else ""
        return printable(f"{place}{error.strerror}")
    return printable("; ".join(" ".join(line.split()) for line in str(error).splitlines()))


def printable(text: str) -> str:
    r"""One line for a terminal: control characters escaped, very long words shortened.

    >>> printable("a\nb\x1b[2J"), len(printable("9" * 5000))
    ('a\\nb\\x1b[2J', 203)
    """
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return re.sub(r"\S{250,}", lambda word: f"{word[0][:100]}...{word[0][-100:]}", shown)


_OUT_OF_MEMORY = re.compile(
    r"out of memory|not enough memory|can't allocate memory|Unable to allocate|ALLOC_FAILED"
)
_ASKED_FOR = re.compile(r"allocate (\d+ bytes|\d[\d.]* ?[KMGTPE]?i?B)", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, numpy or torch ran out of memory; on the CPU torch raises a RuntimeError."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_OUT_OF_MEMORY.search(str(error)))


def out_of_memory(error: BaseException) -> str:
    """The message for the user, with how much was missing and what to try.

    >>> out_of_memory(MemoryError("Unable to allocate 7.45 GiB for an array"))
    'out of memory (7.45 GiB more were needed): try a smaller --batch-size, --limit or --steps'
    """
    size = _ASKED_FOR.search(str(error))
    asked = size.group(1) if size else ""
    if asked.endswith("bytes"):
        asked = f"{int(asked.split()[0]) / 1e9:.1f} GB"
    needed = f" ({asked} more were needed)" if asked else ""
    return f"out of memory{needed}: try a smaller --batch-size, --limit or --steps"


@contextmanager
def in_one_line(worded: Callable[[str], str] = lambda message: message) -> Iterator[None]:
    """Errors that users can fix, out of memory included, become one line on standard error.

    `worded` may change what a UserError says. The exit status is 2. TRM_INTERP_TRACEBACK=1 shows
    the traceback. A closed pipe (`| head`) is passed on.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except (UserError, OSError, MemoryError, RuntimeError) as error:
        memory = is_out_of_memory(error)
        if os.environ.get("TRM_INTERP_TRACEBACK") or (
            isinstance(error, RuntimeError) and not memory
        ):
            raise
        line = out_of_memory(error) if memory else one_line(error)
        line = worded(line) if isinstance(error, UserError) else line
        print(f"error: {line}", file=sys.stderr)
        raise SystemExit(2) from None
