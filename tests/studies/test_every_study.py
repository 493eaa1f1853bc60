"""What every study has; a new one needs all of it."""

import ast
import json
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

import pytest
import toy_study
import typer
import unchanged
from typer.testing import CliRunner

from trm_interp.cli.options import add
from trm_interp.cli.studies import COMMANDS
from trm_interp.cli.studies import study as row_of
from trm_interp.studies.results import OnCheckpointResult, OnStoreResult
from trm_interp.studies.settings import CONFIGS, OnPuzzles, OnStore

TOYS = Path(__file__).with_name("test_toys.py")


@pytest.fixture(params=CONFIGS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def study(name: str) -> ModuleType:
    return import_module(f"trm_interp.studies.{name}")


def test_a_study_has_settings_a_result_figures_and_lines(study: ModuleType, name: str):
    assert study.__doc__ and study.Config is CONFIGS[name]
    on_checkpoint = issubclass(study.Config, OnPuzzles)
    assert on_checkpoint or issubclass(study.Config, OnStore)
    assert issubclass(study.Result, OnCheckpointResult if on_checkpoint else OnStoreResult)
    assert list(signature(study.run).parameters) == ["config", "tell", "progress"]
    hints = get_type_hints(study.run)
    assert (hints["config"], hints["return"]) == (study.Config, study.Result)
    for function in (study.figures, study.lines):
        assert next(iter(get_type_hints(function).values())) is study.Result


def test_a_study_is_a_command(name: str):
    (row,) = (row for row in COMMANDS if row.name == name)
    assert row.config is CONFIGS[name] and row.target == f"trm_interp.studies.{name}:run"


def test_a_new_study_is_a_file_and_a_row(copier: Path, grids: Path, tmp_path: Path):
    """The study of tests/toy_study.py, run as a command; the others are not touched by it."""
    row = row_of(
        "cells",
        toy_study.Config,
        "Right cells by step.",
        "puzzles",
        "trm-interp cells --out runs/cells",
        module="toy_study",
    )
    app = typer.Typer()
    for command in (row, *COMMANDS):
        add(app, command)
    shown = CliRunner().invoke(app, ["cells", "--help"])
    assert shown.exit_code == 0 and "supervision steps" in shown.stdout
    out = tmp_path / "cells"
    words = ["cells", "--ckpt", copier, "--puzzles", grids, "--out", out, "--steps", 3]
    answer = CliRunner().invoke(app, [*map(str, words), "--device", "cpu", "--json"])
    assert answer.exit_code == 0, answer.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert json.loads(answer.stdout) == summary and summary["written"] == ["cells"]
    result = toy_study.Result.read(out / "summary.json")
    assert len(result.right) == 3 and result.n == 13 and (out / "cells.html").exists()
    (line,) = toy_study.lines(result)
    assert line.startswith("13 puzzles; cells right after 3 steps: 0.")
    again = CliRunner().invoke(app, [*map(str, words)])
    assert again.exit_code == 2 and "--overwrite" in again.stderr


def test_the_numbers_of_a_study_are_kept(name: str):
    commands = [words.split()[0] for _, words, _ in unchanged.COMMANDS.values()]
    assert name in commands, "give it a row in COMMANDS of unchanged.py, and golden numbers"


def test_a_study_runs_on_another_architecture_and_task(name: str):
    words = {n.value for n in ast.walk(ast.parse(TOYS.read_text())) if isinstance(n, ast.Constant)}
    assert name in words, f"call it in {TOYS.name}"
