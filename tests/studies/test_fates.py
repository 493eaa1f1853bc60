"""The fate of a run is the same thing in `late_drift.csv` and in `long_runs.csv`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from trm_interp.core.joint import CycleMap
from trm_interp.studies.fates import (
    PUBLISHED_BAND,
    TOLERANCES,
    Fates,
    fates_within,
    within_table,
)
from trm_interp.studies.rollouts import long_runs
from trm_interp.studies.settings import SettlingConfig
from trm_interp.studies.settling import SettlingResult
from trm_interp.studies.subject import open_subject

Cli = Callable[..., Any]


def every(period: int) -> Callable[[CycleMap, Tensor], Tensor]:
    """In place of an H-cycle: a constant that takes `period` values in turn."""
    at: dict[int, int] = {}

    def cycle(self: CycleMap, z: Tensor) -> Tensor:
        at[id(self)] = at.get(id(self), -1) + 1
        return torch.full_like(z, float(at[id(self)] % period))

    return cycle


@pytest.fixture
def tables(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], tuple[pd.DataFrame, pd.DataFrame]]:
    """Both tables of runs that come back after so many H-cycles (two a step)."""

    def made(period: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        monkeypatch.setattr(CycleMap, "__call__", every(period))
        out = tmp_path / str(period)
        words = ["--ckpt", copier, "--puzzles", grids, "--limit", 3, "--device", "cpu"]
        words += ["--out", out, "--steps", 8, "--long", 24, "--long-limit", 2]
        answer = cli("settling", *words)
        assert answer.code == 0, answer.err
        assert "at rest: no H-cycle moves a run by more than 0.001 RMS (period 1)" in answer.out
        return pd.read_csv(out / "late_drift.csv"), pd.read_csv(out / "long_runs.csv")

    return made


@pytest.mark.parametrize(
    ("period", "steps", "fate"),
    [
        (1, 1, "settled"),
        (2, 1, "cycling"),  # inside a step of two H-cycles: the map of a step would call it settled
        (3, 3, "cycling"),  # back at the same phase of a step after lcm(3, 2) = 6 H-cycles
        (4, 2, "cycling"),
        (9, 0, "wandering"),  # longer than the 8 H-cycles that both look back
    ],
)
def test_periods_in_h_cycles_and_in_steps_give_one_fate(
    tables: Callable[..., tuple[pd.DataFrame, pd.DataFrame]], period: int, steps: int, fate: str
):
    late, long = tables(period)
    period = period if steps else 0
    assert set(late["period_h_cycles"]) == {period} and set(late["period_steps"]) == {steps}
    assert set(long["period_h_cycles"]) == {period} and set(long["period_steps"]) == {steps}
    assert set(late["fate"]) == set(long["fate"]) == {fate}
    assert set(late["tolerance"]) == set(long["tolerance"]) == {1e-3}
    assert set(late["window_steps"]) == {4}
    assert long.groupby("steps")["window_steps"].first().to_dict() == {8: 4, 24: 4}
    assert set(late["longest_lag_h_cycles"]) == set(long["longest_lag_h_cycles"]) == {8}


def test_the_first_horizon_tells_what_the_short_runs_have_come_to(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path
):
    words = ["--ckpt", copier, "--puzzles", grids, "--out", tmp_path, "--device", "cpu"]
    words += ["--steps", 8, "--long", 12, "--long-limit", 13, "--tolerance", 0.1]
    assert cli("settling", *words).code == 0
    late = pd.read_csv(tmp_path / "late_drift.csv").set_index("puzzle")
    long = pd.read_csv(tmp_path / "long_runs.csv").query("steps == 8").set_index("puzzle")
    assert len(long) == 13 and len(set(late["fate"])) > 1  # some rest, some do not yet
    assert late["fate"].to_dict() == long["fate"].to_dict()
    assert late["period_steps"].to_dict() == long["period_steps"].to_dict()


def test_runs_that_all_rest_are_not_run_on(
    copier: Path, grids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(CycleMap, "__call__", every(1))
    config = SettlingConfig(ckpt=str(copier), puzzles=grids, out=tmp_path, device="cpu", limit=2)
    calls: list[int] = []
    far = long_runs(open_subject(config), np.arange(2), [40, 80], 1e-3, 16, calls.append)
    assert far.fate.tolist() == [["settled"] * 2] * 2 and max(calls) < 80


def test_fates_by_tolerance():
    """Three runs whose H-cycles move them by 0.0005, by 0.02, and by 0.05 back and forth."""
    back = np.zeros((3, 4, 2))  # [run, moment, lag]
    back[0], back[1], back[2, :, 0] = 5e-4, 2e-2, 5e-2
    solved = np.array([True, False, False])
    within = {one.tolerance: one for one in fates_within(back, solved, tolerance=5e-3)}
    assert sorted(within) == sorted({*TOLERANCES, 5e-3})
    assert [within[t].solved.settled for t in (1e-4, 3e-4, 1e-3, 1e-1)] == [0, 0, 1, 1]
    failed = {tolerance: one.failed for tolerance, one in within.items()}
    assert failed[5e-3] == Fates(settled=0, cycling=1, wandering=1)
    assert failed[3e-2] == Fates(settled=1, cycling=1, wandering=0)
    assert failed[PUBLISHED_BAND] == Fates(settled=2, cycling=0, wandering=0)
    table = within_table(list(within.values()))
    assert len(table) == 9 * 2 * 3 and set(table["lag"]) == {"H-cycle"}
    assert set(table["longest_lag"]) == {2}
    sums = table.groupby(["tolerance", "outcome"])["hits"].sum().unstack()
    assert set(sums["solved"]) == {1} and set(sums["failed"]) == {2}


def test_a_result_counts_rest_by_both_measures(cli: Cli, copier: Path, grids: Path, tmp_path: Path):
    words = ["--ckpt", copier, "--puzzles", grids, "--out", tmp_path, "--device", "cpu"]
    assert cli("settling", *words, "--steps", 8, "--long", 0).code == 0
    result = SettlingResult.read(tmp_path / "summary.json")
    late = pd.read_csv(tmp_path / "late_drift.csv")
    own = next(one for one in result.fates_within or [] if one.tolerance == result.tolerance)
    assert (own.solved, own.failed) == (result.fates.solved, result.fates.failed)
    ours, band = result.rests
    for outcome in ("solved", "failed"):
        rows = late[late["outcome"] == outcome]
        assert getattr(ours, outcome) == ((rows["fate"] == "settled").sum(), len(rows))
        assert getattr(band, outcome) == ((rows["late_drift"] <= PUBLISHED_BAND).sum(), len(rows))
    assert ours.measure == "at rest within 0.001 RMS"
    assert band.measure == "late drift within 0.083 RMS a step"
