"""Put values into runs, many cells together, and read what becomes of the runs.

A cell is one place of a patch. Its rerun begins with the recorded states of the evaluation at which
it is changed first, and all cells of a batch keep step: those that begin later join on the way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trm_interp.core.clock import Tick
from trm_interp.core.infer import Readouts, read_answer
from trm_interp.core.losses import PAD
from trm_interp.core.models.base import States
from trm_interp.core.models.layers import weights_held
from trm_interp.patch.later import FEWEST, TOLERANCE, Later, later_of
from trm_interp.patch.places import Place, last_hook, places
from trm_interp.patch.recorded import Recorded
from trm_interp.patch.sources import Gives, Source, source_of
from trm_interp.patch.view import Change, Listener
from trm_interp.recording.names import Names
from trm_interp.runtime.shapes import Bool, Float

OUTCOMES = ("exact", "cells", "loss", "q_halt")


@dataclass(frozen=True, eq=False)
class Cell:
    """Where a run is changed.

    `hooks`: names of hook points, one, several or a function that accepts some: `places`. At each
    of them the source's value is put, in place of what the changed run has there.
    `positions`: bool [pos] or [run, pos]; None: all. `directions` [k, d_model]: only what lies
    along them is replaced (a probe's or a feature's; they need not be orthogonal); None: all.
    `reads`: the name of a state; then only the evaluations at these hook points read the source's
    value of that state, and whatever else reads it gets the run's own: a path that is cut.
    `name`: for tables.
    """

    hooks: Names
    positions: Bool[Tensor, "*run pos"] | None = None
    directions: Float[Tensor, "k d_model"] | None = None
    reads: str | None = None
    name: str = ""
    _basis: Tensor | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        if self.directions is not None:
            rows = torch.atleast_2d(self.directions).float()
            left, size, _ = torch.linalg.svd(rows.T, full_matrices=False)
            if not (size.isfinite().all() and size.max() > 0):
                raise ValueError("directions are all zero, or not finite: nothing lies along them")
            kept = left[:, size > 1e-6 * size.max()].T  # orthonormal rows
            object.__setattr__(self, "_basis", kept)

    def along(self, change: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_model"]:
        """What of a change lies along the directions; all of it where none are given."""
        if self._basis is None:
            return change
        basis = self._basis.to(change.device)
        return change @ basis.T @ basis

    def replaced(self, now: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """`now` [row, pos, d_model] with `value` put in at the positions of a mask [row, pos]."""
        if self._basis is not None:
            value = (now.float() + self.along((value - now).float())).to(now.dtype)
        return value if mask is None else torch.where(mask[..., None], value, now)


@dataclass(frozen=True, eq=False)
class Effects:
    """What became of the runs after the last supervision step, by cell and run.

    `exact` bool, every cell right; `cells` share of the board's cells that are right; `loss`
    stablemax nats per cell; `q_halt` the halting logit: [cell, run] each. `tokens` uint8 [cell,
    run, board cell]. `unchanged`: the same four of the runs as recorded, [run].
    `later`: what they become, [cell, run], where that is asked for.
    """

    exact: Tensor
    cells: Tensor
    loss: Tensor
    q_halt: Tensor
    tokens: Tensor
    unchanged: dict[str, Tensor]
    later: Later | None = None

    def change(self, outcome: str) -> Tensor:
        """[cell, run]: an outcome less that of the run as recorded."""
        return getattr(self, outcome).float() - self.unchanged[outcome].float()


class _Change(NamedTuple):
    """One cell at one hook point."""

    cell: int
    place: Place
    hook: str  # where the source's value is from


class _Chosen(NamedTuple):
    cell: Cell
    changes: list[_Change]
    first: int  # evaluation from which it is rerun


def apply(
    base: Recorded,
    source: Gives,
    cells: Sequence[Cell],
    *,
    batch_size: int = 256,
    later: int = 0,
    tolerance: float = TOLERANCE,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Effects:
    """Rerun `base` once for every cell, with the source's values in it.

    `source`: recorded runs, one of `sources`, or a function of what is there. `batch_size`: rows
    that are run together, a row a cell and run; results depend on it by rounding alone. `later`:
    further steps after which the fate of every run is read, at least 5, by this `tolerance` (RMS);
    0: it is not. `progress` gets how many cells are done, of how many.

    ValueError for hook points that the model does not have (with the nearest names) or that the
    runs do not keep, for a donor or directions of another size, and for no cell at all.
    """
    if not cells:
        raise ValueError("no cell to patch")
    if later and later < FEWEST:
        raise ValueError(f"later must be 0 or at least {FEWEST}, got {later}")
    given = source_of(source)
    given.check(base)
    chosen = [_chosen(base, i, cell) for i, cell in enumerate(cells)]
    order = sorted(range(len(chosen)), key=lambda i: chosen[i].first)
    n = len(base)
    shares = [slice(at, min(at + batch_size, n)) for at in range(0, n, batch_size)]
    parts: dict[int, list[Readouts]] = {i: [] for i in order}
    ends: dict[int, list[Later]] = {i: [] for i in order}
    each = max(1, batch_size // min(n, batch_size))
    for first in range(0, len(order), each):
        together = order[first : first + each]
        for share in shares:
            rerun = _rerun(base, given, [chosen[i] for i in together], share)
            end = None
            if later:
                end = later_of(base, rerun.state, rerun.x, rerun.labels, later, tolerance)
            size = len(rerun.labels) // len(together)
            for at, i in enumerate(together):
                rows = slice(at * size, (at + 1) * size)
                parts[i].append(_picked(rerun.read, rows))
                if end is not None:
                    ends[i].append(Later(*(of[rows] for of in end)))
        progress(min(first + each, len(order)), len(order))
    whole = [Readouts.cat(parts[i]) for i in range(len(chosen))]
    effects = _effects(base, Readouts.cat([_picked(read, None) for read in whole]))
    return replace(effects, later=_stacked(ends, len(chosen)) if later else None)


def _stacked(ends: dict[int, list[Later]], n_cells: int) -> Later:
    """[cell, run] of parts by cell, a share of the runs each."""
    fate, exact = (
        torch.stack([torch.cat([getattr(part, name) for part in ends[i]]) for i in range(n_cells)])
        for name in Later._fields
    )
    return Later(fate, exact)


def _chosen(base: Recorded, number: int, cell: Cell) -> _Chosen:
    """Checks a cell: its hook points, and that the runs keep what it needs."""
    model, n, width = base.model, len(base), base.x.shape[2]
    if cell._basis is not None and cell._basis.shape[1] != width:
        raise ValueError(f"directions have {cell._basis.shape[1]} numbers, states have {width}")
    there = places(model, base.steps, cell.hooks)
    if cell.positions is not None:
        wanted = [base.x.shape[1]] if cell.positions.ndim == 1 else [n, base.x.shape[1]]
        if list(cell.positions.shape) != wanted or cell.positions.dtype != torch.bool:
            raise ValueError(
                f"positions are bool {wanted}, got {cell.positions.dtype} "
                f"{list(cell.positions.shape)}; `positions_of` makes them of cells"
            )
    if cell.reads is not None and cell.reads not in model.state_names:
        names = ", ".join(model.state_names)
        raise ValueError(f"reads {cell.reads!r}: no such state; there are {names}")
    changes = []
    for place in there:
        hook = place.name
        if cell.reads is not None:
            if place.tick is None or place.is_inside:
                raise ValueError(f"{place.name} is no state that an evaluation writes")
            hook = last_hook(model, base.steps, cell.reads, place.at)
        changes.append(_Change(number, place, hook))
    size = len(base.spans[0].ticks)
    first = max(there[0].at, 0) // size * size
    if first not in base.before:
        base.value(there[0].name)  # says how to keep it
        raise ValueError(f"{there[0].name} was not kept: record the run with it among the hooks")
    return _Chosen(cell, changes, first)


class _Changes(Listener):
    """Puts values in; `rows`: how many there are of each cell, in the order of joining."""

    def __init__(self, base: Recorded, source: Source, share: slice) -> None:
        self.source, self.share = source, share
        self.runs = torch.arange(len(base), device=base.x.device)[share]
        self.joined: list[_Chosen] = []
        self.reading: dict[str, list[tuple[int, _Change]]] = {}
        self.within: dict[str, dict[str, list[tuple[int, _Change]]]] = {}
        self.written: dict[str, list[tuple[int, _Change]]] = {}

    def join(self, chosen: _Chosen, state: States) -> States:
        """Its changes from now on; the states of its rows, changed where it changes the start."""
        at = len(self.joined)
        self.joined.append(chosen)
        for change in chosen.changes:
            place = change.place
            if place.tick is None:
                own = getattr(state, place.site)
                new = self._put(own, 0, [(0, change)], chosen)
                state = state._replace(**{place.site: new})
            elif chosen.cell.reads is not None:
                self.reading.setdefault(place.name, []).append((at, change))
            elif place.is_inside:
                sites = self.within.setdefault(place.tick.name, {})
                sites.setdefault(place.site, []).append((at, change))
            else:
                self.written.setdefault(place.name, []).append((at, change))
        return state

    def read(self, tick: Tick, state: States) -> States:
        for at, change in self.reading.get(tick.hook, ()):
            name = self.joined[at].cell.reads or ""
            new = self._put(getattr(state, name), at, [(at, change)])
            state = state._replace(**{name: new})
        return state

    def inside(self, tick: Tick) -> dict[str, Change]:
        sites = self.within.get(tick.name, {})
        return {
            site: lambda value, due=due: self._put(value, 0, due) for site, due in sites.items()
        }

    def write(self, tick: Tick, written: Tensor) -> Tensor:
        due = self.written.get(tick.hook)
        return self._put(written, 0, due) if due else written

    def _put(
        self,
        value: Tensor,
        first: int,
        due: Sequence[tuple[int, _Change]],
        alone: _Chosen | None = None,
    ) -> Tensor:
        """All due changes of a value [row, pos, d_model]; the rows of `alone` by themselves."""
        n, value = len(self.runs), value.clone()
        for at, change in due:
            cell = (alone or self.joined[at]).cell
            rows = slice(at * n, (at + 1) * n)
            now = value[rows]
            mask = cell.positions
            if mask is not None:
                mask = (mask if mask.ndim == 1 else mask[self.share]).to(now.device).expand(n, -1)
            new = self.source.at(change.hook, now, self.runs)
            value[rows] = cell.replaced(now, new, mask)
        return value


class _Rerun(NamedTuple):
    """The end of reruns, [row]: cells in the order in which they begin, all runs of each."""

    read: Readouts
    state: States
    x: Tensor
    labels: Tensor


@torch.no_grad()
def _rerun(base: Recorded, source: Source, chosen: Sequence[_Chosen], share: slice) -> _Rerun:
    changes, waiting = _Changes(base, source, share), list(chosen)
    x = many = base.x[share]
    state: States | None = None
    spans = [span for span in base.spans if span.first >= chosen[0].first]
    with weights_held(base.model, x.dtype):
        for span in spans:
            begun = len(changes.joined)
            while waiting and waiting[0].first == span.first:
                own = type(base.before[span.first])(*(z[share] for z in base.before[span.first]))
                own = changes.join(waiting.pop(0), own)
                state = own if state is None else _joined(state, own)
            assert state is not None
            if begun != len(changes.joined):
                many = x.repeat(len(changes.joined), 1, 1)
            state = base.view.pass_through(span, state, many, changes)
        assert state is not None
        labels = base.labels[share].repeat(len(chosen), 1)
        answer = base.model.answer_of(state)
        read = read_answer(base.model, answer, base.steps - 1, labels)
    return _Rerun(read, state, many, labels)


def _joined(state: States, more: States) -> States:
    return type(state)(*(torch.cat(both) for both in zip(state, more, strict=True)))


def _picked(read: Readouts, index: slice | None) -> Readouts:
    """Some rows, or with None a new first axis."""
    own = {name: None if of is None else of[index] for name, of in vars(read).items()}
    return Readouts(**own)  # type: ignore[arg-type]


def _outcomes_of(read: Readouts, labels: Tensor) -> dict[str, Tensor]:
    """The four outcomes of read-outs of any shape; labels broadcast against their tokens."""
    there = labels != PAD
    right = ((read.tokens == labels) & there).sum(-1) / there.sum(-1).clamp(min=1)
    return {"exact": read.solved, "cells": right, "loss": read.loss, "q_halt": read.q_halt}


def _effects(base: Recorded, read: Readouts) -> Effects:
    """`read`: [cell, run]."""
    labels = base.labels.cpu()
    before = _outcomes_of(base.readouts, labels[:, None])
    unchanged = {name: of[:, -1] for name, of in before.items()}
    after: dict[str, Any] = _outcomes_of(read, labels)
    return Effects(**after, tokens=read.tokens, unchanged=unchanged)


def grid(
    hooks: Mapping[str, Names], groups: Mapping[str, Tensor | None], **how: object
) -> list[Cell]:
    """A cell for every hook point (or window of them) and group of positions, named `hook · group`.

    >>> cells = grid({"step 1": "step.0.h.2.hook_z_H"}, {"all": None})
    >>> [cell.name for cell in cells]
    ['step 1 · all']
    """
    return [
        Cell(names, mask, name=f"{hook} · {group}", **how)  # type: ignore[arg-type]
        for hook, names in hooks.items()
        for group, mask in groups.items()
    ]
