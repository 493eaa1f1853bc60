"""`trm-interp lens` and `probes` end to end on a tiny store."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trm_interp.recording.store import Store
from trm_interp.tasks.sudoku.forge.generate import generate
from trm_interp.tasks.sudoku.grid import SHAPES, conflicts, from_tokens, render, violations

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def puzzle_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("lens") / "puzzles.txt"
    made, _ = generate(SHAPES[4], 24, seed=0)
    file.write_text("".join(f"{render(grid)}\n" for grid in made))
    return file


@pytest.fixture(scope="module")
def store(cli: Cli, copier: Path, puzzle_file: Path) -> Path:
    return record(cli, copier, puzzle_file, puzzle_file.parent / "store")


def record(cli: Cli, ckpt: Path, puzzles: Path, out: Path, *more: Any) -> Path:
    words = ["collect", "--ckpt", ckpt, "--puzzles", puzzles, "--out", out]
    answer = cli(*words, *(more or ("--steps", 4)))
    assert answer.code == 0, answer.err
    return out


def test_the_lens_on_z_H_at_the_end_of_a_step_is_the_answer_of_that_step(
    cli: Cli, store: Path, tmp_path: Path
):
    answer = cli("lens", store, "--out", tmp_path, "--device", "cpu", "--json")
    assert answer.code == 0, answer.err
    table = pd.read_csv(tmp_path / "lens.csv")
    summary = json.loads(answer.out)
    with Store(store) as opened:
        guesses, labels = opened["predictions"][:], opened["labels"][:]
        blank = opened["inputs"][:] == 1
        failed = ~opened["solved"][:, -1].astype(bool)
    assert summary["n"] == 24 and failed.any()
    share = ((guesses == labels[:, None]) & blank[:, None]).sum(-1) / blank.sum(-1)[:, None]
    rows = table.query("site == 'z_H' and curve == 'right' and outcome == 'failed'")
    # a step is 2 x (2 + 1) evaluations and its last one writes z_H: 5, 11, 17, 23
    at_step_ends = rows.set_index("tick")["mean"][[5, 11, 17, 23]]
    np.testing.assert_allclose(at_step_ends, share[failed].mean(0))
    assert rows["tick"].tolist() == list(range(2, 24, 3))
    z_L = table.query("site == 'z_L' and curve == 'decided' and outcome == 'failed'")
    assert z_L["mean"].is_monotonic_increasing and z_L["mean"].iloc[-1] == 1
    assert len(z_L) == 16 and (table["low"] <= table["mean"] + 1e-12).all()
    decisions = pd.read_csv(tmp_path / "decisions.csv")
    assert set(decisions["number"]) == {"decided_tick", "revisions", "revised"}
    assert "plotly" in (tmp_path / "lens.html").read_text()


def test_too_few_of_an_outcome_are_said_and_the_rest_is_given(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path
):
    store = record(cli, copier, grids, tmp_path / "store")
    answer = cli("lens", store, "--out", tmp_path / "out", "--device", "cpu")
    assert answer.code == 0 and "puzzles: a comparison needs 5" in answer.err
    assert "z_H of" in answer.out


def test_probes_and_their_controls(cli: Cli, store: Path, tmp_path: Path):
    words = ["--cycles", "0,7", "--device", "cpu"]
    answer = cli("probes", store, "--out", tmp_path, *words, "--json")
    assert answer.code == 0, answer.err
    summary, table = json.loads(answer.out), pd.read_csv(tmp_path / "probes.csv")
    assert (summary["n_train"], summary["n_test"]) == (14, 10)  # 0.4 of 24
    table["site"] = table["site"].fillna("")
    places = set(zip(table["cycle"], table["site"], table["tick"], strict=True))
    # cycle 0: z_L last at tick 1, z_H at 2; cycle 7: 22 and 23
    assert places >= {(0, "z_L", 1), (0, "z_H", 2), (7, "z_L", 22), (7, "z_H", 23)}
    assert len(table) == 2 * 6 * (2 + 4 + 3)
    x = table[(table["kind"] == "x") & (table["n"] > 0)]
    assert len(x) and (x["auc"] == 0.5).all()  # a blank cell's own input says nothing
    defined = table.dropna(subset="auc")
    assert defined["auc"].between(0, 1).all() and (defined["low"] <= defined["high"]).all()
    # the board says what is left of a digit: linear in the givens of each cell's peers
    board = table.query("kind == 'board' and label == 'candidates'")["auc"]
    shuffled = table.query("kind == 'shuffled' and label == 'candidates'")["auc"]
    assert board.min() > 0.6 and (abs(shuffled - 0.5) < 0.15).all()
    assert "plotly" in (tmp_path / "probes.html").read_text()


def test_the_same_command_gives_the_same_table(cli: Cli, store: Path, tmp_path: Path):
    tables = []
    for name in ("a", "b"):
        words = ["--out", tmp_path / name, "--cycles", 3, "--device", "cpu"]
        assert cli("probes", store, *words).code == 0
        tables.append((tmp_path / name / "probes.csv").read_bytes())
    assert tables[0] == tables[1]


@pytest.mark.parametrize("part", ["lens", "probes"])
def test_stores_that_lack_something_are_refused(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path, part: str
):
    def refused(*words: Any) -> str:
        answer = cli(part, *words, "--out", tmp_path / "out", "--device", "cpu")
        assert (answer.code, answer.out) == (2, "") and answer.err.count("\n") == 1
        return answer.err

    lacking = record(cli, copier, grids, tmp_path / "z_L", "--steps", 1, "--sites", "z_L")
    assert "lacks z_H" in refused(lacking)
    some = record(cli, copier, grids, tmp_path / "late", "--steps", "1-2")
    problem = refused(some)
    assert "kept the states of steps 1, 2 of 3: record again with collect --steps 3" in problem
    few = record(cli, copier, grids, tmp_path / "few", "--steps", 1, "--positions", "0-7")
    assert "kept 8 of 18 positions: record again with collect without --positions" in refused(few)
    words = ["--steps", "0,2", "--positions", "0-7", "--sites", "z_L"]
    problem = refused(record(cli, copier, grids, tmp_path / "little", *words))  # all at once
    assert "lacks z_H; it holds" in problem
    assert "; kept the states of steps 0, 2 of 3; kept 8 of 18 positions: record again" in problem
    assert "collect --sites z_H,z_L --steps 3 without --positions" in problem
    whole = record(cli, copier, grids, tmp_path / "whole", "--steps", 1)
    assert "no such checkpoint" in refused(whole, "--ckpt", tmp_path / "nowhere")


def test_bad_settings_of_probes(cli: Cli, store: Path, tmp_path: Path):
    for words, problem in (
        (["--cycles", "8"], "no H-cycle 8"),
        (["--cycles", "x"], "is no index"),
        (["--held-out", 0], "--held-out must be between 0 and 1"),
        (["--strength", 0], "strength must be above 0"),
        (["--held-out", 0.001], "cannot be split"),
    ):
        answer = cli("probes", store, "--out", tmp_path, "--device", "cpu", *words)
        assert answer.code == 2 and answer.err.count("\n") == 1 and problem in answer.err


def test_violations_by_kind():
    grid = np.zeros(16, np.uint8)
    grid[[0, 1, 8, 15]] = 3, 3, 3, 3  # 0 and 1: one row and box; 0 and 8: one column; 15: alone
    row, column, box = violations(grid)
    assert row.nonzero()[0].tolist() == [0, 1]
    assert column.nonzero()[0].tolist() == [0, 8]
    assert box.nonzero()[0].tolist() == [0, 1]
    grids = np.random.default_rng(0).integers(0, 5, (6, 16)).astype(np.uint8)
    for one, broken in zip(grids, violations(grids), strict=True):
        np.testing.assert_array_equal(broken.any(0), conflicts(one))
    assert not violations(from_tokens(np.ones((2, 16), np.uint8))).any()
