"""Steps, cycles and ticks are numbered one way: from 0 in tables of files, and axes say which."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compare_trees import load
from unchanged import GOLDEN, moved

from trm_interp.figures.index import DONE, NUMBERS

ROOT = Path(__file__).resolve().parents[1] / "trm_interp"
MOMENTS = re.compile(r"(?<![a-z])(step|cycle|tick|update|evaluation|moment)s?(?![a-z])")
# columns that are no number of a moment: amounts, and which columns of a table they belong to
AMOUNTS = {"steps", "steps_run", "newton_steps", "window_steps", "evaluations"}
AMOUNTS |= {"period_steps", "period_h_cycles", "longest_lag_h_cycles", "auc_first_step"}
OF_TRAINING = {"training_step"}  # of an optimizer, from 1
OF_EDGES = {"source_tick", "target_tick"}
# a title of an axis that numbers moments: not "per step", "an H-cycle", "by H-cycle" or "steps"
NUMBERED = re.compile(r"(?<!per )(?<!an )(?<!by )(network evaluation|step|H-cycle|tick|update)\b")


def columns() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Table, name and values of every column that a command writes on the tiny model."""
    for file in sorted(GOLDEN.glob("*.json")):
        for table, kept in load(GOLDEN, file.stem)[1].items():
            for name, column in kept.items() if table.endswith(".csv") else ():
                where = moved(f"{file.stem}/{table}/{name}")
                yield where.rpartition("/")[0], where.rpartition("/")[2], column


def test_a_column_that_numbers_moments_counts_from_0_or_says_that_they_are_done():
    names: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for table, name, column in columns():
        if MOMENTS.search(name):
            names.setdefault(name, []).append((table, column))
    assert {"step", "tick", "update", "h_cycles_done", "steps_done"} <= names.keys()
    assert names.keys() - AMOUNTS - OF_TRAINING - OF_EDGES <= {*NUMBERS, *DONE}
    for table, column in names["step"] + names["update"]:  # whole runs
        assert column["dtype"] == "int" and min(column["values"]) == 0, table


def titles() -> Iterator[tuple[str, str]]:
    """File and text of every title of an axis, without what is put in when it is drawn."""
    for file in sorted(ROOT.rglob("*.py")):
        tree: Any = ast.parse(file.read_text())
        constants: dict[str, Any] = {
            getattr(one.targets[0], "id", ""): one.value
            for one in tree.body
            if isinstance(one, ast.Assign)
        }
        call: Any
        for call in ast.walk(tree):
            if getattr(getattr(call, "func", None), "attr", "") in ("update_xaxes", "update_yaxes"):
                for word in call.keywords:
                    value: Any = constants.get(getattr(word.value, "id", ""), word.value)
                    if word.arg == "title":
                        texts = [getattr(part, "value", None) for part in ast.walk(value)]
                        yield file.name, " ".join(text for text in texts if isinstance(text, str))


def test_an_axis_that_numbers_moments_says_from_where():
    numbered = [(file, title) for file, title in titles() if NUMBERED.search(title)]
    assert len(numbered) >= 8
    assert not [one for one in numbered if not re.search(r"\(from [01]\)", one[1])]
