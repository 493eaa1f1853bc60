"""`figures` from end to end on a tiny checkpoint: everything once, and only once."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from inline_machine import InlineMachine, in_this_process

import trm_interp.report.sweep.engine
from trm_interp.report.effects import VERDICTS
from trm_interp.report.plan import FIGURES, Plan
from trm_interp.report.recipes import Request
from trm_interp.runtime.locks import locked_folder
from trm_interp.runtime.outputs import mark
from trm_interp.studies.settings import CONFIGS

Cli = Callable[..., Any]
PARTS = "table1,table2,fig2,fig4,fig5"
OF_NO_CLAIM = {
    "internalisation",
    "robustness",
    "stitch",
    "trace",
    "used",
    "spread",
}  # studies that no figure or table of the paper needs


@pytest.fixture(scope="module")
def done(
    cli: Cli, copier: Path, grids: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[object], Path]:
    out = tmp_path_factory.mktemp("figures") / "all"
    words: list[object] = ["figures", "--ckpt", copier, "--puzzles", grids, "--out", out]
    words += ["--only", PARTS, "--scale", 0.02, "--device", "cpu", "--no-static"]
    here = InlineMachine(in_this_process(cli))  # processes of their own come with the second run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trm_interp.report.sweep.engine, "LocalMachine", here)
        answer = cli(*words)
    assert answer.code == 0, answer.err
    return words, out


def test_every_figure_has_its_numbers(done: tuple[list[object], Path]):
    _, out = done
    pages = {
        "table1": "outcomes",
        "table2": "shares",
        "fig2": "paths",
        "fig4": "losses",
    }
    for part, name in pages.items():
        assert "plotly" in (out / part / f"{name}.html").read_text()
        assert len(pd.read_csv(out / part / f"{name}.csv"))
    claims = pd.read_csv(out / "claims.csv").set_index("id")
    assert set(claims["verdict"]) <= set(VERDICTS)
    assert claims.loc["T1", "verdict"] != "not measured"
    # one puzzle is solved, and a centroid that leaves one out needs two: figure 5 is the control
    assert claims.loc["F5", "verdict"] == "not measured"
    assert not (out / "fig5" / "divergence.csv").exists()
    assert len(pd.read_csv(out / "fig5" / "same_puzzle.csv"))
    assert f"--only {PARTS}" in (out / "index.html").read_text()


def test_what_is_done_is_not_done_again(cli: Cli, done: tuple[list[object], Path]):
    words, out = done
    before = (out / "table1" / "summary.json").stat().st_mtime_ns
    shutil.rmtree(out / "fig4")
    answer = cli(*words, "--only", "table1,fig2,fig4")
    assert answer.code == 0, answer.err
    assert pd.read_csv(out / "claims.csv").set_index("id")["verdict"]["T2"] != "not measured"
    assert "table1: done before" in answer.err and "fig4: trm-interp losses" in answer.err
    assert (out / "table1" / "summary.json").stat().st_mtime_ns == before
    assert (out / "fig4" / "losses.html").exists()


def test_the_plan_names_times_and_sizes_and_does_nothing(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path
):
    on = ["--ckpt", copier, "--puzzles", grids, "--out", tmp_path / "out", "--plan"]
    answer = cli("figures", *on, "--only", "fig5")
    assert answer.code == 0
    assert "store" in answer.out and "fig5" in answer.out and "core minutes" in answer.out
    assert "fig3" not in answer.out and not (tmp_path / "out").exists()


def test_a_store_of_another_origin_is_left_alone(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path
):
    on, out = ["--ckpt", copier, "--puzzles", grids], tmp_path / "all"
    assert cli("collect", *on, "--limit", 2, "--steps", 1, "--out", out / "store").code == 0
    before = {file: file.stat().st_mtime_ns for file in (out / "store").iterdir()}
    words = ["figures", *on, "--out", out, "--only", "fig2", "--no-static"]
    answer = cli(*words)
    assert answer.code == 2 and "has no marker, so `figures` leaves it alone" in answer.err
    mark(out, "figures")
    answer = cli(*words)
    assert answer.code == 2 and "store was not made by this job" in answer.err
    assert {file: file.stat().st_mtime_ns for file in (out / "store").iterdir()} == before


def test_a_second_process_is_refused(cli: Cli, copier: Path, grids: Path, tmp_path: Path):
    mark(tmp_path, "figures")
    words = ["figures", "--ckpt", copier, "--puzzles", grids, "--out", tmp_path]
    with locked_folder(tmp_path):
        answer = cli(*words, "--only", "fig4")
    assert answer.code == 2 and "is being written by another process" in answer.err


def test_every_part_is_a_command_with_its_flags(copier: Path, grids: Path, tmp_path: Path):
    plan = Plan(Request(str(copier), grids, tmp_path), FIGURES)
    flags = {job.words[0]: job.flags for job in plan.all}
    both = ("--resume", "--overwrite")
    assert all(flags[name] == both for name in ("collect", "search", "basins", "train-sae"))
    assert all(flags[name] for name in CONFIGS if name not in OF_NO_CLAIM)


def test_a_part_that_does_not_exist(cli: Cli, copier: Path, grids: Path, tmp_path: Path):
    on = ["--ckpt", copier, "--puzzles", grids, "--out", tmp_path]
    answer = cli("figures", *on, "--only", "fig9")
    assert answer.code == 2 and "no job 'fig9'; there are store, table1" in answer.err
    answer = cli("figures", *on, "--scale", 0)
    assert answer.code == 2 and "scale must be above 0" in answer.err
