"""Runs and their forks, computed when they are first asked for and kept while there is room."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import RLock

import numpy as np
import torch
from torch import Tensor

from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.core.infer import embedded
from trm_interp.core.models.base import States
from trm_interp.core.models.layers import weights_held
from trm_interp.explore.edits import (
    Copied,
    Edit,
    Given,
    Node,
    Noise,
    Puzzle,
    with_copies,
    with_noise,
)
from trm_interp.explore.runs import Axes, Reading, Run, Series, axes_of, moments_of
from trm_interp.patch.view import view_of
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import in_seed_range
from trm_interp.subjects.opening import open_both, open_device, require_task
from trm_interp.tasks.base import PuzzleError, PuzzleSet, Tokens

MOST_BYTES = 500_000_000  # of runs that are kept
LOUDEST = 1000.0  # noise; states have RMS 1
TYPED = "the puzzle"


def open_session(
    ckpt: str | Path = "",
    puzzles: Path | str | None = None,
    steps: int = 16,
    device: str = "auto",
    limit: int | None = None,
    skip_bad: bool = False,
    tell: Callable[[str], None] = print,
) -> "Session":
    """A checkpoint and puzzles, those that ship where none are named. UserError where they do not
    fit."""
    file = None if puzzles is None else Path(puzzles)
    return Session(*open_both(ckpt, file, open_device(device), limit, skip_bad, tell), steps)


class Session:
    """One checkpoint, a file of puzzles, and the runs that were looked at.

    `most_bytes` of runs are kept; those that were not looked at for longest are dropped, and
    computed again when they are asked for. May be used from several threads.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        puzzles: PuzzleSet,
        steps: int = 16,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        require_task(puzzles, checkpoint)
        self.checkpoint, self.puzzles, self.steps = checkpoint, puzzles, steps
        self.model, self.task = checkpoint.model, puzzles.task
        self.most_bytes = most_bytes
        self._view = view_of(self.model)
        self._spans = self._view.spans(steps)
        self.moments = moments_of(self._spans)
        self._runs: OrderedDict[Node, Run] = OrderedDict()
        self._lock = RLock()

    @property
    def last(self) -> int:
        """The last moment."""
        return len(self._spans)

    @property
    def states(self) -> tuple[str, ...]:
        """States that the output head reads here: the answer state first, then the latent one."""
        return tuple(dict.fromkeys((self.model.answer, self.model.latent)))

    # Puzzles

    def puzzle(self, index: int) -> Puzzle:
        """A puzzle of the file, by its place from 0. UserError where there is none."""
        if not 0 <= index < len(self.puzzles):
            raise UserError(f"puzzle {index + 1}: the file has puzzles 1 to {len(self.puzzles)}")
        return self._puzzle(self.puzzles.subset([index]), index)

    def _puzzle(self, one: PuzzleSet, index: int | None, several: bool = False) -> Puzzle:
        identifiers = one.identifiers if self.model.config.n_identifiers else None
        own = None if identifiers is None else int(identifiers[0])
        return Puzzle(one.inputs[0].tobytes(), one.labels[0].tobytes(), own, index, several)

    def read(self, text: str) -> Puzzle:
        """A puzzle that was typed or pasted. UserError for what is none, does not fit the model,
        or cannot be solved."""
        family = type(self.task)
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
        base, read = self.puzzle(index), self.read(text)
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

    # Runs

    def plain(self, puzzle: Puzzle | int | str) -> Node:
        """The run of a puzzle from the model's own start; of one of the file by its place from 0,
        or of a text."""
        if isinstance(puzzle, int):
            puzzle = self.puzzle(puzzle)
        return Node(self.read(puzzle) if isinstance(puzzle, str) else puzzle)

    def check(self, edit: Edit) -> None:
        """UserError for an edit that cannot be made in this session."""
        if not 0 <= edit.at < self.last:
            raise UserError(f"a run forks at moments 0 to {self.last - 1}, not at {edit.at}")
        if isinstance(edit, Given):
            self._with_token(np.zeros(self.task.cells, np.uint8), edit.cell, edit.token)
            return
        unknown = sorted(set(edit.states) - set(self.model.state_names))
        if unknown or not edit.states:
            names = ", ".join(self.model.state_names)
            raise UserError(f"no state {', '.join(unknown) or 'is named'}: give {names}")
        if edit.cells is not None and not edit.cells:
            raise UserError("no cell is chosen")
        if edit.cells and not 0 <= min(edit.cells) <= max(edit.cells) < self.task.cells:
            raise UserError(f"cells are 1 to {self.task.cells}")
        if isinstance(edit, Noise):
            in_seed_range(edit.seed)
            if not 0 < edit.size <= LOUDEST:
                raise UserError(f"noise has a size above 0, at most {LOUDEST:g}, not {edit.size}")
        elif not 0 <= edit.moment <= self.last:
            raise UserError(f"moments are 0 to {self.last}, not {edit.moment}")

    def given(self, node: Node) -> tuple[Tokens, Tokens]:
        """The puzzle [cell] as it stands at the end of a run, and its solution.

        The solution before the change where the puzzle has none after it.
        """
        if node.parent is None:
            return node.puzzle.inputs, node.puzzle.labels
        inputs, labels = self.given(node.parent)
        if not isinstance(node.edit, Given):
            return inputs, labels
        inputs = self._with_token(inputs, node.edit.cell, node.edit.token)
        try:
            return inputs, self._solution(inputs, labels)[0]
        except PuzzleError:
            return inputs, labels

    def run(self, node: Node) -> Run:
        """A run with all that is read from it. UserError for an edit that cannot be made, and for
        states that are not finite."""
        with self._lock:
            run = self._runs.get(node)
            if run is None:
                run = self._computed(node)
                self._runs[node] = run
            self._runs.move_to_end(node)
            while len(self._runs) > 1 and self.nbytes > self.most_bytes:
                self._runs.popitem(last=False)
            return replace(run, node=node)  # with its own name

    @property
    def nbytes(self) -> int:
        """Bytes of the runs that are kept."""
        return sum(run.nbytes for run in self._runs.values())

    def states_at(self, node: Node, moment: int) -> States:
        """The states [1, pos, d_model] of a run at a moment, edits of that moment included."""
        if not 0 <= moment <= self.last:
            raise UserError(f"moments are 0 to {self.last}, not {moment}")
        node = node.at(moment)
        run = self.run(node)
        first = max(at for at in run.kept if at <= moment)
        state, x = run.kept[first], self._embedded(node, run.inputs[-1])
        with self._lock, torch.no_grad(), weights_held(self.model, x.dtype):
            for span in self._spans[first:moment]:
                state = self._view.pass_through(span, state, x)
        return state

    def _embedded(self, node: Node, inputs: Tokens) -> Tensor:
        own = node.puzzle.identifier
        identifiers = None if own is None else torch.tensor([own])
        with torch.no_grad():
            return embedded(
                self.model, torch.from_numpy(inputs.copy())[None], identifiers=identifiers
            )

    def _edited(self, edit: Edit, state: States) -> States:
        """The states after an edit of the states; a changed puzzle leaves them."""
        config = self.model.config
        if isinstance(edit, Noise):
            return with_noise(state, edit, config)
        if isinstance(edit, Copied):
            return with_copies(state, edit, self.states_at(edit.source, edit.moment), config)
        return state

    def _computed(self, node: Node) -> Run:
        inputs, labels = self.given(node)
        x = self._embedded(node, inputs)
        if node.parent is None or node.edit is None:
            first, before = 0, self.model.initial_state(x)
            state = before
        else:
            self.check(node.edit)
            first, before = node.edit.at, self.states_at(node.parent, node.edit.at)
            state = self._edited(node.edit, before)
        series = {name: Series(name) for name in self.states}
        for name, one in series.items():
            one.add(first, getattr(state, name), getattr(before, name))
        kept = self._pass(state, x, first, series)
        flat = {name: one.flat() for name, one in series.items()}
        parent = None if node.parent is None else self.run(node.parent)
        axes = {n: axes_of(f) for n, f in flat.items()} if parent is None else parent.axes
        return self._read(node, series, axes, (inputs, labels), kept, parent)

    @torch.no_grad()
    def _pass(
        self, state: States, x: Tensor, first: int, series: dict[str, Series]
    ) -> dict[int, States]:
        """Run to the end, adding to `series`; the states at the ends of supervision steps."""
        kept = {first: state}
        with weights_held(self.model, x.dtype):
            for moment, span in enumerate(self._spans[first:], first + 1):
                new = self._view.pass_through(span, state, x)
                for name in {tick.writes for tick in span.ticks} & series.keys():
                    series[name].add(moment, getattr(new, name), getattr(state, name))
                state = new
                following = self._spans[moment].ticks[0].step if moment < self.last else -1
                if following != span.ticks[-1].step:
                    kept[moment] = state
        return kept

    def _read(
        self,
        node: Node,
        series: dict[str, Series],
        axes: dict[str, Axes],
        given: tuple[Tokens, Tokens],
        kept: dict[int, States],
        parent: Run | None,
    ) -> Run:
        """What is read from the series, behind what was read from the parent before the edit."""
        readings: dict[str, Reading] = {}
        halting = None
        first = min(kept)
        for name, one in series.items():
            with torch.no_grad():
                reading, q_halt, halts = one.read(self.model, given[1], axes[name], self.last)
            halting = halting or (q_halt, halts)
            if parent is not None:
                if not one.change[0].any():  # not edited: what its last evaluation did to it
                    earlier = parent.readings[name]
                    until = one.moments[1] if len(one.moments) > 1 else self.last + 1
                    reading.change[: until - first] = earlier.change[first]
                    reading.speed[: until - first] = earlier.speed[first]
                reading = reading.after(parent.readings[name], first)
            readings[name] = reading
        assert halting is not None
        q_halt, halts = halting
        inputs, labels = (np.tile(of, (self.last + 1 - first, 1)) for of in given)
        if parent is not None:
            q_halt = np.concatenate([parent.q_halt[:first], q_halt])
            halts = np.concatenate([parent.halts[:first], halts])
            inputs = np.concatenate([parent.inputs[:first], inputs])
            labels = np.concatenate([parent.labels[:first], labels])
        return Run(node, self.moments, readings, q_halt, halts, inputs, labels, kept, axes)
