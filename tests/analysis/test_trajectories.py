"""Paths of z_L through a plane that is known."""

from pathlib import Path

import numpy as np
import pytest

from trm_interp.analysis.trajectories import trajectories
from trm_interp.recording.schema import readouts
from trm_interp.recording.states import states_of
from trm_interp.recording.store import Site, Store, StoreWriter

N, STEPS, H, L, POS, D = 5, 2, 2, 3, 2, 4
TICKS = STEPS * H * L  # updates of z_L


def store_of(z_L: np.ndarray, path: Path) -> Path:
    """A store that holds z_L [puzzle, step, h_cycle, l_cycle, pos, d_model] and zeros."""
    site = Site("z_L", ("step", "h_cycle", "l_cycle", "pos", "d_model"), z_L.shape[1:])
    sizes = {"n_puzzles": N, "n_steps": STEPS, "n_cells": 3, "shard_puzzles": N}
    with StoreWriter.create(path, {}, [site], **sizes) as writer:
        writer.start_batch(N)
        for step in range(STEPS):
            writer.write("z_L", z_L[:, step], step)
        zeros = {s.name: np.zeros((N, *s.shape), s.dtype) for s in readouts(STEPS, 3)}
        writer.end_batch(**zeros)
    return path


@pytest.fixture
def planar() -> tuple[np.ndarray, np.ndarray]:
    """States [puzzle, tick, pos * d_model] that move along two axes, and how far along each."""
    rng = np.random.default_rng(0)
    along = rng.integers(-8, 9, (N, TICKS, 2)) * np.array([4.0, 1.0])
    states = np.zeros((N, TICKS, POS * D))
    states[:, :, [1, 6]] = along
    states += 16 * rng.integers(-2, 3, (N, 1, POS * D))  # where a puzzle is does not matter
    return states.astype(np.float16), along


def test_paths_are_displacements_in_the_plane_of_motion(planar, tmp_path: Path):
    states, along = planar
    z_L = states.reshape(N, STEPS, H, L, POS, D)
    with Store(store_of(z_L, tmp_path / "store")) as store:
        fitted = trajectories(states_of(store, "z_L"), n_components=2, relative=True)
    assert fitted.paths.shape == (N, TICKS, 2)
    np.testing.assert_array_equal(fitted.paths[:, 0], 0)
    moved = along - along[:, :1]
    # a rotation of the plane keeps all distances from the start
    np.testing.assert_allclose(
        np.linalg.norm(fitted.paths, axis=-1), np.linalg.norm(moved, axis=-1), atol=1e-3
    )
    assert fitted.explained.sum() == pytest.approx(1, abs=1e-6)
    assert fitted.explained[0] > fitted.explained[1] > 0


def test_the_same_store_gives_the_same_paths(planar, tmp_path: Path):
    z_L = planar[0].reshape(N, STEPS, H, L, POS, D)
    with Store(store_of(z_L, tmp_path / "store")) as store:
        one, other = (trajectories(states_of(store, "z_L")) for _ in range(2))
    np.testing.assert_array_equal(one.paths, other.paths)
