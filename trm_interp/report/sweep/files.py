"""The identity of the files that a command line names."""

import json
import os
import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from trm_interp.runtime.artifacts import existing
from trm_interp.runtime.files import sha256_of

LARGE = 64 * 10**6  # bytes of a file of which size and time stand for the content
MOST = 10_000  # files of a folder that are looked at


def identity_of(words: Sequence[str], out: Path) -> str:
    """What tells whether files and folders named in the words are the same as before, as JSON;
    empty where there are none. Those in `out` are other jobs', and left out.

    Also of `--option=FILE`, `NAME=CKPT` and `CKPT@FILE`. Folders count by the files in them. Of
    large files the size and the time of the last change count.
    """
    inside, found = os.path.abspath(out), {}
    for word in words:
        for part in {word, *re.split("[=@]", word)}:
            if not part or part.startswith("-"):
                continue
            path = existing(part)
            absolute = os.path.abspath(path)
            if absolute == inside or absolute.startswith(inside + os.sep) or not path.exists():
                continue
            if path.is_file() or (path.is_dir() and os.sep in part):
                found[part] = _digest(path)
    return json.dumps(found, sort_keys=True) if found else ""


def _digest(path: Path) -> str:
    if path.is_file():
        status = path.stat()
        is_large = status.st_size > LARGE
        return f"{status.st_size} {status.st_mtime_ns}" if is_large else sha256_of(path)
    every = sha256()
    for file in sorted(path.rglob("*"))[:MOST]:
        if file.is_file():
            every.update(f"{file.relative_to(path)} {_digest(file)}\n".encode())
    return every.hexdigest()
