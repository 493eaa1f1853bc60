"""Reading the activation store on tiny arrays: round trips, true step numbers, sizes."""

import json
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import h5py
import numpy as np
import pytest
from tiny_store import CELLS, META, POS, SITES, STEPS, TRUTH, D, H, L, N, open_writer, record

from trm_interp.core.clock import Tick, schedule
from trm_interp.recording import hdf5
from trm_interp.recording.hdf5 import dataset
from trm_interp.recording.store import (
    Site,
    Store,
    StoredArray,
    check_space,
    estimate_bytes,
    plan_shards,
    validate,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A complete store; tests that damage it take a copy."""
    return record(tmp_path_factory.mktemp("stores") / "whole")


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
        last = Tick(3, 1, 3, "z_H", ends_cycle=True)
        assert store.at(last, puzzles=range(3, 6)).shape == (3, POS, D)


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
        with pytest.raises(IndexError, match=r"no puzzle 11 \(from 0\); there are 11"):
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
    with pytest.raises(OSError, match="lower --limit, or keep fewer"):
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
    code = "import sys, trm_interp.recording.store; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_arrays_describe_themselves(whole):
    with Store(whole) as store:
        assert isinstance(store["z_H"], StoredArray) and len(store["z_H"]) == N
        assert repr(store["solved"]) == "StoredArray(solved: bool [puzzle 11, step 4])"
        assert "11 puzzles; z_L, z_H" in repr(store)


def test_plain_h5py_and_a_store_read_side_by_side(whole: Path):
    """HDF5 refuses a second opening of a file with another way of locking."""
    with h5py.File(whole / "store.h5") as plain, Store(whole) as store:
        assert np.array_equal(plain["z_H"][0], store["z_H"][0])
        assert np.array_equal(plain["z_H"][-1], store["z_H"][-1])
        assert validate(whole) == []


def test_the_content_of_a_shard_is_compared_once(whole: Path, monkeypatch: pytest.MonkeyPatch):
    checked: list[int] = []
    check = hdf5.shard_problems
    monkeypatch.setattr(
        hdf5, "shard_problems", lambda *args: checked.append(args[-1]) or check(*args)
    )
    monkeypatch.setattr("trm_interp.recording.store.MAX_OPEN", 1)
    with Store(whole) as store:
        for puzzle in (0, N - 1, 0, N - 1, 0):
            store["z_H"][puzzle]
    assert len(checked) == 2
