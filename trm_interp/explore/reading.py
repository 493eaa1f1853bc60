"""Puzzles of a session: from its file, typed, edited; each checked and with its solution."""

from dataclasses import replace

from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.explore.edits import Puzzle
from trm_interp.runtime.errors import UserError
from trm_interp.subjects.opening import require_task
from trm_interp.tasks.base import PuzzleError, PuzzleSet, Task, Tokens

TYPED = "the puzzle"


class Puzzles:
    """What a session knows of puzzles."""

    checkpoint: Checkpoint
    puzzles: PuzzleSet
    task: Task

    def puzzle(self, index: int) -> Puzzle:
        """A puzzle of the file, by its place from 0. UserError where there is none."""
        if not 0 <= index < len(self.puzzles):
            raise UserError(f"puzzle {index + 1}: the file has puzzles 1 to {len(self.puzzles)}")
        return self._puzzle(self.puzzles.subset([index]), index)

    def _puzzle(self, one: PuzzleSet, index: int | None, several: bool = False) -> Puzzle:
        identifiers = one.identifiers if self.checkpoint.model.config.n_identifiers else None
        own = None if identifiers is None else int(identifiers[0])
        return Puzzle(one.inputs[0].tobytes(), one.labels[0].tobytes(), own, index, several)

    @property
    def reads_text(self) -> bool:
        """Whether the task reads a puzzle from a text; else those of the file are all there is."""
        return type(self.task).typed.__func__ is not Task.typed.__func__

    def read(self, text: str) -> Puzzle:
        """A puzzle that was typed or pasted. UserError for what is none, does not fit the model,
        or cannot be solved."""
        family = type(self.task)
        if not self.reads_text:
            raise UserError(f"{self.task.title} puzzles cannot be typed: choose one of the file")
        typed = family.typed(text.strip()) if text.strip() else None
        if typed is None:
            how = f": {family.typed_as}" if family.typed_as else ""
            raise UserError(f"that is no {self.task.title}{how}")
        puzzles = family.load_text(typed, TYPED, several=True)
        if len(puzzles) > 1:
            raise UserError(f"these are {len(puzzles)} puzzles: give one at a time")
        require_task(puzzles, self.checkpoint, option="")
        return self._puzzle(puzzles, None, bool(self.task.has_several_solutions(puzzles.inputs)[0]))

    def reread(self, text: str, index: int) -> Puzzle:
        """A puzzle that was edited from one of the file, from its text; of several solutions that
        of the file."""
        base = self.puzzle(index)
        if text == self.task.text(base.inputs):  # some tasks read no puzzle from a text
            return base
        read = self.read(text)
        if read.tokens == base.tokens:
            return base
        labels, several = self._solution(read.inputs, base.labels)
        own = {"tokens": read.tokens, "solution": labels.tobytes(), "several": several}
        return replace(base, **own)

    def edited(self, puzzle: Puzzle, cell: int, token: int) -> Puzzle:
        """The puzzle with another token in a cell. UserError where it then has no solution.

        If it has several, the solution that it had is kept where it still is one.
        """
        inputs = self._with_token(puzzle.inputs, cell, token)
        if not self.reads_text:
            raise UserError(
                f"the solution of another {self.task.title} puzzle is not known: choose one of the "
                "file, or change the cell from this moment on"
            )
        labels, several = self._solution(inputs, puzzle.labels)
        return replace(puzzle, tokens=inputs.tobytes(), solution=labels.tobytes(), several=several)

    def _with_token(self, inputs: Tokens, cell: int, token: int) -> Tokens:
        if not 0 <= cell < self.task.cells or not 0 < token < self.task.vocab:
            raise UserError(f"{self.task.title} has no token {token} for cell {cell + 1}")
        inputs = inputs.copy()
        inputs[cell] = token
        return inputs

    def _solution(self, inputs: Tokens, before: Tokens) -> tuple[Tokens, bool]:
        """A solution, `before` if it is one, and whether there are others."""
        several = self.task.has_several_solutions
        if self.task.proves(inputs[None], before[None])[0]:
            return before, bool(several(inputs[None])[0])
        read = type(self.task).load_text(self.task.text(inputs), TYPED, several=True)
        if read.inputs.shape != (1, len(inputs)) or (read.inputs[0] != inputs).any():
            raise PuzzleError(f"{TYPED}: its {self.task.title} cannot be written down")
        return read.labels[0], bool(several(inputs[None])[0])
