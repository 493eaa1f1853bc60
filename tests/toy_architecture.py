"""An architecture that the package does not have, registered when this module is imported.

Two states with names of their own, two networks that are linear maps without blocks, another clock:
two H-cycles of fast, fast, slow, fast, slow. `slow` is the answer state and is written twice a
cycle. Inside an evaluation there is one place to listen at, `inner.hook_mixed`. Whatever works
with this model learns names, sites and the schedule from the model, not from TRM.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from trm_interp.core.clock import Schedule, Tick
from trm_interp.core.models.base import Readout, RecursiveModel
from trm_interp.core.models.config import ModelConfig
from trm_interp.core.models.layers import at_least_float32
from trm_interp.core.models.registry import register_model
from trm_interp.runtime.settings import in_range, positive, setting


@dataclass(frozen=True)
class ToyConfig(ModelConfig):
    """Few settings, none of a TRM's but those that every model has; no prefix at all."""

    architecture: ClassVar[str] = "toy"
    prefix: ClassVar[int] = 0

    cells: int = setting(16, "cells of the grid", most=65_536)
    vocab: int = setting(6, "tokens", most=256)
    d_model: int = setting(8, "width", most=16_384)
    h_cycles: int = setting(2, "H-cycles of a supervision step", most=256)
    l_cycles: int = setting(2, "writes of fast before the first of slow", most=256)
    keep: float = setting(0.5, "share of a state that an evaluation keeps", most=1.0)

    def __post_init__(self) -> None:
        in_range(ToyConfig, vars(self))
        positive(self, "cells", "vocab", "d_model", "h_cycles", "l_cycles")

    @property
    def n_weights(self) -> int:
        maps = 2 * (self.positions**2 + self.d_model**2)
        return maps + 2 * self.vocab * self.d_model + self.d_model

    def schedule_at(self, depth: tuple[int, int]) -> Schedule:
        h_cycles, l_cycles = depth
        return Schedule(h_cycles, ("fast",) * l_cycles + ("slow", "fast", "slow"))


class ToyState(NamedTuple):
    slow: Tensor
    fast: Tensor


class Points(nn.Module):
    """Where an evaluation can be listened at: one place, one level down."""

    def __init__(self, point: type[nn.Module] = nn.Identity) -> None:
        super().__init__()
        self.inner = nn.Module()
        self.inner.hook_mixed = point()


class LinearMap(nn.Module):
    """keep h + mix (h + injection) map, with `mix` over positions and `map` over channels."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.keep = config.keep
        self.mix = nn.Parameter(torch.empty(config.positions, config.positions))
        self.map = nn.Parameter(torch.empty(config.d_model, config.d_model))

    def forward(self, h: Tensor, injection: Tensor, points: Any = None) -> Tensor:
        mixed = self.mix.to(h.dtype) @ (h + injection)
        if points is not None:
            mixed = points.inner.hook_mixed(mixed)
        return self.keep * h + mixed @ self.map.to(h.dtype)


@register_model
class Toy(RecursiveModel):
    """`fast` reads the puzzle and `slow`; `slow` reads `fast`, and is what is answered."""

    architecture = "toy"
    Config = ToyConfig
    State = ToyState
    answer, latent = "slow", "fast"

    config: ToyConfig
    start: Tensor

    def __init__(self, config: ToyConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.quick, self.calm = LinearMap(config), LinearMap(config)
        self.embedding = nn.Parameter(torch.empty(config.vocab, config.d_model))
        self.head = nn.Parameter(torch.empty(config.vocab, config.d_model))
        self.halt = nn.Parameter(torch.empty(config.d_model))
        self.register_buffer("start", torch.empty(2, config.d_model))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Maps so small that a run settles: the states stay below about 3."""
        for net in (self.quick, self.calm):
            net.mix.normal_(0, 0.2 * self.config.positions**-0.5, generator=generator)
            net.map.normal_(0, self.config.d_model**-0.5, generator=generator)
        for free in (self.embedding, self.head, self.halt, self.start):
            free.normal_(generator=generator)

    def embed(
        self, tokens: Tensor, dtype: torch.dtype = torch.float32, identifiers: Tensor | None = None
    ) -> Tensor:
        return nn.functional.embedding(tokens.long(), self.embedding).to(dtype)

    def initial_state(self, x: Tensor) -> ToyState:
        return ToyState(*(start.to(x.dtype).expand_as(x) for start in self.start))

    def operands(self, tick: Tick, state: ToyState, x: Tensor) -> tuple[Tensor, Tensor]:
        if tick.writes == "fast":
            return state.fast, state.slow + x
        return state.slow, state.fast

    def networks(self) -> list[nn.Module]:
        return [self.quick, self.calm]

    @classmethod
    def carries_gradient(
        cls, config: Any, tick: Tick, schedule: Schedule, grad_cycles: int
    ) -> bool:
        """The last write of each state, as HRM has it."""
        last = schedule.h_cycles - 1, schedule.writes_per_cycle(tick.writes) - 1
        return (tick.h_cycle, schedule.write_index(tick)) == last

    def network(self, tick: Tick) -> nn.Module:
        return self.quick if tick.writes == "fast" else self.calm

    @classmethod
    def evaluation_points(
        cls, config: Any, state: str, point: type[nn.Module] = nn.Identity
    ) -> nn.Module:
        return Points(point)

    def readout(self, answer: Tensor, step: int = 0) -> Readout:
        wide = at_least_float32(answer)
        logits = wide @ self.head.T.to(wide.dtype)
        return Readout(logits, wide.mean(1) @ self.halt.to(wide.dtype))

    @property
    def logit_weight(self) -> Tensor:
        return self.head

    @classmethod
    def evaluation_flops(cls, config: ToyConfig, state: str) -> int:
        return 2 * config.positions * config.d_model * (config.positions + config.d_model)

    @classmethod
    def readout_flops(cls, config: ToyConfig) -> int:
        return 2 * config.cells * config.d_model * config.vocab
