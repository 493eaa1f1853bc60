"""The runs behind `spread`: each puzzle beside copies of itself of which one cell is changed."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trm_interp.analysis.reach import by_relation
from trm_interp.core.counter import normal
from trm_interp.core.infer import embedded
from trm_interp.core.losses import PAD
from trm_interp.core.models.base import RecursiveModel, States
from trm_interp.core.models.layers import weights_held
from trm_interp.patch.places import places
from trm_interp.patch.recorded import Keep
from trm_interp.patch.view import view_of
from trm_interp.runtime.arrays import Arrays
from trm_interp.runtime.errors import UserError
from trm_interp.studies.causal_settings import SpreadConfig
from trm_interp.studies.subject import Subject

LOGITS, GUESS = "logits", "guess"
PREFIX = "prefix"
SMALL = 0.01  # RMS of the change that is put into a mixer alone: its gain is that of small changes
Advance = Callable[[int], None]


class Changes(NamedTuple):
    """Which cells are changed: `puzzle`, `cell` [change]. `relations` bool [change, relation, pos],
    of all positions to the changed cell, by `names`."""

    puzzle: np.ndarray
    cell: np.ndarray
    relations: np.ndarray
    names: list[str]

    @property
    def unrelated(self) -> int:
        """Which relation is that of cells without another: the last, or that before the prefix."""
        return len(self.names) - 1 - (self.names[-1] == PREFIX)

    @property
    def related(self) -> np.ndarray:
        """bool [change, 1, pos]: cells with any relation to the changed one, however many."""
        return np.logical_or.reduce(self.relations[:, 1 : self.unrelated], axis=1, keepdims=True)

    def of(self, rows: slice) -> "Changes":
        return Changes(self.puzzle[rows], self.cell[rows], self.relations[rows], self.names)

    def __len__(self) -> int:
        return len(self.puzzle)


class Reached(NamedTuple):
    """Influence by relation [change, evaluation, relation], of every state at the evaluations that
    write it, and of the logits and the guess there where these write the answer: `at` by name are
    the evaluations, from 1. `related` [change, evaluation]: the same over all related cells.
    `gains` [change, relation] of every mixer alone, by its name."""

    influence: dict[str, np.ndarray]
    related: dict[str, np.ndarray]
    at: dict[str, list[int]]
    gains: dict[str, np.ndarray]


def arrays_of(reached: Reached) -> Arrays:
    """What a batch of changes reached, as arrays by name."""
    return {
        f"{field}/{name}": np.asarray(of)
        for field, by_name in reached._asdict().items()
        for name, of in by_name.items()
    }


def reached_of(arrays: Arrays) -> Reached:
    """The other way round."""
    fields: dict[str, dict[str, np.ndarray]] = {field: {} for field in Reached._fields}
    for key, of in arrays.items():
        field, _, name = key.partition("/")
        fields[field][name] = of
    at = {name: of.tolist() for name, of in fields["at"].items()}
    return Reached(fields["influence"], fields["related"], at, fields["gains"])


def choose(subject: Subject, config: SpreadConfig) -> Changes:
    """Some random cells of every puzzle: givens, or any for changes of states.

    UserError where no puzzle has a given.
    """
    task, model, inputs = subject.task, subject.model.config, subject.puzzles.inputs
    asked = np.asarray(task.asked(inputs), bool)
    may = ~asked & asked.any(1, keepdims=True) & (inputs != PAD)
    if config.kind == "state":
        may = np.ones_like(asked)
    puzzles, cells = [], []
    for puzzle, those in enumerate(may):
        rng = np.random.default_rng([config.seed, 0x5F8EAD, int(subject.puzzles.lines[puzzle])])
        drawn = rng.permutation(np.flatnonzero(those))[: config.n_cells]
        puzzles += [puzzle] * len(drawn)
        cells += drawn.tolist()
    if not cells:
        raise UserError(
            f"no puzzle of {subject.puzzles.source} has a given beside cells that are asked: "
            "try --kind state"
        )
    each = [task.related(inputs[p], c) for p, c in zip(puzzles, cells, strict=True)]
    names = list(each[0])
    own = np.stack([np.stack([of[name] for name in names]) for of in each])
    if prefix := model.prefix:
        before = np.zeros((*own.shape[:2], prefix), bool)
        own = np.concatenate([before, own], 2)
        in_front = np.arange(model.positions) < prefix
        in_front = np.broadcast_to(in_front, (len(own), 1, model.positions))
        own, names = np.concatenate([own, in_front], 1), [*names, PREFIX]
    return Changes(np.array(puzzles), np.array(cells), own, names)


def batches(changes: Changes, config: SpreadConfig) -> Iterator[Changes]:
    """Half a batch each, as every change is run beside its puzzle."""
    size = max(1, config.batch_size // 2)
    for first in range(0, len(changes), size):
        yield changes.of(slice(first, first + size))


@torch.no_grad()
def reached(subject: Subject, config: SpreadConfig, changes: Changes, advance: Advance) -> Reached:
    """Follow a batch of changes. `advance` is called with the number of steps that are done."""
    model, view, n = subject.model, view_of(subject.model), len(changes)
    plain, other = _inputs(subject, config, changes)
    x = torch.cat([plain, plain if other is None else other])
    state = model.initial_state(x)
    spans = view.spans(config.after + config.steps if other is None else config.steps)
    evaluations = model.config.schedule.evaluations
    begins = config.after * evaluations if other is None else 0
    masks = np.concatenate([changes.relations, changes.related], 1)
    influence: dict[str, list[np.ndarray]] = {}
    at: dict[str, list[int]] = {}
    gains: dict[str, np.ndarray] = {}
    with weights_held(model, x.dtype):
        for span in spans:
            if span.first == begins:
                if other is None:
                    state = _noisy(model, config, changes, state)
                gains = _gains(model, changes, state, x, span.first, config.seed)
            state = view.pass_through(span, state, x)
            done = span.first + len(span.ticks)
            if done <= begins:
                continue
            for tick in {tick.writes: tick for tick in span.ticks}.values():
                written = getattr(state, tick.writes)
                seen = {tick.writes: (written[:n] - written[n:]).float().square().mean(-1).sqrt()}
                if tick.writes == model.answer:
                    seen |= _read_out(model, written, tick.step)
                for name, moved in seen.items():
                    part = by_relation(moved.cpu().double().numpy(), masks)
                    influence.setdefault(name, []).append(part)
                    at.setdefault(name, []).append(done - begins)
            if done % evaluations == 0:
                advance((done - begins) // evaluations)
    every = {name: np.stack(of, 1) for name, of in influence.items()}
    return Reached(
        {name: of[..., :-1] for name, of in every.items()},
        {name: of[..., -1] for name, of in every.items()},
        at,
        gains,
    )


def _inputs(
    subject: Subject, config: SpreadConfig, changes: Changes
) -> tuple[Tensor, Tensor | None]:
    """The embedded puzzles, and the same without the given; None where states are changed."""
    given = subject.puzzles.tensors.at(torch.from_numpy(changes.puzzle))
    own = given.identifiers
    plain = embedded(subject.model, given.inputs, torch.float32, own)
    if config.kind == "state":
        return plain, None
    inputs = given.inputs.clone()
    asked = torch.from_numpy(np.asarray(subject.task.asked(inputs.numpy()), bool))
    blank = inputs.gather(1, asked.int().argmax(1, keepdim=True))[:, 0]  # what an asked cell holds
    inputs[torch.arange(len(inputs)), torch.from_numpy(changes.cell)] = blank
    return plain, embedded(subject.model, inputs, torch.float32, own)


def _noisy(model: RecursiveModel, config: SpreadConfig, changes: Changes, state: States) -> States:
    """The states, with noise on all states of the changed cell in the second half."""
    n = len(changes)
    at = torch.from_numpy(changes.cell) + model.config.prefix
    keys = torch.from_numpy(changes.puzzle * model.config.cells + changes.cell)
    noisy = {}
    for i, name in enumerate(model.state_names):
        z = getattr(state, name).clone()
        drawn = normal(z.shape[2], config.seed, keys, i).to(z.device, z.dtype)
        z[n + torch.arange(n), at] += config.sigma * drawn
        noisy[name] = z
    return state._replace(**noisy)


def _read_out(model: RecursiveModel, answer: Tensor, step: int) -> dict[str, Tensor]:
    """Change of the logits (RMS over tokens) and of the guess, [change, pos]; prefix positions have
    neither."""
    logits = model.readout(answer, step).logits
    before, after = logits.chunk(2)
    moved = (before - after).float().square().mean(-1).sqrt()
    guess = (before.argmax(-1) != after.argmax(-1)).float()
    none = moved.new_full((len(moved), model.config.prefix), torch.nan)
    return {LOGITS: torch.cat([none, moved], 1), GUESS: torch.cat([none, guess], 1)}


def _gains(
    model: RecursiveModel, changes: Changes, state: States, x: Tensor, first: int, seed: int
) -> dict[str, np.ndarray]:
    """Of every mixer of the evaluation that comes first: RMS change of what it gives by relation,
    for a small random change of what it reads at the changed cell, over the RMS of that."""
    n, view = len(changes), view_of(model)
    span = view.spans(first // model.config.schedule.evaluations + 1)
    span = next(one for one in span if one.first == first)
    tick, gains = span.ticks[0], {}
    mixers = model.mixers(tick)
    if not mixers:
        return gains
    wanted = [f"{tick.name}.{site}" for site in mixers]
    keep = Keep(places(model, tick.step + 1, wanted))
    view.pass_through(span, state, x, keep)
    at = torch.from_numpy(changes.cell) + model.config.prefix
    for name, (site, mixer) in zip(wanted, mixers.items(), strict=True):
        read = keep.values[name][:n]
        changed = read.clone()
        keys = torch.from_numpy(changes.puzzle * model.config.cells + changes.cell)
        drawn = normal(read.shape[2], seed, keys, len(model.state_names))
        drawn = drawn.to(read.device, read.dtype)
        drawn = SMALL * drawn / drawn.square().mean(-1, keepdim=True).sqrt()
        changed[torch.arange(n), at] += drawn
        moved = (mixer(changed) - mixer(read)).float().square().mean(-1).sqrt() / SMALL
        gains[site] = by_relation(moved.cpu().double().numpy(), changes.relations)
    return gains
