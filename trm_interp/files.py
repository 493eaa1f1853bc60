"""Files that are whole or absent, whatever kills the process. Standard library only."""

import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def publish(partial: Path, path: Path) -> None:
    """Let a written file appear under its name whole or not at all, also over a power cut."""
    _fsync(partial)
    os.replace(partial, path)
    _fsync(path.parent)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; it takes that name at the end, and goes after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        publish(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as to:
        to.write_text(text)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def append_row(path: Path, row: dict[str, Any]) -> None:
    """One more line of a JSONL file."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def keep_rows(path: Path, n: int) -> None:
    """Keep the first n lines of a JSONL file, none of them half-written."""
    if not path.exists():
        return
    rows = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    write_text(path, "".join(rows[:n]))


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
