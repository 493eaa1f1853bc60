"""HRM (arXiv 2506.21734): a fast network L and a slow network H, each of four attention blocks.

A supervision step is z_L <- L(z_L, z_H + x) `l_cycles` times and z_H <- H(z_H, z_L) once, all that
`h_cycles` times. Gradient flows through the last L and the last H evaluation only. It halts where
q_halt exceeds q_continue, and q_continue learns what halting or going on is worth one supervision
step later.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trm_interp.core.clock import Schedule, Tick
from trm_interp.core.losses import StepLosses, answer_losses
from trm_interp.core.models.base import Readout, RecursiveModel, States
from trm_interp.core.models.blocks import BlockModel
from trm_interp.core.models.hrm_config import HRMConfig
from trm_interp.runtime.shapes import Bool, Float


class HRMState(NamedTuple):
    """What an HRM carries from one supervision step to the next, [batch, pos, d_model] each."""

    z_H: Tensor
    z_L: Tensor


class HaltsOrContinues(RecursiveModel):
    """HRM's halting: a model halts where q_halt exceeds q_continue, and both are trained."""

    has_q_continue, reads_ahead = True, True

    def losses(
        self,
        readout: Readout,
        labels: Tensor,
        *,
        kind: str = "stablemax",
        smoothing: float = 0.0,
        last: Tensor | None = None,
        following: Readout | None = None,
    ) -> StepLosses:
        """HRM's: `halt` is BCE of q_halt on "solved now" plus BCE of q_continue on
        `worth_of_continuing`. ValueError without `last` and `following`."""
        if last is None or following is None:
            raise ValueError("the loss of q_continue needs the read-out one supervision step later")
        assert readout.q_continue is not None and following.q_continue is not None
        answer, solved = answer_losses(readout.logits, labels, kind, smoothing)
        worth = worth_of_continuing(following.q_halt, following.q_continue, last)
        bce = F.binary_cross_entropy_with_logits
        halt = bce(readout.q_halt.float(), solved.float(), reduction="none")
        go_on = bce(readout.q_continue.float(), worth, reduction="none")
        return StepLosses(answer, halt + go_on, solved)


class HRM(HaltsOrContinues, BlockModel):
    """A Hierarchical Reasoning Model; `net` is L and `net_H` is H."""

    architecture = "hrm"
    Config = HRMConfig
    State = HRMState
    answer, latent = "z_H", "z_L"

    config: HRMConfig

    def __init__(self, config: HRMConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)

    def operands(self, tick: Tick, state: States, x: Tensor) -> tuple[Tensor, Tensor]:
        """z_L reads z_H and the puzzle; z_H reads z_L alone."""
        if tick.writes == "z_L":
            return state.z_L, state.z_H + x
        return state.z_H, state.z_L

    @classmethod
    def carries_gradient(
        cls, config: HRMConfig, tick: Tick, schedule: Schedule, grad_cycles: int
    ) -> bool:
        """The last evaluation of each network, in each of the last `grad_cycles` H-cycles."""
        return tick.h_cycle >= schedule.h_cycles - grad_cycles and schedule.is_last_write(tick)


def worth_of_continuing(
    q_halt: Float[Tensor, " batch"],
    q_continue: Float[Tensor, " batch"],
    last: Bool[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """What q_continue learns, in [0, 1], from the logits one supervision step later.

    The probability of the better choice there; of halting, where no further step comes (`last`).
    """
    better = torch.maximum(q_halt, q_continue)
    return torch.where(last, q_halt, better).float().sigmoid().detach()
