"""The errors that a user can cause and mend."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """One line: the file or setting, what is wrong with it, what to do next."""


def first_line(error: BaseException) -> str:
    """What an error of another library says, short enough for one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def spoken(error: BaseException) -> str:
    """An error as one line; of the operating system's, the file and what is wrong with it."""
    if isinstance(error, OSError) and error.strerror:
        name = error.filename2 or error.filename  # the target of a rename, not its source
        place = f"{name}: " if name else ""
        return f"{place}{error.strerror}"
    return "; ".join(" ".join(line.split()) for line in str(error).splitlines())


@contextmanager
def in_one_line() -> Iterator[None]:
    """What a user can mend ends as one line on standard error and exit status 2.

    TRM_INTERP_TRACEBACK=1 shows where it came from. A reader who has enough (`| head`) is no error.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except (UserError, OSError) as error:
        if os.environ.get("TRM_INTERP_TRACEBACK"):
            raise
        print(f"error: {spoken(error)}", file=sys.stderr)
        raise SystemExit(2) from None
