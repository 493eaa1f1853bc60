"""`search` from end to end: table, summary, resume, several processes, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from team import two

from trm_interp.core.checkpoints.folder import load_checkpoint, save_checkpoint
from trm_interp.core.infer import run_batch
from trm_interp.search.run import search_file
from trm_interp.search.selection import SHARES
from trm_interp.search.settings import PRESETS, SearchConfig
from trm_interp.tasks.sudoku.dataset import load
from trm_interp.tasks.sudoku.grid import from_tokens

Cli = Callable[..., Any]
CHILD = Path(__file__).with_name("search_child.py")
N, STEPS = 13, 3


@pytest.fixture
def words(copier: Path, grids: Path) -> list[object]:
    """Four blocks: of 4, 4, 4 and 1 puzzles."""
    both = ["search", "--ckpt", copier, "--puzzles", grids, "--batch-size", 1]
    return [*both, "--k", 3, "--steps", STEPS, "--when", "every", "--stop", "never"]


def test_the_summary_and_the_table_agree(cli: Cli, words: list[object], grids, tmp_path: Path):
    out = tmp_path / "t.csv"
    answer = cli(*words, "--json", "--out", out)
    assert answer.code == 0, answer.err
    summary, table = json.loads(answer.out), pd.read_csv(out, dtype={"answer": str})
    assert summary["n"] == N and summary["seed"] == 0 and len(table) == N * STEPS
    assert table["line"].unique().tolist() == load(grids).lines.tolist()
    for name in SHARES:
        shares = table.groupby("step")[name].mean().tolist()
        np.testing.assert_allclose(summary[name], shares)
        assert all(
            low <= share <= high
            for low, share, high in zip(
                summary[f"{name}_low"], summary[name], summary[f"{name}_high"], strict=True
            )
        )
    # 13 puzzles x 3 trajectories x 3 steps x 2 H-cycles x (2 + 1) evaluations
    assert summary["evaluations"] == summary["evaluations_of_the_full_grid"] == 702
    solutions = ["".join(map(str, grid)) for grid in from_tokens(load(grids).labels)]
    last = table[table["step"] == STEPS - 1]
    assert ((last["answer"] == solutions) == last["best_q"]).all()
    beside = json.loads(out.with_suffix(".json").read_text())
    assert beside["summary"] == summary and beside["identity"]["search"]["seed"] == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["t.csv", "t.json"]


def test_the_baseline_is_eval(cli: Cli, words: list[object], copier: Path, grids: Path):
    puzzles = load(grids)
    tokens = torch.from_numpy(puzzles.inputs), torch.from_numpy(puzzles.labels)
    plain = run_batch(load_checkpoint(copier).model, *tokens, STEPS)
    expected = plain.solved.double().mean(0).tolist()
    assert 0 < expected[-1] < 1
    for more in ([], ["--no-clean"]):
        summary = json.loads(cli(*words, *more, "--json").out)
        assert summary["baseline"] == expected


def test_the_table_for_people(cli: Cli, words: list[object]):
    answer = cli(*words, "--stop", "rules", "--adaptive")
    assert answer.code == 0 and "pass@K" in answer.out and "95 % Wilson" in answer.out
    assert "network evaluations" in answer.out


def test_parquet_holds_the_same(cli: Cli, words: list[object], tmp_path: Path):
    for name in ("t.csv", "u.parquet"):
        assert cli(*words, "--out", tmp_path / name).code == 0
    text = pd.read_csv(tmp_path / "t.csv", dtype={"answer": str})
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "u.parquet"), text, check_dtype=False)


def test_presets_are_the_published_searches(cli: Cli, copier: Path, grids: Path):
    words = ["search", "--ckpt", copier, "--puzzles", grids, "--limit", 2, "--json"]
    for name, settings in PRESETS.items():
        summary = json.loads(cli(*words, "--preset", name, "--k", 2).out)
        roles = {"answer": "z_H", "latent": "z_L"}  # which the model's states have
        wanted = {**settings, "k": 2, "target": roles[settings["target"]]}
        assert {key: summary[key] for key in settings} == wanted
        assert len(summary["best_q"]) == settings["steps"]
    assert (PRESETS["paper"]["k"], PRESETS["paper"]["steps"]) == (50, 5)
    ptrm = SearchConfig(**PRESETS["ptrm"])
    assert (ptrm.k, ptrm.steps, ptrm.target, ptrm.when) == (100, 64, "latent", "every")


@pytest.mark.parametrize("moment", [1, 10, 13, 20])
def test_killed_and_resumed_equals_undisturbed(
    cli: Cli, words: list[object], tmp_path: Path, moment: int
):
    """A file is two syncs and a rename: the marker, identity.json, 4 blocks, table, summary: 24
    moments."""
    whole, out = tmp_path / "whole.csv", tmp_path / "killed.csv"
    assert cli(*words, "--out", whole).code == 0
    command = [sys.executable, CHILD, moment, *words, "--out", out]
    done = subprocess.run(
        [str(word) for word in command],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == -signal.SIGKILL and not out.with_suffix(".json").exists()
    answer = cli(*words, "--out", out, "--resume")
    assert answer.code == 0, answer.err
    # the moments 6 to 17 lie in the blocks, 3 each
    assert ("resuming at block" in answer.err) == (moment >= 9)
    assert out.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.parts")) and not list(tmp_path.glob("*.partial"))
    again = cli(*words, "--out", out, "--resume", "--json")
    assert "is complete" in again.err and json.loads(again.out)["n"] == N


def test_two_processes_search_as_one(cli: Cli, words: list[object], tmp_path: Path):
    out = tmp_path / "two.csv"
    command = [*words, "--json", "--out", out]
    done = two("trm_interp", *command, imports="trm_interp.search.run")
    (line,) = done.stdout.splitlines()
    one = tmp_path / "one.csv"
    assert json.loads(line) == json.loads(cli(*words, "--json", "--out", one).out)
    assert out.read_bytes() == one.read_bytes()


def test_in_python_without_a_file(copier: Path, grids: Path):
    from trm_interp.search.settings import SearchRun

    seen: list[tuple[int, int]] = []
    run = SearchRun(ckpt=str(copier), puzzles=grids, batch_size=1)
    config = SearchConfig(k=2, steps=2)
    table, _ = search_file(run, config, lambda line: None, lambda *done: seen.append(done))
    assert len(table) == 2 * N and seen == sorted(seen) and seen[-1] == (N, N)


# what is refused


@pytest.fixture
def refused(cli: Cli) -> Callable[..., None]:
    def run(command: list[object], *named: object) -> None:
        answer = cli(*command)
        assert (answer.code, answer.out) == (2, ""), answer
        assert answer.err.count("\n") == 1 and answer.err.startswith("error: ")
        for word in named:
            assert str(word) in answer.err, answer.err

    return run


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--k", 0], "error: --k must be at least 1, got 0"),
        (["--steps", -1], "steps must be at least 1, got -1"),
        (["--sigma", -0.5], "sigma must be finite and at least 0"),
        (["--sigma", "nan"], "sigma must be finite"),
        (["--sigma", "inf"], "sigma must be finite"),
        (["--threshold", "nan"], "threshold must be finite"),
        (["--adaptive", "--stop", "never"], "adaptive needs"),
        (["--batch-size", 0], "--batch-size must be at least 1"),
        (["--limit", 0], "limit must be at least 1"),
        (["--resume"], "need --out"),
        (["--preset", "hrm"], "there are paper, ptrm"),
    ],
)
def test_settings_that_make_no_sense(refused, words: list[object], more: list, problem: str):
    refused([*words, *more], problem)


def test_outputs_that_are_there(refused, cli: Cli, words: list[object], tmp_path: Path):
    out = tmp_path / "t.csv"
    refused([*words, "--out", tmp_path / "t.txt"], "t.txt", ".csv or .parquet")
    assert cli(*words, "--out", out).code == 0
    before = out.read_bytes()
    refused([*words, "--out", out], out, "--resume", "--overwrite")
    refused([*words, "--out", out, "--resume", "--overwrite"], "one of")
    refused([*words, "--out", out, "--resume", "--seed", 1], "seed (0 there, 1 now)")
    refused([*words, "--out", out, "--resume", "--dtype", "bfloat16"], "dtype")
    assert out.read_bytes() == before
    assert cli(*words, "--out", out, "--overwrite", "--seed", 1).code == 0
    assert out.read_bytes() != before


def test_a_checkpoint_without_a_halting_head(
    refused, cli: Cli, words: list[object], copier: Path, tmp_path: Path
):
    checkpoint = load_checkpoint(copier)
    with torch.no_grad():
        checkpoint.model.q_head.weight.zero_()
    save_checkpoint(tmp_path / "blind", checkpoint.model, {})
    blind = [*words, "--ckpt", tmp_path / "blind"]
    for more in ([], ["--select", "vote", "--stop", "q"], ["--select", "vote_q"]):
        refused([*blind, *more], tmp_path / "blind", "no trained halting head", "--select vote")
    assert cli(*blind, "--select", "vote").code == 0
