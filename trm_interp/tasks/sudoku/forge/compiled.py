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
HERE = Path(__file__).parents[1]  # all of Sudoku: compiled code is in both folders


def compiling(source: Path) -> list[Path]:
    """The files of a folder and those inside it that compiled code can depend on.

    They are those that import numba or this file, and all that these import from the folder.
    """
    imports = {file: _imported(file) for file in source.rglob("*.py")}
    needed = {file for file in imports if file.stem == "__init__"}
    more = {file for file, names in imports.items() if names & {"numba", "compiled"}}
    while more:
        needed |= more
        names = set().union(*(imports[file] for file in more))
        more = {file for file in imports if file.stem in names} - needed
    return sorted(needed)


def _imported(file: Path) -> set[str]:
    """Every part of every name that a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom):
            names |= {*(node.module or "").split("."), *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {part for alias in node.names for part in alias.name.split(".")}
    return names


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

    A number that stands in the code is a type of its own to numba: a function that gets one is
    compiled once more for it. Compiled callers hand `np.int64(2)` to those that take seconds, and
    variables that such functions get begin as `np.int64(0)`. `copy_cells` takes the place of
    `target[:] = source`, for which numba compiles the text of an error, two seconds of it.
    """
    if function is None:
        return partial(compiled, inline=inline)
    kept, settings.CACHE_DIR = settings.CACHE_DIR, str(FOLDER)
    try:
        return njit(cache=True, nogil=True, inline=inline)(function)
    finally:
        settings.CACHE_DIR = kept
