"""ARC as a task: what `Task` asks, answered by the modules of this folder."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trm_interp.tasks.arc import grid as grids
from trm_interp.tasks.arc.grid import COLOURS, END, FIRST, LARGEST, PAD, PALETTE, SMALLEST, VOCAB
from trm_interp.tasks.base import Bools, Progress, PuzzleSet, Task, Tokens, no_progress
from trm_interp.tasks.symmetric import Copies

USUAL = 10, 30
NAME = re.compile(r"arc([1-9]\d?)")
SHIPPED = {10: ("data/arc-small/test", ("trm-arc-small",))}  # by side: test puzzles, checkpoints


class Arc(Task):
    """Pairs of ARC tasks in a square frame: the input is given, the whole output is asked.

    Tokens: 0 pad, 1 end marker, colour + 2. Cells of an output that are pad are not judged. Which
    task a pair is of a model knows by an identifier alone, one for every augmentation of a task, so
    that symmetries are laid down when a data set is made, and a puzzle has none by itself. No rule
    proves an answer.

    >>> task = Arc(3)
    >>> task.name, task.cells, task.vocab
    ('arc3', 9, 12)
    >>> print(*task.lines(grids.encode(np.array([[5, 0]], np.uint8), 3)), sep="\\n")
    5 0 |
    | | .
    . . .
    """

    family = "arc"
    hints = ("arc-", "arc1", "arc2", "arcagi")

    def __init__(self, side: int) -> None:
        self.side = side
        self.name, self.title = f"arc{side}", f"{side}x{side} ARC"
        self.aliases = ()
        self.cells, self.vocab, self.grid = side * side, VOCAB, (side, side)
        self.tokens = ("pad", "end", *COLOURS)
        self.answer_tokens = tuple(range(END, VOCAB))
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
        from trm_interp.tasks.arc.dataset import recognises

        return recognises(path)

    @classmethod
    def load(
        cls,
        path: str | Path,
        skip_bad: bool = False,
        limit: int | None = None,
        progress: Progress = no_progress,
        several: bool = False,
    ) -> PuzzleSet:
        from trm_interp.tasks.arc.dataset import load

        return load(path, skip_bad, limit, progress)

    @classmethod
    def load_text(
        cls, text: str, name: str, skip_bad: bool = False, several: bool = False
    ) -> PuzzleSet:
        from trm_interp.tasks.arc.dataset import load_text

        return load_text(text, name, skip_bad)

    @classmethod
    def save(cls, path: str | Path, puzzles: PuzzleSet) -> str:
        from trm_interp.tasks.arc.dataset import save

        return save(path, puzzles)

    @classmethod
    def remarks(cls, path: Path, puzzles: PuzzleSet) -> dict[str, Sequence[Any]]:
        return {} if puzzles.names is None else {"name": puzzles.names.tolist()}

    # Making data sets

    @classmethod
    def presets(cls) -> dict[str, str]:
        from trm_interp.tasks.arc.making import USUAL

        return USUAL

    @classmethod
    def makes(cls, preset: str) -> bool:
        from trm_interp.tasks.arc.making import is_preset

        return is_preset(preset)

    @classmethod
    def making_options(cls, preset: str) -> frozenset[str]:
        return frozenset({"augmentations", "only", "frame"})

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
        **options: Any,
    ) -> dict[str, Any]:
        from trm_interp.tasks.arc.making import make

        return make(preset, out, seed, overwrite, progress, sizes, **options)

    @classmethod
    def check_splits(
        cls,
        files: Sequence[Path],
        tell: Callable[[str], None] = print,
        progress: Progress = no_progress,
    ) -> dict[str, Any]:
        from trm_interp.tasks.arc.splits import check

        return check(files, tell, progress)

    # Tokens

    def asked(self, inputs: Tokens) -> Bools:
        return np.ones(inputs.shape, bool)

    def completable(self, inputs: Tokens, answer: Tokens) -> Tokens:
        return np.zeros_like(inputs)

    # Symmetries

    def copies(self, puzzles: PuzzleSet) -> Copies | None:
        from trm_interp.tasks.arc.copies import copies

        return copies(puzzles)

    # Answers

    def compared(self, inputs: Tokens, answers: Tokens) -> Tokens:
        begin = grids.boxes_around(inputs)
        boxes = grids.boxes_of_answers(answers, begin.top, begin.left)
        around = np.where(boxes.ends(self.side), END, PAD).astype(np.uint8)
        return np.where(boxes.inside(self.side), answers, around)

    def violations(self, answers: Tokens) -> dict[str, Bools]:
        """Of answers by themselves: their grid begins where their first colours do."""
        flat = answers.reshape(-1, self.cells)
        around = grids.boxes_around(flat)
        rules = self._broken_rules(flat, around.top, around.left)
        return {name: broken.reshape(answers.shape) for name, broken in rules.items()}

    def _broken_rules(
        self, answers: Tokens, top: NDArray[np.int64], left: NDArray[np.int64]
    ) -> dict[str, Bools]:
        """[n, cell] by rule, of answers whose grids begin at these offsets."""
        boxes = grids.boxes_of_answers(answers, top, left)
        empty = (boxes.rows == 0)[:, None]
        return {
            "a grid": np.broadcast_to(empty, answers.shape),
            "end markers": boxes.ends(self.side) & (answers != END) & ~empty,
        }

    def _broken(self, inputs: Tokens, answers: Tokens) -> Bools:
        begin = grids.boxes_around(inputs)
        rules = self._broken_rules(answers, begin.top, begin.left)
        return rules["a grid"] | rules["end markers"]

    def further_scores(
        self, puzzles: PuzzleSet, answers: Tokens, q_halt: NDArray[np.floating]
    ) -> dict[str, float]:
        from trm_interp.tasks.arc.voting import scores

        return scores(puzzles, answers, q_halt)

    # Facts of a board

    def places(self) -> dict[str, NDArray[np.int64]]:
        row, column = np.divmod(np.arange(self.cells), self.side)
        return {"row": row, "column": column}

    def board_facts(self, inputs: Tokens, labels: Tokens) -> dict[str, Bools]:
        from trm_interp.tasks.arc.facts import facts

        return facts(inputs, labels)

    # Ratings

    def ratings(self) -> tuple[str, ...]:
        from trm_interp.tasks.arc.facts import RATINGS

        return RATINGS

    def rate(
        self, puzzles: PuzzleSet, seed: int = 0, progress: Progress = no_progress
    ) -> dict[str, NDArray[Any]]:
        from trm_interp.tasks.arc.facts import rate

        return rate(puzzles.inputs, puzzles.labels, progress)

    # Drawing

    def text(self, tokens: Tokens) -> str:
        return grids.render(tokens)

    def glyphs(self, tokens: Tokens) -> NDArray[np.str_]:
        return np.array(["", "|", *map(str, range(VOCAB - FIRST))])[tokens]

    def colours(self) -> tuple[str, ...]:
        return ("", "", *PALETTE)
