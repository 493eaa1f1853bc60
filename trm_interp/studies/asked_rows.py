"""Asked cells of recorded runs, for probes: their states at some moments, and labels."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trm_interp.patch.places import last_hook
from trm_interp.patch.recorded import Recorded, record
from trm_interp.studies.causal_settings import UsedConfig
from trm_interp.studies.probes import facts_of
from trm_interp.studies.subject import Subject

CANDIDATES, FACTS, SOLUTION, VIOLATIONS = "candidates", "facts", "solution", "violations"
RIGHT = "answered right"
KINDS = (CANDIDATES, FACTS, SOLUTION, VIOLATIONS, RIGHT)  # of labels


class Moment(NamedTuple):
    """A state after some supervision steps; `hooks`: where it is changed, there first."""

    done: int
    site: str
    hooks: tuple[str, ...]


class Rows(NamedTuple):
    """Asked cells of some puzzles at one moment. `kinds`: columns of labels by name of the kind."""

    puzzle: np.ndarray  # [row]
    states: np.ndarray  # float32 [row, d_model]
    labels: np.ndarray  # bool [row, label]
    names: list[str]
    kinds: dict[str, list[int]]


def moments_of(subject: Subject, config: UsedConfig) -> list[Moment]:
    """Every state at every moment."""
    model, per_step = subject.model, subject.model.config.schedule.evaluations

    def hook(state: str, done: int) -> str:
        return last_hook(model, config.steps, state, done * per_step)

    moments = []
    for done in config.steps_done:
        last = config.steps if config.lasting else done + 1
        for state in model.state_names:
            hooks = [hook(state, later) for later in range(done, last)]
            moments.append(Moment(done, state, tuple(dict.fromkeys(hooks))))
    return moments


class Batch(NamedTuple):
    """Recorded runs of some puzzles, by their places among all."""

    puzzles: np.ndarray
    runs: Recorded
    asked: np.ndarray  # bool [run, cell]

    @property
    def positions(self) -> Tensor:
        """The asked cells, bool [run, pos]."""
        prefix = self.runs.model.config.prefix
        none = np.zeros((len(self.asked), prefix), bool)
        return torch.from_numpy(np.concatenate([none, self.asked], 1))

    def states(self, hook: str) -> np.ndarray:
        """[row, d_model] of the asked cells."""
        prefix = self.runs.model.config.prefix
        value = self.runs.value(hook)[:, prefix:].float().cpu().numpy()
        return value[self.asked]


def batches(
    subject: Subject, config: UsedConfig, moments: Sequence[Moment], puzzles: np.ndarray
) -> Iterator[tuple[str, Callable[[], Batch]]]:
    """Puzzles that are recorded together, a quarter of a batch of reruns: a name, and the work."""
    size = max(1, config.batch_size // 4)
    hooks = list(dict.fromkeys(hook for moment in moments for hook in moment.hooks))
    for first in range(0, len(puzzles), size):
        chosen = puzzles[first : first + size]
        name = f"{int(subject.puzzles.lines[chosen[0]])}-{len(chosen)}"
        yield name, partial(_recorded, subject, config, hooks, chosen)


def _recorded(subject: Subject, config: UsedConfig, hooks: list[str], puzzles: np.ndarray) -> Batch:
    given = subject.puzzles.tensors.at(torch.from_numpy(puzzles))
    runs = record(
        subject.model,
        given.inputs,
        given.labels,
        config.steps,
        hooks=hooks,
        identifiers=given.identifiers,
    )
    return Batch(puzzles, runs, np.asarray(subject.task.asked(given.inputs.numpy()), bool))


def rows_of(subject: Subject, batch: Batch, moment: Moment) -> Rows:
    """States and labels of the asked cells. What is violated or right is the answer of then."""
    inputs, solution = (
        of[batch.puzzles] for of in (subject.puzzles.inputs, subject.puzzles.labels)
    )
    task, guess = subject.task, batch.runs.readouts.tokens[:, moment.done - 1].numpy()
    names, facts = facts_of(inputs, solution, task)
    by_kind = {FACTS if names and names[0].startswith("fact ") else CANDIDATES: (names, facts)}
    tokens = np.array(task.answer_tokens)
    by_kind[SOLUTION] = (
        tuple(f"solution {task.tokens[token]}" for token in tokens),
        solution[..., None] == tokens,
    )
    rules = task.violations(guess)
    broken = np.stack([*rules.values()], -1) if rules else np.zeros((*guess.shape, 0), bool)
    by_kind[VIOLATIONS] = (tuple(f"{rule} conflict" for rule in rules), broken)
    by_kind[RIGHT] = ((RIGHT,), (guess == solution)[..., None])
    kinds, columns, at = {}, [], 0
    for kind, (own, values) in by_kind.items():
        if own:
            kinds[kind] = list(range(at, at + len(own)))
            columns.append(values[batch.asked])
            at += len(own)
    puzzle = np.broadcast_to(batch.puzzles[:, None], batch.asked.shape)[batch.asked]
    every = [name for own, _ in by_kind.values() for name in own]
    return Rows(puzzle, batch.states(moment.hooks[0]), np.concatenate(columns, 1), every, kinds)


def joined(parts: list[Rows]) -> Rows:
    """The rows of several batches."""
    puzzle, states, labels = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("puzzle", "states", "labels")
    )
    return Rows(puzzle, states, labels, parts[0].names, parts[0].kinds)
