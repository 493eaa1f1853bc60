"""Stores on full disks and on file systems without locks: one line, and what was done is kept."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_store import TRUTH, N, open_writer, record

from trm_interp.recording.hdf5 import Output
from trm_interp.recording.store import Store, StoreError, validate
from trm_interp.runtime import locks
from trm_interp.runtime.files import DiskError, _host, append_row, disk_errors, replacing

Cli = Callable[..., Any]


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """As under `ulimit -f`; Python ignores the signal, and writing fails with EFBIG."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return record(tmp_path_factory.mktemp("stores") / "whole")


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()} - {locks.LOCK}


def assert_same(one: Path, other: Path) -> None:
    assert validate(one) == []
    assert names(one) == names(other)
    for file in one.glob("shard-*"):
        assert file.read_bytes() == (other / file.name).read_bytes()


# from less than HDF5's first block, over its headers, states and read-outs, to its last flush
@pytest.mark.parametrize("room", [3_000, 9_000, 20_000, 33_000, 36_000])
def test_a_shard_that_does_not_fit_is_an_error_in_words(whole: Path, tmp_path: Path, room: int):
    assert (whole / "shard-00000.h5").stat().st_size > room
    with files_of_at_most(room), pytest.raises(DiskError, match="limit of file sizes") as caught:
        record(tmp_path / "a")
    assert "shard-00000.h5" in str(caught.value.filename)
    assert sorted(f.name for f in (tmp_path / "a").iterdir()) == ["manifest.json"]
    record(tmp_path / "a", resume=True)
    assert_same(tmp_path / "a", whole)


