"""Files appear whole, through names of their own, and pipes are not waited for."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trm_interp.runtime import files
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import (
    partial_name,
    publish,
    remove_leftovers,
    replacing,
    require_apart,
    require_regular,
    sha256_of,
    write_text,
)


def dead_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_link_at_the_name_of_a_partial_file_is_not_followed(tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "x.csv.partial").symlink_to(victim)
    write_text(tmp_path / "x.csv", "1")
    assert victim.read_text() == "precious" and (tmp_path / "x.csv").read_text() == "1"


def test_partial_files_are_created_exclusively(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr(files, "partial_name", lambda name: ".taken")
    (tmp_path / ".taken").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "x.csv", "1")
    assert victim.read_text() == "precious"


def test_a_link_as_output_stays_one(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.csv").write_text("old")
    (tmp_path / "x.csv").symlink_to("real/a.csv")
    write_text(tmp_path / "x.csv", "new")
    assert (tmp_path / "x.csv").is_symlink()
    assert (tmp_path / "real" / "a.csv").read_text() == "new"
    (tmp_path / "to.csv").symlink_to("real/not-yet.csv")
    write_text(tmp_path / "to.csv", "made")
    assert (tmp_path / "real" / "not-yet.csv").read_text() == "made"


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path):
    file = tmp_path / "x.json"
    file.write_text("old")
    with pytest.raises(RuntimeError), replacing(file) as to:
        to.write_text("half")
        raise RuntimeError
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_leftovers_of_dead_processes_go_and_those_of_live_ones_stay(tmp_path: Path):
    mine = partial_name("x.csv")
    dead = mine.replace(f"-{os.getpid()}-", f"-{dead_process()}-")
    elsewhere = dead.replace(dead.split(".")[-2].split("-")[0], "00000000")
    other = dead.replace("x.csv", "y.csv")
    for name in (mine, dead, elsewhere, other, "x.csv.partial", ".x.csv.notes.partial"):
        (tmp_path / name).touch()
    write_text(tmp_path / "x.csv", "1")
    assert not (tmp_path / dead).exists() and (tmp_path / other).exists()
    remove_leftovers(tmp_path)
    kept = {mine, elsewhere, "x.csv.partial", ".x.csv.notes.partial", "x.csv"}
    assert {entry.name for entry in tmp_path.iterdir()} == kept


def test_folders_that_cannot_be_synced_do_not_matter(tmp_path: Path, monkeypatch):
    """NFS, FUSE and Windows refuse; the file itself is synced, and a failing disk is told."""
    whole = os.open

    def only_files(path, *args):
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "no", str(path))
        return whole(path, *args)

    monkeypatch.setattr(os, "open", only_files)
    write_text(tmp_path / "x", "1")
    assert (tmp_path / "x").read_text() == "1"

    def fail(number: int):
        def fsync(handle: int) -> None:
            raise OSError(number, os.strerror(number))

        return fsync

    monkeypatch.setattr(os, "fsync", fail(errno.EINVAL))
    write_text(tmp_path / "x", "2")
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        write_text(tmp_path / "x", "3")
    assert (tmp_path / "x").read_text() == "2"


def test_publish_reports_a_file_that_cannot_be_written(tmp_path: Path, monkeypatch):
    (tmp_path / "a").touch()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        publish(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_only_regular_files_are_read(tmp_path: Path, make):
    make(tmp_path / "x")
    with pytest.raises(UserError, match="x is a (named pipe|folder), not a file"):
        sha256_of(tmp_path / "x")
    with pytest.raises(UserError, match="/dev/null is a device, not a file"):
        require_regular(Path("/dev/null"))


def test_an_output_is_never_an_input(tmp_path: Path):
    (tmp_path / "p.txt").touch()
    (tmp_path / "link").symlink_to("p.txt")
    require_apart(tmp_path / "out.csv", puzzles=tmp_path / "p.txt", ckpt=None)
    with pytest.raises(UserError, match="link is what --puzzles reads"):
        require_apart(tmp_path / "link", puzzles=tmp_path / "p.txt")


def test_rows_that_are_not_text_are_kept(tmp_path: Path):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 1}\n\xff\xfe\n{"st')
    files.keep_rows(file, 2)
    assert file.read_bytes() == b'{"step": 1}\n\xff\xfe\n'


@pytest.mark.parametrize("name", ["\u6570" * 80 + ".txt", "\u00e9" * 120, "x" * 250])
def test_names_as_long_as_a_file_system_takes(tmp_path: Path, name: str):
    dead = partial_name(name).replace(f"-{os.getpid()}-", f"-{dead_process()}-")
    (tmp_path / dead).touch()
    write_text(tmp_path / name, "1")
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_processes_of_other_containers_are_not_judged(tmp_path: Path, monkeypatch):
    """They may call their machine the same, but count processes of their own."""
    dead = partial_name("x").replace(f"-{os.getpid()}-", f"-{dead_process()}-")
    (tmp_path / dead).touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "readlink", lambda path: "pid:[1]")
        files._host.cache_clear()
        remove_leftovers(tmp_path)
    files._host.cache_clear()
    assert (tmp_path / dead).exists()
    remove_leftovers(tmp_path)
    assert not (tmp_path / dead).exists()


def test_a_file_is_synced_through_a_handle_that_may_write(tmp_path: Path, monkeypatch):
    """Windows syncs no other."""

    def fsync(handle: int) -> None:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "x", "1")
    assert (tmp_path / "x").read_text() == "1"
