"""Stores with states of the test's choice, and a tiny clock that they share."""

from pathlib import Path
from typing import Any

import numpy as np

from trm_interp.recording.schema import readouts
from trm_interp.recording.store import Site, StoreWriter

STEPS, H, L, CELLS = 3, 2, 2, 16
MODEL = {"h_cycles": H, "l_cycles": L, "prefix": 0, "cells": CELLS, "vocab": 6}


def write_store(
    path: Path,
    z_L: np.ndarray,
    solved: np.ndarray | None = None,
    done: int | None = None,
    checkpoint: str | None = "c0ffee",
    **more: np.ndarray,
) -> Path:
    """z_L [puzzle, step, H, L, pos, d_model] as float16; `done`: puzzles of an unfinished store.

    Every puzzle has a board of its own; `more` replaces read-outs.
    """
    n, steps, _, _, pos, d_model = z_L.shape
    site = Site("z_L", ("step", "h_cycle", "l_cycle", "pos", "d_model"), z_L.shape[1:])
    meta = {
        "identity": {"checkpoint_sha256": checkpoint},
        "model": MODEL | {"cells": pos, "d_model": d_model},
    }
    board = 1 + (np.arange(n)[:, None] // 5 ** np.arange(pos)) % 5
    values: dict[str, Any] = {
        "inputs": board,
        "labels": np.full((n, pos), 2),
        "predictions": np.full((n, steps, pos), 2),
        "solved": np.zeros((n, steps), bool) if solved is None else solved,
        "loss": np.zeros((n, steps)),
        "q_halt": np.zeros((n, steps)),
        "halt_step": np.full(n, -1),
        "puzzle_id": np.arange(1, n + 1),
    } | more
    assert values.keys() == {s.name for s in readouts(steps, pos)}
    with StoreWriter.create(
        path, meta, [site], n_puzzles=n, n_steps=steps, n_cells=pos, shard_puzzles=4
    ) as writer:
        while writer.done < (n if done is None else done):
            rows = slice(writer.done, min(writer.done + 2, n))
            writer.start_batch(rows.stop - rows.start)
            for step in range(steps):
                writer.write("z_L", z_L[rows, step].astype(np.float16), step)
            writer.end_batch(**{name: np.asarray(v)[rows] for name, v in values.items()})
    return path


def noise(n: int, d_model: int = 4, pos: int = CELLS, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, STEPS, H, L, pos, d_model))


def numbered(n: int) -> np.ndarray:
    """Every row holds its own number, exactly in float16: puzzle, tick of the site, position."""
    z_L = np.zeros((n, STEPS, H, L, CELLS, 4))
    z_L[..., 0] = np.arange(n)[:, None, None, None, None]
    z_L[..., 1] = np.arange(STEPS * H * L).reshape(STEPS, H, L, 1)
    z_L[..., 2] = np.arange(CELLS)
    return z_L