@pytest.mark.parametrize("share", [0, 0.05, 0.2, 0.45, 0.7, 0.9, 0.99])
def test_a_disk_that_fills_up_leaves_what_was_complete(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
):
    """ENOSPC at one of the writes of all shards and store.h5, and at all that follow."""
    count = 0

    class Counted(Output):
        def write(self, data: Any, /) -> int:
            nonlocal count
            count += 1
            if count > at and self.error is None:
                self.error = OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    monkeypatch.setattr("trm_interp.recording.hdf5.Output", Counted)
    at = 10**9
    record(tmp_path / "counting")
    at, count = round(share * count), 0
    with pytest.raises(DiskError, match="the disk is full: make room"):
        record(tmp_path / "a")
    at = 10**9
    with Store(tmp_path / "a", allow_incomplete=True) as store:
        kept = {f"shard-{i:05d}.h5" for i in range(-(-store.n_puzzles // 4))}
        assert names(tmp_path / "a") == kept | {"manifest.json"} and not store.complete
        assert store["z_H"][:].tobytes() == TRUTH["z_H"][: store.n_puzzles].tobytes()
    record(tmp_path / "a", resume=True)
    assert_same(tmp_path / "a", whole)


def test_a_process_without_room_ends_in_one_line(tmp_path: Path):
    """HDF5 would crash at the end of the process where it could not close a file."""
    code = (
        "import resource, sys; from pathlib import Path; from tiny_store import record;"
        "from trm_interp.runtime.errors import in_one_line;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (36_000, 36_000))\n"
        "with in_one_line(): record(Path(sys.argv[1]))"
    )
    here = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a"],
        env=os.environ | {"PYTHONPATH": f"{here.parent}:{here}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "shard-00000.h5" in line and "the limit of file sizes is reached (ulimit -f)" in line


def by_torch(to: Path) -> None:
    torch.save({"a": torch.zeros(10_000)}, to)


def by_safetensors(to: Path) -> None:
    save_file({"a": torch.zeros(10_000)}, to)


def by_numpy(to: Path) -> None:
    with to.open("wb") as file:
        np.savez(file, a=np.zeros(10_000))


def by_text(to: Path) -> None:
    to.write_text("a" * 40_000)


@pytest.mark.parametrize("write", [by_torch, by_safetensors, by_numpy, by_text])
def test_every_library_says_it_in_the_same_words(tmp_path: Path, write: Callable[[Path], None]):
    (tmp_path / "a").write_text("before")
    with (
        files_of_at_most(20_000),
        pytest.raises(DiskError) as caught,
        replacing(tmp_path / "a") as to,
    ):
        write(to)
    assert "limit of file sizes is reached" in str(caught.value)
    assert caught.value.filename == str(tmp_path / "a")
    assert [f.name for f in tmp_path.iterdir()] == ["a"] and (
        tmp_path / "a"
    ).read_text() == "before"


def test_rows_and_nested_outputs_name_their_own_file(tmp_path: Path):
    with files_of_at_most(100), pytest.raises(DiskError) as caught, disk_errors(tmp_path):
        for i in range(100):
            append_row(tmp_path / "metrics.jsonl", {"step": i})
    assert caught.value.filename == str(tmp_path / "metrics.jsonl")


def test_other_errors_pass(tmp_path: Path):
    for error in (PermissionError(errno.EACCES, "denied"), RuntimeError("shapes"), StoreError("a")):
        with pytest.raises(type(error)) as caught, disk_errors(tmp_path):
            raise error
        assert caught.value is error


def test_a_checkpoint_without_room_is_one_line(cli: Cli, copier: Path, grids: Path, tmp_path: Path):
    words = ["collect", "--ckpt", copier, "--puzzles", grids, "--out", tmp_path / "a", "--steps", 2]
    with files_of_at_most(20_000):
        answer = cli(*words)
    assert answer.code == 2 and answer.out == ""
    *_, line = answer.err.splitlines()
    assert line.startswith("error: ") and "shard-00000.h5" in line and "--resume" in line
    assert not any(word in answer.err for word in ("Traceback", "HDF5", "decrement"))
    assert cli(*words, "--resume").code == 0 and validate(tmp_path / "a") == []


# file systems without locks


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """flock gives ENOLCK, to this package and, as HDF5 tells it, to h5py."""
    import fcntl

    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    opened = h5py.File.__init__

    def lockless(self: h5py.File, name: Any, *args: Any, **more: Any) -> None:
        if isinstance(name, str | Path) and more.get("locking") is not False:
            raise OSError(errno.ENOLCK, "Unable to synchronously open file (unable to lock file)")
        opened(self, name, *args, **more)

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(h5py.File, "__init__", lockless)
    monkeypatch.setattr(locks, "_warned", False)


@pytest.fixture
def no_folder_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where fsync of a folder is EINVAL, as on some mounts."""
    import stat

    sync = os.fsync

    def only_files(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(handle)

    monkeypatch.setattr(os, "fsync", only_files)


def test_a_store_is_whole_on_a_file_system_without_locks(
    whole: Path,
    tmp_path: Path,
    no_locks: None,
    no_folder_sync: None,
    capsys: pytest.CaptureFixture[str],
):
    record(tmp_path / "a", batches=3)
    record(tmp_path / "a", resume=True)
    (warning,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "a") in warning and "its file system has no locks" in warning
    assert_same(tmp_path / "a", whole)
    with Store(tmp_path / "a") as store:
        assert store["z_L"][:].tobytes() == TRUTH["z_L"].tobytes()


def test_info_of_a_store_without_locks(cli: Cli, whole: Path, no_locks: None):
    answer = cli("info", whole, "--validate", "--json")
    assert answer.code == 0 and '"problems": []' in answer.out


def test_without_fcntl_too(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr(locks, "_warned", False)
    record(tmp_path / "a")
    assert "this system has no file locks" in capsys.readouterr().err
    assert_same(tmp_path / "a", whole)


# what is kept, and what is removed


def test_resume_reads_what_it_keeps(whole: Path, tmp_path: Path):
    path = record(tmp_path / "a", batches=5)
    shard = path / "shard-00001.h5"
    shard.write_bytes(np.random.default_rng(0).bytes(shard.stat().st_size))
    (unfinished, altered) = validate(path)
    assert "8 of 11 puzzles" in unfinished
    assert "shard-00001.h5 was altered" in altered and "`collect --resume`" in altered
    record(path, resume=True)
    assert_same(path, whole)


def test_resume_writes_a_lost_store_h5_again(whole: Path, tmp_path: Path):
    path = Path(shutil.copytree(whole, tmp_path / "a"))
    for expected, damage in (
        ("cannot be read", lambda f: f.write_bytes(b"not HDF5")),
        ("is missing", lambda f: f.unlink()),
    ):
        damage(path / "store.h5")
        (problem,) = validate(path)
        assert f"store.h5 {expected}" in problem and "--resume writes it again" in problem
        record(path, resume=True)
        assert_same(path, whole)


def test_long_checks_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, lines = record(tmp_path / "a", batches=5), []
    monkeypatch.setattr("trm_interp.recording.claim.LONG", 10_000)
    with open_writer(path, resume=True, tell=lines.append):
        pass
    assert lines == ["checking the 2 existing shards (0.0 GB)"]


def test_only_files_of_ours_are_removed(tmp_path: Path):
    path = record(tmp_path / "a", batches=3)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    ours = ["shard-00001.h5.partial", "shard-00007.h5", "store.h5.partial", "store.h5"]
    foreign = ["mine.h5.partial", "shard-1.h5", "shard-notes.h5", "shard-00001.h5.bak", "x.partial"]
    for name in (*ours, *foreign):
        (path / name).symlink_to(victim)
    record(path, resume=True)
    assert victim.read_text() == "precious" and validate(path) == []
    left = {f.name for f in path.iterdir() if f.is_symlink()}
    assert left == set(foreign)


def test_random_partial_names_of_dead_processes_are_removed(tmp_path: Path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    path = record(tmp_path / "a", batches=3)
    left = path / f".manifest.json.{_host()}-{child.pid}-0123abcd.partial"
    left.touch()
    foreign = path / ".manifest.json.partial"
    foreign.touch()
    record(path, resume=True)
    assert not left.exists() and foreign.exists()


def test_a_folder_that_another_command_marked_takes_a_store(tmp_path: Path):
    from trm_interp.runtime.outputs import mark

    mark(tmp_path / "a", "quickstart")
    record(tmp_path / "a")
    with Store(tmp_path / "a") as store:
        assert store.n_puzzles == N


def test_a_writer_that_cannot_begin_leaves_no_folder(tmp_path: Path):
    with files_of_at_most(100), pytest.raises(DiskError, match=r"limit of file sizes"):
        open_writer(tmp_path / "a")
    assert not (tmp_path / "a").exists()
