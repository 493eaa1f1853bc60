"""Every study on an architecture and a task that live in the tests: nothing is as in TRM or Sudoku.

The toy model writes fast, fast, slow, fast, slow in each of two H-cycles and copies what it reads;
the toy task is the 3x3 Latin square, whose full squares the model solves.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from toy_copier import CONFIG, N_FULL, N_OPEN, save_squares, save_toy, squares, toy_copier
from toy_task import Latin

from trm_interp.analysis.settling import distance
from trm_interp.core.infer import run
from trm_interp.studies.settings import BasinsConfig
from trm_interp.studies.starts import Starts
from trm_interp.studies.subject import open_subject

Cli = Callable[..., Any]
N, STEPS = N_FULL + N_OPEN, 5
STATES = ("slow", "fast")


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("toys")
    puzzles = save_squares(folder / "squares.txt")
    return ["--ckpt", save_toy(folder / "toy"), "--puzzles", puzzles, "--device", "cpu"]


@pytest.fixture(scope="module")
def store(cli: Cli, on: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toys") / "store"
    answer = cli("collect", *on, "--steps", STEPS, "--out", out)
    assert answer.code == 0, answer.err
    return out


def result(cli: Cli, out: Path, *words: Any) -> dict[str, Any]:
    """The summary that a study writes, which is what it prints."""
    answer = cli(*words, "--out", out, "--json")
    assert answer.code == 0, answer.err
    summary = json.loads(answer.out)
    assert summary == json.loads((out / "summary.json").read_text())
    lines = cli(*words, "--out", out, "--overwrite")
    assert lines.code == 0 and len(lines.out.splitlines()) > 0
    assert not {"z_H", "z_L", "None"} & set(lines.out.split())
    return summary


def test_outcomes(cli: Cli, on: list[Any], tmp_path: Path):
    summary = result(cli, tmp_path, "outcomes", *on, "--steps", STEPS)
    assert summary["solved"] == N_FULL and summary["exact"] == [N_FULL / N] * STEPS
    assert list(summary["ratings_tell_failed"]) == ["blanks"]
    assert summary["ratings_tell_failed"]["blanks"]["auc"] == 1  # full squares are solved
    table = pd.read_csv(tmp_path / "puzzles.csv")
    assert (table["blanks"] == Latin().asked(squares().inputs).sum(1)).all()


def test_losses_are_read_after_every_h_cycle(cli: Cli, on: list[Any], tmp_path: Path):
    summary = result(cli, tmp_path, "losses", *on, "--steps", STEPS)
    assert (summary["cycles"], summary["solved"]) == (2 * STEPS, N_FULL)
    table = pd.read_csv(tmp_path / "losses_puzzles.csv")
    tokens = (torch.from_numpy(part) for part in (squares().inputs, squares().labels))
    wanted = run(toy_copier(), *tokens, steps=STEPS, every="h_cycle").loss.flatten(1).numpy()
    read = table["stablemax, cells"].to_numpy().reshape(N, -1)
    np.testing.assert_allclose(read, wanted, rtol=1e-5)
    blanks = table.query("line == 2")["stablemax, blanks"]
    assert (blanks == 0).all()  # a full square has none


def test_settling(cli: Cli, on: list[Any], tmp_path: Path):
    words = ["settling", *on, "--steps", STEPS, "--long", 20, "--long-limit", 6]
    summary = result(cli, tmp_path, *words)
    assert summary["solved"] == N_FULL and summary["long"]["horizons"] == [STEPS, 20]
    assert summary["norm_of_rms_1"] == pytest.approx((CONFIG.positions * CONFIG.d_model) ** 0.5)
    table = pd.read_csv(tmp_path / "late_drift.csv")
    assert {"late_drift", "late_drift_fast"} <= set(table) and "late_drift_slow" not in table
    drift = pd.read_csv(tmp_path / "same_phase_drift.csv")
    assert set(drift["state"]) == set(STATES) and len(drift) == 2 * 2 * 2 * STEPS
    model, tokens = toy_copier(), torch.from_numpy(squares().inputs)
    x = model.embed(tokens)
    state, moved = model.initial_state(x), []
    with torch.no_grad():
        for _ in range(STEPS):
            after, _ = model.advance(state, x)
            pairs = zip(after, state, strict=True)
            moved.append([distance(a.flatten(1), b.flatten(1)).numpy() for a, b in pairs])
            state = after
    slow, fast = np.array(moved[-4:]).mean(0)
    np.testing.assert_allclose(table["late_drift"], slow, rtol=1e-4)
    np.testing.assert_allclose(table["late_drift_fast"], fast, rtol=1e-4)


def test_stability_of_a_linear_map(cli: Cli, on: list[Any], tmp_path: Path):
    """The recursion is affine: every run has the same exponents, which the map's powers tell."""
    words = ["stability", *on, "--steps", STEPS, "--exponents", 2, "--sample", N, "--fixed", 2]
    summary = result(cli, tmp_path, *words, "--eigenvalues", 2, "--dtype", "float64")
    assert summary["sample"] == N and summary["solved"] == N_FULL
    assert summary["rating"] == "blanks"
    assert summary["lambda_1"]["auc_at_equal_rating"]["pairs"] == 0  # blanks tell all:
    assert summary["auc_of_rating_for_failure"]["auc"] == 1  # full squares are solved
    table = pd.read_csv(tmp_path / "exponents.csv")
    assert "blanks" in table and np.ptp(table["late_lambda_1"]) < 1e-9
    # both maps are 0.3 times the identity: one number of slow and fast each moves by itself
    cycle = np.eye(2)  # of (slow, fast)
    for writes in ("fast", "fast", "slow", "fast", "slow"):
        one = np.array([[1, 0], [0.3, 0.8]] if writes == "fast" else [[0.8, 0.3], [0, 1]])
        cycle = one @ cycle
    largest = np.abs(np.linalg.eigvals(cycle)).max()
    assert table["late_lambda_1"].mean() == pytest.approx(np.log(largest) / 5, rel=1e-2)
    points = summary["fixed_points"]
    assert points["solved"]["converged"]["share"] == 1
    assert points["failed"]["largest_modulus"]["median"] == pytest.approx(largest, rel=1e-4)


