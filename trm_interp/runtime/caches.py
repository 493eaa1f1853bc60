"""A folder for compiled code, also where neither the package nor the user's home can be written."""

import atexit
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def can_write(folder: Path) -> bool:
    """Whether files can be made there; the folder is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def user_cache() -> Path | None:
    """The cache folder of this user; None for one without a home."""
    for base in (os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")):
        if os.path.isabs(base):
            return Path(base) / "trm-interp"
    return None


def first_writable(folders: Iterable[Path | None]) -> Path:
    """The first of the folders that can be written, or else a temporary one of this user.

    Compiled code is run, so a temporary folder that somebody else can write is not taken: then it
    is a new one, for this process alone.
    """
    for folder in folders:
        if folder is not None and can_write(folder):
            return folder
    has_owners = hasattr(os, "getuid")
    user = os.getuid() if has_owners else "user"
    kept = Path(tempfile.gettempdir()) / f"trm-interp-{user}"
    with suppress(FileExistsError):
        kept.mkdir(mode=0o700)
    found = kept.lstat()
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    if has_owners and not (private and found.st_uid == user and can_write(kept)):
        kept = Path(tempfile.mkdtemp(prefix="trm-interp-"))
        atexit.register(shutil.rmtree, kept, ignore_errors=True)
    return kept


def let_numba_cache() -> None:
    """Before a package is imported that caches what numba compiles.

    Where it cannot write beside its files, numba takes the user's folder, and fails without one.
    """
    from numba.core import config

    cache = user_cache()
    has_own = cache is not None and can_write(cache)
    if not config.CACHE_DIR and not has_own:  # type: ignore[attr-defined]
        folder = first_writable([])
        os.environ["NUMBA_CACHE_DIR"] = str(folder)
        setattr(config, "CACHE_DIR", str(folder))  # noqa: B010
