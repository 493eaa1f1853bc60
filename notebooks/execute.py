"""Runs notebooks and keeps small outputs: pictures of figures, which every viewer shows.

    python notebooks/execute.py                      # all of them, in place
    python notebooks/execute.py basins --to /tmp     # one, elsewhere

Needs the extras `notebooks` and `figures`. For figures to turn and scrub, open a notebook in
jupyter, or export it: `jupyter nbconvert --to html --execute notebooks/basins.ipynb`.
"""

import argparse
import base64
import io
import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).resolve().parent
PLOTLY = "application/vnd.plotly.v1+json"
SIZE = 'import plotly.io as pio\n\npio.renderers["png"].width = 1000'
WIDEST = 1000  # pixels of a picture
TEMPORARY = re.compile(rf"{re.escape(tempfile.gettempdir())}/tmp\w+")


def execute(source: Path, to: Path) -> None:
    """Run a notebook from top to bottom, and write it with its outputs."""
    os.environ["PLOTLY_RENDERER"] = "plotly_mimetype+png"
    notebook = nbformat.read(source, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(SIZE))
    NotebookClient(notebook, timeout=3600, kernel_name="python3").execute()
    del notebook.cells[0]
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
        outputs = cell.get("outputs", [])
        cell.outputs = [one for one in outputs if one.get("name") != "stderr"] if outputs else []
        for counted in (cell, *cell.outputs):
            if counted.get("execution_count"):
                counted.execution_count -= 1  # the size's own cell is gone
        for output in cell.outputs:
            if "text" in output:
                output.text = TEMPORARY.sub("FOLDER", output.text)
            data = output.get("data", {})
            if PLOTLY in data:
                del data[PLOTLY]
                data["image/png"] = smaller(data["image/png"])
        if cell.cell_type == "markdown":
            del cell["outputs"]
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, to)


def smaller(picture: str) -> str:
    """A picture (PNG in base 64) of at most WIDEST pixels and 64 colours."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    image.thumbnail((WIDEST, WIDEST))
    out = io.BytesIO()
    image.quantize(64).save(out, "png", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run notebooks and keep small outputs.")
    parser.add_argument("names", nargs="*", help="such as basins; all by default")
    parser.add_argument("--to", type=Path, default=FOLDER, help="folder of the results")
    given = parser.parse_args()
    for file in sorted(FOLDER.glob("*.ipynb")):
        if not given.names or file.stem in given.names:
            execute(file, given.to / file.name)
            print(f"wrote {given.to / file.name}", flush=True)
