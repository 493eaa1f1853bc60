"""What every study has; a new one needs all of it."""

import ast
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

import pytest
import unchanged

from trm_interp.cli.studies import COMMANDS
from trm_interp.studies.results import OnCheckpointResult, OnStoreResult
from trm_interp.studies.settings import CONFIGS, OnCheckpoint, OnStore

TOYS = Path(__file__).with_name("test_toys.py")


@pytest.fixture(params=CONFIGS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def study(name: str) -> ModuleType:
    return import_module(f"trm_interp.studies.{name}")


def test_a_study_has_settings_a_result_figures_and_lines(study: ModuleType, name: str):
    assert study.__doc__ and study.Config is CONFIGS[name]
    on_checkpoint = issubclass(study.Config, OnCheckpoint)
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


def test_the_numbers_of_a_study_are_kept(name: str):
    commands = [words.split()[0] for _, words, _ in unchanged.COMMANDS.values()]
    assert name in commands, "give it a row in COMMANDS of unchanged.py, and golden numbers"


def test_a_study_runs_on_another_architecture_and_task(name: str):
    words = {n.value for n in ast.walk(ast.parse(TOYS.read_text())) if isinstance(n, ast.Constant)}
    assert name in words, f"call it in {TOYS.name}"
