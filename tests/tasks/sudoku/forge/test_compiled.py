"""Code that numba keeps on disk: taken again only while none of its sources has changed."""

import importlib
from pathlib import Path

from numba.core.registry import CPUDispatcher

from trm_interp.tasks.sudoku.forge.compiled import FOLDER, HERE, compiling, folder_of

SOURCES = {
    "__init__": "",
    "a": "from trm.sudoku.compiled import compiled\nfrom trm.sudoku import b",
    "b": "import trm.sudoku.c as c\nfrom . import d",
    "c": "X = 1",
    "d": "def late():\n    from trm.sudoku.e import Y",
    "e": "Y = 1",
    "intrinsic": "from numba.extending import intrinsic",
    "reader": "from trm.sudoku.a import run",
    "other": "from trm.sudoku.reader import read  # compiled, numba",
}


def test_an_edit_gives_another_folder_where_compiled_code_can_depend_on_it(tmp_path):
    for stem, text in SOURCES.items():
        (tmp_path / f"{stem}.py").write_text(text)
    (tmp_path / "forge").mkdir()
    (tmp_path / "forge" / "inner.py").write_text("from trm.sudoku.forge.compiled import compiled")
    before = folder_of(tmp_path, tmp_path)
    for stem, text in SOURCES.items():
        (tmp_path / f"{stem}.py").write_text(f"{text}\nz = 2\n")
        edited = folder_of(tmp_path, tmp_path)
        assert (edited == before) == (stem in ("reader", "other")), stem
        (tmp_path / f"{stem}.py").write_text(text)
    (tmp_path / "forge" / "inner.py").write_text("import numba")
    assert folder_of(tmp_path, tmp_path) != before
    (tmp_path / "forge" / "inner.py").unlink()
    (tmp_path / "new.py").write_text("import numba")
    assert folder_of(tmp_path, tmp_path) != before


def test_readers_of_files_compile_nothing():
    stems = {file.stem for file in compiling(HERE)}
    assert not stems & {"formats", "dataset", "public", "presets", "splits", "build"}
    assert stems >= {"bitmatrix", "compiled", "grid", "machine", "solver", "walk"}


def test_every_compiled_function_is_kept_there():
    seen, files = 0, set(compiling(HERE))
    for file in HERE.rglob("*.py"):
        inner = ".".join(file.relative_to(HERE).with_suffix("").parts)
        module = importlib.import_module(f"trm_interp.tasks.sudoku.{inner}")
        for value in vars(module).values():
            if isinstance(value, CPUDispatcher):
                assert value._cache.cache_path.startswith(str(FOLDER))  # type: ignore[attr-defined]
                assert file in files and Path(value.py_func.__code__.co_filename) in files
                seen += 1
    assert seen > 50