@pytest.mark.parametrize(
    ("target", "named"), [("answer", "slow"), ("fast", "fast"), ("all", "all")]
)
def test_basins(cli: Cli, on: list[Any], tmp_path: Path, target: str, named: str):
    words = ["basins", *on, "--steps", 2, "--index", f"0,{N_FULL}", "--target", target]
    words += ["--starts", 12, "--slice", 3, "--neighbours", 3, "--shuffles", 19]
    summary = result(cli, tmp_path, *words)
    assert summary["settings"]["target"] == named
    full, with_blanks = summary["puzzles_looked_at"]
    assert full["own_start_solved_from"] == 0 and with_blanks["own_start_solved_from"] == -1
    assert with_blanks["solved"] == 0  # no start fills a blank
    answers = pd.read_csv(tmp_path / "answers.csv")
    assert all(text.count("|") == 2 for text in answers["grid"])  # as the task writes squares
    one = answers.query(f"puzzle == {N_FULL}")
    assert (one["wrong_cells"] >= one["wrong_givens"]).all() and (one["wrong_cells"] > 0).all()


def test_origins(cli: Cli, on: list[Any], tmp_path: Path):
    """A small noise does not reach what the toy answers: all of it is the puzzle's."""
    words = ["origins", *on, "--copies", 2, "--starts", 3, "--steps", 2, "--sigma", 1e-3]
    summary = result(cli, tmp_path, *words)
    shares = {name: one["value"] for name, one in summary["shares"].items()}
    assert shares == pytest.approx({"puzzle": 1, "copy": 0, "start": 0, "copy and start": 0})
    assert summary["plain"]["hits"] == summary["depth"]["hits"] == N_FULL
    assert summary["recovered_by_starts"]["hits"] == 0 and summary["gain"]["value"] == 0
    assert summary["recovered_by_copies"]["n"] == N_OPEN and summary["deep_steps"] == 6


def test_trace(cli: Cli, on: list[Any], tmp_path: Path):
    """The toy treats every cell by itself: what is right in a cell is decided by its states."""
    words = ["trace", *on, "--starts", 4, "--steps", 3, "--then", 1, "--sigma", 2]
    summary = result(cli, tmp_path, *words, "--exact", 1000)
    assert (summary["pairs"], summary["tried"], summary["never"]) == (6, N * 4, N_OPEN)
    assert summary["moments"] == [0, 1, 2] and summary["rating"] == "blanks"
    assert summary["exact"] == summary["cells"] and set(summary["sealed"]) == set(STATES)
    table, pairs = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("trace", "pairs"))
    both = table[table["site"] == "all states"].set_index(["direction", "group"])["flipped"]
    assert (both["rescue", "differ"] == 1).all() and (both["ruin", "differ"] == 1).all()
    alone = (pairs["cells_differ"] == 1).mean()
    np.testing.assert_allclose(both["rescue", "cell"], alone)
    np.testing.assert_allclose(both["ruin", "cell"], 1)  # one wrong cell is enough
    assert table.query("group == 'blanks'")["flipped"].isna().all()  # full squares have none
    sealed = pd.read_csv(tmp_path / "sealed.csv")
    assert set(sealed["site"]) == set(STATES) and len(sealed) == 2 * 4 * 2 * 3


