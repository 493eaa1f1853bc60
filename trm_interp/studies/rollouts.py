"""Runs of `settling`, read while the network runs: of a run only its last states are held."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trm_interp.analysis.settling import BACK as BACK
from trm_interp.analysis.settling import LAST, Past, distance, fate_of, period
from trm_interp.analysis.settling import lags_of as lags_of
from trm_interp.core.joint import CycleMap, joined
from trm_interp.runtime.arrays import Arrays, concatenated
from trm_interp.runtime.shards import shard_ends
from trm_interp.studies.subject import Subject, finite

AT_REST = 2e-6  # RMS change an H-cycle, near float32's rounding: such a run is not run on
Count = Callable[[int], None]  # called with the number of puzzle steps done


class Short(NamedTuple):
    """Runs of some steps. Distances are RMS."""

    solved: np.ndarray  # bool [puzzle, step]
    per_step: np.ndarray  # [puzzle, step, state], change from one step to the next
    per_cycle: np.ndarray  # [puzzle, cycle, state], from one H-cycle's end to the next
    back: np.ndarray  # [puzzle, moment, lag], late state to itself some H-cycles earlier


class Long(NamedTuple):
    """Long runs, at each horizon."""

    solved: np.ndarray  # bool [puzzle, horizon]
    ever: np.ndarray  # bool [puzzle, horizon], at some step after the first horizon
    period: np.ndarray  # [puzzle, horizon], in H-cycles; 0 for none
    fate: np.ndarray  # [puzzle, horizon]


def short_runs(subject: Subject, steps: int, count: Count, divide: bool = False) -> Short:
    """All puzzles, a batch at a time. With `divide` a shard ends after its own."""

    def compute(rows: slice) -> Arrays:
        runs = _short_batch(subject, rows, steps)
        count(rows.stop * steps)
        return runs._asdict()

    if divide:
        batches = list(subject.in_pieces("short", compute))
        shard_ends()
    else:
        batches = [compute(rows) for rows in subject.batches()]
    return Short(**concatenated(batches))


def _short_batch(subject: Subject, rows: slice, steps: int) -> Short:
    state, x = subject.begin(rows)
    cycle, z = CycleMap(subject.model, x), joined(state)
    labels = subject.labels[rows].to(subject.device)
    h_cycles = subject.model.config.schedule.h_cycles
    n_states = len(subject.model.state_names)
    past = Past(lags_of(steps, h_cycles))
    per_step, per_cycle, solved, back = [], [], [], []
    begun = z
    for done in range(1, steps * h_cycles + 1):
        past.add(z)
        image = cycle(z)
        per_cycle.append(_by_state(image, z, n_states))
        if done > (steps - LAST) * h_cycles:
            back.append(past.distances(image).T)
        z = image
        if done % h_cycles == 0:
            per_step.append(_by_state(z, begun, n_states))
            solved.append(cycle.right(z, labels))
            begun = z
    measured = (solved, per_step, per_cycle, back)
    runs = Short(*(torch.stack(one, 1).cpu().numpy() for one in measured))
    finite(runs.per_cycle, "the state", range(rows.start, rows.stop))
    return runs


def _by_state(z: Tensor, other: Tensor, n_states: int) -> Tensor:
    """[run, state]: how far each state moved, of joint states [run, dim]."""
    return distance(z.unflatten(1, (n_states, -1)), other.unflatten(1, (n_states, -1)))


def long_runs(
    subject: Subject,
    names: np.ndarray,
    horizons: list[int],
    tolerance: float,
    lags: int,
    count: Count,
) -> Long:
    """`names`: of the puzzles, for error messages. `lags`: see `lags_of`. A shard ends here."""

    def compute(rows: slice) -> Arrays:
        before = rows.start * horizons[-1]

        def count_steps(done: int, before: int = before, n: int = rows.stop - rows.start) -> None:
            count(before + done * n)

        runs = _long_batch(subject, rows, names[rows], horizons, tolerance, lags, count_steps)
        return runs._asdict()

    batches = list(subject.in_pieces("long", compute))
    shard_ends()
    return Long(**concatenated(batches))


def _long_batch(
    subject: Subject,
    rows: slice,
    names: np.ndarray,
    horizons: list[int],
    tolerance: float,
    lags: int,
    count: Count,
) -> Long:
    """Runs that are at rest at a horizon keep their state and fate from there on."""
    state, x = subject.begin(rows)
    cycle, z = CycleMap(subject.model, x), joined(state)
    labels = subject.labels[rows].to(subject.device)
    n, past = len(z), Past(lags)
    going = torch.arange(n, device=z.device)
    right = torch.zeros(n, dtype=torch.bool, device=z.device)
    ever, periods = torch.zeros_like(right), np.zeros(n, np.int64)
    window: list[Tensor] = []
    at_horizons: list[tuple[np.ndarray, ...]] = []
    for done in range(1, horizons[-1] + 1):
        ahead = next(horizon for horizon in horizons if horizon >= done)
        for _ in range(subject.model.config.schedule.h_cycles):
            past.add(z)
            z = cycle(z)
            if done > ahead - LAST:
                window.append(past.distances(z))
        right[going] = cycle.right(z, labels[going])
        if done > horizons[0]:
            ever |= right
        if done == ahead:
            near = torch.stack(window).cpu().numpy()  # [moment, lag, run]
            those = going.cpu().numpy()
            finite(near[:, 0].T, f"the state at step {done}", names[those])
            periods[those] = period(near, tolerance)
            now = (right.cpu().numpy(), ever.cpu().numpy(), periods, fate_of(periods))
            at_horizons.append(tuple(values.copy() for values in now))
            moving = torch.from_numpy(near[:, 0].max(0) > AT_REST).to(z.device)
            if not moving.any():
                break
            going, z, past = going[moving], z[moving], past.rows(moving)
            cycle, window = cycle.rows(moving), []
        count(done)
    at_horizons += [at_horizons[-1]] * (len(horizons) - len(at_horizons))
    return Long(*(np.stack(one, 1) for one in zip(*at_horizons, strict=True)))
