"""Where compiled code is kept when hardly anything can be written."""

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from numba import njit
from numba.core import config

from trm_interp.runtime.caches import first_writable, let_numba_cache, user_cache

NOWHERE = [Path("/proc/nowhere"), Path("/dev/null/x")]
numba: Any = config


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder that a process takes which can write nowhere else."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    monkeypatch.setattr(numba, "CACHE_DIR", "")
    return tmp_path / f"trm-interp-{os.getuid()}"


def test_the_first_writable_folder_is_taken(tmp_path: Path, kept: Path):
    assert first_writable([*NOWHERE, tmp_path / "a" / "b", tmp_path]) == tmp_path / "a" / "b"
    assert not kept.exists()


def test_where_none_is_a_temporary_one_of_this_user_serves_numba(
    kept: Path, monkeypatch: pytest.MonkeyPatch
):
    let_numba_cache()  # the user has a cache folder here
    assert not numba.CACHE_DIR and not kept.exists()
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    let_numba_cache()
    assert first_writable(NOWHERE) == kept and kept.stat().st_mode & 0o777 == 0o700
    assert numba.CACHE_DIR == os.environ["NUMBA_CACHE_DIR"] == str(kept)

    @njit(cache=True)
    def one_more(n):
        return n + 1

    assert one_more(1) == 2 and list(kept.glob("*/*.nbi"))


def test_a_folder_that_others_can_write_is_not_taken(kept: Path, tmp_path: Path):
    kept.mkdir()
    kept.chmod(0o777)
    other = first_writable(NOWHERE)
    assert other != kept and other.parent == tmp_path and other.stat().st_mode & 0o777 == 0o700
    kept.rmdir()
    kept.symlink_to(other)
    assert first_writable(NOWHERE) not in (kept, other)
    kept.unlink()
    kept.touch()
    assert first_writable(NOWHERE).parent == tmp_path


def test_a_folder_that_is_not_absolute_is_no_cache(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert user_cache() == tmp_path / "home" / ".cache" / "trm-interp"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # neither HOME nor an entry
    assert user_cache() is None and first_writable([user_cache()]) == kept
    let_numba_cache()
    assert str(kept) == numba.CACHE_DIR and list(tmp_path.iterdir()) == [kept]