def test_robustness_of_a_linear_map(cli: Cli, on: list[Any], tmp_path: Path):
    """Its leading eigenvalue is above 1, so no state comes back, from wherever it was pushed."""
    words = ["robustness", *on, "--steps", STEPS, "--then", 12, "--draws", 3, "--starts", 2]
    summary = result(cli, tmp_path, *words, "--epsilons", "0.1,2", "--sample", N)
    assert (summary["ends"]["solved"]["n"], summary["ends"]["failed"]["n"]) == (N_FULL, N_OPEN)
    table = pd.read_csv(tmp_path / "epsilon_50.csv")
    assert (table[["bounded_state_random", "bounded_state_leading"]] == "below").all(axis=None)
    # a supervision step is 10 evaluations, and all runs have one Jacobian
    np.testing.assert_allclose(table["lambda_1"], np.log(table["modulus"]) / 10, rtol=1e-3)
    alone = ["robustness", *on, "--limit", 2, "--steps", 1, "--then", 1, "--starts", 0]
    of_one_outcome = cli(*alone, "--out", tmp_path / "alone", "--epsilons", 1)
    assert of_one_outcome.code == 0 and "all 2 puzzles are solved ones" in of_one_outcome.err
    refused = cli(*alone, "--out", tmp_path / "more", "--leading", 10**6)
    assert refused.code == 2 and "--leading must be at most" in refused.err
    returned = pd.read_csv(tmp_path / "returns.csv")
    assert (
        len(returned) == 2 * 3 * 2 * 2 and (returned.query("measure == 'state'")["mean"] == 0).all()
    )


def test_used(cli: Cli, on: list[Any], tmp_path: Path):
    """A blank of the toy always holds the same: nothing tells its labels apart."""
    words = ["used", *on, "--steps", 2, "--random", 1]
    summary = result(cli, tmp_path, *words)
    assert (summary["n_train"] + summary["n_test"], summary["seen_by_sae"]) == (N, None)
    table = pd.read_csv(tmp_path / "used.csv")
    assert set(table["site"]) == set(STATES) and set(table["moment"]) == {1}
    assert {one["label"] for one in summary["ablated"]} <= {
        *("candidates", "solution", "violations", "answered right")
    }
    assert table["auc"].dropna().eq(0.5).all() and (table["exact"] == 0).all()


def test_spread(cli: Cli, on: list[Any], tmp_path: Path):
    """The toy copies cell by cell: a given that is taken away moves itself alone."""
    summary = result(cli, tmp_path, "spread", *on, "--steps", 2, "--n-cells", 3)
    assert summary["changes"] == 3 * N_OPEN and summary["mixers"] == []
    table = pd.read_csv(tmp_path / "spread.csv")
    assert set(table["site"]) == {*STATES, "logits", "guess"}
    moved = table.groupby("relation")["influence"].max()
    assert moved["itself"] > 0 and moved.drop("itself").max() == 0
    guess = table.query("site == 'guess' and relation == 'itself'")["influence"]
    assert (guess == 1).all()  # a blank, in the place of the letter


def test_stitch(cli: Cli, on: list[Any], tmp_path: Path):
    words = ["stitch", on[1], on[1], *on[2:], "--limit", N_FULL, "--fit", N_OPEN, "--steps", 2]
    summary = result(cli, tmp_path, *words, "--link-steps", 5, "--batch-size", 4)
    alone = [arm["exact"]["hits"] for name, arm in summary["arms"].items() if "alone" in name]
    assert alone == [N_FULL] * 3 and summary["n_fitted"] == N_OPEN
    assert len(pd.read_csv(tmp_path / "fit.csv")) == 10


def test_internalisation_needs_one_inner_loop(cli: Cli, on: list[Any], tmp_path: Path):
    """On a model that has one: `test_internalisation.py`."""
    answer = cli("internalisation", *on, "--out", tmp_path / "out")
    assert answer.code == 2 and len(answer.err.strip().splitlines()) == 1
    assert "those of toy write fast, fast, slow, fast, slow" in answer.err


def test_starts_move_the_state_that_is_named(on: list[Any], tmp_path: Path):
    config = BasinsConfig(ckpt=str(on[1]), puzzles=on[3], out=tmp_path, device="cpu")
    subject = open_subject(config, print)
    state = Starts(subject, 0, "latent").random(torch.arange(3), [1.0], shared=True, seed=0)
    assert type(state) is type(subject.begin(slice(0, 1))[0])
    own = Starts(subject, 0, "latent").own
    assert torch.equal(state.slow[2], own.slow) and torch.equal(state.fast[0], own.fast)
    assert not torch.allclose(state.fast[2], own.fast, atol=0.1)


