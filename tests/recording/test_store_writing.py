"""Writing the activation store: kills, damage, other settings, writers that meet."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from tiny_store import META, POS, STEPS, TRUTH, D, H, N, open_writer, record, write_batch

from trm_interp.recording.hdf5 import dataset
from trm_interp.recording.store import (
    Store,
    StoreError,
    StoreWriter,
    validate,
)
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import sha256_of


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A complete store; tests that damage it take a copy."""
    return record(tmp_path_factory.mktemp("stores") / "whole")


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def record_and_die(path: Path, at: int) -> None:
    """Record with `resume`, and die of SIGKILL at the given write, fsync or rename."""
    calls = 0

    def counted(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)
    StoreWriter.write = counted(StoreWriter.write)
    record(path, resume=True)


def assert_same(one: Path, other: Path) -> None:
    """Equal shards, byte for byte, and a store.h5 that shows them."""
    names = sorted(file.name for file in one.iterdir())
    assert names == sorted(file.name for file in other.iterdir())
    for name in names:
        if name.startswith("shard"):
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
    with h5py.File(other / "store.h5") as file:
        for name, expected in TRUTH.items():
            assert dataset(file, name)[:].tobytes() == expected.tobytes(), name
    assert validate(other) == []


def test_a_killed_writer_resumes_to_the_same_bytes(whole, tmp_path):
    # 6 batches of 4 * 3 + 1 writes, 3 shards and store.h5 of 6 syncs and renames, 3 to begin
    n_calls = 6 * 13 + 4 * 6 + 3
    fork = multiprocessing.get_context("fork")
    for at in np.random.default_rng(0).choice(n_calls, 16, replace=False) + 1:
        path = tmp_path / f"killed-{at}"
        child = fork.Process(target=record_and_die, args=(path, at))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        record(path, resume=True)
        assert_same(whole, path)
        shutil.rmtree(path)


def test_a_writer_killed_again_and_again_by_the_clock_gets_there(whole, tmp_path):
    rng = np.random.default_rng(0)
    fork = multiprocessing.get_context("fork")
    for _ in range(8):
        child = fork.Process(target=record, args=(tmp_path / "a",), kwargs={"resume": True})
        child.start()
        time.sleep(rng.uniform(0, 0.03))
        child.kill()
        child.join()
    record(tmp_path / "a", resume=True)
    assert_same(whole, tmp_path / "a")


def test_an_unfinished_store_opens_only_on_demand_and_resumes(whole, tmp_path):
    path = record(tmp_path / "part", batches=3)  # 6 puzzles: one full shard, half of the next
    assert not list(path.glob("*.partial"))
    with pytest.raises(StoreError, match="4 of 11 puzzles.*--resume"):
        Store(path)
    assert ["4 of 11 puzzles" in problem for problem in validate(path)] == [True]
    with Store(path, allow_incomplete=True) as store:
        assert (store.n_puzzles, store.complete, len(store.frame())) == (4, False, 4 * STEPS)
        np.testing.assert_array_equal(store["z_L"][:], TRUTH["z_L"][:4])
    with open_writer(path, resume=True) as writer:
        assert writer.done == 4
    record(path, resume=True)
    assert_same(whole, path)
    with open_writer(path, resume=True) as writer:
        assert writer.done == N  # nothing left to do


def test_damage_is_named(copy):
    shard = copy / "shard-00001.h5"
    good = shard.read_bytes()

    shard.write_bytes(good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])
    assert [str(shard) in p and "sha256" in p for p in validate(copy)] == [True]

    shard.write_bytes(good[: len(good) // 2])
    assert [str(shard) in p and "bytes instead of" in p for p in validate(copy)] == [True]
    with Store(copy) as store, pytest.raises(StoreError, match="shard-00001.h5 has .* bytes"):
        store["z_L"][2:6]

    shard.unlink()
    assert [str(shard) in p and "missing" in p for p in validate(copy)] == [True]
    with Store(copy) as store:
        np.testing.assert_array_equal(store["z_L"][8:], TRUTH["z_L"][8:])
        with pytest.raises(StoreError, match="shard-00001.h5 is missing"):
            store["z_L"][2:6]


def alter(shard: Path) -> None:
    good = shard.read_bytes()
    shard.write_bytes(good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])


def cut(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:1000])


@pytest.mark.parametrize("damage", [alter, cut, Path.unlink])
@pytest.mark.parametrize("damaged", [[1], [0, 2]])
def test_damaged_shards_and_no_others_are_recorded_again(whole, copy, damage, damaged):
    for index in damaged:
        damage(copy / f"shard-{index:05d}.h5")
    kept = {f: f.stat().st_mtime_ns for f in copy.glob("shard-*")}
    lines: list[str] = []
    with open_writer(copy, resume=True, tell=lines.append) as writer:
        assert writer.done == 4 * damaged[0]
    for line, index in zip(lines, damaged, strict=True):
        assert f"shard-{index:05d}.h5 is missing or damaged" in line
    with Store(copy, allow_incomplete=True) as store:  # until it is recorded, nobody reads it
        assert not store.complete and store.n_puzzles == 4 * damaged[0]
    record(copy, resume=True)
    assert_same(whole, copy)
    for index in {0, 1, 2} - set(damaged):
        file = copy / f"shard-{index:05d}.h5"
        assert file.stat().st_mtime_ns == kept[file]


