"""Sudoku as a task: what `Task` asks, answered by the modules of this folder.

They are imported where they are used: puzzles can be read without torch, and without a compiler.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trm_interp.tasks.base import Bools, Progress, PuzzleSet, Task, Tokens, no_progress
from trm_interp.tasks.sudoku import grid as grids
from trm_interp.tasks.sudoku import logic
from trm_interp.tasks.sudoku.grid import (
    BLANKS,
    COMPILED_SIDES,
    SHAPES,
    Shape,
    from_tokens,
    to_tokens,
)

if TYPE_CHECKING:
    from torch import Tensor

    from trm_interp.tasks.symmetry import Symmetry

BLANK = 1
RULES = ("row", "column", "box")
RATINGS = ("clues", "tier", "waves", "guesses_first", "guesses_all", "effort")
PRESETS = {
    "sudoku4": "4x4, a smoke test: no puzzle needs search",
    "sudoku6": "6x6, long chains of naked singles: what a small model learns",
    "sudoku9": "9x9, random minimal puzzles",
    "sudoku6-hard": "6x6, most of them hard for every order of search",
    "sudoku9-hard": "9x9, most of them hard for every order of search",
}
CHECKPOINTS = {  # by side, the strongest first
    6: ("trm-sudoku6",),
    9: ("trm-sudoku-extreme", "trm-sudoku9-extreme", "trm-sudoku9"),
}


class Sudoku(Task):
    """Sudoku on a side x side grid: 4x4, 6x6 (boxes of 2 rows x 3 columns), 9x9, or 16x16,
    whose digits above 9 are written A to G.

    Tokens: 0 pad, 1 blank, digit + 1 for a digit.

    >>> task = Sudoku(4)
    >>> task.name, task.cells, task.tokens
    ('sudoku4', 16, ('pad', '.', '1', '2', '3', '4'))
    >>> print(*task.lines(to_tokens(grids.parse("12.............4"))), sep="\\n")
    1 2 | . .
    . . | . .
    ----+----
    . . | . .
    . . | . 4
    """

    family = "sudoku"
    can_prove = True
    hints = ("sudoku",)
    typed_as = f"digits, blanks as one of {', '.join(map(repr, BLANKS))}"

    def __init__(self, side: int) -> None:
        shape = SHAPES[side]
        self.side, self.shape = side, shape
        self.name, self.title = f"sudoku{side}", f"{side}x{side} Sudoku"
        self.aliases = (f"sudoku {side}x{side}",)
        self.cells, self.vocab, self.grid = shape.cells, shape.vocab, (side, side)
        self.tokens = ("pad", ".", *shape.symbols)
        self.answer_tokens = tuple(range(BLANK + 1, shape.vocab))
        self.test_file = f"data/sudoku{side}/test.txt" if side in COMPILED_SIDES else ""
        self.checkpoints = CHECKPOINTS.get(side, ())

    @staticmethod
    def of(cells: int) -> "Sudoku":
        """The size with that many cells. ValueError for another number."""
        return Sudoku(grids.shape_of(cells).side)

    # Sizes and files

    @classmethod
    def sizes(cls) -> list[Task]:
        return [cls(side) for side in SHAPES]

    @classmethod
    def recognises(cls, path: Path) -> bool:
        from trm_interp.tasks.sudoku.formats import looks_like_puzzles
        from trm_interp.tasks.sudoku.public import is_public_folder

        return is_public_folder(path) if path.is_dir() else looks_like_puzzles(path)

    @classmethod
    def load(
        cls,
        path: str | Path,
        skip_bad: bool = False,
        limit: int | None = None,
        progress: Progress = no_progress,
        several: bool = False,
    ) -> PuzzleSet:
        from trm_interp.tasks.sudoku.dataset import load

        return load(path, skip_bad, limit, progress, several)

    @classmethod
    def load_text(
        cls, text: str, name: str, skip_bad: bool = False, several: bool = False
    ) -> PuzzleSet:
        from trm_interp.tasks.sudoku.dataset import load_text

        return load_text(text, name, skip_bad, several)

    @classmethod
    def typed(cls, text: str) -> str | None:
        from trm_interp.tasks.sudoku.formats import typed

        return typed(text)

    @classmethod
    def save(cls, path: str | Path, puzzles: PuzzleSet) -> str:
        from trm_interp.tasks.sudoku.dataset import save_lines

        return save_lines(path, from_tokens(puzzles.inputs), from_tokens(puzzles.labels))

    @classmethod
    def remarks(cls, path: Path, puzzles: PuzzleSet) -> dict[str, Sequence[Any]]:
        from trm_interp.tasks.sudoku.formats import lineages

        seeds = lineages(path, puzzles.lines)
        return {} if seeds is None else {"lineage": seeds}

    # Making data sets

    @classmethod
    def presets(cls) -> dict[str, str]:
        return PRESETS

    @classmethod
    def is_resumable(cls, preset: str) -> bool:
        return preset.endswith("-hard")

    @classmethod
    def before_making(cls) -> str | None:
        # not by an import statement: compiled code would be taken to depend on this file
        kept: Path = import_module("trm_interp.tasks.sudoku.forge.compiled").FOLDER
        if kept.is_dir() and any(kept.rglob("*.nbi")):
            return None  # compiled code is there from before
        return "compiling the generator, once on this machine: about a minute"

    @classmethod
    def make(
        cls,
        preset: str,
        out: str | Path,
        seed: int = 0,
        overwrite: bool = False,
        progress: Progress | None = None,
        sizes: dict[str, int] | None = None,
        resume: bool = False,
        workers: int | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> dict[str, Any]:
        from trm_interp.tasks.sudoku.forge.presets import make_preset

        return make_preset(preset, out, seed, overwrite, progress, sizes, resume, workers, tell)

    @classmethod
    def import_file(
        cls,
        source: str | Path,
        out: str | Path,
        skip_bad: bool = False,
        overwrite: bool = False,
        progress: Progress = no_progress,
    ) -> dict[str, Any]:
        from trm_interp.tasks.sudoku.forge.importing import import_file

        return import_file(source, out, skip_bad, overwrite, progress)

    @classmethod
    def check_splits(
        cls,
        files: Sequence[Path],
        tell: Callable[[str], None] = print,
        progress: Progress = no_progress,
    ) -> dict[str, Any]:
        from trm_interp.tasks.sudoku.splits import check

        return check(files, tell, progress)

    @classmethod
    def downloads(cls) -> dict[str, str]:
        return {"sudoku-extreme": "Sudoku-Extreme's CSV files, from the Hugging Face hub"}

    @classmethod
    def download(cls, name: str, out: str | Path) -> list[Path]:
        from trm_interp.tasks.sudoku.forge.importing import download_sudoku_extreme

        return download_sudoku_extreme(out)

    # Tokens

    def asked(self, inputs: Tokens) -> Bools:
        return inputs == BLANK

    # Symmetries

    def symmetry(self, keys: "Tensor") -> "Symmetry":
        from trm_interp.tasks.sudoku.augment import random_symmetry

        return random_symmetry(keys, self.shape)

    def class_keys(self, inputs: Tokens) -> NDArray[np.uint64]:
        from trm_interp.tasks.sudoku.canonical import class_keys

        return class_keys(from_tokens(inputs))

    # Answers

    def violations(self, answers: Tokens) -> dict[str, Bools]:
        repeated = grids.violations(from_tokens(answers))
        return {rule: repeated[..., at, :] for at, rule in enumerate(RULES)}

    def proves(self, inputs: Tokens, answers: Tokens) -> Bools:
        from trm_interp.tasks.sudoku.dataset import repeats

        full = (answers > BLANK).all(1) & self.can_prove
        return full & self.keeps_givens(inputs, answers).all(1) & ~repeats(from_tokens(answers))

    def has_several_solutions(self, inputs: Tokens) -> Bools:
        from trm_interp.tasks.sudoku.solving import solve

        solved = solve(from_tokens(inputs), limit=2)
        return (solved.counts > 1) | solved.given_up

    def completable(self, inputs: Tokens, answer: Tokens) -> Tokens:
        from trm_interp.tasks.sudoku.partial import completable_part

        return to_tokens(completable_part(from_tokens(inputs), from_tokens(answer)))

    # Facts of a board

    @cached_property
    def _places(self) -> dict[str, NDArray[np.int64]]:
        return dict(zip(RULES, logic.places(self.cells), strict=True))

    def places(self) -> dict[str, NDArray[np.int64]]:
        return dict(self._places)

    def candidates(self, inputs: Tokens) -> tuple[tuple[str, ...], Bools]:
        return self.tokens[BLANK + 1 :], logic.candidates(from_tokens(inputs))

    def board_facts(self, inputs: Tokens, labels: Tokens) -> dict[str, Bools]:
        puzzle = from_tokens(inputs)
        n_candidates = logic.candidates(puzzle).sum(1)
        return {
            **{f"{n} candidates": n_candidates == n for n in range(1, self.side + 1)},
            "naked single": logic.naked_singles(puzzle),
            "hidden single": logic.hidden_singles(puzzle),
        }

    # Ratings

    def ratings(self) -> tuple[str, ...]:
        return RATINGS if self.side in COMPILED_SIDES else ("clues",)

    def main_rating(self) -> str:
        return "waves" if self.side in COMPILED_SIDES else "clues"

    def controls(self) -> tuple[str, ...]:
        return ("tier", "waves", "guesses_all") if self.side in COMPILED_SIDES else ("clues",)

    def rate(
        self, puzzles: PuzzleSet, seed: int = 0, progress: Progress = no_progress
    ) -> dict[str, NDArray[Any]]:
        if self.side not in COMPILED_SIDES:
            progress(len(puzzles), len(puzzles))
            return {"clues": (~self.asked(puzzles.inputs)).sum(1)}
        from trm_interp.tasks.sudoku.forge.rate import rate

        return rate(from_tokens(puzzles.inputs), seed, progress=progress)._asdict()

    # Drawing

    def text(self, tokens: Tokens) -> str:
        return grids.render(from_tokens(tokens))

    def glyphs(self, tokens: Tokens) -> NDArray[np.str_]:
        names = np.array(["", "", *self.tokens[BLANK + 1 :]])
        return names[tokens]

    def rulings(self) -> tuple[list[int], list[int]]:
        shape: Shape = self.shape
        return (
            list(range(shape.box_rows, self.side, shape.box_rows)),
            list(range(shape.box_cols, self.side, shape.box_cols)),
        )
