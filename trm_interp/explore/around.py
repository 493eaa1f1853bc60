"""The neighbourhood of a state: where runs end that go on from states near it.

A computation runs in a thread of its own, in small batches. It ends when it is done, when it is
told to, and when nobody has asked for it for a while: a closed page asks for nothing.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trm_interp.explore.edits import Node
from trm_interp.explore.session import Session
from trm_interp.runtime.errors import UserError, is_out_of_memory
from trm_interp.runtime.limits import in_seed_range
from trm_interp.runtime.shapes import Bool, Float, Int

if TYPE_CHECKING:
    from trm_interp.analysis.basins import Plane

BATCH = 8  # runs that go on together
PATIENCE = 15.0  # seconds without a question after which a computation ends
MOST_STARTS, MOST_SIDE = 256, 40
MOST_JOBS = 4  # that are kept, one a page; the oldest is ended for a new one
LARGEST_RADIUS = 100.0


@dataclass(frozen=True)
class Around:
    """What is asked for: runs from states near that of `node` at the moment `at`.

    `starts`: states at RMS distance `radius` in random directions of `states`. `side`: places along
    each side of the image of a plane, which reaches two radii to each side of the state; 0: none.
    Its axes are the direction of the run's end (a random one if it lies here) and a random one.
    """

    node: Node
    at: int
    states: tuple[str, ...]
    radius: float
    starts: int = 16
    side: int = 12
    seed: int = 0


class Ends(NamedTuple):
    """Where runs ended, as far as they are computed. answer: uint8 [run, cell]; solved [run];
    place: float32 [run, pc] of the answer state along the axes of the path; where: [run, 2], places
    in the plane, NaN for random starts."""

    answer: np.ndarray
    solved: Bool[np.ndarray, " run"]
    place: Float[np.ndarray, "run pc"]
    where: Float[np.ndarray, "run 2"]

    @property
    def group(self) -> Int[np.ndarray, " run"]:
        """Equal answers have equal numbers, the most frequent one 0."""
        from trm_interp.analysis.basins import same_answer  # loads for a second

        return same_answer(self.answer)


def check_around(session: Session, asked: Around) -> None:
    """UserError for what cannot be computed."""
    if not 0 <= asked.at < session.last:
        raise UserError(f"runs go on from moments 0 to {session.last - 1}, not from {asked.at}")
    unknown = set(asked.states) - set(session.model.state_names)
    if unknown or not asked.states:
        raise UserError(f"choose one or several of {', '.join(session.model.state_names)}")
    if not 0 < asked.radius <= LARGEST_RADIUS:
        raise UserError(f"a radius is above 0, at most {LARGEST_RADIUS:g}, not {asked.radius}")
    if not 1 <= asked.starts <= MOST_STARTS:
        raise UserError(f"starts are 1 to {MOST_STARTS}, not {asked.starts}")
    if not (asked.side == 0 or 2 <= asked.side <= MOST_SIDE):
        raise UserError(f"an image has 2 to {MOST_SIDE} places a side, or 0, not {asked.side}")
    in_seed_range(asked.seed)


def nearby(session: Session, asked: Around) -> tuple[Tensor, np.ndarray]:
    """The states [run, state, pos, d_model] that are gone on from, and their places in the plane.

    Random starts first; then the plane in an order that fills its image evenly.
    """
    from trm_interp.analysis.basins import displacements, square

    check_around(session, asked)
    state = session.states_at(asked.node, asked.at)
    here = torch.stack([getattr(state, name)[0].float().cpu() for name in asked.states])
    end = session.states_at(asked.node, session.last)
    toward = torch.stack([getattr(end, name)[0].float().cpu() for name in asked.states]) - here
    numbers = torch.arange(asked.starts + 2)
    shape = (len(asked.states) * here.shape[1], here.shape[2])
    radius = torch.full((len(numbers),), float(asked.radius))
    moved = displacements(numbers, radius, *shape, False, asked.seed, asked.at).view(
        -1, *here.shape
    )
    random, axes = moved[: asked.starts], moved[asked.starts :]
    first = toward if toward.square().mean().sqrt() > 1e-3 * asked.radius else axes[0]
    plane = _plane(here, first, axes[1])
    reach = 2 * asked.radius
    corners = np.array([[-reach, -reach], [reach, reach]])
    places = square(corners, asked.side, margin=0.0) if asked.side else np.zeros((0, 2))
    places = places[np.random.default_rng(asked.seed).permutation(len(places))]
    where = np.concatenate([np.full((asked.starts, 2), np.nan), places])
    on_plane = plane.at(places.astype(np.float32)) if asked.side else here[None][:0]
    return torch.cat([here + random, on_plane]), where


def _plane(origin: Tensor, first: Tensor, other: Tensor) -> "Plane":
    """Two orthogonal directions of RMS 1."""
    from trm_interp.analysis.basins import Plane

    first = first / first.square().mean().sqrt()
    rest = other - (other * first).mean() * first
    axes = torch.stack([first, rest / rest.square().mean().sqrt()])
    return Plane(origin, axes, np.zeros((3, 2)))


class Job:
    """One computation, in a thread. `ends` and `done` may be asked for at any time."""

    def __init__(
        self,
        session: Session,
        asked: Around,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.session, self.asked, self.patience, self._clock = session, asked, patience, clock
        check_around(session, asked)
        self.total = asked.starts + asked.side**2
        self._parts: list[Ends] = []
        self._lock, self._stop, self.problem = Lock(), Event(), ""
        self._heard = clock()
        self._thread = Thread(target=self._compute, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the batch that is being computed, or within it."""
        self._stop.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end."""
        self._thread.join(timeout)

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    @property
    def done(self) -> int:
        """Runs that have come to their end."""
        with self._lock:
            return sum(len(part.solved) for part in self._parts)

    def ends(self) -> Ends | None:
        """What there is so far, None for nothing yet; whoever asks keeps the computation going."""
        self._heard = self._clock()
        with self._lock:
            parts = list(self._parts)
        if not parts:
            return None
        return _joined(parts)

    def _ended(self) -> bool:
        return self._stop.is_set() or self._clock() - self._heard > self.patience

    def _compute(self) -> None:
        try:
            for ends in _batches(self.session, self.asked, self._ended):
                with self._lock:
                    self._parts.append(ends)
        except UserError as error:
            self.problem = str(error)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.problem = "out of memory: ask for fewer places, or start with fewer --steps"


def _batches(
    session: Session, asked: Around, is_ended: Callable[[], bool], most: int | None = None
) -> Iterator[Ends]:
    """Where the states that are asked for end, at most so many, until `is_ended` says so."""
    states, where = nearby(session, asked)
    states, where = states[:most], where[:most]
    labels = session.run(asked.node).labels[-1]
    for at in range(0, len(states), BATCH):
        part = states[at : at + BATCH]
        given = {name: part[:, i] for i, name in enumerate(asked.states)}
        read = session.ends_of(asked.node, asked.at, given, is_ended)
        if read is None:
            return
        answer, place = read
        solved = ((answer == labels) | (labels == 0)).all(1)
        yield Ends(answer, solved, place, where[at : at + BATCH])


def _joined(parts: Sequence[Ends]) -> Ends:
    return Ends(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def ends_near(session: Session, asked: Around, most: int | None = None) -> Ends:
    """Where all of them end, or the first `most`, computed here and now."""
    check_around(session, asked)
    return _joined(list(_batches(session, asked, lambda: False, most)))


class Jobs:
    """The computations of the pages that are open, one a page."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lock = Lock()

    def start(self, page: str, asked: Around) -> Job:
        """Begin a computation for a page; the one that it had is ended."""
        job = Job(self.session, asked)
        self.stop(page)
        with self._lock:
            self._jobs[page] = job
            self._jobs.move_to_end(page)
            while len(self._jobs) > MOST_JOBS:
                self._jobs.popitem(last=False)[1].stop()
        job.start()
        return job

    def stop(self, page: str) -> None:
        """End the computation of a page; what it came to stays."""
        if (job := self.of(page)) is not None:
            job.stop()

    def of(self, page: str) -> Job | None:
        """The last computation of a page."""
        with self._lock:
            return self._jobs.get(page)
