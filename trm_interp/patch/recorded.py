"""Runs that patches are taken from and put into: their states, kept where they are wanted."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trm_interp.core.clock import Tick
from trm_interp.core.infer import Readouts, embedded, read_answer, require_tokens
from trm_interp.core.models.base import RecursiveModel, States
from trm_interp.core.models.layers import weights_held
from trm_interp.patch.places import Place, places, state_hooks
from trm_interp.patch.view import Change, Listener, Span, View, view_of
from trm_interp.recording.names import Names


@dataclass(frozen=True, eq=False)
class Recorded:
    """Runs of some puzzles. `x`: the embedded input [run, pos, d_model]; `labels` [run, cell].

    `before`: the states before some evaluations, by their number in the run. `values`: by name of
    the hook point, [run, pos, d_model]. `readouts`: after every supervision step.
    """

    model: RecursiveModel
    x: Tensor
    labels: Tensor
    steps: int
    before: dict[int, States]
    values: dict[str, Tensor]
    readouts: Readouts
    view: View = field(repr=False)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def evaluations(self) -> int:
        """Of a supervision step."""
        return self.model.config.schedule.evaluations

    @property
    def spans(self) -> list[Span]:
        return self.view.spans(self.steps)

    def value(self, hook: str) -> Tensor:
        """What was at a hook point, [run, pos, d_model]. ValueError where it was not kept."""
        if hook not in self.values:
            (place,) = places(self.model, self.steps, hook)  # an error for a name that is not there
            raise ValueError(
                f"{place.name} was not kept: record the run with hooks=[{hook!r}, ...] "
                "(by default the states are, sites inside evaluations are not)"
            )
        return self.values[hook]


class Keep(Listener):
    """Keeps what passes at some places; the tensors are not copied."""

    def __init__(self, wanted: Sequence[Place]) -> None:
        self.values: dict[str, Tensor] = {}
        self._written = {place.name for place in wanted if not place.is_inside}
        self._inside: dict[str, list[str]] = {}
        for place in wanted:
            if place.is_inside and place.tick:
                self._inside.setdefault(place.tick.name, []).append(place.site)

    def inside(self, tick: Tick) -> dict[str, Change]:
        return {
            site: self._keeping(f"{tick.name}.{site}") for site in self._inside.get(tick.name, ())
        }

    def write(self, tick: Tick, written: Tensor) -> Tensor:
        return self._keeping(tick.hook)(written) if tick.hook in self._written else written

    def _keeping(self, name: str) -> Change:
        def keep(value: Tensor) -> Tensor:
            self.values[name] = value
            return value

        return keep


@torch.no_grad()
def record(
    model: RecursiveModel,
    inputs: Tensor,
    labels: Tensor,
    steps: int = 16,
    *,
    start: States | None = None,
    hooks: Names = None,
    identifiers: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Recorded:
    """Run some puzzles together and keep what patches need.

    `inputs`, `labels`: tokens [run, cell]. `start`: states to begin with, default the model's own;
    one that differs gives other runs of the same puzzles. `hooks`: what is kept, by the names of
    `places`; a patch can only be put at these, and taken from these. None: all states at all
    evaluations, which is 4 x positions x d_model bytes a run and evaluation (67 MB a run of 336
    with 97 positions of 512). `identifiers`: as in `RecursiveModel.embed`.

    ValueError for tokens that the model does not read, a start of another shape, an unknown hook.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    for tokens in (inputs, labels):
        require_tokens(model.config, tokens)
    names = state_hooks(model, steps) if hooks is None else hooks
    wanted, view = places(model, steps, names), view_of(model)
    labels = labels.to(model.device)
    x = embedded(model, inputs, dtype, identifiers)
    state = model.initial_state(x) if start is None else _checked(start, x)
    spans, per_step = view.spans(steps), model.config.schedule.evaluations
    restarts = _restarts(wanted, spans) | set(range(0, steps * per_step, per_step))
    listener, rows = Keep(wanted), []
    before: dict[int, States] = {}
    for place in wanted:
        if place.tick is None:
            listener.values[place.name] = getattr(state, place.site)
    with weights_held(model, dtype):
        for span in spans:
            if span.first in restarts:
                before[span.first] = state
            state = view.pass_through(span, state, x, listener)
            done = span.first + len(span.ticks)
            if done % per_step == 0:
                rows.append(
                    read_answer(model, model.answer_of(state), done // per_step - 1, labels)
                )
    readouts = Readouts.stack(rows)
    return Recorded(model, x, labels, steps, before, listener.values, readouts, view)


def _restarts(wanted: Sequence[Place], spans: Sequence[Span]) -> set[int]:
    """Evaluations before which a rerun begins that is changed at one of these places."""
    size = len(spans[0].ticks)
    return {max(place.at, 0) // size * size for place in wanted}


def _checked(start: States, x: Tensor) -> States:
    shapes = [list(z.shape) for z in start]
    if any(z.shape != x.shape for z in start):
        raise ValueError(f"a start has states of shape {list(x.shape)}, got {shapes}")
    return type(start)(*(z.to(x.device, x.dtype) for z in start))
