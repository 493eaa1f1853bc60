"""The errors that a user can cause and mend."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """One line: the file or setting, what is wrong with it, what to do next."""


def first_line(error: BaseException) -> str:
    """What an error of another library says, short enough for one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def in_one_line() -> Iterator[None]:
    """For scripts: what a user can mend ends as one line on standard error and exit status 2."""
    try:
        yield
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
