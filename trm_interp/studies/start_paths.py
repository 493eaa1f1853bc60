"""Where runs of one puzzle go from many starts: figure 3 of the seed paper draws their paths."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch

from trm_interp.analysis.outcomes import solved_from
from trm_interp.analysis.pca import streamed_pca
from trm_interp.runtime.arrays import Arrays
from trm_interp.runtime.runs import Run
from trm_interp.studies.settings import BasinsConfig
from trm_interp.studies.starts import Starts

COLUMNS = ("puzzle", "start", "steps_done", "x", "y", "solved_from")


def start_paths(
    starts: Starts, config: BasinsConfig, run: Run | None = None
) -> tuple[pd.DataFrame, list[float]]:
    """The target states of the model's own start (0) and of the first `config.shown` random ones,
    after every supervision step, along two principal axes; and the share of the variance that each
    explains. Empty where none is to be shown.

    A row a start and step, 0 before the first one, in COLUMNS: places in RMS distance. The axes are
    of the states after the steps: among the starts, which are mostly noise, no axis stands out, and
    they are projected. `solved_from` is the step (from 0) from which the run stays solved, -1:
    never. With `run` the places are saved there.
    """
    n = 1 + min(config.shown, config.starts)
    if n == 1:
        return pd.DataFrame(columns=list(COLUMNS)), []
    shapes = {"places": (n, config.steps + 1, 2), "explained": (2,), "solved_from": (n,)}

    def compute() -> Arrays:
        return _places(starts, config, n)

    name = f"puzzle-{starts.puzzle:06d}/paths-{n:07d}"
    read = compute() if run is None else run.part(name, shapes, compute)
    table = pd.DataFrame(
        {
            "puzzle": starts.puzzle,
            "start": np.repeat(np.arange(n), config.steps + 1),
            "steps_done": np.tile(np.arange(config.steps + 1), n),
            "x": read["places"][..., 0].ravel(),
            "y": read["places"][..., 1].ravel(),
            "solved_from": np.repeat(read["solved_from"], config.steps + 1),
        }
    )
    return table, read["explained"].tolist()


def _places(starts: Starts, config: BasinsConfig, n: int) -> Arrays:
    """Run them, and project what they pass."""
    states, solved = [], []
    for first in range(0, n, config.batch_size):
        rows = torch.arange(first, min(first + config.batch_size, n))
        state = starts.random(rows, config.radius, config.shared, config.seed)
        passed, right = starts.passed(state, config.steps)
        states.append(passed)
        solved.append(right)
    path = np.concatenate(states)  # [start, step, number]

    def after_steps() -> Iterator[np.ndarray]:
        yield from path[:, 1:]

    axes, _ = streamed_pca(after_steps, 2, config.seed)
    return {
        "places": axes.project(path) / np.sqrt(path.shape[-1]),
        "explained": axes.explained,
        "solved_from": solved_from(np.concatenate(solved)),
    }
