"""Solve puzzles for a person: the board, the confidence, and whether the rules confirm it."""

import errno
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from trm_interp.core.checkpoints.folder import Checkpoint, load_checkpoint
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.runs import quiet
from trm_interp.search.engine import Trajectories, search, trace
from trm_interp.search.noise import copies_for, has_symmetries
from trm_interp.search.run import resolved
from trm_interp.search.selection import choose
from trm_interp.search.settings import SearchConfig, SolveConfig
from trm_interp.search.show import Board
from trm_interp.subjects.opening import (
    load_puzzles,
    open_device,
    read_for,
    require_task,
    task_of,
)
from trm_interp.subjects.settings import shipped_checkpoint
from trm_interp.tasks.base import PuzzleSet, PuzzleTensors, Task
from trm_interp.tasks.registry import families, family, family_of_file, family_of_text
from trm_interp.tasks.symmetric import Copies

STDIN = "standard input"
LONGEST_SHOWN = 60  # characters of what was given, in a message
Tokens = np.ndarray  # uint8 [cell]


@dataclass(frozen=True)
class Solution:
    """The answer to one puzzle. Boards are tokens [cell] of `task`.

    `partial`: the part of the answer that can be completed, all of it where it is confirmed.
    `guesses`: tokens [step, h_cycle, cell] with halting logits `guesses_q` [step, h_cycle], where
    it was traced.
    """

    task: Task
    line: int
    puzzle: Tokens
    answer: Tokens
    partial: Tokens
    confirmed: bool  # by the rules: a proof
    several: bool  # the puzzle has more than one solution
    q: float  # halting logit of the answer
    trajectory: int  # that gave the answer; 0 is the plain run
    steps: int  # supervision steps of that trajectory
    trajectories: int  # that were run
    evaluations: int  # network evaluations of all of them
    guesses: np.ndarray | None = None
    guesses_q: np.ndarray | None = None

    @property
    def confidence(self) -> float:
        """sigmoid(q): the halting head's probability that the grid is right."""
        return float(1 / (1 + np.exp(-self.q)))

    @property
    def broken(self) -> np.ndarray:
        """[cell] bool: not filled, another token than is given, or part of a broken rule."""
        return self.task.verify(self.puzzle[None], self.answer[None]).broken[0]

    @property
    def kept(self) -> np.ndarray:
        """[cell] bool: cells that `partial` fills."""
        filled = self.task.filled(self.partial)
        return filled | (~self.task.asked(self.puzzle) & (self.partial == self.puzzle))

    def to_json(self) -> dict[str, Any]:
        text = self.task.text
        boards = {name: text(getattr(self, name)) for name in ("puzzle", "answer", "partial")}
        names = ("line", "confirmed", "several", "confidence", "trajectory", "steps")
        numbers = {name: getattr(self, name) for name in (*names, "trajectories", "evaluations")}
        if self.guesses is None:
            return boards | numbers
        return boards | numbers | {"trace": [[text(b) for b in step] for step in self.guesses]}


@dataclass(frozen=True)
class Solutions:
    """What the command `solve` came to."""

    solutions: list[Solution]

    def to_json(self) -> dict[str, Any]:
        """The puzzles in the order in which they were given."""
        puzzles = [solution.to_json() for solution in self.solutions]
        return {"n": len(puzzles), "puzzles": puzzles}


def run(
    config: SolveConfig,
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = quiet,
) -> Solutions:
    """What the command `solve` does."""
    return Solutions(solve(config, config.search, tell, progress))


def lines(solved: Solutions) -> list[Board]:
    """The boards, each followed by a line about it."""
    return [Board(solution) for solution in solved.solutions]


