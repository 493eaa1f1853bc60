"""numba's compiler, with a cache on disk that no edit leaves stale.

numba asks only whether the file of a function itself has changed, not the files of what it calls.
"""

import atexit
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import config

settings: Any = config
HERE = Path(__file__).parent


def folder_of(source: Path, root: Path) -> Path:
    """Where code compiled from these files is kept: another folder after any edit."""
    files = sorted(source.glob("*.py"))
    edition = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
    return root / f"compiled-{edition[:12]}"


def can_write(folder: Path) -> bool:
    """Whether files can be made there; the folder is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def first_writable(folders: Iterable[Path]) -> Path:
    """The first of the folders that can be written, or else a temporary one of this user.

    numba reads code from its cache, so a temporary folder that somebody else can write is not
    taken: then it is a new one, for this process alone.
    """
    for folder in folders:
        if can_write(folder):
            return folder
    user = os.getuid() if hasattr(os, "getuid") else "user"
    kept = Path(tempfile.gettempdir()) / f"trm-interp-{user}"
    with suppress(FileExistsError):
        kept.mkdir(mode=0o700)
    found = kept.lstat()
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    if hasattr(os, "getuid") and not (private and found.st_uid == user and can_write(kept)):
        kept = Path(tempfile.mkdtemp(prefix="trm-interp-"))
        atexit.register(shutil.rmtree, kept, ignore_errors=True)
    # numba's own choices cannot be written either: this is for every package that caches
    os.environ["NUMBA_CACHE_DIR"] = settings.CACHE_DIR = str(kept)
    return kept


def user_cache() -> Path:
    """The cache folder of this user."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "trm-interp"


FOLDER = folder_of(
    HERE, first_writable([Path(settings.CACHE_DIR or HERE / "__pycache__"), user_cache()])
)


def compiled(function: Callable[..., Any] | None = None, inline: Any = "never") -> Any:
    """Decorator: compile at the first call, or take what an earlier process compiled.

    It runs without the interpreter's lock. `inline="always"` puts the body where it is called.
    """
    if function is None:
        return partial(compiled, inline=inline)
    kept, settings.CACHE_DIR = settings.CACHE_DIR, str(FOLDER)
    try:
        return njit(cache=True, nogil=True, inline=inline)(function)
    finally:
        settings.CACHE_DIR = kept
