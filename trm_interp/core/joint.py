"""All states of a model as one vector, and the map of one H-cycle on it.

dim = states x pos x d_model, in the order of `model.State`. One H-cycle is the smallest map that is
the same at every application; a supervision step is `h_cycles` of them.
"""

import torch
from torch import Tensor

from trm_interp.core.clock import Schedule
from trm_interp.core.losses import is_solved
from trm_interp.core.models.base import RecursiveModel, States


def joined(state: States) -> Tensor:
    """[run, dim] of a state."""
    return torch.cat([z.flatten(1) for z in state], 1)


class CycleMap:
    """One H-cycle of some puzzles: states [run, dim] to states, alone or with tangents.

    `x` is the embedded input [run, pos, d_model], and sets the dtype: float64 for fixed points and
    spectra. A call is the plain model; `push` also moves k tangents, and costs about as much as
    1 + k calls.
    """

    def __init__(self, model: RecursiveModel, x: Tensor) -> None:
        self.model, self.x = model, x
        self.schedule = Schedule(1, model.config.schedule.cycle)
        self.evaluations = self.schedule.evaluations  # of the networks, a call
        self.dim = len(model.state_names) * x[0].numel()

    def rows(self, which: Tensor) -> "CycleMap":
        """The map of some of the puzzles."""
        return CycleMap(self.model, self.x[which])

    def split(self, z: Tensor) -> States:
        """The states [*more, run, pos, d_model] of [*more, run, dim]."""
        by_state = z.unflatten(-1, (len(self.model.state_names), *self.x.shape[1:]))
        return self.model.State(*by_state.unbind(-3))

    def answer(self, z: Tensor) -> Tensor:
        """The answer state [*more, run, pos, d_model]."""
        return self.model.answer_of(self.split(z))

    @torch.no_grad()
    def right(self, z: Tensor, labels: Tensor) -> Tensor:
        """bool [run]: does the decoded grid equal the labels [run, cell]?"""
        return is_solved(self.model.readout(self.answer(z)).logits.argmax(-1), labels)

    @torch.no_grad()
    def __call__(self, z: Tensor) -> Tensor:
        return joined(self.model.unroll(self.schedule, self.split(z), self.x)[0])

    @torch.no_grad()
    def push(self, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """The map and its derivative along tangents [k, run, dim].

        Equals `core.tangent.push` of a call.
        """
        state, moved = self.model.push_along(
            self.schedule, self.split(z), self.split(tangents), self.x
        )
        return joined(state), torch.cat([d.flatten(-2) for d in moved], -1)
