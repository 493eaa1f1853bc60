"""The activation store on tiny arrays: round trips, true step numbers, kills, damage."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from trm_interp.clock import Tick, schedule
from trm_interp.files import sha256_of
from trm_interp.shards import dataset
from trm_interp.store import (
    Site,
    Store,
    StoredArray,
    StoreError,
    StoreWriter,
    check_space,
    estimate_bytes,
    halt_steps,
    plan_shards,
    readouts,
    validate,
)

N, STEPS, CELLS, H, L, POS, D = 11, 4, 3, 2, 3, 5, 4  # 11 puzzles: 3 shards of at most 4
SITES = (
    Site("z_L", ("step", "h_cycle", "l_cycle", "pos", "d_model"), (STEPS, H, L, POS, D)),
    Site("z_H", ("step", "h_cycle", "pos", "d_model"), (STEPS, H, POS, D)),
    Site(
        "blocks.0.hook_resid_post",
        ("step", "h_cycle", "l_cycle", "pos", "d_model"),
        (STEPS, H, L + 1, POS, D),
    ),
    Site("embed", ("pos", "d_model"), (POS, D)),
)
META = {"identity": {"checkpoint_sha256": "c0ffee", "config": {"d_model": D}}, "git_commit": "abc"}


def truth(site: Site) -> np.ndarray:
    """What the run held at this site, for all puzzles and steps; the same in every call."""
    rng = np.random.default_rng(list(site.name.encode()))
    shape = (N, *site.shape)
    if site.dtype == "bool":
        return rng.random(shape) < 0.5
    if site.dtype.startswith("float"):
        return rng.standard_normal(shape).astype(site.dtype)
    return rng.integers(0, 100, shape).astype(site.dtype)


TRUTH = {site.name: truth(site) for site in (*SITES, *readouts(STEPS, CELLS))}
TRUTH["halt_step"] = halt_steps(TRUTH["q_halt"])


def open_writer(
    path: Path, steps=None, positions=None, meta: dict = META, **options: Any
) -> StoreWriter:
    sites = [site.select(steps, positions) for site in SITES]
    sizes: dict[str, Any] = {"n_puzzles": N, "n_steps": STEPS, "n_cells": CELLS, "shard_puzzles": 4}
    return StoreWriter.create(path, meta, sites, **(sizes | options))


def write_batch(writer: StoreWriter, n: int) -> None:
    rows = slice(writer.done, writer.done + n)
    writer.start_batch(n)
    for site in writer.manifest.sites:
        values = TRUTH[site.name][rows]
        if "pos" in site.dims:
            values = values.take(site.indices("pos"), axis=-2)
        if "step" not in site.dims:
            writer.write(site.name, values)
            continue
        for step in site.indices("step"):
            writer.write(site.name, values[:, step], step)
    wanted = readouts(STEPS, CELLS)
    writer.end_batch(**{s.name: TRUTH[s.name][rows] for s in wanted if s.name != "halt_step"})


def record(path: Path, batches: int = N, **options) -> Path:
    """Record at most `batches` batches of two puzzles."""
    with open_writer(path, **options) as writer:
        while writer.done < N and batches:
            write_batch(writer, min(2, N - writer.done))
            batches -= 1
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A complete store; tests that damage it take a copy."""
    return record(tmp_path_factory.mktemp("stores") / "whole")


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_every_array_comes_back_bit_for_bit(whole):
    with Store(whole) as store:
        assert store.complete and store.n_puzzles == N and store.steps == [0, 1, 2, 3]
        assert store.positions == list(range(POS)) and store.meta == META
        assert set(store.names) == set(TRUTH)
        for name, expected in TRUTH.items():
            read = store[name][:]
            assert read.dtype == expected.dtype == store[name].dtype
            assert store[name].shape == expected.shape
            assert read.tobytes() == expected.tobytes()
    assert validate(whole) == []


