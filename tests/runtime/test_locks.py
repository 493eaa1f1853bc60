"""One writer at a time; without locks there is a warning, and work continues."""

import builtins
import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trm_interp.runtime import locks
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.locks import Lock, locked_beside, locked_folder

HOLD = """
import sys, time
from pathlib import Path
from trm_interp.runtime.locks import locked_folder
with locked_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_killed_one_holds_nothing(tmp_path: Path):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    with (
        pytest.raises(UserError, match="is being written by another process: wait for it"),
        locked_folder(tmp_path),
    ):
        pass
    child.send_signal(signal.SIGKILL)
    child.wait()
    with locked_folder(tmp_path):
        assert [file.name for file in tmp_path.iterdir()] == [".lock"]
    assert not list(tmp_path.iterdir())


def test_a_path_is_held_beside_itself(tmp_path: Path):
    with locked_beside(tmp_path / "new" / "x.csv"):
        with pytest.raises(UserError, match="x.csv is being written"):
            Lock(tmp_path / "new" / ".x.csv.lock", tmp_path / "new" / "x.csv")
        with locked_beside(tmp_path / "new" / "y.csv"):
            pass
    assert not list((tmp_path / "new").iterdir())


def test_a_lock_on_a_file_that_its_holder_removed_is_taken_again(tmp_path: Path, monkeypatch):
    """Between opening and locking, the holder ends and a third process creates the file again."""
    take, times = fcntl.flock, []

    def late(handle: int, how: int) -> None:
        if not times:
            (tmp_path / ".lock").unlink()
            (tmp_path / ".lock").touch()
        times.append(handle)
        take(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked_folder(tmp_path):
        assert len(times) == 2


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_file_systems_without_locks_are_warned_of_once(tmp_path, monkeypatch, capsys, number):
    def refuse(handle: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "_warned", False)
    for _ in range(2):
        with locked_folder(tmp_path):
            pass
    line = f"{tmp_path}: its file system has no locks; let no other process write there\n"
    assert capsys.readouterr().err == line and not list(tmp_path.iterdir())


def test_a_system_without_fcntl_is_warned_of(tmp_path, monkeypatch, capsys):
    whole = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "fcntl":
            raise ImportError(name)
        return whole(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(locks, "_warned", False)
    with locked_folder(tmp_path):
        pass
    assert "this system has no file locks" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_other_errors_of_a_lock_are_errors(tmp_path, monkeypatch):
    def fail(handle: int, how: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="Input/output"), locked_folder(tmp_path):
        pass


def test_a_link_at_the_lock_is_not_followed(tmp_path: Path):
    (tmp_path / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError), locked_folder(tmp_path):
        pass
    assert not (tmp_path / "victim").exists()
