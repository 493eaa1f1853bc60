"""What every recursive model is: named states, networks, a schedule; the recursion, written once.

A model reads a puzzle once (`embed`), starts from untrained states (`initial_state`), and then
evaluates its networks tick by tick: each evaluation of the schedule writes one state. Logits and
halting logits are read from one of the states (`readout`) whenever wanted; `halts` says what they
mean, and `losses` what they are trained on.

A new architecture is a subclass in a module of its own, a configuration (`config.ModelConfig`) and
a line in `registry`. Nothing outside `core.models` asks which one it has.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from trm_interp.core.clock import Schedule, Tick
from trm_interp.core.losses import StepLosses, step_losses
from trm_interp.core.models.config import ModelConfig
from trm_interp.core.tangent import push_together

States: TypeAlias = Any
"""A model's states: a NamedTuple of tensors [batch, pos, d_model], of the class `model.State`."""


class Readout(NamedTuple):
    """What is read from the answer state; at least float32. `further`: what else the architecture's
    own `losses` need, [batch, ...] by name."""

    logits: Tensor  # [batch, cell, vocab]
    q_halt: Tensor  # [batch], logit of halting: that the answer is right
    q_continue: Tensor | None = None  # [batch], logit of going on, where the model has one
    further: Mapping[str, Tensor] = MappingProxyType({})


