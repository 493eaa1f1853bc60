"""The runs behind `trace`: which cells there are, and what patching each of them does to each pair.

A cell is a site, a moment and a group of positions. Everything here is for a batch of pairs, of
which a solved and a failed run, and a second solved one, are recorded together.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trm_interp.core.losses import PAD
from trm_interp.core.models.base import RecursiveModel
from trm_interp.patch.attribution import attribute
from trm_interp.patch.pairs import Pairs, noisy_starts
from trm_interp.patch.patching import OUTCOMES, Cell, Effects, apply
from trm_interp.patch.places import last_hook, places, position_groups
from trm_interp.patch.recorded import Recorded, record
from trm_interp.patch.sources import Donor, Edit, Noise, Source
from trm_interp.recording.sites import sites_of
from trm_interp.runtime.arrays import Arrays
from trm_interp.runtime.errors import UserError
from trm_interp.search.noise import target_states
from trm_interp.studies.settings import TraceConfig
from trm_interp.studies.subject import Subject

RESCUE, RUIN = "rescue", "ruin"
DIRECTIONS = (RESCUE, RUIN)
TOGETHER, WHOLE = "all states", "all"
PAIR, AGAIN, OTHER, NOISE = "the pair's", "another solved start", "another puzzle", "noise as large"
CONTROLS = (AGAIN, OTHER, NOISE)
Advance = Callable[[int], None]  # called with the number of runs that are done


class Place(NamedTuple):
    """A cell of the heat map. `moment`: its number; `hooks`: what is patched."""

    site: str
    group: str
    moment: int
    hooks: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """All cells of a study. `done`: supervision steps that are done at each moment; `sites`: the
    states, all of them together where there are several, then sites inside evaluations."""

    steps: int
    done: list[float]
    sites: list[str]
    groups: list[str]
    cells: list[Place]

    @cached_property
    def hooks(self) -> list[str]:
        return list(dict.fromkeys(hook for cell in self.cells for hook in cell.hooks))

    @cached_property
    def whole(self) -> list[int]:
        """Cells of all positions of one site: they are measured in any case, with controls. All
        states together at all positions are the donor itself."""
        return [
            i for i, cell in enumerate(self.cells) if cell.group == WHOLE and cell.site != TOGETHER
        ]


def plan_of(subject: Subject, config: TraceConfig) -> Plan:
    """UserError for sites that the model does not have."""
    model, steps = subject.model, config.steps
    schedule, states = model.config.schedule, list(model.state_names)
    inside = inside_sites(model, config)
    several = [TOGETHER] if len(states) > 1 else []
    period = schedule.evaluations if config.every == "step" else len(schedule.cycle)
    ends = range(0, (steps - config.then) * schedule.evaluations + 1, period)
    hooks: dict[tuple[str, int], list[str]] = {}
    passed = [place for place in places(model, steps) if place.site in inside]
    for moment, end in enumerate(ends):
        for state in states:
            hooks[state, moment] = [last_hook(model, steps, state, end)]
        for site in several:
            hooks[site, moment] = [hook for state in states for hook in hooks[state, moment]]
        for site in inside:
            hooks[site, moment] = [
                p.name for p in passed if p.site == site and end - period <= p.at < end
            ]
    groups = list(_groups(subject, slice(0, 1), np.zeros((1, model.config.cells), bool)))
    cells = []
    for site in (*states, *several, *inside):
        for moment in range(len(ends) - config.window + 1):
            window = [h for m in range(moment, moment + config.window) for h in hooks[site, m]]
            if window:
                named = tuple(dict.fromkeys(window))
                cells += [
                    Place(site, group, moment, named)
                    for group in groups
                    if (site, group) != (TOGETHER, WHOLE)  # which is the donor itself
                ]
    if not cells:
        raise UserError(
            f"--window {config.window}: there are {len(ends)} moments of patching; "
            "lower it, or --then"
        )
    done = [end / schedule.evaluations for end in ends]
    return Plan(steps, done, [*states, *several, *inside], groups, cells)


def inside_sites(model: RecursiveModel, config: TraceConfig) -> list[str]:
    """The sites inside evaluations that are asked for. UserError for one that is no such site."""
    try:
        asked = [site.name for site in sites_of(model.config, config.sites, config.steps)]
    except ValueError as error:
        raise UserError(f"--sites: {error}") from None
    can = (*model.state_names, *type(model).site_names(model.config))
    if wrong := [name for name in asked if name not in can]:
        raise UserError(f"--sites {wrong[0]}: it is no state and no site inside an evaluation")
    return [name for name in asked if name not in model.state_names]


def _groups(
    subject: Subject, rows: slice | np.ndarray, wrong: np.ndarray, differ: np.ndarray | None = None
) -> dict[str, Tensor]:
    """Groups of positions; the cell is the first one that the failed run has wrong."""
    inputs = subject.puzzles.inputs[rows]
    differ = wrong if differ is None else differ
    return position_groups(
        subject.task, subject.model.config, inputs, differ, wrong.argmax(1).astype(np.int64)
    )


class Runs(NamedTuple):
    """Recorded runs of a batch of pairs. `valid`: pairs whose runs end as they did before, in a
    batch of another size; `again`, `other`: pairs that have such a control, whose donor ends as it
    did before, too. `differ` [pair, cell]: where the two answers differ. `puzzle` [pair]: places in
    the file, which name the noise."""

    failed: Recorded
    solved: Recorded
    more: Recorded
    groups: dict[str, Tensor]
    valid: np.ndarray
    again: np.ndarray
    differ: np.ndarray
    puzzle: np.ndarray

    @property
    def other(self) -> np.ndarray:
        return np.roll(self.valid, 1) & (len(self.valid) > 1)

    def of(self, direction: str) -> tuple[Recorded, Recorded]:
        """The runs that are patched, and the donors."""
        if direction == RESCUE:
            return self.failed, self.solved
        return self.solved, self.failed

    def controls(self, direction: str, seed: int) -> dict[str, tuple[Source, np.ndarray]]:
        """Sources by name, and the pairs that have them."""
        _, donor = self.of(direction)
        n = len(self.valid)
        return {
            AGAIN: (Donor(self.more), self.again),
            OTHER: (Donor(donor, torch.arange(n).roll(1)), self.other),
            NOISE: (Noise(donor, seed, torch.from_numpy(self.puzzle)), np.ones(n, bool)),
        }


def batches(pairs: Pairs, config: TraceConfig) -> Iterator[Pairs]:
    """Pairs that are recorded together: an eighth of a batch of reruns."""
    size = max(1, min(len(pairs), config.batch_size // 8))
    for first in range(0, len(pairs), size):
        yield Pairs(*(of[first : first + size] for of in pairs))


def solved_from_starts(
    subject: Subject, config: TraceConfig, rows: slice, advance: Advance
) -> np.ndarray:
    """Bool [puzzle, start]: solved after the last step. Start 0 is the model's own. Progress counts
    runs."""
    ends = []
    for start in range(config.starts):
        which = torch.full((rows.stop - rows.start,), start)
        read = subject.run(
            rows, config.steps, start=started(subject, config, subject.begin(rows)[0], which)
        )
        ends.append(read.solved[:, -1].numpy())
        advance(len(ends) * len(which))
    return np.stack(ends, 1)


def started(subject: Subject, config: TraceConfig, own: object, start: Tensor) -> object:
    """The states of these starts."""
    targets = target_states(subject.model, config.target)
    return noisy_starts(own, start, targets, config.sigma, config.shared, config.seed)


def recorded(subject: Subject, config: TraceConfig, plan: Plan, pairs: Pairs) -> Runs:
    """Runs the three starts of each pair."""
    given = subject.puzzles.tensors.at(torch.from_numpy(pairs.puzzle))

    def of(starts: np.ndarray) -> Recorded:
        x = subject.model.embed(given.inputs[:1].to(subject.device))
        own = subject.model.initial_state(x.expand(len(starts), -1, -1))
        start = started(subject, config, own, torch.from_numpy(starts))
        return record(
            subject.model,
            given.inputs,
            given.labels,
            plan.steps,
            start=start,
            hooks=plan.hooks,
            identifiers=given.identifiers,
        )

    failed, solved = of(pairs.failed), of(pairs.solved)
    more = of(np.where(pairs.again < 0, pairs.solved, pairs.again))
    ends = [run.readouts.solved[:, -1].numpy() for run in (failed, solved, more)]
    tokens = [run.readouts.tokens[:, -1].numpy() for run in (failed, solved)]
    labels = given.labels.numpy()
    wrong = (tokens[0] != labels) & (labels != PAD)
    differ = tokens[0] != tokens[1]
    groups = _groups(subject, pairs.puzzle, wrong, differ)
    valid = ~ends[0] & ends[1]
    again = (pairs.again >= 0) & ends[2]
    return Runs(failed, solved, more, groups, valid, again, differ, pairs.puzzle)


def estimates(runs: Runs, plan: Plan) -> Arrays:
    """By direction [cell, pair]: change of the loss to first order; NaN where a group is empty."""
    masks = {name: mask.numpy() for name, mask in runs.groups.items()}
    out = {}
    for direction in DIRECTIONS:
        base, donor = runs.of(direction)
        by_hook = {
            hook: of.numpy().astype(np.float64)
            for hook, of in attribute(base, donor, plan.hooks).items()
        }
        rows = []
        for cell in plan.cells:
            mask = masks[cell.group]
            total = sum((by_hook[hook] for hook in cell.hooks), np.zeros(mask.shape))
            rows.append(np.where(mask.any(1), (total * mask).sum(1), np.nan))
        out[direction] = np.stack(rows)
    return out | {"valid": runs.valid.astype(np.uint8)}


def measured(
    runs: Runs, plan: Plan, chosen: np.ndarray, config: TraceConfig, advance: Advance
) -> Arrays:
    """Outcomes of patched runs, [cell, pair, outcome] in the order of OUTCOMES.

    `rescue`, `ruin`: of the chosen cells; with a control's name behind, of the whole ones. NaN
    where there is nothing to patch. `unchanged/rescue`, `unchanged/ruin` [pair, outcome]: of the
    runs as they are. With `fate/` or `exact/` before these names [cell, pair]: what `patch.Later`
    has of them.
    """
    out, begun = {"valid": runs.valid.astype(np.uint8), "differ": runs.differ.sum(1)}, 0
    n = len(runs.valid)
    cells = [
        Cell(place.hooks, None if place.group == WHOLE else runs.groups[place.group])
        for place in (plan.cells[i] for i in chosen)
    ]
    empty = np.stack([~runs.groups[plan.cells[i].group].numpy().any(1) for i in chosen])
    whole = [Cell(plan.cells[i].hooks) for i in plan.whole]

    def patched(base: Recorded, source: Source, of: list[Cell]) -> Effects:
        nonlocal begun
        effects = apply(
            base,
            source,
            of,
            batch_size=config.batch_size,
            later=config.later,
            tolerance=config.tolerance,
            progress=lambda done, _: advance((begun + done) * n),
        )
        begun += len(of)
        return effects

    def keep_later(name: str, effects: Effects, there: np.ndarray) -> None:
        for what, of in ({} if effects.later is None else effects.later._asdict()).items():
            values = of.double().numpy()
            out[f"{what}/{name}"] = np.where(there, values, np.nan)

    for direction in DIRECTIONS:
        base, donor = runs.of(direction)
        effects = patched(base, Donor(donor), cells)
        out[direction] = np.where(empty[..., None], np.nan, _stacked(effects))
        out[f"unchanged/{direction}"] = np.stack(
            [effects.unchanged[name].double().numpy() for name in OUTCOMES], -1
        )
        keep_later(direction, effects, ~empty)
        if config.later:
            same = patched(base, Edit(lambda z: z), whole[-1:])
            keep_later(f"unchanged/{direction}", same, np.ones(n, bool))
        for name, (source, there) in runs.controls(direction, config.seed).items():
            effects = patched(base, source, whole)
            out[f"{direction}/{name}"] = np.where(there[:, None], _stacked(effects), np.nan)
            keep_later(f"{direction}/{name}", effects, there)
    return out


def _stacked(effects: Effects) -> np.ndarray:
    return np.stack([getattr(effects, name).double().numpy() for name in OUTCOMES], -1)


def reruns(plan: Plan, n_chosen: int) -> int:
    """Of every pair, in `measured`."""
    return len(DIRECTIONS) * (1 + n_chosen + len(CONTROLS) * len(plan.whole))
