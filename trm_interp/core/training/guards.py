"""What stops a run with one line: numbers that are not finite, too little memory."""

from pathlib import Path

import torch
from torch import Tensor, nn

from trm_interp.runtime.errors import UserError


class FirstBad:
    """Remembers, on the device, the first step whose loss or gradient is not finite.

    `noted`: int64 [3], the step, counted from 1, the index of the parameter whose gradient is not
    finite, among those that have one (-1: none), and whether the loss is; the step is -1 as long as
    all is well.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model = model
        self.noted = torch.full((3,), -1, device=device)

    def note(self, step: Tensor, norms: Tensor, losses: Tensor) -> None:
        """After a backward pass: the norm of every gradient that there is, the losses of every
        slot."""
        finite, loss_finite = norms.isfinite(), losses.isfinite().all()
        tensor = torch.where(finite.all(), -1, finite.int().argmin())
        now = torch.stack([step, tensor, loss_finite.long()])
        is_first = (self.noted[0] < 0) & ~(finite.all() & loss_finite)
        self.noted.copy_(torch.where(is_first, now, self.noted))

    def check(self, out: Path) -> None:
        """UserError where loss or gradient have not been finite. Waits for the device."""
        step, which, loss_was_finite = self.noted.tolist()
        if step >= 0:
            named = self.model.named_parameters()
            names = [name for name, parameter in named if parameter.grad is not None]
            what = [] if loss_was_finite else ["the loss"]
            what += [f"the gradient of {names[which]}"] if which >= 0 else []
            raise UserError(
                f"{out}: {' and '.join(what)} not finite at step {step}; the last saved state is "
                "untouched: start again with a lower --lr or with --clip"
            )


def no_memory(device: torch.device, slots: int, parts: int) -> str:
    """The problem in words: `slots` puzzles in `parts` micro-batches were too many."""
    return f"{device} has no memory for {-(-slots // parts)} puzzles at once"
