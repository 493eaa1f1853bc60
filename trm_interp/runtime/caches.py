"""A folder for compiled code, even where neither the package nor the home folder is writable."""

import atexit
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def can_write(folder: Path) -> bool:
    """Whether files can be created in the folder, which is created if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def user_cache() -> Path | None:
    """The user's cache folder; None for a user without a home folder."""
    for base in (os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")):
        if os.path.isabs(base):
            return Path(base) / "trm-interp"
    return None


def first_writable(folders: Iterable[Path | None]) -> Path:
    """The first folder that is writable, or else a temporary folder of this user.

    Compiled code is executed, so a temporary folder that other users can write to is not used: a
    new one is created, for this process alone.
    """
    for folder in folders:
        if folder is not None and can_write(folder):
            return folder
    has_owners = hasattr(os, "getuid")
    user = os.getuid() if has_owners else "user"
    kept = Path(tempfile.gettempdir()) / f"trm-interp-{user}"
    with suppress(FileExistsError):
        kept.mkdir(mode=0o700)
    status = kept.lstat()
    private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
    if has_owners and not (private and status.st_uid == user and can_write(kept)):
        kept = Path(tempfile.mkdtemp(prefix="trm-interp-"))
        atexit.register(shutil.rmtree, kept, ignore_errors=True)
    return kept


def let_numba_cache() -> None:
    """Call this before importing a package that caches what numba compiles.

    Where numba cannot write next to the source files it uses the user's cache folder, and fails if
    there is none.
    """
    from numba.core import config

    cache = user_cache()
    has_own = cache is not None and can_write(cache)
    if not config.CACHE_DIR and not has_own:  # type: ignore[attr-defined]
        folder = first_writable([])
        os.environ["NUMBA_CACHE_DIR"] = str(folder)
        setattr(config, "CACHE_DIR", str(folder))  # noqa: B010
