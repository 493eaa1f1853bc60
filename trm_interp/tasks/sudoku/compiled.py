"""numba's compiler, with a cache on disk that no edit leaves stale.

numba asks only whether the file of a function itself has changed, not the files of what it calls.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import config

from trm_interp.runtime.caches import first_writable, let_numba_cache, user_cache

settings: Any = config
HERE = Path(__file__).parent


def folder_of(source: Path, root: Path) -> Path:
    """Where code compiled from these files is kept: another folder after any edit."""
    files = sorted(source.glob("*.py"))
    edition = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
    return root / f"compiled-{edition[:12]}"


FOLDER = folder_of(
    HERE, first_writable([Path(settings.CACHE_DIR or HERE / "__pycache__"), user_cache()])
)
let_numba_cache()


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
