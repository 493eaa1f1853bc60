"""Notebooks run from top to bottom, at settings small enough for a test."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
SMALL = {
    "basins.ipynb": """
PUZZLE = None
TARGET, SHARED = "both", False
STARTS, SIDE = 12, 3
STEPS, LOOKED_AT = 2, 6
""",
    "causal.ipynb": """
PUZZLES, STARTS, STEPS = 16, 3, 4
PAIRS, NOISE = 1, 4.0
UNSEEN, CHANGED = 6, 2
""",
    "features.ipynb": """
PUZZLES, SUPERVISION_STEPS = 10, 4
EXPANSION, TRAINING_STEPS = 2, 20
LOOKED_AT, CONTROLS = 4, 2
""",
    "trajectories.ipynb": """
PUZZLES, SUPERVISION_STEPS = 10, 3
PUZZLE = 2
""",
}


def set_by(source: str) -> set[str]:
    """Names that the lines assign to."""
    lines = [line.split("=")[0] for line in source.splitlines() if "=" in line]
    return {name.strip() for line in lines for name in line.split(",")}


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.ipynb")))
def test_a_notebook_runs(name: str):
    notebook = nbformat.read(FOLDER / name, as_version=4)
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(cells) == 1
    assert set_by(cells[0].source) == set_by(SMALL[name])
    cells[0].source = SMALL[name]
    NotebookClient(notebook, timeout=280, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    drawn = [o["data"] for o in outputs if "application/vnd.plotly.v1+json" in o.get("data", {})]
    assert drawn
    for data in drawn:  # the form that an export to HTML takes
        assert "Plotly.newPlot" in data["text/html"]


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.ipynb")))
def test_outputs_that_are_committed_are_small_pictures(name: str):
    """Every viewer shows them; scripts are not run everywhere."""
    assert (FOLDER / name).stat().st_size < 1_500_000
    notebook = nbformat.read(FOLDER / name, as_version=4)
    data = [o.get("data", {}) for cell in notebook.cells for o in cell.get("outputs", [])]
    assert not any("application/vnd.plotly.v1+json" in one for one in data)
    assert not any("<script" in str(one.get("text/html", "")) for one in data)
    assert str(Path.home()) not in str(data) and "/site-packages/" not in str(data)


def test_the_index_has_every_notebook_and_says_where_to_begin():
    text = (FOLDER / "README.md").read_text()
    assert all(f"]({name})" in text for name in SMALL)
    assert text.count("**first**") == 1
