"""Solve puzzles for a person: the board, how sure the model is, what the rules say of it."""

import errno
import string
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.core.models.trm import TRM
from trm_interp.runtime.errors import UserError
from trm_interp.search.config import SearchConfig, SolveConfig
from trm_interp.search.engine import search, trace
from trm_interp.search.run import evaluations_per_step, require_halting_head
from trm_interp.search.selection import choose
from trm_interp.subjects.opening import load_puzzles, open_device, require_size
from trm_interp.subjects.settings import artifact
from trm_interp.tasks.base import PuzzleSet, Task
from trm_interp.tasks.sudoku.dataset import load_text
from trm_interp.tasks.sudoku.formats import CELL, LINES, cells_of
from trm_interp.tasks.sudoku.grid import BLANKS, Grid, from_tokens, render
from trm_interp.tasks.sudoku.partial import completable_part

LONGEST_SHOWN = 60  # characters of what was given, in a message


@dataclass(frozen=True)
class Solution:
    """The answer to one puzzle. `guesses` [step, h_cycle, cell] (digits) where it was traced.

    `partial`: the part of the answer that can be completed, all of it where it is confirmed
    (`completable_part`).
    """

    line: int
    puzzle: Grid
    answer: Grid
    partial: Grid
    confirmed: bool  # by the rules: a proof
    several: bool  # the puzzle has more than one solution
    q: float  # halting logit of the answer
    trajectory: int  # that gave the answer; 0 is the plain run
    steps: int  # supervision steps of that trajectory
    trajectories: int  # that were run
    evaluations: int  # network evaluations of all of them
    guesses: Grid | None = None
    guesses_q: np.ndarray | None = None

    @property
    def confidence(self) -> float:
        """sigmoid(q): the halting head's probability that the grid is right."""
        return float(1 / (1 + np.exp(-self.q)))

    def as_json(self) -> dict[str, Any]:
        found = {
            name: getattr(self, name)
            for name in ("line", "confirmed", "several", "confidence", "trajectory", "steps")
        }
        grids = {name: render(getattr(self, name)) for name in ("puzzle", "answer", "partial")}
        spent = {"trajectories": self.trajectories, "evaluations": self.evaluations}
        if self.guesses is None:
            return grids | found | spent
        trace = [[render(grid) for grid in cycles] for cycles in self.guesses]
        return grids | found | spent | {"trace": trace}


def solve(
    config: SolveConfig, how: SearchConfig, tell: Callable[[str], None] = print
) -> list[Solution]:
    """Search the puzzles that `config` names; nothing is computed before all of them are checked.

    The answer is a grid that the rules confirm where a trajectory found one, else the one that
    `how.select` takes, with the part of it that can be completed.
    """
    puzzles = read_puzzles(config.puzzle, config.skip_bad)
    for line in puzzles.skipped:
        tell(f"skipped {line}")
    device = open_device(config.device)
    checkpoint = load_checkpoint(
        config.ckpt or shipped_for(puzzles.task), device, puzzles.task.cells
    )
    require_size(puzzles, checkpoint)
    require_halting_head(checkpoint, how)
    several = puzzles.task.has_several_solutions(puzzles.inputs)
    for line in puzzles.lines[several].tolist():
        tell(f"line {line}: the puzzle has several solutions; any of them counts")
    model = checkpoint.model
    inputs = torch.from_numpy(puzzles.inputs)
    found = search(model, inputs, how, config.batch_size)
    chosen = choose(found)[how.select][:, -1]
    solutions = []
    for i in range(len(puzzles)):
        proofs = np.flatnonzero(found.valid[i, : found.k, -1])
        taken = int(proofs[0]) if len(proofs) else int(chosen[i])
        steps = int(found.ran[i, taken])
        puzzle, answer = map(from_tokens, (puzzles.inputs[i], found.tokens[i, taken, -1]))
        solution = Solution(
            line=int(puzzles.lines[i]),
            puzzle=puzzle,
            answer=answer,
            partial=answer if len(proofs) else completable_part(puzzle, answer),
            confirmed=bool(len(proofs)),
            several=bool(several[i]),
            q=float(found.q[i, taken, -1]),
            trajectory=taken,
            steps=steps,
            trajectories=int((found.ran[i, : found.k] > 0).sum()),
            evaluations=int(found.steps_run[i]) * evaluations_per_step(model.config),
            **(_traced(model, inputs[i : i + 1], taken, steps, how) if config.trace else {}),
        )
        if solution.guesses is not None and (solution.guesses[-1, -1] != solution.answer).any():
            tell(
                f"line {solution.line}: run by itself this trajectory ends in another grid than in "
                "the batch: it has not settled, and rounding decides"
            )
        solutions.append(solution)
    return solutions


def _traced(
    model: TRM, inputs: torch.Tensor, trajectory: int, steps: int, how: SearchConfig
) -> dict[str, np.ndarray]:
    tokens, q = trace(model, inputs, trajectory, steps, how)
    return {"guesses": from_tokens(tokens), "guesses_q": q}


def read_puzzles(given: str, skip_bad: bool = False) -> PuzzleSet:
    """Puzzles of the text itself, of a file of that name, or of standard input for -."""
    if given == "-":
        return load_text(sys.stdin.read(), "standard input", skip_bad, several=True)
    if not _is_there(given):
        if not set(given) <= set(f"{CELL},{LINES}{string.whitespace}"):
            name = given if len(given) <= LONGEST_SHOWN else f"{given[:LONGEST_SHOWN]}..."
            blanks = ", ".join(f"'{blank}'" for blank in BLANKS)
            raise UserError(
                f"{name}: no such file, and no puzzle (digits, blanks as one of {blanks})"
            )
        text = given if "\n" in given.strip() else cells_of(given)
        return load_text(text, "the puzzle", skip_bad, several=True)
    return load_puzzles(Path(given), skip_bad, several=True)


def _is_there(name: str) -> bool:
    """Whether something has that name; no name is too long to ask."""
    try:
        return Path(name).exists() and name.strip(".") != ""
    except ValueError:  # a NUL
        return False
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def shipped_for(task: Task) -> Path:
    """The checkpoint that ships for a task."""
    paths = [artifact(name) for name in task.checkpoints]
    for path in paths:
        if path.exists():
            return path
    raise UserError(f"no checkpoint for {task.title} puzzles ships; name one with --ckpt")
