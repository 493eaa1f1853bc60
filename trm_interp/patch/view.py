"""A second handle on a model, through which evaluations are listened to and edited.

The handle shares the weights, whose networks may be compiled: only evaluations inside which a site
is listened to, and those with a gradient, run eagerly.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trm_interp.core.clock import Schedule, Tick
from trm_interp.core.models.base import RecursiveModel, States

Change = Callable[[Tensor], Tensor]  # [batch, pos, d_model], and the same back


class Span(NamedTuple):
    """Evaluations that are run in one go. `first`: number of those before it in the run."""

    first: int
    ticks: tuple[Tick, ...]


class Listener:
    """What is done at every evaluation; this one does nothing. Ticks are those of the run."""

    def read(self, tick: Tick, state: States) -> States:
        """The states that the evaluation reads."""
        return state

    def inside(self, tick: Tick) -> Mapping[str, Change]:
        """By name of a site inside the evaluation, what is done with its value."""
        return {}

    def write(self, tick: Tick, written: Tensor) -> Tensor:
        """The state that it writes."""
        return written


NOTHING = Listener()


class Spot(nn.Identity):
    """A place inside an evaluation."""

    change: Change | None = None

    def forward(self, value: Tensor) -> Tensor:  # type: ignore[override]
        return value if self.change is None else self.change(value)


class View(RecursiveModel):
    """A model that asks its `listener` at every evaluation. `view_of` makes one."""

    listener: Listener
    points: dict[str, nn.Module]  # by the state that is written
    h_cycle: int  # of the run, where the model counts from 0 again

    def operands(self, tick: Tick, state: States, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().operands(tick, self.listener.read(self._in_run(tick), state), x)

    def evaluate(self, tick: Tick, h: Tensor, injection: Tensor) -> Tensor:
        tick = self._in_run(tick)
        if changes := self.listener.inside(tick):
            points = self.points[tick.writes]
            with _changed(points, changes):
                written = self.network(tick).forward(h, injection, points)
        elif torch.is_grad_enabled():  # a backward pass would be compiled for its own sake
            written = self.network(tick).forward(h, injection)
        else:
            written = super().evaluate(tick, h, injection)
        return self.listener.write(tick, written)

    def _in_run(self, tick: Tick) -> Tick:
        return tick._replace(h_cycle=tick.h_cycle + self.h_cycle)

    def spans(self, steps: int) -> list[Span]:
        """The run of so many supervision steps: single evaluations, or H-cycles of a model that
        does something of its own between evaluations."""
        ticks, cls = self.config.schedule.ticks(steps), type(self)
        own = cls.unroll is not RecursiveModel.unroll or cls.advance is not RecursiveModel.advance
        size = len(self.config.schedule.cycle) if own else 1
        return [Span(i, tuple(ticks[i : i + size])) for i in range(0, len(ticks), size)]

    def pass_through(
        self, span: Span, state: States, x: Tensor, listener: Listener = NOTHING
    ) -> States:
        """The states after a span; the listener hears nothing of later ones."""
        first, alone = span.ticks[0], len(span.ticks) == 1
        self._set(listener=listener, h_cycle=0 if alone else first.h_cycle)
        try:
            if alone:
                written = self.evaluate(first, *self.operands(first, state, x))
                return state._replace(**{first.writes: written})
            return self.unroll(Schedule(1, self.config.schedule.cycle), state, x, first.step)[0]
        finally:
            self._set(listener=NOTHING)

    def _set(self, **own: Any) -> None:
        """Attributes of the handle, not among the modules, which are shared."""
        for name, value in own.items():
            object.__setattr__(self, name, value)


@cache
def _class_of(model: type[RecursiveModel]) -> type[View]:
    return type(f"ViewOf{model.__name__}", (View, model), {"__doc__": View.__doc__})


def view_of(model: RecursiveModel) -> View:
    """A handle on a model, which is left as it is."""
    view: Any = copy(model)  # shares parameters and modules
    view.__class__ = _class_of(type(model))
    states, of = model.config.schedule.states, type(model)
    points = {state: of.evaluation_points(model.config, state, Spot) for state in states}
    view._set(listener=NOTHING, points=points, h_cycle=0)
    return view


@contextmanager
def _changed(points: nn.Module, changes: Mapping[str, Change]) -> Iterator[None]:
    spots: dict[str, Any] = {name: points.get_submodule(name) for name in changes}
    try:
        for name, spot in spots.items():
            spot.change = changes[name]
        yield
    finally:
        for spot in spots.values():
            spot.change = None
