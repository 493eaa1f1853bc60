"""Paths of a recorded state through principal components that are fitted once, over a pool."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from trm_interp.analysis.pca import Components, streamed_pca
from trm_interp.recording.store import Store
from trm_interp.runtime.shapes import Float


@dataclass(frozen=True)
class Trajectories:
    """`paths` [puzzle, tick, pc]: coordinates of every update of the site, in the units of the
    state. `components`: of the pool, which is every puzzle and update; `explained` [pc] its shares
    of variance. A point is a whole state, [pos * d_model] numbers."""

    paths: Float[np.ndarray, "puzzle tick pc"]
    components: Components

    @property
    def explained(self) -> Float[np.ndarray, " pc"]:
        return self.components.explained


def states_of(store: Store, site: str) -> Callable[[], Iterator[np.ndarray]]:
    """Gives every puzzle's states [tick, pos * d_model], in order, each time it is called."""
    width = int(np.prod(store[site].shape[-2:]))

    def read() -> Iterator[np.ndarray]:
        for chunk in store.iter(site):
            yield chunk.reshape(-1, width)

    return read


def trajectories(
    store: Store, site: str = "z_L", n_components: int = 3, relative: bool = False, seed: int = 0
) -> Trajectories:
    """Every update of z_L (or of another site with ticks) in one basis.

    relative: less the same puzzle's first state, so that every path starts at 0 and differences
    between puzzles do not hide the motion. Reads the store three times, one puzzle at a time.
    NotFinite for states that are not: its chunk is the puzzle.
    """
    read = states_of(store, site)

    def moved() -> Iterator[np.ndarray]:
        for states in read():
            yield states.astype(np.float32) - states[:1]

    components, points = streamed_pca(moved if relative else read, n_components, seed)
    paths = points.reshape(store.n_puzzles, -1, n_components)
    return Trajectories(paths - paths[:, :1] if relative else paths, components)
