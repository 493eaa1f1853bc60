"""Mazes as a task: what `Task` asks, answered by the modules of this folder."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trm_interp.tasks.base import Bools, Progress, PuzzleSet, Task, Tokens, no_progress
from trm_interp.tasks.maze import grid as grids
from trm_interp.tasks.maze.facts import RATINGS, facts, rate
from trm_interp.tasks.maze.grid import (
    GOAL,
    LARGEST,
    OPEN,
    PAD,
    PATH,
    SMALLEST,
    START,
    VOCAB,
    WALL,
)
from trm_interp.tasks.relations import ITSELF, UNRELATED

if TYPE_CHECKING:
    from torch import Tensor

    from trm_interp.tasks.symmetry import Symmetry

USUAL = 10, 30
SHIPPED = {
    10: ("data/maze10/test.csv", ("trm-maze10", "trm-maze10-mixing"))
}  # by side: test puzzles, checkpoints
DISTANCES = 1, 2, 4, 8, 16  # steps that are told apart
NAME = re.compile(r"maze([1-9]\d?)")
COLOURS = ("", "#4a4a4a", "", "#7bc47f", "#e58a7b", "#f3d27a")


class Maze(Task):
    """Square mazes with one start, one goal and one shortest path, which is asked.

    Tokens: 0 pad, 1 wall, 2 open, 3 start, 4 goal, 5 path. A solution is the whole grid with the
    path in it, so an open cell is both what is asked and an answer.

    >>> task = Maze(5)
    >>> task.name, task.cells, task.tokens
    ('maze5', 25, ('pad', 'wall', 'open', 'start', 'goal', 'path'))
    >>> print(*task.lines(grids.parse("S.o#." * 4 + "....G")), sep="\\n")
    S . o # .
    S . o # .
    S . o # .
    S . o # .
    . . . . G
    """

    family = "maze"
    can_prove = True
    hints = ("maze",)
    typed_as = "rows of a maze, one a line, of '#', 'S', 'G' and '.'"

    def __init__(self, side: int) -> None:
        self.side = side
        self.name, self.title = f"maze{side}", f"{side}x{side} maze"
        self.aliases = ()
        self.cells, self.vocab, self.grid = side * side, VOCAB, (side, side)
        self.tokens = ("pad", "wall", "open", "start", "goal", "path")
        self.answer_tokens = (OPEN, PATH)
        self.test_file, self.checkpoints = SHIPPED.get(side, ("", ()))

    # Sizes and files

    @classmethod
    def sizes(cls) -> list[Task]:
        return [cls(side) for side in USUAL]

    @classmethod
    def named(cls, name: str) -> Task | None:
        match = NAME.fullmatch(name)
        side = int(match[1]) if match else 0
        return cls(side) if SMALLEST <= side <= LARGEST else None

    @classmethod
    def shaped(cls, cells: int, vocab: int) -> Task | None:
        try:
            return cls(grids.side_of(cells)) if vocab == VOCAB else None
        except ValueError:
            return None

    @classmethod
    def recognises(cls, path: Path) -> bool:
        from trm_interp.tasks.maze.formats import is_public_folder, looks_like_mazes

        return is_public_folder(path) if path.is_dir() else looks_like_mazes(path)

    @classmethod
    def load(
        cls,
        path: str | Path,
        skip_bad: bool = False,
        limit: int | None = None,
        progress: Progress = no_progress,
        several: bool = False,
    ) -> PuzzleSet:
        from trm_interp.tasks.maze.dataset import load

        return load(path, skip_bad, limit, progress, several)

    @classmethod
    def load_text(
        cls, text: str, name: str, skip_bad: bool = False, several: bool = False
    ) -> PuzzleSet:
        from trm_interp.tasks.maze.dataset import load_text

        return load_text(text, name, skip_bad, several)

    @classmethod
    def typed(cls, text: str) -> str | None:
        from trm_interp.tasks.maze.formats import typed

        return typed(text)

    @classmethod
    def save(cls, path: str | Path, puzzles: PuzzleSet) -> str:
        from trm_interp.tasks.maze.dataset import save

        ratings = grids.ways(puzzles.inputs).length.tolist()
        return save(path, puzzles.inputs, puzzles.labels, ratings, Path(puzzles.source).name)

    @classmethod
    def remarks(cls, path: Path, puzzles: PuzzleSet) -> dict[str, Sequence[Any]]:
        from trm_interp.tasks.maze.formats import ratings_of

        rating = ratings_of(Path(path), puzzles.lines)
        return {} if rating is None else {"rating_in_file": rating}

    # Making data sets

    @classmethod
    def presets(cls) -> dict[str, str]:
        from trm_interp.tasks.maze.making import USUAL

        return USUAL

    @classmethod
    def makes(cls, preset: str) -> bool:
        from trm_interp.tasks.maze.making import preset_named

        return preset_named(preset) is not None

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
        from trm_interp.tasks.maze.making import make

        return make(preset, out, seed, overwrite, progress, sizes)

    @classmethod
    def import_file(
        cls,
        source: str | Path,
        out: str | Path,
        skip_bad: bool = False,
        overwrite: bool = False,
        progress: Progress = no_progress,
    ) -> dict[str, Any]:
        from trm_interp.tasks.maze.importing import import_file

        return import_file(source, out, skip_bad, overwrite, progress)

    @classmethod
    def check_splits(
        cls,
        files: Sequence[Path],
        tell: Callable[[str], None] = print,
        progress: Progress = no_progress,
    ) -> dict[str, Any]:
        from trm_interp.tasks.maze.splits import check

        return check(files, tell, progress)

    # Tokens

    def asked(self, inputs: Tokens) -> Bools:
        return inputs == OPEN

    def filled(self, partial: Tokens) -> Bools:
        return partial == PATH

    # Symmetries

    def symmetry(self, keys: "Tensor") -> "Symmetry":
        from trm_interp.tasks.maze.symmetries import random_symmetry

        return random_symmetry(keys, self.side)

    def class_keys(self, inputs: Tokens) -> NDArray[np.uint64]:
        from trm_interp.tasks.maze.symmetries import class_keys

        return class_keys(inputs)

    # Answers

    def violations(self, answers: Tokens) -> dict[str, Bools]:
        flat = answers.reshape(-1, self.cells)
        mazes = np.where(flat == PATH, np.uint8(OPEN), flat)
        ends = np.zeros(flat.shape, bool)
        for kind in (START, GOAL):
            here = flat == kind
            count = here.sum(1)[:, None]
            ends |= (here & (count > 1)) | (count == 0)
        path = grids.path_faults(mazes, flat) & ~ends.any(1)[:, None]
        return {
            "one start, one goal": ends.reshape(answers.shape),
            "shortest path": path.reshape(answers.shape),
        }

    def proves(self, inputs: Tokens, answers: Tokens) -> Bools:
        filled = ~self.asked(inputs) | np.isin(answers, self.answer_tokens)
        proved = np.asarray((filled & self.keeps_givens(inputs, answers)).all(1) & self.can_prove)
        at = np.flatnonzero(proved)
        proved[at] = ~grids.path_faults(inputs[at], answers[at]).any(1)
        return proved

    def _broken(self, inputs: Tokens, answers: Tokens) -> Bools:
        unfilled = self.asked(inputs) & ~np.isin(answers, self.answer_tokens)
        return unfilled | ~self.keeps_givens(inputs, answers) | grids.path_faults(inputs, answers)

    def has_several_solutions(self, inputs: Tokens) -> Bools:
        return grids.ways(inputs).several

    def completable(self, inputs: Tokens, answer: Tokens) -> Tokens:
        right = (answer == PATH) & ~grids.path_faults(inputs[None], answer[None])[0]
        return np.where(right & self.asked(inputs), np.uint8(PATH), inputs)

    # Facts of a board

    def places(self) -> dict[str, NDArray[np.int64]]:
        row, column = np.divmod(np.arange(self.cells), self.side)
        return {"row": row, "column": column}

    def related(self, inputs: Tokens, cell: int) -> dict[str, Bools]:
        """By the steps of the shortest way between two cells; walls have none."""
        own = np.arange(self.cells) == cell
        open_cells = (inputs != WALL) & (inputs != PAD) | own
        boards = (grids.squares(of)[None] for of in (open_cells, own))
        steps = grids.spread(*boards)[0].reshape(-1)
        relations, nearer = {ITSELF: own}, 0
        for furthest in DISTANCES:
            name = f"{furthest} steps" if furthest == nearer + 1 else f"up to {furthest} steps"
            relations[name.replace("1 steps", "1 step")] = (steps > nearer) & (steps <= furthest)
            nearer = furthest
        relations["further"] = steps > nearer
        return relations | {UNRELATED: steps < 0}

    def board_facts(self, inputs: Tokens, labels: Tokens) -> dict[str, Bools]:
        return facts(inputs, labels)

    # Ratings

    def ratings(self) -> tuple[str, ...]:
        return RATINGS

    def rate(
        self, puzzles: PuzzleSet, seed: int = 0, progress: Progress = no_progress
    ) -> dict[str, NDArray[Any]]:
        return rate(puzzles.inputs, progress)

    # Drawing

    def text(self, tokens: Tokens) -> str:
        return grids.render(tokens)

    def glyphs(self, tokens: Tokens) -> NDArray[np.str_]:
        return np.array(["", "#", "", "S", "G", "o"])[tokens]

    def colours(self) -> tuple[str, ...]:
        return COLOURS