class RecursiveModel(nn.Module, ABC):
    """A network, or several, applied again and again to a few states.

    The compute dtype is that of `embed`'s result; weights stay float32. Shapes: `batch`, `pos`
    (prefix positions, then cells), `d_model`, `vocab`.
    """

    architecture: ClassVar[str]
    """Name in the registry, as in checkpoints and stores; the same as the configuration's."""
    Config: ClassVar[type[ModelConfig]]
    State: ClassVar[Any]
    """The NamedTuple of the states; their names, in this order, are those of stores and options."""
    answer: ClassVar[str]
    """The state that the read-outs read."""
    latent: ClassVar[str]
    """The state that reasons; the answer state where there is only one."""
    has_q_continue: ClassVar[bool] = False
    """Whether `readout` gives a q_continue."""
    reads_ahead: ClassVar[bool] = False
    """Whether `losses` needs the read-out of one more supervision step (`following`)."""
    identifier_table: ClassVar[str | None] = None
    """The parameter that has a row for every puzzle identifier, where there is one."""
    further_losses: ClassVar[tuple[str, ...]] = ()
    """Names of the terms that `losses` gives besides `answer` and `halt`."""
    measures: ClassVar[tuple[str, ...]] = ()
    """Names of what `measured` gives, of which training reports the means."""
    draws_noise: ClassVar[bool] = False
    """Whether training gives `forward` and `random_start` keys that name random numbers."""
    tolerance: ClassVar[float | None] = None
    """Relative residual at which an H-cycle has reached its fixed point; None where the model
    solves for none."""

    config: Any  # an instance of Config

    # what an architecture defines

    @abstractmethod
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights and start vectors."""

    @abstractmethod
    def embed(
        self,
        tokens: Tensor,
        dtype: torch.dtype = torch.float32,
        identifiers: Tensor | None = None,
    ) -> Tensor:
        """The injected input [batch, pos, d_model] of tokens [batch, cell], in this dtype.

        `identifiers` int64 [batch] choose each puzzle's own embedding, where the configuration has
        `n_identifiers`; None is identifier 0 for all. Other models ignore them.
        """

    @abstractmethod
    def initial_state(self, x: Tensor) -> States:
        """The untrained states, in the shape and dtype of `x`; they do not depend on its values."""

    @abstractmethod
    def operands(self, tick: Tick, state: States, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the evaluation of a tick reads: (h, injection), [batch, pos, d_model] each."""

    @abstractmethod
    def networks(self) -> list[nn.Module]:
        """All networks: what is compiled, and what Muon may train."""

    @abstractmethod
    def readout(self, answer: Tensor, step: int = 0) -> Readout:
        """Logits and halting logits of the answer state [batch, pos, d_model].

        `step` only names the moment, for the recorder.
        """

    @classmethod
    @abstractmethod
    def evaluation_flops(cls, config: Any, state: str) -> int:
        """Floating-point operations of one evaluation of one puzzle; a multiply-add is two.

        `state` is the one that it writes: networks of several sizes cost differently.
        """

    @classmethod
    @abstractmethod
    def readout_flops(cls, config: Any) -> int:
        """Floating-point operations of one read-out of one puzzle."""

    # what it may define

    def halting_margin(self, readout: Readout) -> Tensor:
        """[batch] in logits, above 0 where the model halts: q_halt, as TRM has it.

        With a q_continue the lead of q_halt over it, as HRM (arXiv 2506.21734) has it.
        """
        if readout.q_continue is None:
            return readout.q_halt
        return readout.q_halt - readout.q_continue

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
        """Losses of one supervision step per puzzle, apart; TRM's where no others are defined.

        `labels` [batch, cell]. `kind` of the answer's loss and label `smoothing` are settings of
        training. `last` bool [batch]: the puzzle has no further supervision step. `following`: the
        read-out one supervision step later, from the new states and without gradient; only for
        models that say `reads_ahead`.
        """
        return step_losses(readout.logits, readout.q_halt, labels, kind, smoothing)

    def measured(self, readout: Readout) -> dict[str, Tensor]:
        """[batch] float of each of `measures`, of a read-out of `forward` after its backward pass.

        Nothing of it is a loss.
        """
        return {}

    def random_start(self, x: Tensor, keys: Tensor) -> States:
        """What training starts puzzles from: `initial_state`, unless the architecture draws starts.

        `keys` int64 [batch] name the random numbers of each puzzle; x as in `initial_state`.
        """
        return self.initial_state(x)

    def network(self, tick: Tick) -> nn.Module:
        """The network that evaluates this tick; called with (h, injection, points=None)."""
        return self.networks()[0]

    def mixers(self, tick: Tick) -> dict[str, nn.Module]:
        """What carries numbers from one position to another in the evaluation of a tick, where it
        stands alone: called with [batch, pos, d_model], and named by the site that it reads."""
        return {}

    @classmethod
    def carries_gradient(
        cls, config: Any, tick: Tick, schedule: Schedule, grad_cycles: int
    ) -> bool:
        """Whether this evaluation is differentiated when the last `grad_cycles` H-cycles are."""
        return tick.h_cycle >= schedule.h_cycles - grad_cycles

    @classmethod
    def evaluation_points(
        cls, config: Any, state: str, point: type[nn.Module] = nn.Identity
    ) -> nn.Module:
        """A module with a `point()` at every place that can be listened at inside an evaluation.

        `state` is the one that the evaluation writes: networks of different blocks have different
        places. The module is what `network.forward` takes as `points`; the names of its modules
        are the names of the sites. By default an evaluation has no such places.
        """
        return nn.Module()

    @property
    def logit_weight(self) -> Tensor | None:
        """[vocab, d_model], where logits are a linear map of the answer state; else None."""
        return None

    @property
    def halting_is_trained(self) -> bool:
        """False where every state has the same halting logit, which then says nothing."""
        return True

    @classmethod
    def tensors_kept(cls, config: Any) -> int:
        """Tensors as large as a state that an evaluation keeps for its backward pass, at least."""
        return 1

    # written once

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @classmethod
    def site_names(cls, config: Any, state: str | None = None) -> list[str]:
        """Names of the places inside an evaluation, in the order in which they are passed.

        Of those that write this state; None: of all, in the order of the schedule.
        """
        if state is None:
            states = config.schedule.states
            return list(dict.fromkeys(name for of in states for name in cls.site_names(config, of)))
        points = cls.evaluation_points(config, state, nn.Identity)
        return [name for name, module in points.named_modules() if isinstance(module, nn.Identity)]

    @property
    def state_names(self) -> tuple[str, ...]:
        return self.State._fields

    def answer_of(self, state: States) -> Tensor:
        """The state that the read-outs read."""
        return getattr(state, self.answer)

    def halts(self, readout: Readout) -> Tensor:
        """bool [batch]: whether the model would stop here. Training obeys it, evaluation records
        it."""
        return self.halting_margin(readout) > 0

    def evaluate(self, tick: Tick, h: Tensor, injection: Tensor) -> Tensor:
        """One network evaluation. The recorder overrides this to listen at `tick`."""
        return self.network(tick)(h, injection)

    def advance(
        self,
        state: States,
        x: Tensor,
        step: int = 0,
        grad_cycles: int | None = None,
        depth: tuple[int, int] | None = None,
    ) -> tuple[States, list[Tensor]]:
        """One supervision step: the new state, and the answer state after each of its H-cycles.

        `step` only names the ticks. `grad_cycles` is how many of the last H-cycles may carry
        gradient: None all, 1 in training. `depth` is (H_cycles, L_cycles) where they are not the
        model's own. Nothing is detached here.
        """
        schedule = self.config.schedule if depth is None else self.config.schedule_at(depth)
        return self.unroll(schedule, state, x, step, grad_cycles)

    def unroll(
        self,
        schedule: Schedule,
        state: States,
        x: Tensor,
        step: int = 0,
        grad_cycles: int | None = None,
    ) -> tuple[States, list[Tensor]]:
        """`advance` along any schedule."""
        per_cycle: list[Tensor] = []
        enabled = torch.is_grad_enabled()
        for tick in schedule.ticks():
            tick = tick._replace(step=step)
            carries = grad_cycles is None or self.carries_gradient(
                self.config, tick, schedule, grad_cycles
            )
            with torch.set_grad_enabled(enabled and carries):
                written = self.evaluate(tick, *self.operands(tick, state, x))
            state = state._replace(**{tick.writes: written})
            if tick.ends_cycle:
                per_cycle.append(self.answer_of(state))
        return state, per_cycle

    def advance_measured(
        self, state: States, x: Tensor, step: int = 0
    ) -> tuple[States, list[Tensor], list[Tensor] | None]:
        """`advance`, and how far each H-cycle has remained from its fixed point.

        Relative residuals [batch], an H-cycle each; None where the model has no `tolerance`.
        """
        return *self.advance(state, x, step), None

    def push(self, tick: Tick, state: States, tangents: States, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the tick writes, and its derivative along k tangents [k, batch, pos, d_model].

        In forward mode; an architecture may write its own out where that is faster.
        """

        def written(*states: Tensor) -> Tensor:
            return self.evaluate(tick, *self.operands(tick, self.State(*states), x))

        return push_together(written, state, tangents)

    def push_along(
        self, schedule: Schedule, state: States, tangents: States, x: Tensor
    ) -> tuple[States, States]:
        """`unroll`, and its derivative along k tangents of the states, [k, batch, pos, d_model]."""
        for tick in schedule.ticks():
            written, image = self.push(tick, state, tangents, x)
            state = state._replace(**{tick.writes: written})
            tangents = tangents._replace(**{tick.writes: image})
        return state, tangents

    def forward(
        self,
        state: States,
        tokens: Tensor,
        dtype: torch.dtype = torch.float32,
        depth: tuple[int, int] | None = None,
        identifiers: Tensor | None = None,
        keys: Tensor | None = None,
    ) -> tuple[States, Readout]:
        """One supervision step as trained, gradient through the last H-cycle only.

        The new state and what is read from it. `keys` int64 [batch] name random numbers, where the
        model `draws_noise`; others ignore them.
        """
        x = self.embed(tokens, dtype, identifiers)
        state, _ = self.advance(state, x, grad_cycles=1, depth=depth)
        return state, self.readout(self.answer_of(state))

    @classmethod
    def evaluations_with_gradient(
        cls, config: Any, schedule: Schedule | None = None, grad_cycles: int = 1
    ) -> int:
        """How many evaluations of a supervision step the gradient rule lets through.

        `schedule`: where it is not that of the configuration.
        """
        along = config.schedule if schedule is None else schedule
        return sum(cls.carries_gradient(config, t, along, grad_cycles) for t in along.ticks())

    @classmethod
    def further_backward_flops(cls, config: Any, schedule: Schedule) -> int:
        """Operations of a backward pass besides twice the forward of what carries gradient."""
        return 0

    @classmethod
    def schedule_flops(cls, config: Any, schedule: Schedule, grad_cycles: int | None = None) -> int:
        """Floating-point operations of the evaluations of a schedule, each of its own network.

        `grad_cycles`: only of those that carry gradient when the last so many H-cycles do.
        """
        return sum(
            cls.evaluation_flops(config, tick.writes)
            for tick in schedule.ticks()
            if grad_cycles is None or cls.carries_gradient(config, tick, schedule, grad_cycles)
        )

    @classmethod
    def step_flops(
        cls, config: Any, training: bool = False, depth: tuple[int, int] | None = None
    ) -> int:
        """Floating-point operations of one supervision step of one puzzle, read-outs included.

        With `training` also of the backward pass, which costs twice the forward of what carries
        gradient, and of the supervision step ahead where the losses need one (`reads_ahead`).
        """
        schedule = config.schedule if depth is None else config.schedule_at(depth)
        forward = cls.schedule_flops(config, schedule) + cls.readout_flops(config)
        if not training:
            return forward
        with_gradient = cls.schedule_flops(config, schedule, grad_cycles=1)
        backward = 2 * (with_gradient + cls.readout_flops(config))
        ahead = forward if cls.reads_ahead else 0
        return forward + backward + cls.further_backward_flops(config, schedule) + ahead
