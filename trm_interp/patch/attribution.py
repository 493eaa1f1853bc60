"""Attribution patching along a run: what every patch would change, to first order, all at once.

Of attribution patching (Nanda 2023; Syed et al., arXiv 2310.10348) the plain variant: the gradient
of an outcome with respect to a value, times how far the donor's value lies from it. The run is
differentiated backwards, one supervision step at a time from its recorded states, so that memory
holds the graph of a single step. All hook points together cost a forward run, a backward pass and,
where the donor did not keep its values, a forward run of the donor: at most 4 forward runs.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trm_interp.core.losses import mean_over_cells, stablemax_cross_entropy
from trm_interp.core.models.base import Readout, States
from trm_interp.patch.places import Place, places, state_hooks
from trm_interp.patch.recorded import Keep, Recorded
from trm_interp.patch.sources import Donor
from trm_interp.patch.view import Change
from trm_interp.recording.names import Names

Outcome = Callable[[Readout, Tensor], Tensor]  # of a read-out and labels [run, cell]: [run]


def final_loss(readout: Readout, labels: Tensor) -> Tensor:
    """[run], stablemax nats per cell: the outcome that is differentiated by default."""
    return mean_over_cells(stablemax_cross_entropy(readout.logits, labels), labels)


class _Track(Keep):
    """Keeps values such that a gradient with respect to each counts what reads it from there on."""

    def _keeping(self, name: str) -> Change:
        keep = super()._keeping(name)
        return lambda value: keep(value.view_as(value))


def attribute(
    base: Recorded, donor: Donor | Recorded, hooks: Names = None, outcome: Outcome = final_loss
) -> dict[str, Tensor]:
    """By hook point, float32 [run, pos]: how much the outcome of `base` would change, to first
    order, if the value at that position were the donor's.

    Sums over positions and hook points are estimates for groups and windows of them. `hooks`: names
    of states or sites (`places`), by default all states at all evaluations and at the start.
    `outcome`: of the last supervision step. Far from a solution, and over many evaluations of a run
    that does not settle, first order can be far off: compare with `apply`.

    ValueError for hook points that the model does not have and for a donor of another size.
    """
    given = Donor(donor) if isinstance(donor, Recorded) else donor
    given.check(base)
    names = state_hooks(base.model, base.steps) if hooks is None else hooks
    wanted = places(base.model, base.steps, names)
    attributed: dict[str, Tensor] = {}
    upstream: Sequence[Tensor] | None = None
    runs = torch.arange(len(base), device=base.x.device)
    for step in reversed(range(base.steps)):
        here = [place for place in wanted if _step_of(place, base) == step]
        theirs = _values(given.donor, here, step)
        gradients, mine, upstream = _backward(base, here, step, upstream, outcome)
        for place in here:
            donated = given.for_runs(theirs[place.name], runs)
            away = donated.float() - mine[place.name].float()
            attributed[place.name] = (gradients[place.name].float() * away).sum(-1).cpu()
    return {place.name: attributed[place.name] for place in wanted}


def _step_of(place: Place, base: Recorded) -> int:
    return max(place.at, 0) // base.evaluations


@torch.no_grad()
def _values(donor: Recorded, here: Sequence[Place], step: int) -> dict[str, Tensor]:
    """The donor's values at these places of one step: those that it kept, or a rerun of it."""
    if all(place.name in donor.values for place in here):
        return {place.name: donor.values[place.name] for place in here}
    start, keep = donor.before[step * donor.evaluations], Keep(here)
    _through(donor, step, start, keep)
    return keep.values | _at_start(start, here)


def _at_start(start: States, here: Sequence[Place]) -> dict[str, Tensor]:
    return {place.name: getattr(start, place.site) for place in here if place.tick is None}


def _through(runs: Recorded, step: int, state: States, keep: Keep) -> States:
    """The states after a step."""
    first = step * runs.evaluations
    for span in runs.spans:
        if first <= span.first < first + runs.evaluations:
            state = runs.view.pass_through(span, state, runs.x, keep)
    return state


@torch.enable_grad()
def _backward(
    base: Recorded,
    here: Sequence[Place],
    step: int,
    upstream: Sequence[Tensor] | None,
    outcome: Outcome,
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[Tensor]]:
    """Gradients and values at these places, and the gradients with respect to the first states.

    `upstream`: gradients with respect to the states after the step; None after the last one.
    """
    states = base.before[step * base.evaluations]
    start = type(states)(*(z.detach().requires_grad_() for z in states))
    keep = _Track(here)
    end = _through(base, step, start, keep)
    values = keep.values | _at_start(start, here)
    if upstream is None:
        model = base.model
        outputs: list[Tensor] = [
            outcome(model.readout(model.answer_of(end), step), base.labels).sum()
        ]
        downstream = None
    else:
        pairs = [(z, g) for z, g in zip(end, upstream, strict=True) if z.requires_grad]
        outputs, downstream = [z for z, _ in pairs], [g for _, g in pairs]
    inputs = [*values.values(), *start]
    by_input = torch.autograd.grad(outputs, inputs, downstream, allow_unused=True)
    gradients = [
        torch.zeros_like(z) if g is None else g for z, g in zip(inputs, by_input, strict=True)
    ]
    detached = {name: value.detach() for name, value in values.items()}
    by_name = dict(zip(values, gradients, strict=False))
    return by_name, detached, gradients[len(values) :]
