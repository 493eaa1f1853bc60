"""Code that numba keeps on disk: taken again only while no source file has changed."""

import importlib

from numba.core.registry import CPUDispatcher

from trm_interp.tasks.sudoku.compiled import FOLDER, HERE, folder_of


def test_any_edit_gives_another_folder(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.py").write_text("y = 1\n")
    before = folder_of(tmp_path, tmp_path)
    assert folder_of(tmp_path, tmp_path) == before
    (tmp_path / "b.py").write_text("y = 2\n")
    edited = folder_of(tmp_path, tmp_path)
    (tmp_path / "c.py").write_text("")
    assert len({before, edited, folder_of(tmp_path, tmp_path)}) == 3


def test_every_compiled_function_is_kept_there():
    seen = 0
    for file in HERE.glob("*.py"):
        module = importlib.import_module(f"trm_interp.tasks.sudoku.{file.stem}")
        for value in vars(module).values():
            if isinstance(value, CPUDispatcher):
                assert value._cache.cache_path.startswith(str(FOLDER))  # type: ignore[attr-defined]
                seen += 1
    assert seen > 50
