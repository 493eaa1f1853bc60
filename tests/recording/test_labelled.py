"""Stores as xarray and as long tables hold what the store holds, under the run's numbers."""

from pathlib import Path

import numpy as np
import pytest
from tiny_store import META, POS, STEPS, TRUTH, D, H, L, N, record

import trm_interp.recording.labelled
from trm_interp.recording.store import Store, StoreError


@pytest.fixture
def whole(tmp_path: Path) -> Store:
    return Store(record(tmp_path / "whole"))


@pytest.fixture
def some(tmp_path: Path) -> Store:
    return Store(record(tmp_path / "some", steps=[0, 3], positions=[1, 4]))


def test_every_array_by_place_by_label_and_backwards(whole: Store):
    data = whole.to_xarray()
    assert set(data.data_vars) == set(whole.names) - {"puzzle_id"}
    for name, array in data.data_vars.items():
        np.testing.assert_array_equal(array.values, TRUTH[name])
    z_L = data["z_L"]
    np.testing.assert_array_equal(z_L.sel(step=2, l_cycle=1).values, TRUTH["z_L"][:, 2, :, 1])
    np.testing.assert_array_equal(z_L[[9, 0, 4], ::-2].values, TRUTH["z_L"][[9, 0, 4], ::-2])
    assert data["blocks.0.hook_resid_post"].dims[3] == f"l_cycle_{L + 1}"
    np.testing.assert_array_equal(data["puzzle_id"].values, TRUTH["puzzle_id"])
    assert data.attrs["bytes"] == sum(TRUTH[name].nbytes for name in whole.names)


def test_nothing_is_read_before_it_is_used(whole: Store, monkeypatch: pytest.MonkeyPatch):
    read = []
    plain = Store.read_into
    monkeypatch.setattr(
        Store, "read_into", lambda self, name, *rest: (read.append(name), plain(self, name, *rest))
    )
    last = whole.to_xarray(["z_L", "loss"])["z_L"].isel(puzzle=0, step=-1)
    assert read == ["puzzle_id"]
    np.testing.assert_array_equal(last.values, TRUTH["z_L"][0, -1])
    assert read == ["puzzle_id", "z_L"]


def test_kept_steps_and_positions_have_the_runs_numbers(some: Store):
    data = some.to_xarray()
    assert data["step"].values.tolist() == [0, 3] and data["pos"].values.tolist() == [1, 4]
    np.testing.assert_array_equal(data["z_H"].sel(step=3, pos=4).values, TRUTH["z_H"][:, 3, :, 4])
    np.testing.assert_array_equal(data["loss"].sel(step=3).values, TRUTH["loss"][:, 3])
    np.testing.assert_array_equal(data["predictions"].values, TRUTH["predictions"][:, [0, 3]])
    loss = some.to_xarray(["loss"])["loss"]  # alone it has all of its steps
    np.testing.assert_array_equal(loss.values, TRUTH["loss"])


def test_a_long_table_has_a_row_a_value(some: Store, monkeypatch: pytest.MonkeyPatch):
    table = some.long("z_L", [5, 2])
    assert list(table) == ["puzzle", "step", "h_cycle", "l_cycle", "pos", "d_model", "value"]
    assert len(table) == 2 * 2 * H * L * 2 * D
    row = table[(table["puzzle"] == 2) & (table["step"] == 3) & (table["pos"] == 4)]
    np.testing.assert_array_equal(row["value"], TRUTH["z_L"][2, 3, :, :, 4].ravel())
    assert len(some.long("loss")) == N * STEPS
    monkeypatch.setattr(trm_interp.recording.labelled, "MOST_ROWS", 10)
    with pytest.raises(StoreError, match="take fewer puzzles"):
        some.long("z_L")


def test_positions_of_the_prefix_have_cells_below_0(tmp_path: Path, whole: Store):
    # 5 positions, 3 cells: the first two are the prefix
    model = {"h_cycles": H, "l_cycles": L, "prefix": 2, "cells": POS - 2}
    store = Store(record(tmp_path / "told", meta=META | {"model": model}))
    assert store.to_xarray(["z_H"])["cell_of_pos"].values.tolist() == [-2, -1, 0, 1, 2]
    assert "cell_of_pos" not in whole.to_xarray(["z_H"]).coords  # it tells no model
