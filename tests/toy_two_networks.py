"""A second architecture that the package does not have, registered when this module is imported.

What the first one (`toy_architecture`) leaves at its defaults is of its own here: two halting
logits and the rule that compares them, a loss that reads one supervision step ahead and adds a
term, an embedding of its own for every puzzle, and two networks with different places to listen at.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_interp.core.clock import Schedule, Tick
from trm_interp.core.losses import StepLosses, answer_losses
from trm_interp.core.models.base import Readout, RecursiveModel
from trm_interp.core.models.config import ModelConfig
from trm_interp.core.models.layers import at_least_float32
from trm_interp.core.models.registry import register_model
from trm_interp.runtime.settings import in_range, positive, setting


@dataclass(frozen=True)
class DuoConfig(ModelConfig):
    architecture: ClassVar[str] = "duo"
    prefix: ClassVar[int] = 0

    cells: int = setting(16, "cells of the grid", most=65_536)
    vocab: int = setting(6, "tokens", most=256)
    d_model: int = setting(8, "width", most=16_384)
    h_cycles: int = setting(2, "H-cycles of a supervision step", most=256)
    l_cycles: int = setting(2, "writes of work in an H-cycle", most=256)
    n_identifiers: int = setting(0, "puzzles with an embedding of their own", most=10**6)
    size_weight: float = setting(0.0, "weight of the mean square of the answer state", most=1.0)

    def __post_init__(self) -> None:
        in_range(DuoConfig, vars(self))
        positive(self, "cells", "vocab", "d_model", "h_cycles", "l_cycles")

    @property
    def n_weights(self) -> int:
        tables = self.vocab + self.vocab + self.n_identifiers + 2  # the last: halting logits
        return 3 * self.d_model**2 + self.positions**2 + tables * self.d_model

    def schedule_at(self, depth: tuple[int, int]) -> Schedule:
        h_cycles, l_cycles = depth
        return Schedule(h_cycles, ("work",) * l_cycles + ("plan",))


class DuoState(NamedTuple):
    plan: Tensor
    work: Tensor


class Work(nn.Module):
    """tanh((mix (h + injection)) map), listened at between the two and at the end."""

    def __init__(self, config: DuoConfig) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.empty(config.positions, config.positions))
        self.map = nn.Parameter(torch.empty(config.d_model, config.d_model))

    def forward(self, h: Tensor, injection: Tensor, points: Any = None) -> Tensor:
        mixed = self.mix.to(h.dtype) @ (h + injection)
        if points is not None:
            mixed = points.inner.hook_mixed(mixed)
        out = mixed @ self.map.to(h.dtype)
        return (out if points is None else points.hook_out(out)).tanh()


class Plan(nn.Module):
    """tanh(h keep + injection take), listened at before the tanh alone."""

    def __init__(self, config: DuoConfig) -> None:
        super().__init__()
        self.keep = nn.Parameter(torch.empty(config.d_model, config.d_model))
        self.take = nn.Parameter(torch.empty(config.d_model, config.d_model))

    def forward(self, h: Tensor, injection: Tensor, points: Any = None) -> Tensor:
        out = h @ self.keep.to(h.dtype) + injection @ self.take.to(h.dtype)
        return (out if points is None else points.hook_out(out)).tanh()


@register_model
class Duo(RecursiveModel):
    """`work` reads the puzzle and `plan`; `plan` reads `work`, and is what is answered."""

    architecture = "duo"
    Config = DuoConfig
    State = DuoState
    answer, latent = "plan", "work"
    has_q_continue, reads_ahead = True, True
    identifier_table = "of_puzzle"
    further_losses = ("size",)

    config: DuoConfig
    start: Tensor

    def __init__(self, config: DuoConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.work, self.plan = Work(config), Plan(config)
        self.embedding = nn.Parameter(torch.empty(config.vocab, config.d_model))
        own = torch.empty(config.n_identifiers, config.d_model)
        self.of_puzzle = nn.Parameter(own) if config.n_identifiers else None
        self.head = nn.Parameter(torch.empty(config.vocab, config.d_model))
        self.q_head = nn.Parameter(torch.empty(2, config.d_model))
        self.register_buffer("start", torch.empty(2, config.d_model))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        scale = 0.5 * self.config.d_model**-0.5
        for free in (self.work.map, self.plan.keep, self.plan.take):
            free.normal_(0, scale, generator=generator)
        self.work.mix.normal_(0, self.config.positions**-0.5, generator=generator)
        for free in (self.embedding, self.of_puzzle, self.head, self.q_head, self.start):
            if free is not None:
                free.normal_(generator=generator)

    def embed(
        self, tokens: Tensor, dtype: torch.dtype = torch.float32, identifiers: Tensor | None = None
    ) -> Tensor:
        x = F.embedding(tokens.long(), self.embedding)
        if self.of_puzzle is not None:
            which = torch.zeros_like(tokens[:, 0].long()) if identifiers is None else identifiers
            x = x + F.embedding(which, self.of_puzzle)[:, None]
        return x.to(dtype)

    def initial_state(self, x: Tensor) -> DuoState:
        return DuoState(*(start.to(x.dtype).expand_as(x) for start in self.start))

    def operands(self, tick: Tick, state: DuoState, x: Tensor) -> tuple[Tensor, Tensor]:
        return (state.work, state.plan + x) if tick.writes == "work" else (state.plan, state.work)

    def networks(self) -> list[nn.Module]:
        return [self.work, self.plan]

    def network(self, tick: Tick) -> nn.Module:
        return self.work if tick.writes == "work" else self.plan

    @classmethod
    def evaluation_points(
        cls, config: Any, state: str, point: type[nn.Module] = nn.Identity
    ) -> nn.Module:
        points = nn.Module()
        if state == "work":
            points.inner = nn.Module()
            points.inner.hook_mixed = point()
        points.hook_out = point()
        return points

    def readout(self, answer: Tensor, step: int = 0) -> Readout:
        """With the mean square of the answer state, for the loss."""
        wide = at_least_float32(answer)
        q_halt, q_continue = (wide.mean(1) @ self.q_head.T.to(wide.dtype)).unbind(1)
        further = {"size": wide.square().mean((1, 2))}
        return Readout(wide @ self.head.T.to(wide.dtype), q_halt, q_continue, further)

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
        """HRM's (arXiv 2506.21734): halting is right where it is solved; going on is worth what the
        better of the two choices is worth one step later, at the last step what halting is."""
        assert last is not None and following is not None
        assert readout.q_continue is not None and following.q_continue is not None
        answer, solved = answer_losses(readout.logits, labels, kind, smoothing)
        later = torch.maximum(following.q_halt, following.q_continue)
        worth = torch.where(last, following.q_halt, later).sigmoid()
        bce = F.binary_cross_entropy_with_logits
        halt = bce(readout.q_halt.float(), solved.float(), reduction="none")
        go_on = bce(readout.q_continue.float(), worth.float(), reduction="none")
        further = {"size": self.config.size_weight * readout.further["size"]}
        return StepLosses(answer, halt + go_on, solved, further)

    @classmethod
    def evaluation_flops(cls, config: DuoConfig, state: str) -> int:
        """`work` mixes positions and maps channels, `plan` maps channels twice."""
        n, d = config.positions, config.d_model
        return 2 * n * d * ((n if state == "work" else d) + d)

    @classmethod
    def readout_flops(cls, config: DuoConfig) -> int:
        return 2 * config.cells * config.d_model * config.vocab
