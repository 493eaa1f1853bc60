"""Code that numba keeps on disk: taken again only while no source file has changed."""

import importlib
import os
import tempfile
from pathlib import Path

import pytest
from numba import njit
from numba.core.registry import CPUDispatcher

from trm_interp.tasks.sudoku import compiled
from trm_interp.tasks.sudoku.compiled import FOLDER, HERE, first_writable, folder_of


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


# where nothing can be written


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder that a process takes which can write nowhere else."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    monkeypatch.setattr(compiled.settings, "CACHE_DIR", "")
    return tmp_path / f"trm-interp-{os.getuid()}"


def test_the_first_writable_folder_is_taken(tmp_path: Path, kept: Path):
    assert first_writable([Path("/proc/nowhere"), tmp_path / "a" / "b"]) == tmp_path / "a" / "b"
    assert not compiled.settings.CACHE_DIR and not kept.exists()


def test_where_none_is_a_temporary_one_of_this_user_serves_numba(kept: Path):
    nowhere = [Path("/proc/nowhere"), Path("/dev/null/x")]
    assert first_writable(nowhere) == first_writable(nowhere) == kept
    assert kept.stat().st_mode & 0o777 == 0o700
    assert compiled.settings.CACHE_DIR == os.environ["NUMBA_CACHE_DIR"] == str(kept)

    @njit(cache=True)
    def one_more(n):
        return n + 1

    assert one_more(1) == 2 and list(kept.glob("*/*.nbi"))


def test_a_folder_that_others_can_write_is_not_taken(kept: Path, tmp_path: Path):
    kept.mkdir()
    kept.chmod(0o777)
    other = first_writable([Path("/proc/nowhere")])
    assert other != kept and other.parent == tmp_path and other.stat().st_mode & 0o777 == 0o700
    kept.rmdir()
    kept.symlink_to(other)
    assert first_writable([Path("/proc/nowhere")]) not in (kept, other)
