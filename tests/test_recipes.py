"""experiments/recipes.py: equal compute, commands that exist, the table of what has run."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from option_world import commands

FILE = Path(__file__).parent.parent / "experiments" / "recipes.py"


@pytest.fixture(scope="module")
def recipes() -> dict[str, Any]:
    return runpy.run_path(str(FILE))


def test_all_cells_cost_the_same(recipes: dict[str, Any]):
    """Of a step at full depth: 3 (6 + 1) evaluations, 7 of them with a gradient, 35 units; the
    curriculum's mean is 0.3 x 9 + 0.3 x 20 + 0.4 x 35 = 22.7."""
    assert recipes["cost"](3, 6) == 35
    assert recipes["curriculum_share"]() == pytest.approx(22.7 / 35)
    cells = recipes["CELLS"]
    assert cells["curriculum"].steps() == round(320 * 35 / 22.7) == 493
    for name, cell in cells.items():
        share = recipes["curriculum_share"]() if name == "curriculum" else 1
        assert cell.steps() * cell.batch * share == pytest.approx(320 * 96, rel=0.01), name


def test_every_cell_is_a_command_that_exists(recipes: dict[str, Any], tmp_path: Path):
    options = {
        option
        for name, command in commands()
        if name == "train"
        for parameter in command.params
        for option in parameter.opts
    }
    seen = set()
    for name, cell in recipes["CELLS"].items():
        words = recipes["command"](cell, 2, tmp_path / name)
        given = {word for word in words if word.startswith("--")}
        assert given <= options, name
        assert words[words.index("--seed") + 1] == "2"
        seen.add(tuple(words[words.index("--out") + 2 :]))
    assert len(seen) == len(recipes["CELLS"])  # no two are the same run


def test_the_table_has_runs_that_are_complete(recipes: dict[str, Any], tmp_path: Path):
    steps = recipes["CELLS"]["base"].steps()
    for seed, curve in enumerate(([0.0, 0.5], [0.25, 1.0])):
        out = tmp_path / f"base-seed{seed}"
        out.mkdir()
        rows = [
            {"step": 10, "loss": 1.0},
            {"step": steps // 2, "val_exact": [0.0, 0.1 * (seed + 1)]},
            {"step": steps, "val_exact": curve},
        ]
        (out / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    half = tmp_path / "base-seed2"
    half.mkdir()
    row = {"step": steps // 2, "val_exact": [0.9, 0.9]}
    (half / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    lines = recipes["table"](list(recipes["CELLS"]), [0, 1, 2], tmp_path).splitlines()
    assert len(lines) == 3  # the other cells have not run
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells[1:] == [
        *(f"96 x {steps}", "2", "15.0 (10.0, 20.0)", "12.5 (0.0, 25.0)", "75.0 (50.0, 100.0)")
    ]
