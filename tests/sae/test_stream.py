"""The stream delivers every row once an epoch, from any position, the same every time."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sae_store import CELLS, STEPS, H, L, noise, numbered, write_store

from trm_interp.runtime.errors import UserError
from trm_interp.sae.pool import open_pool
from trm_interp.sae.stream import ActivationStream, Position, Scaling, measure_scaling, puzzle_order

N, ROWS = 8, STEPS * H * L * CELLS  # 192 rows a puzzle
ONE = ROWS * 4 * 2  # bytes of a puzzle: 4 float16 a row


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("stream") / "store", numbered(N))


def open_stream(store: Path, puzzles: int | list[int] = N, **more) -> ActivationStream:
    chosen = np.arange(puzzles) if isinstance(puzzles, int) else np.array(puzzles)
    settings = {"batch_size": 50, "buffer_bytes": 6 * ONE, "seed": 3} | more
    pool = open_pool([store], ["z_L"], settings.pop("ticks", None))
    return ActivationStream(pool, chosen, **settings)


def take(stream: ActivationStream, n: int) -> np.ndarray:
    return torch.cat([next(stream) for _ in range(n)]).numpy()


def test_an_epoch_holds_every_row_once_and_batches_run_across_its_end(store: Path):
    with open_stream(store, [0, 2, 3, 5, 7]) as stream:  # groups of 3 and 2
        assert stream.group == 3 and stream.rows_per_epoch == 5 * ROWS == 960
        rows = take(stream, 20)  # 1 000 = 960 + 40
        assert stream.position == Position(1, 40)
    first = Counter(map(tuple, rows[:960, :3].astype(int).tolist()))
    assert set(first.values()) == {1}
    assert {row[0] for row in first} == {0, 2, 3, 5, 7}
    assert {row[1] for row in first} == set(range(12)) and len(first) == 960


def test_rows_of_a_group_are_mixed_and_epochs_differ(store: Path):
    with open_stream(store) as stream:
        first = take(stream, 1)
        stream.seek(Position(1, 0))
        again = take(stream, 1)
    assert len(np.unique(first[:, 0])) == 3 and len(np.unique(first[:, 1])) > 8
    assert not np.array_equal(first, again)


@pytest.mark.parametrize("skipped", [1, 7, 11, 12, 31])
def test_a_stream_goes_on_from_any_position(store: Path, skipped: int):
    with open_stream(store) as stream, open_stream(store) as other:
        take(stream, skipped)
        other.seek(stream.position)
        np.testing.assert_array_equal(take(other, 5), take(stream, 5))


def test_seeds_differ_and_the_buffer_bounds_the_group(store: Path):
    with open_stream(store) as a, open_stream(store, seed=4) as b:
        assert not np.array_equal(take(a, 1), take(b, 1))
        assert sum(buffer.nbytes for buffer in a._buffers) == 6 * ONE


def test_going_back_while_the_next_group_is_read(store: Path):
    with open_stream(store) as stream:
        first = take(stream, 3)
        take(stream, 9)
        stream.seek(Position(0, 0))
        np.testing.assert_array_equal(take(stream, 3), first)


def test_balance_gives_as_many_rows_of_both_outcomes(store: Path):
    solved = np.array([True] * 6 + [False] * 2)
    with open_stream(store, solved=solved) as stream:
        assert stream.n_puzzles == 12  # six solved, two failed three times each
        rows = take(stream, 12 * ROWS // 50)
    counts = Counter(rows[:, 0].astype(int).tolist())
    failed = counts[6] + counts[7]
    assert abs(failed - len(rows) / 2) < 60  # the last, unread batch
    order = puzzle_order(np.arange(N), solved, seed=3, epoch=0)
    assert Counter(order.tolist()) == {**dict.fromkeys(range(6), 1), 6: 3, 7: 3}
    with pytest.raises(UserError, match="all of one outcome"):
        puzzle_order(np.arange(N), np.ones(N, bool), 0, 0)


def test_chosen_ticks_alone_are_read(store: Path):
    # 3 x 2 H-cycles of ticks (0, 1 z_L; 2 z_H), (3, 4; 5), ...: z_L at 4 and 6 are its 3rd and 4th
    with open_stream(store, ticks=[4, 6]) as stream:
        rows = take(stream, 3)
    assert set(rows[:, 1].astype(int)) == {3, 4}


def test_scaling_by_hand(tmp_path: Path):
    # one coordinate is 1 or 3, the other 0: mean (2, 0), mean square deviation (1 + 0) / 2
    z_L = np.zeros((2, STEPS, H, L, CELLS, 2))
    z_L[0, ..., 0], z_L[1, ..., 0] = 1, 3
    path = write_store(tmp_path / "store", z_L)
    with open_pool([path], ["z_L"]) as pool:
        scaling = measure_scaling(pool, [0, 1])
    torch.testing.assert_close(scaling.mean, torch.tensor([2.0, 0.0]))
    assert scaling.scale == pytest.approx(0.5**0.5)
    settings = {"batch_size": 8, "buffer_bytes": 10**5, "seed": 0}
    pool = open_pool([path], ["z_L"])
    with ActivationStream(pool, np.arange(2), scaling=scaling, **settings) as stream:
        assert set((next(stream)[:, 0] ** 2).round().tolist()) == {2.0}  # (1 / sqrt(0.5))^2


def test_bad_numbers_and_sizes_are_one_line(tmp_path: Path, store: Path):
    z_L = noise(4)
    z_L[2, 1, 0, 1, 5, 3] = np.inf  # step 1, H-cycle 0, L-cycle 1: tick 6 + 0 + 1
    path = write_store(tmp_path / "store", z_L)
    with open_stream(path, 4) as stream, pytest.raises(UserError, match=r"puzzle 2 .* tick 7 \("):
        take(stream, 20)
    with pytest.raises(UserError, match="the shuffle buffer would need .* lower --buffer-mb"):
        open_stream(store, buffer_bytes=10**16)
    with pytest.raises(UserError, match="does not hold two puzzles"):
        open_stream(store, buffer_bytes=ONE)
    with pytest.raises(UserError, match="1536 rows of training puzzles are fewer than a batch"):
        open_stream(store, batch_size=2000)


def test_a_scaling_is_applied_after_the_rows_are_drawn(store: Path):
    scaling = Scaling(torch.tensor([1.0, 0, 0, 0]), 2.0)
    with open_stream(store) as plain, open_stream(store, scaling=scaling) as scaled:
        rows, same = take(plain, 2), take(scaled, 2)
    np.testing.assert_allclose(same, (rows - [1, 0, 0, 0]) / 2)
