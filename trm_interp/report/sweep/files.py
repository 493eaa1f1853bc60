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


def identity_of(words: Sequence[str], out: Path, digests: dict[str, str] | None = None) -> str:
    """What tells whether files and folders named in the words are the same as before, as JSON;
    empty where there are none. Those in `out` are other jobs', and left out, and so is a folder
    around it.

    Also of `--option=FILE`, `NAME=CKPT` and `CKPT@FILE`; the first word is the command's name.
    Folders count by the files in them. Of large files the size and the time of the last change
    count. `digests`: what was read already, by absolute path.
    """
    inside, found = os.path.abspath(out), {}
    digests = {} if digests is None else digests
    for word in words[1:]:
        for part in {word, *re.split("[=@]", word)}:
            if not part or part.startswith("-"):
                continue
            path = existing(part)
            absolute = os.path.abspath(path)
            if os.path.commonpath([inside, absolute]) in (inside, absolute):  # in it or around it
                continue
            if path.is_file() or path.is_dir():
                if absolute not in digests:
                    digests[absolute] = _digest(path)
                found[part] = digests[absolute]
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
