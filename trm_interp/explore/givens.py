"""The board of the puzzle that a page begins with, before torch is there: what is given in it."""

from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from trm_interp.explore.settings import ExploreConfig
from trm_interp.runtime.artifacts import artifact, existing
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.schema import read_json
from trm_interp.subjects.settings import default_checkpoint
from trm_interp.tasks.base import Task, Tokens
from trm_interp.tasks.registry import load_puzzles, task_of_checkpoint

LARGEST = 20_000_000  # bytes of a file or folder of puzzles that is read twice
COMPUTING = "The first run is being computed …"


def givens(config: ExploreConfig) -> str:
    """HTML of the first puzzle's board; nothing where torch or more time is needed to tell it.

    What is wrong with checkpoint or puzzles, the session says.
    """
    try:
        if (file := _puzzles(config)) is None or _bytes(file) > LARGEST:
            return ""
        puzzles = load_puzzles(file, config.skip_bad, limit=1)
    except (UserError, OSError):
        return ""
    return board(puzzles.task, puzzles.inputs[0])


def _bytes(path: Path) -> int:
    return sum(one.stat().st_size for one in (path.rglob("*") if path.is_dir() else [path]))


def _puzzles(config: ExploreConfig) -> Path | None:
    """The file that a session takes; None where only reading the weights can tell."""
    if config.puzzles is not None:
        return existing(config.puzzles)
    folder = existing(config.ckpt) if config.ckpt else default_checkpoint()
    shape = read_json(folder / "config.json", dict[str, Any])
    card = read_json(folder / "card.json", dict[str, Any])
    cells, vocab = shape.get("cells"), shape.get("vocab")
    if not isinstance(cells, int) or not isinstance(vocab, int):
        return None
    task = task_of_checkpoint(card, cells, vocab)
    return artifact(task.test_file) if task.test_file else None


def board(task: Task, tokens: Tokens) -> str:
    """A board that shows these tokens [cell], givens marked, as boards.js draws it later."""
    colours, glyphs, asked = task.colours(), task.glyphs(tokens), task.asked(tokens)
    cells = []
    for token, glyph, is_asked in zip(tokens.tolist(), glyphs.tolist(), asked, strict=True):
        colour = colours[token] if colours else ""
        signs = [] if is_asked else ["given"]
        signs += ["coloured"] if colour else []
        signs += ["deep"] if colour and is_deep(colour) else []
        cells.append((" ".join(signs), colour, glyph))
    style = f"display: contents; --ratio: {task.grid[1] / task.grid[0]}"
    return f'<div style="{style}">{markup(task, ["plain run"], cells, COMPUTING)}</div>'


def markup(
    task: Task,
    names: list[str],
    shown: list[tuple[str, str, str]] | None = None,
    facts: str = "",
) -> str:
    """HTML of the boards of runs. `shown`: of every cell its signs, its colour and what stands in
    it; by default nothing. `facts`: what stands below."""
    rows, columns = task.grid
    heavy_rows, heavy_columns = task.rulings()
    cells = []
    for i, (row, column) in enumerate(np.ndindex(rows, columns)):
        sides = {"heavy-top": row in heavy_rows, "heavy-left": column in heavy_columns}
        heavy = " ".join(name for name, is_heavy in sides.items() if is_heavy)
        signs, colour, glyph = ("", "", "") if shown is None else shown[i]
        style = f' style="background-color: {colour}"' if colour else ""
        own = "" if shown is None else f" {signs} {heavy}"
        cells.append(
            f'<div class="cell{own}" role="gridcell" tabindex="{-1 if i else 0}" data-cell="{i}" '
            f'data-run="RUN" data-heavy="{heavy}" '
            f'data-where="row {row + 1}, column {column + 1}"{style}>{escape(glyph)}</div>'
        )
    board = "".join(cells)
    return "".join(
        f'<section class="board"><button class="title" data-run="{at}">{escape(name)}</button>'
        f'<div class="grid" role="grid" aria-label="{escape(name)}" style="--columns: {columns}">'
        f'{board.replace("RUN", str(at))}</div><div class="facts">{escape(facts)}</div></section>'
        for at, name in enumerate(names)
    )


def is_deep(colour: str) -> bool:
    """Whether signs on a colour, `#rrggbb` or none, have to be light.

    >>> is_deep("#000000"), is_deep("#4d4d4d"), is_deep("#ff4136"), is_deep("")
    (True, True, False, False)
    """
    red, green, blue = bytes.fromhex(colour[1:]) if colour else (255, 255, 255)
    return 0.299 * red + 0.587 * green + 0.114 * blue < 90
