"""Puzzles of another origin: imported from a file, or downloaded."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from trm_interp.runtime.file_run import FileRun
from trm_interp.runtime.files import write_json
from trm_interp.runtime.version import __version__
from trm_interp.tasks.base import PuzzleError
from trm_interp.tasks.data_sets import require_import, require_output
from trm_interp.tasks.sudoku.dataset import lines_text, load, save_lines
from trm_interp.tasks.sudoku.forge.presets import Card, describe
from trm_interp.tasks.sudoku.grid import from_tokens

HUB = "sapientinc/sudoku-extreme"


def import_file(
    src: str | os.PathLike[str],
    out: str | os.PathLike[str],
    skip_bad: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Card:
    """Check every puzzle of a file or folder, uniqueness included, and write them to `out`.

    `out` gets `puzzle,solution` lines, and `out` with the suffix .json a card: where they come
    from, what was left out, what they are like.
    """
    out = Path(out)
    card_path = require_output(out, src, "puzzles.txt")
    from trm_interp.tasks.sudoku.canonical import class_keys

    with FileRun(
        out, "data import", require_import, companions=(card_path,), overwrite=overwrite
    ) as run:
        puzzles = load(src, skip_bad=skip_bad, progress=progress)
        givens, solutions = from_tokens(puzzles.inputs), from_tokens(puzzles.labels)
        card = {
            "source": {"name": Path(src).name, "sha256": puzzles.sha256},
            "skipped": list(puzzles.skipped),
            "trm_interp": __version__,
            "class_keys": len(np.unique(class_keys(givens))),
            "file": out.name,
            "sha256": hashlib.sha256(lines_text(givens, solutions)).hexdigest(),
            **describe(givens),
        }
        save_lines(run.out, givens, solutions)
        write_json(card_path, card)
    return card


def download_sudoku_extreme(
    out: str | os.PathLike[str], files: tuple[str, ...] = ("train.csv", "test.csv")
) -> list[Path]:
    """Fetch Sudoku-Extreme's CSV files from the Hugging Face hub into the folder `out`."""
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise PuzzleError(f"{HUB} needs huggingface_hub: pip install huggingface_hub") from None
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return [
            Path(hf_hub_download(HUB, name, repo_type="dataset", local_dir=folder))
            for name in files
        ]
    except Exception as error:  # the hub's errors have no common base; offline is the usual one
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PuzzleError(f"could not download {HUB}: {reason}") from error
