"""One writer at a time for an output: advisory locks that are released when their process ends.

Locks are POSIX `flock`s. Where a system or a file system has none (Windows, some network mounts),
a warning is printed once and work continues without protection.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import NOT_SUPPORTED

LOCK = ".lock"
_warned = False


def _warn(line: str) -> None:
    """Print a warning once per process."""
    global _warned
    if not _warned:
        print(line, file=sys.stderr)
    _warned = True


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock an existing folder by a file inside it. UserError if another process holds the lock."""
    lock = Lock(folder / LOCK, folder)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def locked_beside(path: Path) -> Iterator[None]:
    """Lock a path by a hidden file next to it; it need not exist and may be replaced meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = Lock(path.with_name(f".{path.name}{LOCK}"), path)
    try:
        yield
    finally:
        lock.release()


class Lock:
    """Acquired on construction; `release` also removes the lock file.

    `what`: the output that the lock protects, named in the UserError if another process holds it.
    """

    def __init__(self, file: Path, what: Path, warn: Callable[[str], None] = _warn) -> None:
        self.file = file
        self._handle: int | None = None
        while self._handle is None:
            handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            try:
                if not _take(handle, what, warn):
                    os.close(handle)
                    self._remove()
                    return
                if _is_still(handle, file):  # not removed by its previous holder
                    self._handle = handle
                    return
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    def release(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            self._remove()
            os.close(handle)

    def _remove(self) -> None:
        with suppress(OSError):
            self.file.unlink()


def _take(handle: int, what: Path, warn: Callable[[str], None]) -> bool:
    """Whether the lock was acquired; False, after a warning, where there are no locks."""
    try:
        import fcntl
    except ImportError:  # not POSIX
        warn(f"{what}: this system has no file locks; let no other process write there")
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{what} is being written by another process: wait for it") from None
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
        warn(f"{what}: its file system has no locks; let no other process write there")
        return False
    return True


def _is_still(handle: int, file: Path) -> bool:
    """Whether the file under this name is still the one that was opened."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(file))
    except FileNotFoundError:
        return False