def test_any_index_reads_what_numpy_reads(whole):
    rng = np.random.default_rng(0)

    def key(size: int) -> int | slice:
        start, stop = (int(i) for i in rng.integers(-size, size, 2))
        return start if rng.random() < 0.5 else slice(start, stop, int(rng.choice([1, 1, 2, -1])))

    with Store(whole) as store:
        for _ in range(300):
            name = rng.choice(["z_L", "z_H", "embed", "predictions", "solved", "puzzle_id"])
            full = TRUTH[name]
            axes = tuple(key(n) for n in full.shape[: rng.integers(1, full.ndim + 1)])
            if rng.random() < 0.3 and not isinstance(axes[-1], int):
                axes = (*axes[:1], ...)
            np.testing.assert_array_equal(store[name][axes], full[axes], str((name, axes)))
            puzzles = rng.integers(-N, N, rng.integers(0, 6))
            np.testing.assert_array_equal(store[name][puzzles.tolist()], full[puzzles])
        mask = TRUTH["solved"][:, -1]
        np.testing.assert_array_equal(store["z_H"][mask, -1, -1], TRUTH["z_H"][mask, -1, -1])


def test_every_tick_finds_the_state_it_wrote(whole):
    with Store(whole) as store:
        for tick in schedule(STEPS, H, L):
            expected = TRUTH[tick.writes][:, tick.step, tick.h_cycle]
            if tick.writes == "z_L":
                expected = expected[:, tick.l_cycle]
            np.testing.assert_array_equal(store.at(tick), expected)
        assert store.at(Tick(3, 1, 0, "z_L"), puzzles=7).shape == (POS, D)
        assert store.at(Tick(3, 1, 3, "z_H"), puzzles=range(3, 6)).shape == (3, POS, D)


def test_steps_and_positions_keep_their_numbers_where_only_some_were_kept(tmp_path):
    record(tmp_path / "some", steps=[0, 1, 3], positions=[2, 4])
    z_L = TRUTH["z_L"]
    with Store(tmp_path / "some") as store:
        assert (store.steps, store.positions) == ([0, 1, 3], [2, 4])
        assert store["z_L"].shape == (N, 3, H, L, 2, D)
        np.testing.assert_array_equal(store["z_L"][5, 3, 1, 2, 4], z_L[5, 3, 1, 2, 4])
        np.testing.assert_array_equal(store["z_L"][5, -1, 0, 0, 2], z_L[5, 3, 0, 0, 2])
        np.testing.assert_array_equal(store["z_L"][:, 1:], z_L[:, [1, 3]][..., [2, 4], :])
        np.testing.assert_array_equal(store["z_H"][:, ::-1, 0, 2], TRUTH["z_H"][:, [3, 1, 0], 0, 2])
        np.testing.assert_array_equal(store["predictions"][:, 2], TRUTH["predictions"][:, 2])
        with pytest.raises(IndexError, match="no step 2; recorded are 0, 1, 3"):
            store["z_L"][5, 2]
        with pytest.raises(IndexError, match="no step in .* recorded are 0, 1, 3"):
            store["z_L"][5, 2:3]
        with pytest.raises(IndexError, match="no pos 3; recorded are 2, 4"):
            store["embed"][:, 3]
    assert validate(tmp_path / "some") == []


def test_a_wrong_index_or_name_says_what_is_there(whole):
    with Store(whole) as store:
        with pytest.raises(KeyError, match="holds no z_M; it holds z_L, z_H"):
            store["z_M"]
        with pytest.raises(IndexError, match="no puzzle 11; there are 11"):
            store["z_L"][N]
        with pytest.raises(IndexError, match=r"no h_cycle 2; recorded are 0, 1"):
            store["z_L"][0, 0, 2]
        with pytest.raises(IndexError, match="3 indices for 2 axes"):
            store["solved"][0, 0, 0]
        with pytest.raises(IndexError, match="takes an int or slice"):
            store["z_L"][0, [0, 1]]


def test_iter_gives_whole_puzzles_in_order(whole):
    with Store(whole) as store:
        parts = list(store.iter("z_H", puzzles_per_read=3))
    assert [len(part) for part in parts] == [3, 3, 3, 2]
    np.testing.assert_array_equal(np.concatenate(parts), TRUTH["z_H"])


