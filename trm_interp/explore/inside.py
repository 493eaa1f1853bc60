"""Evaluations of a session's runs, and what an SAE reads or changes at a site inside of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trm_interp.core.clock import Tick
from trm_interp.core.models.base import RecursiveModel, States
from trm_interp.explore.edits import Edit, Feature, Node
from trm_interp.explore.evaluating import evaluating
from trm_interp.explore.recent import Recent
from trm_interp.explore.runs import Run, Written
from trm_interp.patch.view import NOTHING, Change, Listener, Span, View
from trm_interp.tasks.base import Tokens

if TYPE_CHECKING:
    from trm_interp.explore.features import Features

Sink = Callable[[Tensor], None]


class AtSite(Listener):
    """Changes the value of a site in evaluations that write one of some states, and tells it."""

    def __init__(
        self,
        site: str,
        states: Sequence[str],
        always: Sequence[Change],
        once: Sequence[Change] = (),
        at: Tick | None = None,
        sink: Sink | None = None,
    ) -> None:
        self.site, self.states, self.always, self.sink = site, states, always, sink
        self.once, self.at = once, at  # in this evaluation only

    def inside(self, tick: Tick) -> Mapping[str, Change]:
        if tick.writes not in self.states:
            return {}
        here = self.at is not None and self.at[:3] == tick[:3]
        changes = [*self.always, *(self.once if here else ())]

        def change(value: Tensor) -> Tensor:
            for one in changes:
                value = one(value)
            if self.sink is not None:
                self.sink(value)
            return value

        return {self.site: change}


class Evaluations:
    """How a session passes through evaluations."""

    model: RecursiveModel
    features: "Features | None"
    _view: View
    _spans: list[Span]
    _captures: Recent  # values of a site by run
    _lock: RLock
    run: Callable[[Node], Run]
    written: Callable[[Node, str], Written]
    states_at: Callable[[Node, int], States]
    _embedded: Callable[[Node, Tokens], Tensor]
    _edited: Callable[[Node, Edit, States], States]

    def _passed(
        self,
        node: Node,
        span: Span,
        state: States,
        x: Tensor,
        once: Sequence[Feature] = (),
        sink: Sink | None = None,
    ) -> States:
        """The states after a span of a run, with what lasts done to them.

        Where the SAE reads a site inside evaluations, `once` is done there as well, in the last
        evaluation of the span, and `sink` gets its values.
        """
        features = self.features
        if features is None:
            return self._view.pass_through(span, state, x)
        lasting = [e for e in _features_of(node) if e.lasts]
        if features.is_inside:
            listener = NOTHING
            if lasting or once or sink is not None:
                ticks = [tick for tick in span.ticks if tick.writes in features.within]
                always, now = (self._changes(node, of) for of in (lasting, once))
                at = ticks[-1] if ticks else None
                listener = AtSite(features.site, features.within, always, now, at, sink)
            return self._view.pass_through(span, state, x, listener)
        state = self._view.pass_through(span, state, x)
        if features.site in {tick.writes for tick in span.ticks}:
            for edit in lasting:
                state = self._featured(node, edit, state)
        return state

    def _changes(self, node: Node, edits: Sequence[Feature]) -> list[Change]:
        assert self.features is not None
        return [self.features.change(self, node, edit) for edit in edits]

    def _featured(self, node: Node, edit: Feature, state: States) -> States:
        """The states with a feature changed; those after the last evaluation, made again with the
        change, where the SAE reads a site inside of it."""
        assert self.features is not None
        if self.features.is_inside:
            return self._made_again(node, edit)
        name = self.features.site
        new = self.features.change(self, node, edit)(getattr(state, name))
        return state._replace(**{name: new})

    def _made_again(self, node: Node, edit: Feature, sink: Sink | None = None) -> States:
        """The states of the moment of an edit inside the evaluation before it. What its run was
        changed by at the same moment is done again."""
        same: list[Node] = []
        here = node.parent
        while here is not None and here.edit is not None and here.edit.at == edit.at:
            same.insert(0, here)
            here = here.parent
        assert here is not None
        before = here.at(edit.at - 1)
        state = self.states_at(before, edit.at - 1)
        x = self._embedded(before, self.run(before).inputs[-1])
        once = [one.edit for one in same if isinstance(one.edit, Feature)]
        once = [e for e in (*once, edit) if not e.lasts]
        with evaluating(self._view, x):
            state = self._passed(node, self._spans[edit.at - 1], state, x, once, sink)
        for one in same:
            if one.edit is not None and not isinstance(one.edit, Feature):
                state = self._edited(one, one.edit, state)
        return state

    def captured(self, node: Node) -> Written:
        """What the SAE's site inside evaluations was in every one that has it, over a run; moments
        are those after them."""
        start, own = self._captures.once(node, lambda: self._capture(node))
        if node.parent is None:
            return own
        before = self.captured(node.parent)
        n = int(np.searchsorted(before.moments, start))
        values = torch.cat([before.values[:n], own.values])
        return Written(np.concatenate([before.moments[:n], own.moments]), values)

    def _capture(self, node: Node) -> tuple[int, Written]:
        """The first moment that belongs to a run itself, and the site from then on."""
        run = self.run(node)
        first, moments = min(run.kept), []
        values: list[Tensor] = []

        def told(value: Tensor) -> None:
            values.append(value[0])

        start, edit = first + 1, node.edit
        state, x = run.kept[first], self._embedded(node, run.inputs[-1])
        with self._lock, evaluating(self._view, x):
            if isinstance(edit, Feature):
                start = first
                self._made_again(node, edit, told)
                moments += [first] * len(values)
            for moment, span in enumerate(self._spans[first:], first + 1):
                state = self._passed(node, span, state, x, sink=told)
                moments += [moment] * (len(values) - len(moments))
        last = [at for at, m in enumerate(moments) if moments[at + 1 : at + 2] != [m]]
        kept = [values[at] for at in last]
        stacked = torch.stack(kept) if kept else self.captured(node.root).values[:0]
        return start, Written(np.array([moments[at] for at in last], np.int64), stacked)


def _features_of(node: Node) -> Iterator[Feature]:
    """Changes of features that a run was made by, its parents' first."""
    for one in node.lineage():
        if isinstance(one.edit, Feature):
            yield one.edit
