"""A store of eleven tiny puzzles with known contents, for the tests of reading and of writing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trm_interp.recording.store import Site, StoreWriter, halt_steps, readouts

N, STEPS, CELLS, H, L, POS, D = 11, 4, 3, 2, 3, 5, 4  # 11 puzzles: 3 shards of at most 4
SITES = (
    Site("z_L", ("step", "h_cycle", "l_cycle", "pos", "d_model"), (STEPS, H, L, POS, D)),
    Site("z_H", ("step", "h_cycle", "pos", "d_model"), (STEPS, H, POS, D)),
    Site(
        "blocks.0.hook_resid_post",
        ("step", "h_cycle", "l_cycle", "pos", "d_model"),
        (STEPS, H, L + 1, POS, D),
    ),
    Site("embed", ("pos", "d_model"), (POS, D)),
)
META = {"identity": {"checkpoint_sha256": "c0ffee", "config": {"d_model": D}}, "git_commit": "abc"}


def truth(site: Site) -> np.ndarray:
    """What the run held at this site, for all puzzles and steps; the same in every call."""
    rng = np.random.default_rng(list(site.name.encode()))
    shape = (N, *site.shape)
    if site.dtype == "bool":
        return rng.random(shape) < 0.5
    if site.dtype.startswith("float"):
        return rng.standard_normal(shape).astype(site.dtype)
    return rng.integers(0, 100, shape).astype(site.dtype)


TRUTH = {site.name: truth(site) for site in (*SITES, *readouts(STEPS, CELLS))}
TRUTH["halt_step"] = halt_steps(TRUTH["q_halt"] > 0)


def open_writer(
    path: Path,
    steps=None,
    positions=None,
    meta: dict = META,
    more: Sequence[Site] = (),
    **options: Any,
) -> StoreWriter:
    sites = [site.select(steps, positions) for site in (*SITES, *more)]
    sizes: dict[str, Any] = {"n_puzzles": N, "n_steps": STEPS, "n_cells": CELLS, "shard_puzzles": 4}
    return StoreWriter.create(path, meta, sites, **(sizes | options))


def write_batch(writer: StoreWriter, n: int) -> None:
    rows = slice(writer.done, writer.done + n)
    writer.start_batch(n)
    for site in writer.manifest.sites:
        values = TRUTH[site.name][rows]
        if "pos" in site.dims:
            values = values.take(site.indices("pos"), axis=-2)
        if "step" not in site.dims:
            writer.write(site.name, values)
            continue
        for step in site.indices("step"):
            writer.write(site.name, values[:, step], step)
    wanted = readouts(STEPS, CELLS)
    writer.end_batch(**{s.name: TRUTH[s.name][rows] for s in wanted})


def record(path: Path, batches: int = N, **options) -> Path:
    """Record at most `batches` batches of two puzzles."""
    with open_writer(path, **options) as writer:
        while writer.done < N and batches:
            write_batch(writer, min(2, N - writer.done))
            batches -= 1
    return path