def test_frame_has_a_row_per_puzzle_and_step(whole):
    with Store(whole) as store:
        frame = store.frame()
    columns = ["puzzle", "puzzle_id", "step", "solved", "loss", "q_halt", "halt_step"]
    assert list(frame.columns) == columns and len(frame) == N * STEPS
    row = frame[(frame.puzzle == 9) & (frame.step == 2)].iloc[0]
    for name in ("solved", "loss", "q_halt"):
        assert row[name] == TRUTH[name][9, 2]
    for name in ("puzzle_id", "halt_step"):
        assert row[name] == TRUTH[name][9]


def test_plain_h5py_sees_one_labelled_array_per_name(whole, tmp_path):
    moved = shutil.copytree(whole, tmp_path / "moved")  # the links are relative
    with h5py.File(moved / "store.h5") as file:
        assert set(file) == set(TRUTH)
        for name, expected in TRUTH.items():
            data = dataset(file, name)
            assert data.dtype == expected.dtype
            np.testing.assert_array_equal(data[:], expected)
        labels = [axis.label for axis in dataset(file, "z_L").dims]
        assert labels == ["puzzle", "step", "h_cycle", "l_cycle", "pos", "d_model"]
        assert json.loads(str(file.attrs["meta"])) == META and np.array(
            file.attrs["steps"]
        ).tolist() == [
            0,
            1,
            2,
            3,
        ]
    with h5py.File(moved / "shard-00001.h5") as file:
        assert dataset(file, "z_L").chunks == (1, 1, H, L, POS, D)
        assert dataset(file, "z_L").compression is None
        assert dataset(file, "embed").chunks == (1, POS, D) and file.attrs["first_puzzle"] == 4
    (moved / "shard-00001.h5").unlink()
    with h5py.File(moved / "store.h5") as file:
        z_H = dataset(file, "z_H")
        assert np.isnan(z_H[4:8]).all() and np.isfinite(z_H[8:]).all()


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
    with pytest.raises(StoreError, match="shard-00001.h5 has"):
        open_writer(copy, resume=True)

    shard.unlink()
    assert [str(shard) in p and "missing" in p for p in validate(copy)] == [True]
    with Store(copy) as store:
        np.testing.assert_array_equal(store["z_L"][8:], TRUTH["z_L"][8:])
        with pytest.raises(StoreError, match="shard-00001.h5 is missing"):
            store["z_L"][2:6]


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
    assert "shard-00002.h5: z_H is not finite, first in puzzle 9" in not_finite
    assert "shard-00009.h5.partial is left over" in left

    with h5py.File(copy / "shard-00002.h5", "r+") as file:
        del file["z_H"]
        file["z_H"] = np.zeros((3, STEPS, H, POS, D + 1), "float16")
    relist(copy, 2)
    assert "shard-00002.h5: z_H is ((3, 4, 2, 5, 5)" in validate(copy)[0]

    (copy / "shard-00002.h5").write_bytes(b"not HDF5")
    relist(copy, 2)
    assert "shard-00002.h5 cannot be read" in validate(copy)[0]


