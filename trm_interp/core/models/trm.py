"""TRM (arXiv 2510.04871): one small network, applied 336 times.

The states z_H and z_L have RMS 1 at every position, or over positions, depending on the last norm.
What its ablations change is a setting of `TRMConfig`, or a model of `trm_relatives`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from trm_interp.core.clock import Schedule, Tick
from trm_interp.core.models.base import States
from trm_interp.core.models.blocks import BlockModel
from trm_interp.core.models.trm_config import TRMConfig


class State(NamedTuple):
    """What a TRM carries from one supervision step to the next, [batch, pos, d_model] each."""

    z_H: Tensor
    z_L: Tensor


class TRM(BlockModel):
    """A Tiny Recursive Model: embedding, one network, two read-outs.

    `embed` the puzzle once, take an `initial_state`, `advance` it by supervision steps, `readout`
    whenever wanted. The compute dtype is that of `embed`'s result; weights stay float32.
    """

    architecture = "trm"
    Config = TRMConfig
    State = State
    answer, latent = "z_H", "z_L"

    config: TRMConfig
    z_H_init: Tensor  # [d_model], start vectors, never trained
    z_L_init: Tensor

    def __init__(self, config: TRMConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)

    def operands(self, tick: Tick, state: States, x: Tensor) -> tuple[Tensor, Tensor]:
        """z_L reads z_H and the puzzle; z_H reads z_L alone."""
        if tick.writes == "z_L":
            return state.z_L, state.z_H + x
        return state.z_H, state.z_L

    @classmethod
    def carries_gradient(
        cls, config: TRMConfig, tick: Tick, schedule: Schedule, grad_cycles: int
    ) -> bool:
        """All evaluations of the last H-cycles, or the last of each state in them."""
        is_late = tick.h_cycle >= schedule.h_cycles - grad_cycles
        return is_late and (schedule.is_last_write(tick) or not config.one_step_gradient)
