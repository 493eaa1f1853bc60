"""Files that are complete or absent, even if the process is killed. Standard library only."""

import errno
import hashlib
import json
import math
import os
import re
import secrets
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from trm_interp.runtime.errors import UserError

# errors of a file system that lacks an operation, as opposed to a failing one
NOT_SUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
PARTIAL = re.compile(r"\.(?P<name>.*)\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.partial")
LONGEST_NAME = 150  # bytes of a file's own name in that of its partial; 255 are allowed
FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the limit of file sizes is reached (ulimit -f)",
}
NUMBERED = re.compile(r"(?:errno = |os error |Errno )(\d+)")  # by HDF5, Rust and Python
UNNUMBERED = re.compile(r"PytorchStreamWriter failed|unexpected pos|iostream error")  # by PyTorch


class DiskError(OSError):
    """There is no room left for a file."""


def publish(partial: Path, path: Path) -> None:
    """Move a finished file to its name, atomically and durably.

    On file systems that cannot sync folders, durability of the rename is left to them.
    """
    _sync(partial)
    os.replace(partial, path)
    with suppress(OSError):  # network mounts and Windows; the file itself is complete and in place
        _sync(path.parent)


def _sync(path: Path) -> None:
    # Windows syncs only what may be written, and a folder may not
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file next to `path`, which replaces `path` at the end of the block.

    After an error it is removed. Its name is unique to this process and it is created exclusively,
    so no existing file is followed or shared. If `path` is a symbolic link, its target is replaced.
    Temporary files that killed processes left for the same `path` are removed. A full disk is a
    DiskError, whichever library writes.
    """
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, path.name)
    partial = path.with_name(partial_name(path.name))
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        with disk_errors(path):
            yield partial
            publish(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn write errors for lack of space into a DiskError that names `path` and the cause.

    HDF5, safetensors and PyTorch report a full disk by errors of several classes, some of them
    raised only while the first one is being handled.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        full = _full(error)
        if full is None or isinstance(error, DiskError):
            raise
        advice = "make room and run it again, with --resume where there is one"
        raise DiskError(full.number, f"{full.why}: {advice}", str(path)) from None


class _Full(NamedTuple):
    number: int
    why: str


def _full(error: BaseException) -> _Full | None:
    """The lack of space that an error or one of its causes reports; None for other errors."""
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in chain:
        chain.append(at)
        at = at.__cause__ or at.__context__
    for one in reversed(chain):
        for number in (getattr(one, "errno", None), *map(int, NUMBERED.findall(str(one)))):
            if number in FULL:
                return _Full(number, FULL[number])
    if any(UNNUMBERED.search(str(one)) for one in chain):
        return _Full(errno.ENOSPC, "the disk is full, or the limit of file sizes is reached")
    return None


def partial_name(name: str) -> str:
    """A hidden temporary name, unique to this process, for what will become `name`."""
    return f".{_cut(name)}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.partial"


def _cut(name: str) -> str:
    """The name, shortened to what file systems allow, which count bytes."""
    encoded = os.fsencode(name)
    if len(encoded) <= LONGEST_NAME:
        return name
    return encoded[:LONGEST_NAME].decode(sys.getfilesystemencoding(), "ignore")


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove partial files that dead processes of this machine left in `folder` (None: all).

    Only plain files under names that `partial_name` gives are touched.
    """
    for entry in leftovers(folder, name):
        if entry.is_file():
            entry.unlink(missing_ok=True)


def leftovers(folder: Path, name: str | None = None) -> Iterator[Path]:
    """Entries of `folder` under names that `partial_name` gave to dead processes of this machine.

    Of `name` only, or with None of all.
    """
    for entry in list(folder.iterdir()):
        match = PARTIAL.fullmatch(entry.name)
        if match is None or (name is not None and match["name"] != _cut(name)):
            continue
        if match["host"] == _host() and not is_running(int(match["pid"])):
            yield entry


@cache
def _host() -> str:
    """Short digest of the machine and container, within which process numbers are unique.

    Containers may share a host name and a folder, but have process numbers of their own.
    """
    space = ""
    with suppress(OSError):  # Linux only
        space = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{socket.gethostname()} {space}".encode()).hexdigest()[:8]


def is_running(pid: int) -> bool:
    """Whether a process of this machine is running; True if that cannot be determined."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def require_regular(path: Path) -> None:
    """UserError if the path exists but is no regular file: opening a pipe would block for ever."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a named pipe", stat.S_ISSOCK: "a socket"}
        what = next((kind for test, kind in kinds.items() if test(mode)), "a device")
        raise UserError(f"{path} is {what}, not a file")


def require_apart(out: Path, **inputs: Path | str | None) -> None:
    """UserError if the output `out` is one of the input files, under whatever name."""
    for name, path in inputs.items():
        if path and os.path.realpath(out) == os.path.realpath(path):
            raise UserError(f"{out} is what --{name} reads: choose another output")


def write_text(path: Path, text: str) -> None:
    with replacing(path) as to:
        to.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    require_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append one line to a JSONL file."""
    with disk_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def keep_rows(path: Path, n: int) -> None:
    """Truncate a JSONL file to its first n complete lines."""
    if not path.exists():
        return
    require_regular(path)
    rows = [row for row in path.read_bytes().splitlines(keepends=True) if row.endswith(b"\n")]
    with replacing(path) as to:
        to.write_bytes(b"".join(rows[:n]))


def plain(value: Any) -> Any:
    """Numpy's numbers and arrays as Python's; NaN and infinity, which JSON lacks, as None.

    >>> import numpy as np
    >>> plain({"a": np.float32(0.5), "b": [np.nan, np.arange(2)], "c": Path("d")})
    {'a': 0.5, 'b': [None, [0, 1]], 'c': 'd'}
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