@pytest.mark.parametrize(
    ("site", "named", "updates"),
    [("latent", "fast", 6), ("answer", "slow", 4), ("slow", "slow", 4)],
)
def test_trajectories(cli: Cli, store: Path, tmp_path: Path, site: str, named: str, updates: int):
    """`updates` a supervision step."""
    summary = result(cli, tmp_path, "trajectories", store, "--site", site)
    assert summary["site"] == named
    assert summary["pool"] == f"{N} puzzles x {updates * STEPS} updates of {named}"
    points = pd.read_csv(tmp_path / "paths.csv")
    assert len(points) == N * STEPS and (points["board"].str.count(r"\|") == 2).all()


def test_divergence(cli: Cli, store: Path, tmp_path: Path):
    words = ["divergence", store, "--starts", 12, "--tries", 3, "--device", "cpu"]
    summary = result(cli, tmp_path, *words)
    assert (summary["site"], summary["solved"], summary["failed"]) == ("fast", N_FULL, N_OPEN)
    assert list(summary["over_puzzles"]["auc"]) == ["0", "29", "-1"]
    assert summary["same_puzzle"] == {"tried": 3, "puzzles": []}  # no start changes the answer


def test_lens(cli: Cli, store: Path, tmp_path: Path):
    summary = result(cli, tmp_path, "lens", store, "--device", "cpu")
    assert {row["site"] for row in summary["decisions"]} == set(STATES)
    table = pd.read_csv(tmp_path / "lens.csv")
    ticks = {site: sorted(set(rows["tick"])) for site, rows in table.groupby("site")}
    assert ticks["fast"][:4] == [0, 1, 3, 5] and ticks["slow"][:4] == [2, 4, 7, 9]
    last = table.query("site == 'slow' and curve == 'exact' and tick == 49").set_index("outcome")
    assert last["mean"].to_dict() == {"solved": 1, "failed": 0}


def test_probes(cli: Cli, store: Path, tmp_path: Path):
    words = ["probes", store, "--cycles", "0,9", "--held-out", 0.5, "--device", "cpu"]
    summary = result(cli, tmp_path, *words)
    labels = {row["label"] for row in summary["auc"]}
    assert labels == {
        *("candidates", "violations", "candidate A", "candidate B", "candidate C"),
        *("row conflict", "column conflict"),
    }
    assert {row["site"] for row in summary["auc"]} == {*STATES, ""}
    assert {row["tick"] for row in summary["auc"]} == {3, 4, 48, 49}  # last of fast and of slow


def test_a_task_without_candidates_and_ratings(
    cli: Cli, on: list[Any], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Latin, "candidates", lambda self, inputs: None)
    monkeypatch.setattr(Latin, "board_facts", lambda self, inputs, labels: {})
    monkeypatch.setattr(Latin, "ratings", lambda self: ())
    monkeypatch.setattr(Latin, "rate", lambda self, puzzles, seed=0, progress=None: {})
    words = ["probes", store, "--cycles", "0", "--held-out", 0.5, "--device", "cpu"]
    answer = cli(*words, "--out", tmp_path / "probes")
    assert answer.code == 0 and "3x3 Latin square has no candidates" in answer.err
    labels = set(pd.read_csv(tmp_path / "probes" / "probes.csv")["label"])
    assert labels == {"violations", "row conflict", "column conflict"}
    answer = cli("outcomes", *on, "--steps", 2, "--out", tmp_path / "outcomes")
    assert answer.code == 0 and "have no ratings: skipping outcomes by rating" in answer.err
    words = ["stability", *on, "--steps", 5, "--exponents", 1, "--fixed", 0, "--sample", N]
    answer = cli(*words, "--out", tmp_path / "stability")
    assert answer.code == 0 and "have no ratings" in answer.err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trajectories", "--site", "z_L"], "--site z_L: "),
        (["divergence", "--site", "logits"], "give one of slow, fast, answer, latent"),
        (["basins", "--target", "z_H"], "give one of slow, fast, answer, latent, all"),
    ],
)
def test_a_state_that_the_model_lacks_is_one_line(
    cli: Cli, on: list[Any], store: Path, tmp_path: Path, words: list[Any], line: str
):
    command, *rest = words
    inputs = on if command == "basins" else [store]
    answer = cli(command, *inputs, *rest, "--out", tmp_path / "out")
    assert (answer.code, answer.out) == (2, "") and answer.err.count("\n") == 1
    assert line in answer.err and not (tmp_path / "out").exists()
