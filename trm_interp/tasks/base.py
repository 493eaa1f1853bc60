"""What a task is: one kind of puzzle at one size, with all that the rest of the package asks of it.

A puzzle and its solution are rows of tokens, uint8 [cell], in the same vocabulary: what a network
reads and answers. How tokens are written, drawn, checked and transformed only the task knows.
Importing this module needs NumPy alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trm_interp.runtime.errors import UserError
from trm_interp.tasks.drawing import Piece as Piece
from trm_interp.tasks.drawing import drawn
from trm_interp.tasks.puzzles import PuzzleError as PuzzleError
from trm_interp.tasks.puzzles import PuzzleSet as PuzzleSet
from trm_interp.tasks.puzzles import PuzzleTensors as PuzzleTensors
from trm_interp.tasks.relations import HasRelations
from trm_interp.tasks.symmetric import HasSymmetries
from trm_interp.tasks.verdict import Verdict as Verdict

Tokens = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Progress = Callable[[int, int], None]


def no_progress(done: int, of: int) -> None:
    """What a caller without a progress bar passes."""


class Task(HasRelations, HasSymmetries, ABC):
    """One kind of puzzle at one size. Tasks are equal where their names are.

    The class stands for the family (all sizes), which reads files; an instance has one size.
    """

    family: ClassVar[str]
    """Name of the kind of puzzle, such as "sudoku"; unique among the registered tasks."""
    can_prove: ClassVar[bool] = False
    """Whether an answer that keeps givens and rules is a solution; not where rules are guessed."""
    hints: ClassVar[tuple[str, ...]] = ()
    """Words in the data paths of other people's checkpoints that mean this family, lower case."""

    name: str
    """Unique among all tasks, kept in checkpoints and stores: "sudoku9"."""
    title: str
    """For people: "9x9 Sudoku"."""
    aliases: tuple[str, ...] = ()
    """What older checkpoints call it."""
    cells: int
    vocab: int
    grid: tuple[int, int]
    """Rows and columns; their product is `cells`."""
    tokens: tuple[str, ...]
    """Printable name of every token, [vocab]. Token 0 is padding: losses leave its labels out."""
    answer_tokens: tuple[int, ...]
    """Tokens that a solution may hold in a cell that is asked."""
    test_file: str = ""
    """Test puzzles that ship, below the artifacts; "" where there are none."""
    checkpoints: tuple[str, ...] = ()
    """Checkpoints that ship, below the artifacts, the best first."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    # Sizes and files, of the family

    @classmethod
    @abstractmethod
    def sizes(cls) -> list["Task"]:
        """Every size that the family has (of one with endlessly many, the usual ones)."""

    @classmethod
    def named(cls, name: str) -> "Task | None":
        """The size of that name or alias; None where the family has none."""
        sizes = cls.sizes()
        return next((task for task in sizes if name == task.name or name in task.aliases), None)

    @classmethod
    def shaped(cls, cells: int, vocab: int) -> "Task | None":
        """The size with that many cells and tokens; None where the family has none."""
        sizes = cls.sizes()
        return next((task for task in sizes if (task.cells, task.vocab) == (cells, vocab)), None)

    @classmethod
    @abstractmethod
    def recognises(cls, path: Path) -> bool:
        """Whether a file or folder looks like one of the family; reads no more than it must.

        Says yes to every file of the family, also to a damaged one where that can be seen.
        """

    @classmethod
    @abstractmethod
    def load(
        cls,
        path: str | Path,
        skip_bad: bool = False,
        limit: int | None = None,
        progress: Progress = no_progress,
        several: bool = False,
    ) -> PuzzleSet:
        """Puzzles of a file or folder, solved and checked; their size is the file's.

        `limit` reads only the first so many. PuzzleError names bad lines; with `skip_bad` they are
        left out and listed in `skipped`. A puzzle with more than one solution is bad unless
        `several`. `progress` is called with how many puzzles are checked, of how many.
        """

    @classmethod
    @abstractmethod
    def load_text(
        cls, text: str, name: str, skip_bad: bool = False, several: bool = False
    ) -> PuzzleSet:
        """As `load`, of a text that is at hand; `name` stands in messages for the file's."""

    @classmethod
    def typed(cls, text: str) -> str | None:
        """A puzzle given on the command line, as `load_text` reads it; None where it is none."""
        return None

    typed_as: ClassVar[str] = ""
    """How a puzzle is typed, for a message: "digits, blanks as '.'"."""

    @classmethod
    @abstractmethod
    def save(cls, path: str | Path, puzzles: PuzzleSet) -> str:
        """Write a file that `load` reads, whole or not at all; its sha256."""

    @classmethod
    def remarks(cls, path: Path, puzzles: PuzzleSet) -> dict[str, Sequence[Any]]:
        """What the file itself tells of its puzzles, by name, one value per puzzle of the set."""
        return {}

    # Making data sets, of the family. A family without a generator leaves these as they are.

    @classmethod
    def presets(cls) -> dict[str, str]:
        """Data sets that can be made: name -> one line on what it is.

        Of endlessly many the usual ones; `makes` says yes to the others.
        """
        return {}

    @classmethod
    def makes(cls, preset: str) -> bool:
        """Whether `make` has a data set of that name."""
        return preset in cls.presets()

    @classmethod
    def is_resumable(cls, preset: str) -> bool:
        """Whether making that data set takes so long that it can be stopped and resumed."""
        return False

    @classmethod
    def making_options(cls, preset: str) -> frozenset[str]:
        """Names of settings of that data set that not every family has, which `make` then takes:
        "augmentations" (how many of every task), "only" (names of tasks), "frame" (its rows)."""
        return frozenset()

    @classmethod
    def before_making(cls) -> str | None:
        """What `make` does first that takes long and shows no progress, in words."""
        return None

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
        """Generate a data set into the folder `out`; its card, with an entry in `splits` for each.

        `sizes`: puzzles of a split, where it is not to be the preset's number. `options`: of
        `making_options`, those that are given.
        """
        raise UserError(f"{cls.family} has no generator")

    @classmethod
    def import_file(
        cls,
        source: str | Path,
        out: str | Path,
        skip_bad: bool = False,
        overwrite: bool = False,
        progress: Progress = no_progress,
    ) -> dict[str, Any]:
        """Check every puzzle of a file or folder and write them to `out`, with a card."""
        raise UserError(f"{cls.family} puzzles cannot be imported")

    @classmethod
    def check_splits(
        cls,
        files: Sequence[Path],
        tell: Callable[[str], None] = print,
        progress: Progress = no_progress,
    ) -> dict[str, Any]:
        """What is wrong with files as splits of one data set: `files`, `pairs`, and `clean`."""
        raise UserError(f"splits of {cls.family} puzzles cannot be compared")

    @classmethod
    def downloads(cls) -> dict[str, str]:
        """Public data sets that can be fetched: name -> one line on what it is."""
        return {}

    @classmethod
    def download(cls, name: str, out: str | Path) -> list[Path]:
        """Fetch a public data set into the folder `out`; the files that were written."""
        raise UserError(f"{name}: there is no such {cls.family} data set to download")

    # Tokens

    @abstractmethod
    def asked(self, inputs: Tokens) -> Bools:
        """[*, cell] of [*, cell]: cells that the solver must fill, against givens."""

    def keeps_givens(self, inputs: Tokens, answers: Tokens) -> Bools:
        """[*, cell]: cells that are asked, or answered as they are given."""
        return self.asked(inputs) | (answers == inputs)

    def filled(self, partial: Tokens) -> Bools:
        """[*, cell] of [*, cell]: cells that a partial answer, as `completable` gives it, fills.

        Those that hold an answer. Not so where what is asked may also stay as it is.
        """
        return np.isin(partial, self.answer_tokens)

    # Answers

    @abstractmethod
    def violations(self, answers: Tokens) -> dict[str, Bools]:
        """By name of the rule, [*, cell] of [*, cell]: cells that take part in breaking it."""

    def conflicts(self, answers: Tokens) -> Bools:
        """[*, cell] of [*, cell]: cells that take part in breaking any rule."""
        broken = np.zeros(answers.shape, bool)
        for cells in self.violations(answers).values():
            broken |= cells
        return broken

    def proves(self, inputs: Tokens, answers: Tokens) -> Bools:
        """[n]: full answers that keep the givens and obey every rule. A proof, not an opinion.

        `verify(inputs, answers).proved`, where that can be had faster. Nothing is proved where
        `can_prove` is False.
        """
        return np.asarray(~self._broken(inputs, answers).any(-1)) & self.can_prove

    def verify(self, inputs: Tokens, answers: Tokens) -> Verdict:
        """What the rules say of answers [n, cell] to puzzles [n, cell], both tokens."""
        return Verdict(self.proves(inputs, answers), self._broken(inputs, answers))

    def _broken(self, inputs: Tokens, answers: Tokens) -> Bools:
        unfilled = self.asked(inputs) & ~np.isin(answers, self.answer_tokens)
        return unfilled | ~self.keeps_givens(inputs, answers) | self.conflicts(answers)

    def compared(self, inputs: Tokens, answers: Tokens) -> Tokens:
        """[n, cell]: answers in the form that is equal where two of them say the same, for votes:
        without what is not judged."""
        return answers

    def further_scores(
        self, puzzles: PuzzleSet, answers: Tokens, q_halt: NDArray[np.floating]
    ) -> dict[str, float]:
        """By name, a share in [0, 1]: what the benchmark of the task counts, beside puzzles solved.

        `answers` [n, cell] tokens of one supervision step and `q_halt` [n], its halting logits.
        """
        return {}

    def has_several_solutions(self, inputs: Tokens) -> Bools:
        """[n]: puzzles with more than one solution. False where the task cannot tell."""
        return np.zeros(len(inputs), bool)

    def completable(self, inputs: Tokens, answer: Tokens) -> Tokens:
        """[cell]: the givens and as much of a wrong answer as some solution has; the rest as asked.

        Without a solver that can tell, the givens alone.
        """
        return inputs.copy()

    # Facts of a board, for probes and features

    @abstractmethod
    def places(self) -> dict[str, NDArray[np.int64]]:
        """[cell] by name, from 0: where every cell lies, such as its "row"."""

    def candidates(self, inputs: Tokens) -> tuple[tuple[str, ...], Bools] | None:
        """Names of candidates, and [cell, candidate] which of them each cell may still hold.

        None where the task has no such thing.
        """
        return None

    def board_facts(self, inputs: Tokens, labels: Tokens) -> dict[str, Bools]:
        """[cell] by name: what is true of cells of a puzzle and its solution; asked cells only."""
        return {}

    # Ratings

    def ratings(self) -> tuple[str, ...]:
        """Names of the numbers that `rate` gives: how hard a puzzle is."""
        return ()

    def main_rating(self) -> str | None:
        """The rating by which puzzles are called equally hard; None where there are no ratings."""
        return next(iter(self.ratings()), None)

    def controls(self) -> tuple[str, ...]:
        """The ratings that a study controls for, so that difficulty explains no effect of it."""
        return self.ratings()

    def rate(
        self, puzzles: PuzzleSet, seed: int = 0, progress: Progress = no_progress
    ) -> dict[str, NDArray[Any]]:
        """By the names of `ratings`, a number per puzzle. Deterministic in puzzle and seed."""
        return {}

    # Drawing

    @abstractmethod
    def text(self, tokens: Tokens) -> str:
        """One line for a puzzle or an answer [cell], as in files."""

    @abstractmethod
    def glyphs(self, tokens: Tokens) -> NDArray[np.str_]:
        """[*, cell] of [*, cell]: what stands in each cell of a figure; "" for a blank or a pad."""

    def rulings(self) -> tuple[list[int], list[int]]:
        """(rows, columns) that a heavy line is drawn before, such as the borders of boxes."""
        return [], []

    def colours(self) -> tuple[str, ...]:
        """[vocab]: the CSS colour ("#rrggbb") behind each token where boards are drawn in colour;
        "" for none, and an empty tuple where no token has one."""
        return ()

    def drawing(self, tokens: Tokens, marks: str = "") -> list[list[Piece]]:
        """The board [cell] for a terminal: lines of pieces, each with the cell that it shows.

        `marks`: a character after every cell, where there would else be a space. Blanks are dots.
        """
        return drawn(self.glyphs(tokens).tolist(), self.grid, self.rulings(), marks)

    def lines(self, tokens: Tokens, marks: str = "") -> list[str]:
        """`drawing` as plain text."""
        return ["".join(piece for piece, _ in line) for line in self.drawing(tokens, marks)]

    # Puzzle embeddings

    def identifiers(self, puzzles: PuzzleSet) -> NDArray[np.int64] | None:
        """int64 [n], which embedding of its own each puzzle has, by itself (tokens, line, source)
        and not by the others; None where all share one."""
        return None
