"""Rows of a site are those of the ticks that it names, tick after tick; bad ones are named."""

from pathlib import Path

import numpy as np
import pytest
import sae_store
from sae_store import noise, numbered, write_store
from tiny_store import POS, STEPS, TRUTH, D, H, L, N, open_writer, record, write_batch

from trm_interp.recording.site_reader import (
    SiteReader,
    board_keys,
    open_sites,
    run_clock,
    spell,
    split_puzzles,
)
from trm_interp.recording.store import Site, Store
from trm_interp.runtime.errors import UserError

MODEL = {"h_cycles": H, "l_cycles": L, "prefix": 2, "cells": 3}
BLOCK = "blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of z_L alone, whose rows hold their own number."""
    return write_store(tmp_path_factory.mktemp("stream") / "store", numbered(4))


@pytest.mark.parametrize("steps", [None, [1, 3]])
def test_every_tick_of_every_site(tmp_path: Path, steps: list[int] | None):
    path = record(tmp_path / "store", meta={"model": MODEL}, steps=steps)
    with Store(path) as store:
        clock = run_clock(store)
        for name in ("z_L", "z_H", BLOCK):
            reader = SiteReader(store, name)
            assert reader.indices == [
                i
                for i, tick in enumerate(clock)
                if tick.writes == name or name == BLOCK
                if steps is None or tick.step in steps
            ]
            kept = range(STEPS) if steps is None else steps
            truth = TRUTH[name][7, list(kept)]
            rows = truth.reshape(-1, *truth.shape[-2:])
            np.testing.assert_array_equal(reader.read(7), rows)
            assert reader.rows == rows.shape[0] * rows.shape[1]
            some = SiteReader(store, name, reader.indices[::-2])
            np.testing.assert_array_equal(some.read(7), rows[::-2])


def test_a_period_is_an_h_cycle(numbers: Path, tmp_path: Path):
    path = record(tmp_path / "store", meta={"model": MODEL})
    with Store(path) as store:
        periods = {name: SiteReader(store, name).ticks_per_cycle for name in ("z_L", "z_H", BLOCK)}
    assert periods == {"z_L": L, "z_H": 1, BLOCK: L + 1}


def test_an_array_of_ones_own_without_an_l_cycle_axis_is_of_h_cycles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Neither a state nor a site of the model: its axes alone say what it holds."""
    mine = Site("mine", ("step", "h_cycle", "pos", "d_model"), (STEPS, H, POS, D))
    values = np.random.default_rng(0).standard_normal((N, *mine.shape)).astype("float16")
    monkeypatch.setitem(TRUTH, "mine", values)
    with open_writer(tmp_path / "store", meta={"model": MODEL}, more=[mine]) as writer:
        while writer.done < N:
            write_batch(writer, min(2, N - writer.done))
    with Store(tmp_path / "store") as store:
        reader = SiteReader(store, "mine")
        assert len(reader.ticks) == STEPS * H and all(tick.ends_cycle for tick in reader.ticks)
        np.testing.assert_array_equal(reader.read(3), values[3].reshape(-1, POS, D))


def test_a_tick_or_site_that_is_not_there_is_named(numbers: Path):
    # 3 x 2 H-cycles of ticks (0, 1 z_L; 2 z_H), (3, 4; 5), ...
    with Store(numbers) as store:
        with pytest.raises(UserError, match="no z_L at tick 5; it holds ticks 0, 1, 3, 4"):
            SiteReader(store, "z_L", [5])
        with pytest.raises(UserError, match="no z_L at tick 5; it holds ticks"):
            open_sites(store, ["z_L"], [4, 5])
        with pytest.raises(UserError, match="no 'z_H'; it holds z_L"):
            SiteReader(store, "z_H")


def test_several_sites_share_the_ticks_that_each_has(tmp_path: Path):
    path = record(tmp_path / "store", meta={"model": MODEL})
    with Store(path) as store:
        readers = open_sites(store, ["z_L", "z_H"], [0, 1, 3])
        assert [(r.site, r.indices) for r in readers] == [("z_L", [0, 1]), ("z_H", [3])]
        (reader,) = open_sites(store, ["z_L", "z_H"], [3])  # the others hold none of these
        assert reader.site == "z_H"


def test_a_value_that_is_not_finite_is_named(tmp_path: Path):
    z_L = noise(4)
    z_L[2, 1, 0, 1, 5, 3] = np.inf  # step 1, H-cycle 0, L-cycle 1: tick 6 + 0 + 1
    with Store(write_store(tmp_path / "store", z_L)) as store:
        reader = SiteReader(store, "z_L")
        assert np.isfinite(reader.read(1)).all()
        with pytest.raises(
            UserError, match=r"z_L of puzzle 2 \(from 0\) is not finite at tick 7 \(step.1"
        ):
            reader.read(2)


def test_copies_of_a_board_stay_on_one_side():
    boards = np.repeat(np.arange(20)[:, None], 3, axis=1)
    inputs = np.concatenate([boards, boards])  # every board twice
    training, held_out = split_puzzles(inputs, 0.25, seed=1)
    assert len(held_out) == 10 and len(training) == 30
    assert not set(inputs[training, 0]) & set(inputs[held_out, 0])
    assert np.array_equal(split_puzzles(inputs, 0.25, seed=1)[1], held_out)
    assert not np.array_equal(split_puzzles(inputs, 0.25, seed=2)[1], held_out)
    with pytest.raises(UserError, match="cannot be split"):
        split_puzzles(boards[:1], 0.25, seed=1)


def test_names_of_boards_and_of_ticks(numbers: Path):
    with Store(numbers) as store:
        keys = board_keys(store["inputs"][:])
        assert len(set(keys)) == 4 and all(len(key) == 12 for key in keys)
        assert len(run_clock(store)) == sae_store.STEPS * sae_store.H * (sae_store.L + 1)
    assert spell([]) == "" and spell([5]) == "5" and spell([1, 2, 4, 5, 6]) == "1, 2, 4-6"
