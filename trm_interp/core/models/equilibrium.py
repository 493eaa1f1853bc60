"""Equilibrium models: a TRM whose L loop is solved to a fixed point, z_L = f(z_L, z_H + x).

Attractor models (arXiv 2605.12466) and equilibrium reasoners (arXiv 2605.21488) in TRM's frame: an
H-cycle solves for z_L, from the z_L that is there, with `l_cycles` evaluations at most, and then
writes z_H once. Every evaluation is a tick as any other. What it writes, and what a recorder hears,
is what the network gave, f(z); where it is evaluated next is the solver's choice. A puzzle that has
converged is evaluated at the same point from then on, so that the number of ticks is fixed and no
puzzle depends on those beside it.
"""

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from trm_interp.core.clock import Schedule, Tick
from trm_interp.core.counter import normal
from trm_interp.core.equilibrium import (
    FixedPointSearch,
    HowToSolve,
    jacobian_penalty,
    with_implicit_gradient,
    with_phantom_gradient,
)
from trm_interp.core.losses import StepLosses
from trm_interp.core.models.base import Readout, States
from trm_interp.core.models.equilibrium_config import EquilibriumConfig
from trm_interp.core.models.trm import TRM
from trm_interp.core.tangent import push_together

START, NOISE, PENALTY = range(3)  # purposes of a random number


class _Step:
    """What a supervision step comes to besides its states, H-cycle by H-cycle.

    `keys` int64 [batch] name the random numbers of each puzzle; None: no noise.
    """

    def __init__(self, keys: Tensor | None) -> None:
        self.keys = keys
        self.per_cycle: list[Tensor] = []  # answer states
        self.residuals: list[Tensor] = []  # [batch] each, of z_L
        self.backward: list[Tensor] = []  # residuals of implicit gradients, once they are known
        self.penalties: list[Tensor] = []  # [batch] each


