"""Runs and their forks, computed when they are first asked for and kept while there is room."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.core.infer import embedded
from trm_interp.core.models.base import States
from trm_interp.explore.bases import StoredAxes, open_axes
from trm_interp.explore.edits import (
    FEATURE_MODES,
    Copied,
    Edit,
    Feature,
    Given,
    Node,
    Noise,
    Puzzle,
    with_copies,
    with_noise,
)
from trm_interp.explore.evaluating import evaluating
from trm_interp.explore.inside import Evaluations
from trm_interp.explore.reading import Puzzles
from trm_interp.explore.recent import Recent
from trm_interp.explore.runs import Axes, Reading, Run, Series, Written, axes_of, moments_of
from trm_interp.patch.view import view_of
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import in_seed_range
from trm_interp.subjects.opening import open_both, open_device, require_task
from trm_interp.tasks.base import PuzzleError, PuzzleSet, Tokens

if TYPE_CHECKING:
    from trm_interp.explore.features import Features
    from trm_interp.explore.probes import FittedProbes

MOST_BYTES = 500_000_000  # of runs that are kept
MOST_EFFECTS = 8  # patch effects of forks that are kept
MOST_CAPTURES = 8  # runs whose values inside evaluations are kept
LOUDEST = 1000.0  # noise; states have RMS 1


def open_session(
    ckpt: str | Path = "",
    puzzles: Path | str | None = None,
    steps: int = 16,
    device: str = "auto",
    limit: int | None = None,
    skip_bad: bool = False,
    tell: Callable[[str], None] = print,
    sae: Path | str | None = None,
    pages: Path | str | None = None,
    probes: Path | str | None = None,
    store: Path | str | None = None,
) -> "Session":
    """A checkpoint and puzzles, those that ship where none are named; perhaps an SAE, what
    `trm-interp features` wrote of it, what `trm-interp probes` wrote, and a store. UserError where
    they do not fit."""
    file = None if puzzles is None else Path(puzzles)
    both = open_both(ckpt, file, open_device(device), limit, skip_bad, tell)
    if sae is None and pages is not None:
        raise UserError("pages of features need the SAE that they are of: give --sae as well")
    features = None
    if sae is not None:
        from trm_interp.explore.features import open_features  # takes seconds to import

        features = open_features(sae, both[0], None if pages is None else Path(pages))
    fitted = None
    if probes is not None:
        from trm_interp.explore.probes import open_probes

        fitted = open_probes(probes, both[0])
    stored = None if store is None else open_axes(store, both[0])
    return Session(*both, steps, features=features, probes=fitted, stored=stored)


class Session(Evaluations, Puzzles):
    """One checkpoint, a file of puzzles, and the runs that were looked at.

    `most_bytes` of runs are kept; those that were not looked at for longest are dropped, and
    computed again when they are asked for. May be used from several threads.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        puzzles: PuzzleSet,
        steps: int = 16,
        most_bytes: int = MOST_BYTES,
        features: "Features | None" = None,
        probes: "FittedProbes | None" = None,
        stored: StoredAxes | None = None,
    ) -> None:
        require_task(puzzles, checkpoint)
        self.checkpoint, self.puzzles, self.steps = checkpoint, puzzles, steps
        self.model, self.task = checkpoint.model, puzzles.task
        self.most_bytes, self.features, self.probes = most_bytes, features, probes
        self.stored = stored
        self._view = view_of(self.model)
        self._spans = self._view.spans(steps)
        self.moments = moments_of(self._spans)
        self._runs: OrderedDict[Node, Run] = OrderedDict()
        self._lock = RLock()
        self.recorded, self.effects = Recent(2), Recent(MOST_EFFECTS)  # of `layers`
        self._captures = Recent(MOST_CAPTURES)

    @property
    def last(self) -> int:
        """The last moment."""
        return len(self._spans)

    @property
    def states(self) -> tuple[str, ...]:
        """States that the output head reads here: the answer state first, then the latent one."""
        return tuple(dict.fromkeys((self.model.answer, self.model.latent)))

    @property
    def ends(self) -> list[int]:
        """Moments at the ends of supervision steps."""
        steps = [m.tick.step for m in self.moments[1:] if m.tick is not None]
        return [at for at in range(1, self.last + 1) if steps[at - 1 : at] != steps[at : at + 1]]

    # Runs

    def plain(self, puzzle: Puzzle | int | str) -> Node:
        """The run of a puzzle from the model's own start; of one of the file by its place from 0,
        or of a text."""
        if isinstance(puzzle, int):
            puzzle = self.puzzle(puzzle)
        return Node(self.read(puzzle) if isinstance(puzzle, str) else puzzle)

    def check(self, edit: Edit) -> None:
        """UserError for an edit that cannot be made in this session."""
        if not 0 <= edit.at < self.last:
            raise UserError(f"a run forks at moments 0 to {self.last - 1}, not at {edit.at}")
        if isinstance(edit, Given):
            self._with_token(np.zeros(self.task.cells, np.uint8), edit.cell, edit.token)
            return
        if edit.cells is not None and not edit.cells:
            raise UserError("no cell is chosen")
        if edit.cells and not 0 <= min(edit.cells) <= max(edit.cells) < self.task.cells:
            raise UserError(f"cells are 1 to {self.task.cells}")
        if isinstance(edit, Feature):
            self._check_feature(edit)
            return
        unknown = sorted(set(edit.states) - set(self.model.state_names))
        if unknown or not edit.states:
            names = ", ".join(self.model.state_names)
            raise UserError(f"no state {', '.join(unknown) or 'is named'}: give {names}")
        if isinstance(edit, Noise):
            in_seed_range(edit.seed)
            if not 0 < edit.size <= LOUDEST:
                raise UserError(f"noise has a size above 0, at most {LOUDEST:g}, not {edit.size}")
        elif not 0 <= edit.moment <= self.last:
            raise UserError(f"moments are 0 to {self.last}, not {edit.moment}")

    def _check_feature(self, edit: Feature) -> None:
        if self.features is None:
            raise UserError("no SAE is open: start the explorer with --sae")
        if not 0 <= edit.feature < self.features.d_sae or edit.mode not in FEATURE_MODES:
            raise UserError(f"features are 0 to {self.features.d_sae - 1}, not {edit.feature}")
        if self.features.is_inside:
            self._check_inside(self.features, edit)
        if not np.isfinite(edit.value):
            raise UserError(f"the value of a feature must be a number, not {edit.value}")

    def _check_inside(self, features: "Features", edit: Feature) -> None:
        """UserError where the evaluation before a moment has no such site to be changed."""
        if not edit.at:
            raise UserError(f"{features.site} is inside evaluations: go to moment 1 or later")
        written = {tick.writes for tick in self._spans[edit.at - 1].ticks}
        if not (edit.lasts or written & set(features.within)):
            raise UserError(
                f"the evaluation before moment {edit.at} has no {features.site}: go to one that "
                f"writes {' or '.join(features.within)}"
            )

    def given(self, node: Node) -> tuple[Tokens, Tokens]:
        """The puzzle [cell] as it stands at the end of a run, and its solution.

        The solution before the change where the puzzle has none after it.
        """
        if node.parent is None:
            return node.puzzle.inputs, node.puzzle.labels
        inputs, labels = self.given(node.parent)
        if not isinstance(node.edit, Given):
            return inputs, labels
        inputs = self._with_token(inputs, node.edit.cell, node.edit.token)
        try:
            return inputs, self._solution(inputs, labels)[0]
        except PuzzleError:
            return inputs, labels

    def run(self, node: Node) -> Run:
        """A run with all that is read from it. UserError for an edit that cannot be made, and for
        states that are not finite."""
        with self._lock:
            run = self._runs.get(node)
            if run is None:
                run = self._computed(node)
                self._runs[node] = run
            self._runs.move_to_end(node)
            while len(self._runs) > 1 and self.nbytes > self.most_bytes:
                self._runs.popitem(last=False)
            return replace(run, node=node)  # with its own name

    def seen(self, most: int) -> list[Run]:
        """Plain runs that are kept, so many of the last ones looked at, by their givens."""
        with self._lock:
            plain = [run for run in self._runs.values() if run.node.parent is None][-most:]
        return sorted(plain, key=lambda run: run.node.puzzle.tokens)

    @property
    def nbytes(self) -> int:
        """Bytes of the runs that are kept."""
        return sum(run.nbytes for run in self._runs.values())

    def states_at(self, node: Node, moment: int) -> States:
        """The states [1, pos, d_model] of a run at a moment, edits of that moment included."""
        if not 0 <= moment <= self.last:
            raise UserError(f"moments are 0 to {self.last}, not {moment}")
        node = node.at(moment)
        run = self.run(node)
        first = max(at for at in run.kept if at <= moment)
        state, x = run.kept[first], self._embedded(node, run.inputs[-1])
        with self._lock, evaluating(self.model, x):
            for span in self._spans[first:moment]:
                state = self._passed(node, span, state, x)
        return state

    @torch.no_grad()
    def ends_of(
        self, node: Node, at: int, given: dict[str, Tensor], is_ended: Callable[[], bool]
    ) -> tuple[Tokens, np.ndarray] | None:
        """Where runs end that go on from a moment of a run with other states [run, pos, d_model]:
        answers [run, cell], and places [run, pc] of the answer state along the axes of the path.

        None where `is_ended` says so on the way; others may compute between evaluations.
        """
        run, node = self.run(node), node.at(at)
        x = self._embedded(node, self.run(node).inputs[-1])
        n, state = len(next(iter(given.values()))), self.states_at(node, at)
        rows = {name: z.expand(n, -1, -1) for name, z in state._asdict().items()}
        rows |= {name: z.to(x.device, x.dtype) for name, z in given.items()}
        state, x = type(state)(**rows), x.expand(n, -1, -1)
        for span in self._spans[at:]:
            if is_ended():
                return None
            with self._lock, evaluating(self.model, x):
                state = self._passed(node, span, state, x)
        z = self.model.answer_of(state)
        tokens = self.model.readout(z).logits.argmax(-1).to(torch.uint8).cpu().numpy()
        axes = run.axes[self.model.answer]
        return tokens, axes.place(z.flatten(1).float().cpu().numpy())

    def written(self, node: Node, name: str) -> Written:
        """What a state was, whenever it was written or edited, over the whole run."""
        run = self.run(node)
        own = run.written[name]
        if node.parent is None:
            return own
        before = self.written(node.parent, name)
        n = int(np.searchsorted(before.moments, own.moments[0]))
        values = torch.cat([before.values[:n], own.values])
        return Written(np.concatenate([before.moments[:n], own.moments]), values)

    def _embedded(self, node: Node, inputs: Tokens) -> Tensor:
        own = node.puzzle.identifier
        identifiers = None if own is None else torch.tensor([own])
        with torch.no_grad():
            return embedded(
                self.model, torch.from_numpy(inputs.copy())[None], identifiers=identifiers
            )

    def _edited(self, node: Node, edit: Edit, state: States) -> States:
        """The states after an edit of the states; a changed puzzle leaves them."""
        if isinstance(edit, Feature):
            return self._featured(node, edit, state)
        config = self.model.config
        if isinstance(edit, Noise):
            return with_noise(state, edit, config)
        if isinstance(edit, Copied):
            return with_copies(state, edit, self.states_at(edit.source, edit.moment), config)
        return state

    def _computed(self, node: Node) -> Run:
        inputs, labels = self.given(node)
        x = self._embedded(node, inputs)
        if node.parent is None or node.edit is None:
            first, before = 0, self.model.initial_state(x)
            state = before
        else:
            self.check(node.edit)
            first, before = node.edit.at, self.states_at(node.parent, node.edit.at)
            state = self._edited(node, node.edit, before)
        series = {name: Series(name) for name in self.states}
        for name, one in series.items():
            one.add(first, getattr(state, name), getattr(before, name))
        kept = self._pass(node, state, x, first, series)
        flat = {name: one.flat() for name, one in series.items()}
        parent = None if node.parent is None else self.run(node.parent)
        axes = {n: axes_of(f) for n, f in flat.items()} if parent is None else parent.axes
        return self._read(node, series, axes, (inputs, labels), kept, parent)

    def _pass(
        self, node: Node, state: States, x: Tensor, first: int, series: dict[str, Series]
    ) -> dict[int, States]:
        """Run to the end, adding to `series`; the states at the ends of supervision steps."""
        kept = {first: state}
        with evaluating(self.model, x):
            for moment, span in enumerate(self._spans[first:], first + 1):
                new = self._passed(node, span, state, x)
                for name in {tick.writes for tick in span.ticks} & series.keys():
                    series[name].add(moment, getattr(new, name), getattr(state, name))
                state = new
                following = self._spans[moment].ticks[0].step if moment < self.last else -1
                if following != span.ticks[-1].step:
                    kept[moment] = state
        return kept

    def _read(
        self,
        node: Node,
        series: dict[str, Series],
        axes: dict[str, Axes],
        given: tuple[Tokens, Tokens],
        kept: dict[int, States],
        parent: Run | None,
    ) -> Run:
        """What is read from the series, behind what was read from the parent before the edit."""
        readings: dict[str, Reading] = {}
        halting = None
        first = min(kept)
        for name, one in series.items():
            with torch.no_grad():
                reading, q_halt, halts = one.read(self.model, given[1], axes[name], self.last)
            halting = halting or (q_halt, halts)
            if parent is not None:
                if not one.change[0].any():  # not edited: what its last evaluation did to it
                    earlier = parent.readings[name]
                    until = one.moments[1] if len(one.moments) > 1 else self.last + 1
                    reading.change[: until - first] = earlier.change[first]
                    reading.speed[: until - first] = earlier.speed[first]
                reading = reading.after(parent.readings[name], first)
            readings[name] = reading
        assert halting is not None
        q_halt, halts = halting
        inputs, labels = (np.tile(of, (self.last + 1 - first, 1)) for of in given)
        if parent is not None:
            q_halt = np.concatenate([parent.q_halt[:first], q_halt])
            halts = np.concatenate([parent.halts[:first], halts])
            inputs = np.concatenate([parent.inputs[:first], inputs])
            labels = np.concatenate([parent.labels[:first], labels])
        written = {name: one.written() for name, one in series.items()}
        every = (inputs, labels, kept, axes, written)
        return Run(node, self.moments, readings, q_halt, halts, *every)