def test_a_repair_that_is_killed_goes_on(whole, copy):
    alter(copy / "shard-00000.h5")
    alter(copy / "shard-00002.h5")
    with open_writer(copy, resume=True) as writer:
        write_batch(writer, 2)
        write_batch(writer, 2)
        assert writer.done == 8  # what is between them is kept
        write_batch(writer, 2)
    assert [shard.name for shard in sorted(copy.glob("shard-*"))] == [
        "shard-00000.h5",
        "shard-00001.h5",
    ]
    record(copy, resume=True)
    assert_same(whole, copy)


def test_a_linked_shard_is_neither_read_nor_replaced(copy, tmp_path):
    shard = copy / "shard-00001.h5"
    shard.rename(tmp_path / "elsewhere.h5")
    shard.symlink_to(tmp_path / "elsewhere.h5")
    with pytest.raises(StoreError, match="shard-00001.h5 is a link"):
        open_writer(copy, resume=True)
    assert shard.is_symlink() and (tmp_path / "elsewhere.h5").exists()


def relist(path: Path, index: int) -> None:
    """Make the manifest agree with a shard that a test has changed."""
    manifest = json.loads((path / "manifest.json").read_text())
    shard = manifest["shards"][index]
    file = path / shard["file"]
    shard |= {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_validate_finds_bad_contents(copy):
    with h5py.File(copy / "shard-00002.h5", "r+") as file:
        dataset(file, "z_H")[1, 3, 0, 0, 0] = np.inf
    relist(copy, 2)
    (copy / "shard-00009.h5.partial").touch()
    not_finite, left = validate(copy)
    assert "shard-00002.h5: z_H is not finite, first in puzzle 9 (from 0)" in not_finite
    assert "shard-00009.h5.partial is left over" in left

    with h5py.File(copy / "shard-00002.h5", "r+") as file:
        del file["z_H"]
        file["z_H"] = np.zeros((3, STEPS, H, POS, D + 1), "float16")
    relist(copy, 2)
    assert "shard-00002.h5: z_H is float16[3, 4, 2, 5, 5]" in validate(copy)[0]

    (copy / "shard-00002.h5").write_bytes(b"not HDF5" * 1000)
    relist(copy, 2)
    assert "shard-00002.h5 cannot be read" in validate(copy)[0]


def test_validate_finds_gaps_and_a_lost_store_file(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["shards"][1]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    (copy / "store.h5").unlink()
    gap, lost, left = validate(copy)
    assert "puzzles 4..7 are in no shard" in gap
    assert "store.h5 is missing" in lost
    assert "shard-00001.h5 is left over" in left


def test_resume_with_other_settings_names_them(tmp_path):
    path = record(tmp_path / "a", batches=2)
    other = {"identity": {"checkpoint_sha256": "decaf", "config": {"d_model": D}}}
    with pytest.raises(ValueError, match="checkpoint_sha256 .'c0ffee' there, 'decaf' now"):
        open_writer(path, meta=other, resume=True)
    with pytest.raises(ValueError, match=r"steps .\[0, 1, 2, 3\] there, \[0\] now"):
        open_writer(path, steps=[0], resume=True)
    with pytest.raises(ValueError, match="shard_puzzles .4 there, 8 now"):
        open_writer(path, shard_puzzles=8, resume=True)
    nested = {"identity": {**META["identity"], "config": {"d_model": 512}}}
    with pytest.raises(ValueError, match="run: config.d_model .4 there, 512 now.: give the same"):
        open_writer(path, meta=nested, resume=True)
    with pytest.raises(StoreError, match=" and 3 more: give the same settings") as caught:
        sites = {"steps": [0], "positions": [1], "n_puzzles": 99, "n_cells": 2, "shard_puzzles": 8}
        open_writer(path, meta=other, resume=True, **sites)
    assert len(str(caught.value)) < 300 + len(str(path))
    record(path, resume=True, meta={**META, "git_commit": "def"})  # no part of the identity


def test_an_existing_output_is_kept_unless_told_otherwise(copy, tmp_path):
    with pytest.raises(FileExistsError, match="11 of 11 puzzles: use --resume .* --overwrite"):
        open_writer(copy)
    (copy / "notes.txt").write_text("mine")
    record(copy, overwrite=True, steps=[0], shard_puzzles=12)  # two of three shards go
    assert validate(copy) == [] and (copy / "notes.txt").read_text() == "mine"
    with Store(copy) as store:
        assert store.steps == [0]

    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").touch()
    for resume, overwrite in ((False, False), (True, False), (False, True)):
        with pytest.raises(FileExistsError, match="not empty and holds no store"):
            open_writer(home, resume=resume, overwrite=overwrite)
    assert [file.name for file in home.iterdir()] == ["thesis.tex"]
    with pytest.raises(ValueError, match="one of --resume and --overwrite"):
        open_writer(copy, resume=True, overwrite=True)


def test_two_writers_never_share_a_store(tmp_path):
    with open_writer(tmp_path / "a"):
        for resume in (True, False):
            with pytest.raises(UserError, match="being written by another process"):
                open_writer(tmp_path / "a", resume=resume, overwrite=not resume)
    record(tmp_path / "a", resume=True)
    assert validate(tmp_path / "a") == []


def test_a_manifest_of_another_version_is_refused(copy):
    file = copy / "manifest.json"
    file.write_text(file.read_text().replace('"schema_version": 1', '"schema_version": 7'))
    with pytest.raises(StoreError, match="schema version 7, this trm_interp reads 1"):
        Store(copy)
    file.write_text("{")
    with pytest.raises(StoreError, match="manifest.json is damaged"):
        Store(copy)
    with pytest.raises(StoreError, match="no store here; record one with `trm-interp collect`"):
        Store(copy / "nowhere")
