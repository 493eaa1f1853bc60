"""Files that are whole or absent, whatever kills the process. Standard library only."""

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

# what a file system says that cannot do it, as opposed to one that failed
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
    """There is no room for a file."""


def publish(partial: Path, path: Path) -> None:
    """Let a written file appear under its name whole or not at all, also over a power cut.

    Where a file system cannot sync folders, the rename is left to it.
    """
    _sync(partial)
    os.replace(partial, path)
    with suppress(OSError):  # network mounts and Windows; the file itself is whole and in place
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
    """A new file beside `path` to write to; it takes that name at the end, and goes after an error.

    Its name is this process's own, and it is created exclusively: nothing that lies there is
    followed or shared. Where `path` is a symbolic link, the file that it points to is replaced.
    Leftovers of killed processes for the same `path` are removed. A full disk is a DiskError,
    whichever library writes.
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
    """A write that fails for want of room becomes a DiskError that names `path` and the cause.

    Libraries each have their own way to say so: HDF5, safetensors and PyTorch raise errors of
    several kinds, some only while the first one is being handled.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        full = _full(error)
        if full is None or isinstance(error, DiskError):
            raise
        said = f"{full.why}: make room and run it again, with --resume where there is one"
        raise DiskError(full.number, said, str(path)) from None


class _Full(NamedTuple):
    number: int
    why: str


def _full(error: BaseException) -> _Full | None:
    """The want of room that this error, or what it came from, is about."""
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
    """A hidden name for what will become `name`, by this process."""
    return f".{_cut(name)}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.partial"


def _cut(name: str) -> str:
    """As much of a name as there is room for: file systems count its bytes."""
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
    """Short digest of where process numbers mean something: on one machine, in one container.

    Containers may share the name of their machine and a folder, but count processes of their own.
    """
    space = ""
    with suppress(OSError):  # Linux only
        space = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{socket.gethostname()} {space}".encode()).hexdigest()[:8]


def is_running(pid: int) -> bool:
    """Whether a process of this machine lives; True where that cannot be told."""
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
    """UserError for what is there but is no plain file: a pipe would be waited for for ever."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a named pipe", stat.S_ISSOCK: "a socket"}
        what = next((kind for test, kind in kinds.items() if test(mode)), "a device")
        raise UserError(f"{path} is {what}, not a file")


def require_apart(out: Path, **inputs: Path | str | None) -> None:
    """UserError where the output `out` is one of the files that are read, by whatever name."""
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
    """One more line of a JSONL file."""
    with disk_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def keep_rows(path: Path, n: int) -> None:
    """Keep the first n lines of a JSONL file, none of them half-written."""
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