class Equilibrium(TRM):
    """A TRM with equilibria in the place of its L loops."""

    architecture = "equilibrium"
    Config = EquilibriumConfig

    config: EquilibriumConfig  # type: ignore[assignment]

    @property
    def tolerance(self) -> float:
        return self.config.tolerance

    @property
    def draws_noise(self) -> bool:
        return self.config.random_starts or self.config.noise > 0 or self.config.jacobian_weight > 0

    @property
    def further_losses(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("jacobian",) if self.config.jacobian_weight else ()

    @property
    def measures(self) -> tuple[str, ...]:  # type: ignore[override]
        backward = ("backward_converged",) if self.config.gradient == "implicit" else ()
        return ("residual", "converged", *backward)

    @property
    def how(self) -> HowToSolve:
        """How z_L is solved for."""
        config = self.config
        return HowToSolve(config.solver, config.memory, config.damping, config.tolerance)

    # starts

    def initial_state(self, x: Tensor) -> States:
        """TRM's, or with `random_starts` the normal draw 0, the same for every puzzle."""
        if not self.config.random_starts:
            return super().initial_state(x)
        return self.random_start(x[:1], torch.zeros(1, dtype=torch.int64, device=x.device), len(x))

    def random_start(self, x: Tensor, keys: Tensor, n: int | None = None) -> States:
        """Normal states, named by keys int64 [batch], where the model has `random_starts`."""
        if not self.config.random_starts:
            return super().initial_state(x)
        drawn = (_noise(x, keys, START, i) for i in range(len(self.state_names)))
        return self.State(*(z if n is None else z.expand(n, -1, -1) for z in drawn))

    # the recursion

    @classmethod
    def carries_gradient(
        cls, config: EquilibriumConfig, tick: Tick, schedule: Schedule, grad_cycles: int
    ) -> bool:
        """The last evaluation of z_H, and those at the end of a solve that the gradient needs."""
        late = tick.h_cycle >= schedule.h_cycles - grad_cycles
        last = config.with_gradient if tick.writes == cls.latent else 1
        return late and config.writes_left(schedule, tick) <= last

    def unroll(
        self,
        schedule: Schedule,
        state: States,
        x: Tensor,
        step: int = 0,
        grad_cycles: int | None = None,
    ) -> tuple[States, list[Tensor]]:
        """H-cycles of a solve for z_L and a write of z_H.

        With `grad_cycles` None every evaluation and the solver between them are differentiated;
        else what `carries_gradient` says, by the gradient rule of the settings.
        """
        of = _Step(None)
        return self._unroll(schedule, state, x, step, grad_cycles, of), of.per_cycle

    def advance_measured(
        self, state: States, x: Tensor, step: int = 0
    ) -> tuple[States, list[Tensor], list[Tensor]]:
        of = _Step(None)
        state = self._unroll(self.config.schedule, state, x, step, None, of)
        return state, of.per_cycle, of.residuals

    def _unroll(
        self,
        schedule: Schedule,
        state: States,
        x: Tensor,
        step: int,
        grad_cycles: int | None,
        of: _Step,
    ) -> States:
        enabled = torch.is_grad_enabled()
        search: FixedPointSearch | None = None
        for tick in schedule.ticks():
            tick = tick._replace(step=step)
            carries = grad_cycles is None or self.carries_gradient(
                self.config, tick, schedule, grad_cycles
            )
            with torch.set_grad_enabled(enabled and carries):
                if tick.writes == self.latent:
                    search = search or FixedPointSearch(state.z_L, self.how)
                    by_rule = enabled and carries and grad_cycles is not None
                    written = self._solve_on(search, schedule, tick, state, x, by_rule, of)
                else:
                    written = self.evaluate(tick, *self.operands(tick, state, x))
            state = state._replace(**{tick.writes: written})
            if tick.ends_cycle:
                of.per_cycle.append(self.answer_of(state))
                of.residuals.append(
                    x.new_full((len(x),), torch.nan) if search is None else search.residual
                )
                search = None
        return state

    def _solve_on(
        self,
        search: FixedPointSearch,
        schedule: Schedule,
        tick: Tick,
        state: States,
        x: Tensor,
        by_rule: bool,
        of: _Step,
    ) -> Tensor:
        """One evaluation of a solve. `by_rule`: its gradient is that of the settings."""
        config, left = self.config, self.config.writes_left(schedule, tick)
        point, is_last = search.point, left == 1
        if by_rule and (config.gradient != "unrolled" or not point.requires_grad):
            point = point.detach().requires_grad_()
        penalised = by_rule and is_last and config.jacobian_weight > 0
        h, injection = self.operands(tick, state._replace(z_L=point), x)
        if by_rule and (penalised or config.gradient != "unrolled"):
            written = self._evaluate_for_products(tick, h, injection, penalised)
        else:
            written = self.evaluate(tick, h, injection)
        noise = None
        if of.keys is not None and config.noise and not is_last:
            noise = config.noise * _noise(x, of.keys, NOISE, tick.h_cycle, tick.l_cycle)
        search.tell(written, noise, reapply=left <= config.with_gradient)
        if penalised:
            keys = x.new_zeros(len(x), dtype=torch.int64) if of.keys is None else of.keys
            probe = _noise(x, keys, PENALTY, tick.h_cycle)
            of.penalties.append(jacobian_penalty(written, point, probe))
        if by_rule and config.gradient == "implicit":
            of.backward.append(torch.full((len(x),), torch.nan, device=x.device))
            how = self.how._replace(damping=1.0)
            return with_implicit_gradient(
                written, point, how, config.backward_cycles, of.backward[-1]
            )
        if by_rule and config.gradient == "phantom":
            return with_phantom_gradient(written, point)
        return written

    def _evaluate_for_products(
        self, tick: Tick, h: Tensor, injection: Tensor, twice: bool
    ) -> Tensor:
        """`evaluate` such that products with J^T can be had again and again, with `twice` also
        their derivatives: not by compiled code, nor by attention that has no second derivative."""
        network = self.network(tick)
        compiled = network._compiled_call_impl is not None
        with sdpa_kernel(SDPBackend.MATH) if twice else nullcontext():
            if compiled:
                return network.forward(h, injection)
            return self.evaluate(tick, h, injection)

    def push_along(
        self, schedule: Schedule, state: States, tangents: States, x: Tensor
    ) -> tuple[States, States]:
        """As `RecursiveModel.push_along`, through what the solver does between evaluations."""

        def advanced(*states: Tensor) -> Tensor:
            return torch.stack(list(self.unroll(schedule, self.State(*states), x)[0]))

        image, moved = push_together(advanced, state, tangents)
        return self.State(*image), self.State(*moved.unbind(1))

    # training

    def forward(
        self,
        state: States,
        tokens: Tensor,
        dtype: torch.dtype = torch.float32,
        depth: tuple[int, int] | None = None,
        identifiers: Tensor | None = None,
        keys: Tensor | None = None,
    ) -> tuple[States, Readout]:
        """One supervision step as trained, with `measures` and the penalty in `Readout.further`.

        The gradient goes through the last H-cycle only. `keys` name the noise of each puzzle.
        `backward_converged` is filled by the backward pass.
        """
        config, of = self.config, _Step(keys)
        schedule = config.schedule if depth is None else config.schedule_at(depth)
        x = self.embed(tokens, dtype, identifiers)
        state = self._unroll(schedule, state, x, 0, 1, of)
        residual = torch.stack(of.residuals, 1).amax(1)
        further = {"residual": residual, "converged": (residual <= config.tolerance).float()}
        if config.gradient == "implicit":
            none = torch.full_like(residual, torch.nan)
            further["backward_residual"] = of.backward[-1] if of.backward else none
        if config.jacobian_weight:
            none = torch.zeros_like(residual)
            further["jacobian"] = of.penalties[-1] if of.penalties else none
        return state, self.readout(self.answer_of(state))._replace(further=further)

    def measured(self, readout: Readout) -> dict[str, Tensor]:
        values = dict(readout.further)
        if "backward_residual" in values:
            values["backward_converged"] = values["backward_residual"] <= self.config.tolerance
        return {name: values[name].float() for name in self.measures}

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
        """TRM's, and with a `jacobian_weight` the penalty on J, weighted."""
        losses = super().losses(readout, labels, kind=kind, smoothing=smoothing)
        if not self.config.jacobian_weight:
            return losses
        penalty = self.config.jacobian_weight * readout.further["jacobian"]
        return losses._replace(further={"jacobian": penalty})

    @classmethod
    def further_backward_flops(cls, config: EquilibriumConfig, schedule: Schedule) -> int:
        """Products with J^T, each as dear as an evaluation; the penalty's product, with the
        backward pass of it, as three."""
        if not schedule.writes_per_cycle(cls.latent):
            return 0
        products = {"implicit": config.backward_cycles, "phantom": 1, "unrolled": 0}
        n = products[config.gradient] + (3 if config.jacobian_weight else 0)
        return n * cls.evaluation_flops(config, cls.latent)


def _noise(x: Tensor, keys: Tensor, *purpose: int) -> Tensor:
    """Standard normal numbers [key, pos, d_model] in the dtype of x [batch, pos, d_model]."""
    return normal(x[0].numel(), keys, *purpose).view(len(keys), *x.shape[1:]).to(x.dtype)
