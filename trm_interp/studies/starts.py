"""Runs of one puzzle from many starts: random ones, and planes through chosen states."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from trm_interp.analysis.basins import (
    Endings,
    Plane,
    States,
    displacements,
    follow,
    radius_of,
)
from trm_interp.core.counter import normal
from trm_interp.core.losses import PAD, is_solved
from trm_interp.core.models.base import States as ModelStates
from trm_interp.runtime.errors import UserError
from trm_interp.search.noise import target_states
from trm_interp.studies.subject import Subject

COORDINATES, AXES = 64, 0xC00D  # how many, and what names their draws
MOST_STATES = 1e9  # bytes of the last states of a puzzle's starts that are kept


class Starts:
    """Starts of one puzzle (its place in `subject.puzzles`) that differ from the model's own in the
    target states. Every start has the same input, held once.

    own: the model's own start, each state [pos, d_model]. which: places of the targets among the
    states. answer: tokens of the solution, [cell]. UserError for a target that the model lacks.
    """

    def __init__(self, subject: Subject, puzzle: int, target: str) -> None:
        self.subject, self.puzzle, self.model = subject, puzzle, subject.model
        names = self.model.state_names
        self.which = tuple(map(names.index, target_states(self.model, target)))
        own, self.x = subject.begin(slice(puzzle, puzzle + 1))
        self.own: ModelStates = self.model.State(*(z[0] for z in own))
        self.answer = subject.puzzles.labels[puzzle]

    def _state(self, targets: Sequence[Tensor]) -> ModelStates:
        """The model's own start but for these [start, pos, d_model]."""
        n = len(targets[0])
        states = [z.expand(n, -1, -1) for z in self.own]
        for which, z in zip(self.which, targets, strict=True):
            states[which] = z.to(states[which].dtype)
        return self.model.State(*states)

    def moved(
        self, starts: Tensor, radii: Sequence[float], shared: bool, seed: int
    ) -> list[Tensor]:
        """What is added to each target state, [start, pos or 1, d_model].

        Start 0 is the model's own; the others take the radii in turn.
        """
        starts = starts.to(self.x.device)
        radius = radius_of(starts, radii).to(self.x.device)
        pos, d_model = self.own[0].shape
        return [
            displacements(starts, radius, pos, d_model, shared, seed, self.puzzle, which)
            for which in self.which
        ]

    def random(
        self, starts: Tensor, radii: Sequence[float], shared: bool, seed: int
    ) -> ModelStates:
        """The states of these starts, which are the same in any company."""
        moved = self.moved(starts, radii, shared, seed)
        return self._state(
            [self.own[which] + d for which, d in zip(self.which, moved, strict=True)]
        )

    def targets(self, state: Sequence[Tensor]) -> Tensor:
        """[target, pos, d_model] of one state, [pos, d_model] each: a point of a plane."""
        return torch.stack([state[which] for which in self.which])

    def on_plane(self, plane: Plane, places: np.ndarray) -> ModelStates:
        """The states at places [start, 2] of a plane through `targets`."""
        return self._state(plane.at(places).unbind(1))

    @torch.no_grad()
    def passed(self, start: ModelStates, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """The target states before the first step and after each, in float16 [start, step, number],
        and whether the answer after each step is right, [start, step]. UserError where a state is
        not finite."""
        x = self.x.expand(len(start[0]), -1, -1)
        state, states, solved = start, [self._flat(start)], []
        answer = torch.from_numpy(self.answer).to(x.device)
        for _ in range(steps):
            state = self.model.advance(state, x)[0]
            tokens = self.model.readout(self.model.answer_of(state)).logits.argmax(-1)
            states.append(self._flat(state))
            solved.append(is_solved(tokens, answer.expand_as(tokens)).cpu().numpy())
        path = np.stack(states, 1)
        if not np.isfinite(path).all():
            raise UserError(self._not_finite)
        return path, np.stack(solved, 1)

    def _flat(self, state: ModelStates) -> np.ndarray:
        """The targets, [start, number]."""
        return torch.cat([state[which].flatten(1) for which in self.which], 1).half().cpu().numpy()

    @property
    def _not_finite(self) -> str:
        return (
            f"states of puzzle {self.puzzle} (from 0) are not finite: "
            f"{self.subject.checkpoint.path} cannot be run from these starts"
        )

    def keeps_states(self, n: int, ends: str) -> bool:
        """Whether the last states of `n` starts are kept, given the choice of `--ends`."""
        numbers = len(self.own) * self.own[0].numel()
        return ends == "states" or (ends == "auto" and 2 * n * numbers <= MOST_STATES)

    @cached_property
    def _axes(self) -> Tensor:
        """Random directions [number, coordinate]: the same for all puzzles and seeds."""
        numbers = len(self.own) * self.own[0].numel()
        drawn = normal(COORDINATES, AXES, torch.arange(numbers))
        return (drawn / numbers**0.5).to(self.x.device)

    def coordinates(self, end: States) -> np.ndarray:
        """Last states along random directions, float32 [start, coordinate]: of any two the RMS
        distance is about as that of the states (Johnson & Lindenstrauss, 1984)."""
        joined = torch.cat([z.flatten(1).float() for z in end], 1)
        return (joined @ self._axes).cpu().numpy()

    def follow(self, start: ModelStates, steps: int) -> Endings:
        """Run them together. UserError where a state is not finite."""
        model = self.model
        x = self.x.expand(len(start[0]), -1, -1)

        def advance(state: States) -> States:
            return model.advance(state, x)[0]

        def read(state: States) -> tuple[Tensor, Tensor]:
            readout = model.readout(model.answer_of(state))
            # cells that are not judged are pad, as in the solution: no answers of their own
            return readout.logits.argmax(-1).where(judged, PAD), readout.q_halt

        judged = torch.from_numpy(self.answer).to(x.device) != PAD
        answer = model.state_names.index(model.answer)
        endings = follow(start, advance, read, steps, answer)
        if not (np.isfinite(endings.moved).all() and all(z.isfinite().all() for z in endings.end)):
            raise UserError(self._not_finite)
        return endings
