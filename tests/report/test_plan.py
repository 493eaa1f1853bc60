"""A plan is an estimate for the model at hand, and looks at its inputs before it is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from trm_interp.core.checkpoints.folder import save_checkpoint
from trm_interp.core.flops import evaluation_flops
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.report.plan import Plan, search_table
from trm_interp.report.recipes import Request, cost_of

Cli = Callable[..., Any]


# the shipped 6x6 checkpoints, on which minutes were measured
UNIT = TRMConfig(cells=36, vocab=8, d_model=96, multiple=32, prefix=0)


def test_minutes_are_those_of_the_mixer():
    size = {"cells": 81, "vocab": 11, "d_model": 96, "multiple": 32, "prefix": 0}
    mlp, attention = TRMConfig(**size), TRMConfig(**size, mixer="attention", n_heads=4)
    assert cost_of(UNIT) == 1
    for config in (mlp, attention):
        evaluations = evaluation_flops(config) / evaluation_flops(UNIT)
        assert cost_of(config) == pytest.approx(evaluations, rel=0.02)  # and the output head
    # mixing, of one block: 3 * 81 * 224 * 96 against 4 * 96 * 96 * 81 + 2 * 81 * 81 * 96; the
    # channels are 3 * 96 * 256 * 81 of either
    shares = (3 * 81 * 224 * 96, 4 * 96**2 * 81 + 2 * 81**2 * 96)
    assert (mlp.swiglu_width(81), mlp.swiglu_width(96)) == (224, 256)
    wanted = (shares[1] + 3 * 96 * 256 * 81) / (shares[0] + 3 * 96 * 256 * 81)
    assert cost_of(attention) / cost_of(mlp) == pytest.approx(wanted, rel=0.01)


def test_sizes_are_of_the_puzzles_that_there_are(copier: Path, grids: Path, tmp_path: Path):
    few = tmp_path / "few.txt"
    few.write_text("".join(grids.read_text().splitlines(keepends=True)[:1]))
    sizes = [
        {job.name: job.megabytes for job in Plan(Request(str(copier), file), ["store"]).jobs}
        for file in (grids, few)
    ]
    assert sizes[0]["store"] == pytest.approx(13 * sizes[1]["store"], rel=0.01)


@pytest.mark.parametrize("more", [["--plan"], []])
def test_inputs_that_do_not_fit_are_said_before_any_plan(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path, more: list[str]
):
    other = tmp_path / "other"
    save_checkpoint(other, TRM(TRMConfig(cells=36, vocab=8, d_model=8, multiple=8)), {})
    for ckpt, puzzles, problem in (
        (copier, tmp_path / "nowhere.txt", "nowhere.txt: no such file"),
        (tmp_path / "nowhere", grids, "nowhere: no such checkpoint"),
        (other, grids, "4x4 Sudoku puzzles, but"),
    ):
        words = ["--ckpt", ckpt, "--puzzles", puzzles, "--out", tmp_path / "out"]
        answer = cli("figures", *words, *more)
        assert (answer.code, answer.out) == (2, "") and answer.err.count("\n") == 1
        assert problem in answer.err and not (tmp_path / "out").exists()


def test_skip_bad_goes_to_every_part_that_reads_puzzles(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path
):
    file = tmp_path / "bad.txt"
    file.write_text(grids.read_text() + "11..............\n")
    words = ["--ckpt", copier, "--puzzles", file, "--out", tmp_path / "out", "--plan"]
    refused = cli("figures", *words)
    assert refused.code == 2 and "--skip-bad goes on without them" in refused.err
    answer = cli("figures", *words, "--skip-bad")
    assert answer.code == 0 and "skipped line 14: contradictory givens" in answer.err
    plan = Plan(Request(str(copier), file, skip_bad=True), ["fig3", "store", "table2", "fig2"])
    for job in plan.jobs:
        assert ("--skip-bad" in job.words) == ("--puzzles" in job.words)


def test_table_2_has_the_gain():
    """As the paper's table has it; without an interval for a search of an earlier version."""
    shares = {
        f"baseline{end}": [share] for end, share in (("", 0.5), ("_low", 0.4), ("_high", 0.6))
    }
    table = pd.DataFrame({"step": [0], "n": [100], **shares})
    paired = table.assign(gain=0.25, gain_low=0.1, gain_high=0.375)
    assert "step (from 1) & one plain run & gain" in search_table(paired)
    assert "1 & 50.0 [40.0, 60.0] & +25.0 [+10.0, +37.5]" in search_table(paired)
    assert "& +25.0 \\\\" in search_table(table.assign(gain=0.25, gain_low=None, gain_high=None))
