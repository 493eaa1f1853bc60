"""Do runs come to rest, return to where they were, or wander?

States of a batch of runs are [run, dim]. All distances are RMS over coordinates: 0 for the same
state; the states of a TRM have RMS 1, so that unrelated ones are about 1.4 apart.

A trajectory is only ever compared with itself at the same phase of the schedule, one map (H-cycle
or supervision step) later: inside a cycle the schedule itself forces a period.
"""

from collections import deque

import numpy as np
import torch
from torch import Tensor

from trm_interp.runtime.shapes import Float, Int

LAST = 4  # supervision steps that late drift is the mean of
BACK = 8  # steps that are looked back: no longer period is told from wandering
LEAST_DRIFT = 1e-8  # below float32's rounding of states of RMS 1
FATES = ("settled", "cycling", "wandering")  # as in files
IN_WORDS = {"settled": "at rest"}  # where a fate is shown


def in_words(fate: str) -> str:
    """A fate for people.

    >>> [in_words(fate) for fate in FATES]
    ['at rest', 'cycling', 'wandering']
    """
    return IN_WORDS.get(fate, fate)


def distance(
    z: Float[Tensor, "*run dim"], other: Float[Tensor, "*run dim"]
) -> Float[Tensor, "*run"]:
    """RMS difference per coordinate, here sqrt((9 + 16) / 2).

    >>> round(distance(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])).item(), 3)
    3.536
    """
    return (z - other).square().mean(-1).sqrt()


def displacement(
    states: Float[Tensor, " tick *run dim"], lag: int = 1
) -> Float[Tensor, " tick_left *run"]:
    """How far each state is from the one `lag` ticks before it; lag = a cycle: at equal phase."""
    return distance(states[lag:], states[:-lag])


class Past:
    """The last states of a batch of runs, for distances to them without storing whole runs."""

    def __init__(self, depth: int) -> None:
        self.states: deque[Tensor] = deque(maxlen=depth)

    def add(self, z: Tensor) -> None:
        self.states.append(z)

    def rows(self, which: Tensor) -> "Past":
        """The past of some of the runs."""
        kept = Past(self.states.maxlen or 0)
        kept.states.extend(z[which] for z in self.states)
        return kept

    def distances(self, z: Tensor, lags: int | None = None) -> Tensor:
        """[lag, *run]: from z to the state added last, the one before it, ...; NaN where none was.

        z [*run, dim] has not been added yet.
        """
        lags = lags or self.states.maxlen or 0
        latest_first = list(self.states)[::-1][:lags]
        distances = [distance(z, before) for before in latest_first]
        missing = lags - len(distances)
        distances += [torch.full(z.shape[:-1], torch.nan, device=z.device)] * missing
        return torch.stack(distances)


def late_drift(
    per_step: Float[np.ndarray, "puzzle step"], last: int = LAST
) -> Float[np.ndarray, " puzzle"]:
    """Mean change per step over the last steps.

    >>> late_drift(np.array([[9.0, 1.0, 2.0, 3.0, 4.0]])).tolist()
    [2.5]
    """
    return per_step[:, -last:].mean(1)


def log_drift(drift: Float[np.ndarray, "*rest"]) -> Float[np.ndarray, "*rest"]:
    """log10 of drifts, which range over decades; those below LEAST_DRIFT count as that."""
    return np.log10(np.maximum(drift, LEAST_DRIFT))


def period(
    distances: Float[np.ndarray, "moment lag run"], tolerance: float
) -> Int[np.ndarray, " run"]:
    """Smallest p for which the state is within `tolerance` of itself p maps earlier, at every
    moment; 1 at a fixed point, 0 where no lag fits (or the period is longer than the lags).

    A run that drifts by less than the tolerance per map counts as fixed: report the tolerance.

    >>> back = np.array([[[1.0], [0.0], [1.0], [0.0]]] * 3)  # three moments, lags 1 to 4, one run
    >>> period(back, 1e-3).tolist()
    [2]
    """
    near = (distances <= tolerance).all(0)  # NaN is not near
    return np.where(near.any(0), near.argmax(0) + 1, 0)


def lags_of(steps: int, h_cycles: int) -> int:
    """How many H-cycles back states are compared with, in runs of `steps` and in those that go on.

    >>> lags_of(16, h_cycles=3)
    24
    """
    return min(BACK, steps - LAST) * h_cycles


def in_steps(period: Int[np.ndarray, " run"], h_cycles: int) -> Int[np.ndarray, " run"]:
    """Periods in H-cycles as periods in supervision steps of `h_cycles`; 0 stays 0.

    With 3 H-cycles a step, a run that repeats itself every 2 of them is back after 2 steps:

    >>> in_steps(np.array([0, 1, 2, 3, 6]), h_cycles=3).tolist()
    [0, 1, 2, 1, 2]
    """
    return np.lcm(period, h_cycles) // h_cycles


def fate_of(period: Int[np.ndarray, " run"]) -> np.ndarray:
    """The name in FATES of each run, of its period in H-cycles: settled where no H-cycle moves it,
    cycling where it comes back, wandering where it does not (period 0).

    >>> fate_of(np.array([1, 5, 0])).tolist()
    ['settled', 'cycling', 'wandering']
    """
    return np.select([period == 1, period > 0], FATES[:2], FATES[2])


def fate_counts(fates: np.ndarray) -> dict[str, int]:
    """How many runs have each fate.

    >>> fate_counts(np.array(["cycling", "settled", "settled"]))
    {'settled': 2, 'cycling': 1, 'wandering': 0}
    """
    return {fate: int((fates == fate).sum()) for fate in FATES}
