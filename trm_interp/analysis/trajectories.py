"""Paths of a recorded state through its principal components."""

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA

from trm_interp.shapes import Float
from trm_interp.store import Store


@dataclass(frozen=True)
class Trajectories:
    """`paths` [puzzle, tick, pc]: coordinates of every update, in the units of the state.

    `explained` [pc]: share of the pool's variance along each axis. The pool is every puzzle and
    tick given; a point is the whole state, [pos * d_model] numbers.
    """

    paths: np.ndarray
    explained: np.ndarray


def z_L_trajectories(store: Store, n_components: int = 3, seed: int = 0) -> Trajectories:
    """Every recorded z_L of every puzzle in one PCA basis fitted on all of them together.

    Loads the store's z_L as float32: meant for tens of puzzles. The randomised solver's seed is
    `seed`.
    """
    z_L = store["z_L"]
    n_puzzles = len(z_L)
    pool = z_L[:].reshape(n_puzzles, -1, int(np.prod(z_L.shape[-2:])))  # [puzzle, tick, pos * d]
    fitted = PCA(n_components, svd_solver="randomized", random_state=seed)
    points = fitted.fit_transform(pool.reshape(-1, pool.shape[-1]).astype(np.float32))
    return Trajectories(
        points.reshape(n_puzzles, -1, n_components), fitted.explained_variance_ratio_
    )


def updates_per_step(store: Store) -> int:
    """z_L updates of one supervision step."""
    return int(np.prod(store["z_L"].shape[2:4]))


def rms_distance(
    a: Float[np.ndarray, "*run pos d_model"], b: Float[np.ndarray, "*run pos d_model"]
) -> Float[np.ndarray, "*run"]:
    """RMS difference per coordinate; states have RMS 1, so it lies between 0 and 2."""
    return np.sqrt(((a.astype(np.float32) - b.astype(np.float32)) ** 2).mean((-2, -1)))
