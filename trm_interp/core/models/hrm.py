"""HRM (arXiv 2506.21734): a fast network L and a slow network H, each of four attention blocks.

A supervision step is z_L <- L(z_L, z_H + x) `l_cycles` times and z_H <- H(z_H, z_L) once, all that
`h_cycles` times. Gradient flows through the last L and the last H evaluation only. It halts where
q_halt exceeds q_continue, and q_continue learns what halting or going on is worth one supervision
step later.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from trm_interp.core.losses import StepLosses, answer_losses
from trm_interp.core.models.base import Readout, RecursiveModel
from trm_interp.core.models.blocks import TwoStateModel
from trm_interp.core.models.hrm_config import HRMConfig
from trm_interp.runtime.shapes import Bool, Float


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


class HRM(HaltsOrContinues, TwoStateModel):
    """A Hierarchical Reasoning Model; `net` is L and `net_H` is H."""

    architecture = "hrm"
    Config = HRMConfig

    config: HRMConfig


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
