"""Paths of a recorded state through its principal components."""

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA

from trm_interp.store import Store


@dataclass(frozen=True)
class Trajectories:
    """`paths` [puzzle, tick, pc]: coordinates of every update, in the units of the state.

    A point is a whole state, [pos * d_model] numbers, less the same puzzle's first one, so every
    path starts at the origin: differences between puzzles do not hide the motion. `explained`
    [pc]: share of the pool's variance along each axis; the pool is every puzzle and tick.
    """

    paths: np.ndarray
    explained: np.ndarray


def z_L_trajectories(store: Store, n_components: int = 3, seed: int = 0) -> Trajectories:
    """Displacement of z_L at every recorded update, in one PCA basis fitted on all puzzles.

    Loads the store's z_L as float32: meant for tens of puzzles. The randomised solver's seed is
    `seed`.
    """
    z_L = store["z_L"]
    n_puzzles = len(z_L)
    states = z_L[:].reshape(n_puzzles, -1, int(np.prod(z_L.shape[-2:])))  # [puzzle, tick, pos * d]
    moved = states.astype(np.float32) - states[:, :1]
    fitted = PCA(n_components, svd_solver="randomized", random_state=seed)
    points = fitted.fit_transform(moved.reshape(-1, moved.shape[-1]))
    paths = points.reshape(n_puzzles, -1, n_components)
    return Trajectories(paths - paths[:, :1], fitted.explained_variance_ratio_)
