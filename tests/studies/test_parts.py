"""Outcomes, trajectories, divergence and losses end to end on a tiny checkpoint."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from trm_interp.analysis.outcomes import wilson
from trm_interp.studies.trajectories import umap_settings

Cli = Callable[..., Any]
STEPS = 4


@pytest.fixture(scope="module")
def store(cli: Cli, copier: Path, grids: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("landscape") / "store"
    words = ["--ckpt", copier, "--puzzles", grids, "--out", out, "--steps", STEPS]
    assert cli("collect", *words).code == 0
    return out


def summary_of(cli: Cli, *words: object) -> dict[str, Any]:
    answer = cli(*words, "--json")
    assert answer.code == 0, answer.err
    out = Path(words[words.index("--out") + 1])  # type: ignore[arg-type]
    summary = json.loads(answer.out)
    assert json.loads((out / "summary.json").read_text()) == summary
    return summary


def test_outcomes_are_those_of_eval(cli: Cli, copier: Path, grids: Path, tmp_path: Path):
    on = ["--ckpt", copier, "--puzzles", grids, "--steps", STEPS]
    summary = summary_of(cli, "outcomes", *on, "--out", tmp_path / "o")
    measured = json.loads(cli("eval", *on, "--json").out)
    assert summary["exact"] == measured["exact_at_step"]
    assert summary["ever"] == measured["ever_solved_by"]
    table = pd.read_csv(tmp_path / "o" / "puzzles.csv")
    assert len(table) == summary["n"] == 13 and int(table["solved"].sum()) == summary["solved"]
    low, high = wilson(summary["solved"], 13)
    assert (summary["exact_low"][-1], summary["exact_high"][-1]) == pytest.approx((low, high))
    by = pd.read_csv(tmp_path / "o" / "ratings.csv")
    assert (by.groupby(["rating", "step"])["n"].sum() == 13).all()
    assert by["step"].nunique() == STEPS
    assert "plotly" in (tmp_path / "o" / "outcomes.html").read_text()


def test_losses_are_those_of_eval_and_agree_over_conventions(
    cli: Cli, copier: Path, grids: Path, store: Path, tmp_path: Path
):
    on = ["--ckpt", copier, "--puzzles", grids, "--steps", STEPS]
    summary = summary_of(cli, "losses", *on, "--out", tmp_path / "l", "--batch-size", 16)
    with h5py.File(store / "store.h5") as file:
        loss, solved = file["loss"][:], file["solved"][:, -1]
    table = pd.read_csv(tmp_path / "l" / "losses.csv")
    main = table[table["convention"] == "stablemax, cells"]
    for outcome, group in (("solved", solved), ("failed", ~solved)):
        rows = main[main["outcome"] == outcome]
        last_cycles = rows["mean"].to_numpy()[1::2]  # two H-cycles a step
        np.testing.assert_allclose(last_cycles, loss[group].mean(0), rtol=1e-5)
        total = table[(table["convention"] == "stablemax, sum") & (table["outcome"] == outcome)]
        np.testing.assert_allclose(total["mean"], 16 * rows["mean"], rtol=1e-6)
    assert summary["cycles"] == 2 * STEPS and set(table["unit"]) == {
        "nats per cell",
        "nats per blank cell",
        "nats per puzzle",
    }


def test_what_umap_cannot_do_costs_no_earlier_results(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path
):
    one, out = tmp_path / "one", tmp_path / "out"
    on = ["--ckpt", copier, "--puzzles", grids, "--limit", 1, "--steps", 2]
    assert cli("collect", *on, "--out", one).code == 0
    assert cli("trajectories", one, "--out", out).code == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    answer = cli("trajectories", one, "--out", out, "--umap", "--overwrite")
    assert answer.code == 2 and "UMAP needs neighbours" in answer.err
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_trajectories_have_a_point_and_a_board_for_every_step(
    cli: Cli, store: Path, tmp_path: Path
):
    summary = summary_of(cli, "trajectories", store, "--out", tmp_path / "t")
    assert summary["relative"]
    table = pd.read_csv(tmp_path / "t" / "paths.csv", dtype={"board": str})
    assert len(table) == 13 * STEPS and table["board"].str.len().eq(16).all()
    assert ((table["wrong"] == 0) == table["solved"]).all()
    assert sum(summary["explained"]) <= 1 and summary["explained"][0] >= summary["explained"][1]
    ticks = pd.read_csv(tmp_path / "t" / "paths_ticks.csv")
    first = ticks[ticks["update"] == 0]
    assert np.abs(first[["pc1", "pc2", "pc3"]].to_numpy()).max() == 0
    pooled = summary_of(cli, "trajectories", store, "--out", tmp_path / "p", "--pooled")
    assert not pooled["relative"] and pooled["explained"] != summary["explained"]
    page = (tmp_path / "t" / "paths_3d.html").read_text()
    assert "scatter3d" in page and " ".join(table["board"][0][:4]) in page


def test_umap_is_stored_with_its_seed(cli: Cli, store: Path, tmp_path: Path):
    words = ["trajectories", store, "--umap", "--site", "z_H", "--shown", 5, "--out"]
    summary = summary_of(cli, *words, tmp_path / "a")
    summary_of(cli, *words, tmp_path / "b")
    one, other = (pd.read_csv(tmp_path / name / "umap.csv") for name in "ab")
    assert one[["umap1", "umap2"]].equals(other[["umap1", "umap2"]])
    assert summary["umap"]["seed"] == 0 and "umap-learn" in summary["umap"]
    assert summary["umap"]["init"] == "pca"


def test_umap_has_a_seed_one_thread_and_a_start_that_is_the_same_in_every_process():
    reproducible = {
        "random_state": 3,
        "n_jobs": 1,
        "init": "pca",
    }  # "spectral", the default, is not
    assert umap_settings(15, 3) == {"n_neighbors": 15, **reproducible}


@pytest.mark.slow
def test_the_seed_of_umap_holds_in_every_process(store: Path, tmp_path: Path):
    tables = []
    for name in "ab":
        words = ["trajectories", store, "--umap", "--seed", "0", "--out", tmp_path / name]
        command = [sys.executable, "-m", "trm_interp", *map(str, words)]
        subprocess.run(command, check=True, capture_output=True, timeout=280)
        tables.append((tmp_path / name / "umap.csv").read_bytes())
    assert tables[0] == tables[1]


def test_titles_count_what_is_drawn(cli: Cli, store: Path, tmp_path: Path):
    summary = summary_of(cli, "trajectories", store, "--shown", 5, "--out", tmp_path)
    page = (tmp_path / "paths.html").read_text()
    assert summary["drawn"] == 5
    assert (
        f"5 puzzles, from their first state; axes of 13 puzzles x {4 * STEPS} updates of z_L"
        in page
    )
    table = pd.read_csv(tmp_path / "paths.csv")
    assert table["puzzle"].nunique() == 13
    assert table["puzzle"][table["drawn"]].nunique() == 5
    counts = dict(re.findall(r"(solved|failed) \(n = (\d+)\)", page)).values()
    assert sum(map(int, counts)) == 5


def test_divergence_over_puzzles_and_starts(cli: Cli, store: Path, tmp_path: Path):
    words = ["divergence", store, "--starts", 48, "--tries", 13, "--out", tmp_path / "d"]
    summary = summary_of(cli, *words)
    table = pd.read_csv(tmp_path / "d" / "divergence.csv")
    assert table.groupby("outcome")["update"].count().eq(STEPS * 4).all()
    assert summary["solved"] + summary["failed"] == 13
    same = summary["same_puzzle"]
    assert same["puzzles"] and set(map(str, same["puzzles"])) == set(same["of_each"])
    starts = pd.read_csv(tmp_path / "d" / "same_puzzle_starts.csv")
    assert (starts.groupby("puzzle")["solved"].count() == 48).all()
    curve = pd.read_csv(tmp_path / "d" / "same_puzzle_auc.csv")
    assert len(curve) == STEPS * 4
    pairs = sum(ok.sum() * (~ok).sum() for _, ok in starts.groupby("puzzle")["solved"])
    assert (curve["pairs"] == pairs).all()  # of one puzzle only
    aucs = [one["auc"] for one in same["of_each"].values()]
    assert min(aucs) <= list(same["auc"].values())[1]["auc"] <= max(aucs)
    plain = summary_of(cli, "divergence", store, "--starts", 0, "--out", tmp_path / "p")
    assert plain["same_puzzle"] == {} and plain["over_puzzles"] == summary["over_puzzles"]


def refused(cli: Cli, *words: object) -> str:
    answer = cli(*words)
    assert answer.code == 2 and answer.out == ""
    error = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    return error[0]


def test_a_store_that_lacks_what_is_needed(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path, store: Path
):
    on = ["--ckpt", copier, "--puzzles", grids]
    assert cli("collect", *on, "--out", tmp_path / "H", "--steps", 2, "--sites", "z_H").code == 0
    assert cli("collect", *on, "--out", tmp_path / "s", "--steps", "0,3").code == 0
    out = ["--out", tmp_path / "out"]
    assert "lacks z_L; it holds z_H" in refused(cli, "trajectories", tmp_path / "H", *out)
    assert "steps 0, 3 of 4: record again with collect --steps 4" in refused(
        cli, "divergence", tmp_path / "s", *out
    )
    assert not (tmp_path / "out").exists()
    assert str(tmp_path / "none") in refused(cli, "divergence", tmp_path / "none", *out)


def test_a_state_that_is_not_finite_is_named(cli: Cli, store: Path, tmp_path: Path):
    broken = tmp_path / "broken"
    shutil.copytree(store, broken)
    shard = next(broken.glob("shard-*.h5"))
    with h5py.File(shard, "r+") as file:
        solved = int(file["solved"][:, -1].argmax())  # one that the centroid is made of
        file["z_L"][solved, 1, 0, 0, 0, 0] = np.nan
    out = ["--out", tmp_path / "out"]
    problem = f"z_L is not finite, first in puzzle {solved}"
    assert problem in refused(cli, "trajectories", broken, *out)
    assert problem in refused(cli, "divergence", broken, "--starts", 0, *out)


def test_both_inputs_are_opened_before_anything_is_written(cli: Cli, store: Path, tmp_path: Path):
    out = ["--out", tmp_path / "out", "--ckpt", tmp_path / "nowhere"]
    assert "nowhere: no such checkpoint" in refused(cli, "divergence", store, *out)
    assert not (tmp_path / "out").exists()
    assert cli("divergence", store, *out, "--starts", 0).code == 0  # which needs none


def test_settings_that_make_no_sense(cli: Cli, copier: Path, store: Path, tmp_path: Path):
    out = ["--out", tmp_path / "out"]
    assert "limit must be at least 1" in refused(cli, "losses", "--limit", 0, *out)
    assert "starts must be at least 0" in refused(cli, "divergence", store, "--starts", -1, *out)
