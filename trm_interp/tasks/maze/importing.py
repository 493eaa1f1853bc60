"""Mazes of another origin as a CSV file with a card."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from trm_interp.runtime.file_run import FileRun
from trm_interp.runtime.files import write_json
from trm_interp.runtime.version import __version__
from trm_interp.tasks.base import Progress, no_progress
from trm_interp.tasks.data_sets import require_import, require_output
from trm_interp.tasks.maze.dataset import csv_text, load, save
from trm_interp.tasks.maze.grid import ways
from trm_interp.tasks.maze.making import described
from trm_interp.tasks.maze.symmetries import class_keys


def import_file(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    skip_bad: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Check every maze of a file or folder and write them to `out`, with a card (.json) next to it:
    where they come from, what was left out, what they are like."""
    out = Path(out)
    card_path = require_output(out, source, "mazes.csv")
    with FileRun(
        out, "data import", require_import, companions=(card_path,), overwrite=overwrite
    ) as run:
        mazes = load(source, skip_bad, progress=progress)
        path, name = ways(mazes.inputs).length, Path(source).name
        rows = mazes.inputs, mazes.labels, path.tolist(), name
        card = {
            "source": {"name": name, "sha256": mazes.sha256},
            "skipped": list(mazes.skipped),
            "trm_interp": __version__,
            "class_keys": len(np.unique(class_keys(mazes.inputs))),
            "file": out.name,
            "sha256": hashlib.sha256(csv_text(*rows)).hexdigest(),
            "n": len(mazes),
            **described(path),
        }
        save(run.out, *rows)
        write_json(card_path, card)
    return card
