"""The errors that a user can cause and mend."""


class UserError(ValueError):
    """One line: the file or setting, what is wrong with it, what to do next."""


def first_line(error: BaseException) -> str:
    """What an error of another library says, short enough for one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
