"""Paths of a recorded state through principal components that are fitted once, over a pool."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from trm_interp.analysis.pca import Components, Sums, streamed_pca
from trm_interp.runtime.shapes import Float


@dataclass(frozen=True)
class Trajectories:
    """`paths` [puzzle, tick, pc]: coordinates of every update of a state, in the state's units.

    `components`: of the pool, which is every puzzle and update; `explained` [pc] its shares of
    variance. A point is a whole state, [pos * d_model] numbers.
    """

    paths: Float[np.ndarray, "puzzle tick pc"]
    components: Components

    @property
    def explained(self) -> Float[np.ndarray, " pc"]:
        return self.components.explained


def moved(states: Float[np.ndarray, "tick coordinate"]) -> Float[np.ndarray, "tick coordinate"]:
    """A puzzle's states less the first of them."""
    return states.astype(np.float32) - states[:1]


def trajectories(
    read: Callable[[], Iterable[np.ndarray]],
    n_components: int = 3,
    relative: bool = False,
    seed: int = 0,
    first: Iterable[Sums] | None = None,
) -> Trajectories:
    """Every update of a state in one basis.

    read: gives the states of one puzzle after another, [tick, coordinate] and as many ticks each,
    each time it is called (three times); `recording.states.states_of` makes one of a store.
    relative: less the same puzzle's first state, so that every path starts at 0 and differences
    between puzzles do not hide the motion. `first`: as in `streamed_pca`, of states that `moved`
    has taken where they are relative. NotFinite for states that are not: its chunk is the puzzle.
    """
    n_puzzles = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal n_puzzles
        n_puzzles = 0
        for states in read():
            n_puzzles += 1
            yield moved(states) if relative else states

    components, points = streamed_pca(counted, n_components, seed, first=first)
    paths = points.reshape(n_puzzles, -1, n_components)
    return Trajectories(paths - paths[:, :1] if relative else paths, components)
