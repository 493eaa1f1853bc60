"""numba's compiler, with a cache on disk that no edit leaves stale.

numba asks only whether the file of a function itself has changed, not the files of what it calls.
"""

import ast
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


def compiling(source: Path) -> list[Path]:
    """The files of a folder that compiled code can depend on.

    They are those that import numba or this file, and all that these import from the folder.
    """
    files = {file.stem: file for file in source.glob("*.py")}
    imports = {stem: _imported(file) for stem, file in files.items()}
    found = {"__init__"} & files.keys()
    more = {stem for stem, names in imports.items() if names & {"numba", "compiled"}}
    while more:
        found |= more
        more = set().union(*(imports[stem] for stem in more)) & files.keys() - found
    return sorted(files[stem] for stem in found)


def _imported(file: Path) -> set[str]:
    """Every part of every name that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom):
            found |= {*(node.module or "").split("."), *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {part for alias in node.names for part in alias.name.split(".")}
    return found


def folder_of(source: Path, root: Path) -> Path:
    """Where code compiled from a folder is kept: elsewhere after an edit that it can depend on."""
    parts = [part for file in compiling(source) for part in (file.name.encode(), file.read_bytes())]
    edition = hashlib.sha256(b"\0".join(parts)).hexdigest()
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
