"""`settling` and `stability` end to end on tiny models, and what they say to bad input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from trm_interp.analysis.outcomes import half_failed
from trm_interp.core.checkpoints.folder import load_checkpoint, save_checkpoint
from trm_interp.core.infer import run
from trm_interp.studies.rollouts import long_runs, short_runs
from trm_interp.studies.settings import SettlingConfig
from trm_interp.studies.subject import open_subject

Cli = Callable[..., Any]
CPU = ["--device", "cpu"]


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def calm(copier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The copier, contracting: full grids stay right; most runs rest within 160 steps, not all."""
    model = load_checkpoint(copier).model
    with torch.no_grad():
        for weight in model.net.parameters():
            weight.mul_(0.5)
    folder = tmp_path_factory.mktemp("calm") / "calm"
    save_checkpoint(folder, model, {"note": "for tests"})
    return folder


@pytest.fixture(scope="module")
def halves(grids: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """13 puzzles, every other one with four blanks: 7 that `calm` solves, 6 that it does not."""
    solutions = [row.split(",")[1] for row in grids.read_text().splitlines()]
    rows = [f"{'....' + s[4:] if i % 2 else s},{s}" for i, s in enumerate(solutions)]
    file = tmp_path_factory.mktemp("halves") / "halves.txt"
    file.write_text("\n".join(rows) + "\n")
    return file


@pytest.fixture(scope="module")
def settling(cli: Cli, copier: Path, grids: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("settling")
    words = ["--ckpt", copier, "--puzzles", grids, "--out", out, *CPU, "--batch-size", 4]
    answer = cli("settling", *words, "--steps", 5, "--long", 70, "--long-limit", 7)
    assert answer.code == 0, answer.err
    assert "13 runs of 5 steps" in answer.out and f"wrote {out}" in answer.err
    return out


def test_settling_writes_all_that_it_plots(settling: Path):
    summary = summary_of(settling)
    for name in ("late_drift", "same_phase_drift", "recurrence", "fates"):
        assert (settling / f"{name}.html").exists() and (settling / f"{name}.csv").exists()
    assert summary["n"] == 13 and summary["solved"] + summary["failed"] == 13
    cells = pd.read_csv(settling / "settled_by_solved.csv")
    assert cells["n"].sum() == 13 and len(cells) == 4
    each = pd.read_csv(settling / "late_drift.csv")
    solved = each["outcome"] == "solved"
    assert solved.sum() == summary["solved"]
    assert summary["late_drift"]["failed"]["median"] == pytest.approx(
        each["late_drift"][~solved].median()
    )
    fates = pd.read_csv(settling / "fates.csv")
    assert list(fates["steps"].unique()) == [5, 64, 70]
    np.testing.assert_allclose(fates.groupby("steps")["share"].sum(), 1)
    assert (fates.query("steps == 5 and became == 'solved'")["share"] == 0).all()
    assert set(fates["n"]) == {summary["long"]["escaped"]["n"]}
    drift = pd.read_csv(settling / "same_phase_drift.csv")
    assert set(drift["state"]) == {"z_H", "z_L"} and drift["steps_done"].max() == 5
    alone = drift["outcome"].map({"solved": solved.sum(), "failed": (~solved).sum()}) == 1
    assert alone.any() and (drift[["low", "high"]].isna().all(axis=1) == alone).all()
    several = drift[~alone]
    assert len(several) and (several["low"] <= 1.00001 * several["mean"]).all()
    assert (several["mean"] <= 1.00001 * several["high"]).all()


def test_drift_and_outcome_are_those_of_the_model(settling: Path, copier: Path, grids: Path):
    config = SettlingConfig(ckpt=str(copier), puzzles=grids, out=settling, device="cpu")
    subject = open_subject(config, print)
    short = short_runs(subject, 5, lambda done: None)
    read = run(subject.model, subject.inputs, subject.labels, steps=5)
    np.testing.assert_array_equal(short.solved, read.solved.numpy())
    x = subject.model.embed(subject.inputs)
    state, moved = subject.model.initial_state(x), []
    with torch.no_grad():
        for _ in range(5):
            after, _ = subject.model.advance(state, x)
            pairs = zip(after, state, strict=True)
            moved.append(torch.stack([(a - b).square().mean((1, 2)).sqrt() for a, b in pairs], 1))
            state = after
    np.testing.assert_allclose(short.per_step, torch.stack(moved, 1), rtol=1e-4, atol=1e-6)
    table = pd.read_csv(settling / "late_drift.csv")
    late = torch.stack(moved[-4:])[..., 0].mean(0)
    np.testing.assert_allclose(table["late_drift"], late, rtol=1e-3, atol=1e-6)
    # two H-cycles a step: the change over lag 2 at the last moment is that of the last step
    whole = np.sqrt((short.per_step[:, -1] ** 2).mean(1))
    np.testing.assert_allclose(short.back[:, -1, 1], whole, rtol=1e-4, atol=1e-6)


def test_runs_at_rest_are_not_run_on_but_keep_their_place(calm: Path, grids: Path, tmp_path: Path):
    config = SettlingConfig(ckpt=str(calm), puzzles=grids, out=tmp_path, device="cpu")
    subject = open_subject(config, print)
    calls: list[int] = []
    evaluate = subject.model.evaluate
    subject.model.evaluate = lambda tick, h, injection: (
        calls.append(len(h)) or evaluate(tick, h, injection)
    )
    far = long_runs(subject, np.arange(13), [16, 160, 220], 1e-3, 16, lambda done: None)
    assert 0 < calls[-1] < calls[0] == 13
    read = run(load_checkpoint(calm).model, subject.inputs, subject.labels, steps=220)
    solved = read.solved.numpy()
    np.testing.assert_array_equal(far.solved, solved[:, [15, 159, 219]])
    np.testing.assert_array_equal(far.ever[:, 2], solved[:, 16:].any(1))
    assert not far.ever[:, 0].any() and (far.period[:, -1] == 1).any()


@pytest.fixture(scope="module")
def stability(cli: Cli, calm: Path, halves: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stability")
    words = ["--ckpt", calm, "--puzzles", halves, "--out", out, *CPU, "--batch-size", 5]
    answer = cli("stability", *words, "--steps", 6, "--exponents", 3, "--sample", 12, "--fixed", 4)
    assert answer.code == 0, answer.err
    assert "12 of 13 runs of 6 steps" in answer.out
    return out


def test_stability_writes_all_that_it_plots(stability: Path):
    summary = summary_of(stability)
    for name in ("spectrum", "exponent_and_drift", "eigenvalues"):
        assert (stability / f"{name}.html").exists() and (stability / f"{name}.csv").exists()
    table = pd.read_csv(stability / "exponents.csv")
    assert len(table) == 12 == summary["solved"] + summary["failed"]
    assert {"lambda_1", "lambda_3", "late_lambda_3", "late_drift", "waves", "line"} <= {*table}
    for kind in ("solved", "failed"):
        values = table.query("outcome == @kind")["lambda_1"]
        assert summary["lambda_1"][kind]["n"] == len(values)
        assert summary["lambda_1"][kind]["median"] == pytest.approx(values.median())
    assert (
        summary["not_compared"] is None and 0 <= summary["lambda_1"]["auc_for_failure"]["auc"] <= 1
    )
    given = summary["lambda_1"]["rank_correlation_with_failure_given"]
    assert given.keys() == {"nothing", "drift", "rating", "both"}
    assert -1 <= given["nothing"]["low"] <= given["nothing"]["value"] <= 1
    spectrum = pd.read_csv(stability / "spectrum.csv")
    assert spectrum["index"].value_counts().to_dict() == {1: 12, 2: 12, 3: 12}
    points = pd.read_csv(stability / "fixed_points.csv")
    assert len(points) == 4 and (points["q"] <= points["q_start"] + 1e-12).all()
    assert set(points["puzzle"]) <= set(table["puzzle"])
    assert points["converged"].any()
    eigen = pd.read_csv(stability / "eigenvalues.csv")
    assert len(eigen) == 6 * points["converged"].sum()


def test_exponents_do_not_depend_on_the_batch(
    cli: Cli, calm: Path, halves: Path, stability: Path, tmp_path: Path
):
    words = ["--ckpt", calm, "--puzzles", halves, "--out", tmp_path, *CPU, "--fixed", 0]
    answer = cli(
        "stability", *words, "--steps", 6, "--exponents", 3, "--sample", 12, "--dtype", "float64"
    )
    assert answer.code == 0 and "fixed_points" not in summary_of(tmp_path)
    one, other = (pd.read_csv(folder / "exponents.csv") for folder in (tmp_path, stability))
    # float32 in batches of 5 against float64 at once, over 36 evaluations
    np.testing.assert_allclose(one["lambda_1"], other["lambda_1"], atol=0.02)


# bad input


@pytest.mark.parametrize("part", ["settling", "stability"])
def test_too_few_runs_of_one_outcome(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path, part: str
):
    words = ["--ckpt", copier, "--puzzles", grids, "--out", tmp_path / part, *CPU, "--limit", 3]
    more = {"settling": ["--long", 0], "stability": ["--exponents", 1, "--fixed", 0]}[part]
    answer = cli(part, *words, "--steps", 5, *more)
    assert answer.code == 0, answer.err
    assert "0 failed" in answer.err or "0 solved" in answer.err
    assert "5 are needed" in answer.err and "skipping the comparison" in answer.err
    summary = summary_of(tmp_path / part)
    assert "5 are needed" in summary["not_compared"] and summary["n"] == 3


@pytest.mark.parametrize("part", ["settling", "stability"])
def test_states_that_are_not_finite(cli: Cli, copier: Path, grids: Path, tmp_path: Path, part: str):
    model = load_checkpoint(copier).model
    with torch.no_grad():
        model.token_embedding[1] = 3e38  # blanks: in puzzles 3 and 7 alone
    save_checkpoint(tmp_path / "broken", model, {"note": "for tests"})
    words = ["--ckpt", tmp_path / "broken", "--puzzles", grids, "--out", tmp_path / "out", *CPU]
    answer = cli(part, *words, "--steps", 5)
    assert (answer.code, answer.out) == (2, "") and answer.err.startswith("error: ")
    assert "is not finite, first in puzzle 3" in answer.err and answer.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            ["stability", "--exponents", 1000],
            "--exponents must be at most 574 (the joint state has 576 numbers)",
        ),
        (["stability", "--eigenvalues", 575], "eigenvalues must be at most 574"),
        (["stability", "--steps", 4], "steps must be at least 5"),
        (["stability", "--fixed", -1], "fixed must be at least 0"),
        (["settling", "--steps", 4], "steps must be at least 5"),
        (["settling", "--long", 15], "long must be at least steps"),
        (["settling", "--tolerance", 0], "tolerance must be above 0"),
        (["settling", "--limit", 0], "limit must be at least 1"),
    ],
)
def test_settings_that_cannot_be(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path, words: list[object], why: str
):
    at = ["--ckpt", copier, "--puzzles", grids, "--out", tmp_path]
    answer = cli(*words, *at)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ") and why in answer.err and answer.err.count("\n") == 1


def test_half_of_either_outcome():
    solved = np.array([1, 1, 0, 1, 0, 0, 1, 1], bool)
    assert half_failed(solved, 4) == [0, 1, 2, 4]
    assert half_failed(solved, 7) == [0, 1, 2, 3, 4, 5, 6]
    assert half_failed(~solved, 8) == list(range(8))
    assert half_failed(np.ones(3, bool), 2) == [0, 1]