def test_validate_finds_gaps_and_a_lost_store_file(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["shards"][1]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    (copy / "store.h5").unlink()
    gap, lost, left = validate(copy)
    assert "puzzles 4..7 are in no shard" in gap
    assert "store.h5 cannot be read" in lost
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
    with pytest.raises(ValueError, match="config.d_model .4 there, 512 now.$"):
        open_writer(path, meta=nested, resume=True)
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
            with pytest.raises(StoreError, match="being written by another process"):
                open_writer(tmp_path / "a", resume=resume, overwrite=not resume)
    record(tmp_path / "a", resume=True)
    assert validate(tmp_path / "a") == []


def test_a_manifest_of_another_version_is_refused(copy):
    file = copy / "manifest.json"
    file.write_text(file.read_text().replace('"schema_version": 1', '"schema_version": 7'))
    with pytest.raises(StoreError, match="schema version 7, this trm_interp reads 1"):
        Store(copy)
    file.write_text("{")
    with pytest.raises(StoreError, match="manifest.json cannot be read"):
        Store(copy)
    with pytest.raises(StoreError, match="has no manifest.json"):
        Store(copy / "nowhere")


def test_the_writer_takes_only_what_belongs(tmp_path, monkeypatch):
    z_H = TRUTH["z_H"][:2, 0]
    with open_writer(tmp_path / "a", steps=[0, 2]) as writer:
        with pytest.raises(ValueError, match="the shard ends at 4"):
            writer.start_batch(5)
        writer.start_batch(2)
        writer.write("z_H", z_H, step=0)
        with pytest.raises(ValueError, match="each once per batch"):
            writer.write("z_H", z_H, step=0)
        with pytest.raises(ValueError, match=r"z_H at step 1 .* steps \[0, 2\]"):
            writer.write("z_H", z_H, step=1)
        with pytest.raises(ValueError, match=r"z_H wants float16\[2, 2, 5, 4\], got float32"):
            writer.write("z_H", z_H.astype("float32"), step=2)
        with pytest.raises(ValueError, match=r"the batch lacks .*'z_H', 2"):
            writer.end_batch()
    monkeypatch.setitem(TRUTH, "inputs", np.full((N, CELLS), 256))
    with pytest.raises(ValueError, match="inputs does not fit uint8: 256..256"):
        record(tmp_path / "b")
    with pytest.raises(ValueError, match=r"z_L has step 0..3, got \[0, 16\]"):
        open_writer(tmp_path / "c", steps=[0, 16])


def test_sizes_by_hand():
    # z_L of the official model: 16 * 3 * 6 * 97 * 512 values of 2 bytes = 28.6 MB a puzzle
    z_L = Site("z_L", SITES[0].dims, (16, 3, 6, 97, 512))
    assert estimate_bytes([z_L], 1000) == 28_606_464_000
    assert estimate_bytes([z_L.select(steps=[0, 15], positions=[96])], 1) == 2 * 18 * 512 * 2
    # one batch of 32 puzzles of 1 MB is 32 MB, so 3 batches are nearest to 100 MB
    assert plan_shards(1_000_000, batch_size=32, n_puzzles=1000) == 96
    assert plan_shards(28_606_464, batch_size=64, n_puzzles=1000) == 64  # at least one batch
    assert plan_shards(1_000, batch_size=32, n_puzzles=40) == 64  # no more than there are


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2e9, 1.5e9, 0.5e9))
    check_space(tmp_path / "not" / "yet", 400_000_000)
    with pytest.raises(OSError, match=r"needs 1.25 GB and the disk has 0.50 GB free"):
        check_space(tmp_path / "not" / "yet", 1_250_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2e9, 2e9, 1000))
    with pytest.raises(OSError, match="keep fewer --puzzles"):
        open_writer(tmp_path / "a")
    assert not (tmp_path / "a" / "manifest.json").exists()


def test_float16_holds_every_bfloat16_of_the_promised_range():
    torch = pytest.importorskip("torch")
    bits = torch.arange(2**15, dtype=torch.int16)  # all positive bfloat16
    values = bits.view(torch.bfloat16)
    values = values[(values.double() >= 2.0**-17) & (values.double() <= 65504)]
    assert len(values) == 33 * 128  # 33 octaves from 2**-17, 7 mantissa bits each
    stored = values.to(torch.float16)
    assert torch.equal(stored.double(), values.double())


def test_the_store_needs_no_torch():
    code = "import sys, trm_interp.store; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_arrays_describe_themselves(whole):
    with Store(whole) as store:
        assert isinstance(store["z_H"], StoredArray) and len(store["z_H"]) == N
        assert repr(store["solved"]) == "StoredArray(solved: bool [puzzle 11, step 4])"
        assert "11 puzzles; z_L, z_H" in repr(store)
