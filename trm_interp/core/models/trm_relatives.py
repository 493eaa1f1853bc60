"""TRM's relatives: other states, another halting rule, no recursion (arXiv 2510.04871, table 1).

What else its ablations change (networks apart, one-step gradient, token mixing or attention, blocks
and cycles) is a setting of every model here and of TRM itself.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from trm_interp.core.clock import Tick
from trm_interp.core.models.base import States
from trm_interp.core.models.hrm import HaltsOrContinues
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_relatives_config import (
    ContinueConfig,
    DirectConfig,
    MultiScaleConfig,
    SingleZConfig,
)


class SingleState(NamedTuple):
    """The only state, [batch, pos, d_model]."""

    z: Tensor


class SingleZ(TRM):
    """One state: z <- f(z + x) `l_cycles` times, then z <- f(z)."""

    architecture = "trm-single-z"
    Config = SingleZConfig
    State = SingleState
    answer, latent = "z", "z"

    def operands(self, tick: Tick, state: States, x: Tensor) -> tuple[Tensor, Tensor]:
        """The state, and the puzzle at all evaluations but the last of an H-cycle."""
        return state.z, torch.zeros_like(x) if tick.ends_cycle else x


class MultiScaleState(NamedTuple):
    """The answer state and six latent ones, [batch, pos, d_model] each."""

    z_H: Tensor
    z_L1: Tensor
    z_L2: Tensor
    z_L3: Tensor
    z_L4: Tensor
    z_L5: Tensor
    z_L6: Tensor


class MultiScale(TRM):
    """Six z_L: each reads the sum of all six, z_H and the puzzle; z_H reads the sum."""

    architecture = "trm-multi-z"
    Config = MultiScaleConfig
    State = MultiScaleState
    answer, latent = "z_H", "z_L6"

    def operands(self, tick: Tick, state: States, x: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the six, and what is added to it."""
        together: Tensor = sum(state[2:], start=state[1])  # type: ignore[assignment]
        if tick.writes == "z_H":
            return state.z_H, together
        return together, state.z_H + x


class Continue(HaltsOrContinues, TRM):
    """A TRM with HRM's halting: a second logit, q_continue, and a loss that reads ahead."""

    architecture = "trm-continue"
    Config = ContinueConfig


class DirectState(NamedTuple):
    """The only state, [batch, pos, d_model]."""

    z_H: Tensor


class Direct(TRM):
    """Direct prediction: z_H <- f(z_H + x) once a supervision step, with more blocks."""

    architecture = "direct"
    Config = DirectConfig
    State = DirectState
    answer, latent = "z_H", "z_H"

    def operands(self, tick: Tick, state: States, x: Tensor) -> tuple[Tensor, Tensor]:
        """The state and the puzzle."""
        return state.z_H, x