def solve(
    config: SolveConfig,
    how: SearchConfig,
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = quiet,
) -> list[Solution]:
    """Search the puzzles that `config` names; nothing is computed before all of them are checked.

    The answer is a grid that the rules confirm if a trajectory reached one, else the one that
    `how.select` takes, with the part of it that can be completed.
    """
    named = config.ckpt
    meant = (lambda: task_of(load_checkpoint(named))) if named else None
    puzzles = read_puzzles(config.puzzle, config.skip_bad, meant)
    for line in puzzles.skipped:
        tell(f"skipped {line}")
    task, device = puzzles.task, open_device(config.device)
    ckpt = named or shipped_checkpoint(task.name)
    checkpoint, puzzles = read_for(ckpt, puzzles, device)
    require_task(puzzles, checkpoint, option="")
    copies = copies_for(how, puzzles)
    if how.symmetry and copies is None and not has_symmetries(task):
        tell(f"{task.title} has no symmetries: searching without symmetric copies")
        how = replace(how, symmetry=False)
    if how.stop == "rules" and not task.can_prove:
        tell(f"the rules of {task.title} prove no answer: running every trajectory to its end")
        how = replace(how, stop="never", adaptive=False)
    how = resolved(how, checkpoint, puzzles)
    several = task.has_several_solutions(puzzles.inputs)
    for line in puzzles.lines[several].tolist():
        tell(f"line {line}: the puzzle has several solutions; any of them counts")
    given = puzzles.tensors
    trajectories = search(
        checkpoint.model,
        task,
        given.inputs,
        how,
        config.batch_size,
        identifiers=given.identifiers,
        copies=copies,
        progress=lambda done: progress(done, len(puzzles)),
    )
    chosen = choose(trajectories)[how.select][:, -1]
    solutions = []
    for i in range(len(puzzles)):
        solution = _solution(puzzles, i, trajectories, int(chosen[i]), bool(several[i]), checkpoint)
        if config.trace:
            own = slice(i, i + 1)
            where = None if copies is None else copies.at(own)
            solution = _traced(solution, checkpoint, given.at(own), where, how, tell)
        solutions.append(solution)
    return solutions


def _solution(
    puzzles: PuzzleSet,
    i: int,
    trajectories: Trajectories,
    chosen: int,
    several: bool,
    checkpoint: Checkpoint,
) -> Solution:
    """From the first trajectory whose grid is proved, else from the trajectory `chosen`."""
    k, task, puzzle = trajectories.k, puzzles.task, puzzles.inputs[i]
    proofs = np.flatnonzero(trajectories.valid[i, :k, -1])
    taken = int(proofs[0]) if len(proofs) else chosen
    answer = trajectories.tokens[i, taken, -1]
    per_step = checkpoint.model.config.schedule.evaluations
    return Solution(
        task=task,
        line=int(puzzles.lines[i]),
        puzzle=puzzle,
        answer=answer,
        partial=answer if len(proofs) else task.completable(puzzle, answer),
        confirmed=bool(len(proofs)),
        several=several,
        q=float(trajectories.q[i, taken, -1]),
        trajectory=taken,
        steps=int(trajectories.ran[i, taken]),
        trajectories=int((trajectories.ran[i, :k] > 0).sum()),
        evaluations=int(trajectories.steps_run[i]) * per_step,
    )


def _traced(
    solution: Solution,
    checkpoint: Checkpoint,
    given: PuzzleTensors,
    copies: Copies | None,
    how: SearchConfig,
    tell: Callable[[str], None],
) -> Solution:
    """The same with the guesses of its trajectory, run once more by itself."""
    which = (solution.trajectory, solution.steps)
    guesses, q = trace(
        checkpoint.model,
        solution.task,
        given.inputs,
        *which,
        how,
        identifiers=given.identifiers,
        copies=copies,
    )
    if (guesses[-1, -1] != solution.answer).any():
        tell(
            f"line {solution.line}: run by itself this trajectory ends in another grid than in "
            "the batch: it is not at rest, and rounding decides"
        )
    return replace(solution, guesses=guesses, guesses_q=q)


def read_puzzles(
    given: str, skip_bad: bool = False, meant: Callable[[], Task] | None = None
) -> PuzzleSet:
    """Puzzles of the text itself, of a file of that name, or of standard input for -.

    `meant`: the task that is taken where several can read a text.
    """
    if given == "-":
        text = sys.stdin.read()
        return _reader_of(text, meant).load_text(text, STDIN, skip_bad, several=True)
    if _exists(given):
        return load_puzzles(Path(given), skip_bad, several=True)
    reader = family_of_text(given, meant)
    text = None if reader is None else reader.typed(given)
    if reader is None or text is None:
        name = given if len(given) <= LONGEST_SHOWN else f"{given[:LONGEST_SHOWN]}..."
        ways = "; ".join(way for name in families() if (way := family(name).typed_as))
        raise UserError(f"{name}: no such file, and no puzzle ({ways})")
    return reader.load_text(text, "the puzzle", skip_bad, several=True)


def _reader_of(text: str, meant: Callable[[], Task] | None) -> type[Task]:
    """The family that reads a text, by what recognises files: a file of it is as good as a typed
    puzzle."""
    reader = family_of_text(text, meant)
    if reader is not None:
        return reader
    with TemporaryDirectory() as folder:
        file = Path(folder) / "puzzles"
        file.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
        return family_of_file(file, STDIN)


def _exists(name: str) -> bool:
    """Whether something has that name; no name is too long to ask."""
    try:
        return Path(name).exists() and name.strip(".") != ""
    except ValueError:  # a NUL
        return False
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False
