"""The results that ship, written by earlier versions, can be read as what they are."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from trm_interp.analysis.estimates import TestedAuc
from trm_interp.runtime.records import Record
from trm_interp.studies.stability import StabilityResult

FOLDER = Path(__file__).parents[2] / "artifacts" / "landscape-sudoku6"
STUDIES = {"fig2": "trajectories", "fig2-z_H": "trajectories", "fig3": "basins", "fig4": "losses"}
STUDIES |= {"fig5": "divergence", "table1": "outcomes"}
STUDIES |= {name: name for name in ("lens", "origins", "settling", "stability")}


def read(folder: Path) -> Record:
    study = import_module(f"trm_interp.studies.{STUDIES[folder.name]}")
    return study.Result.read(folder / "summary.json")


def test_all_of_them_are_known():
    assert {file.parent.name for file in FOLDER.glob("*/summary.json")} == set(STUDIES)


@pytest.mark.parametrize("name", STUDIES)
def test_a_result_that_ships_is_read(name: str):
    result = read(FOLDER / name)
    assert type(result).from_json(result.to_json()) == result


def test_earlier_names_of_fields_are_read():
    raw = json.loads((FOLDER / "stability" / "summary.json").read_text())
    new, old = "auc_of_rating_for_failure", "auc_of_waves_for_failure"
    raw[old] = raw.pop(old, None) or raw.pop(new)  # whichever the file that ships has
    result = StabilityResult.from_json(raw)
    assert result.auc_of_rating_for_failure == TestedAuc(**raw[old])
