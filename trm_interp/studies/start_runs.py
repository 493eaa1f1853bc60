"""The runs behind `basins`: of one puzzle from its starts, and from the places of a plane."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch

from trm_interp.analysis.basins import Plane, ending_columns, plane_through, square
from trm_interp.runtime.arrays import Arrays, Shapes
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.runs import Run
from trm_interp.runtime.shards import divided, is_shard
from trm_interp.studies.settings import BasinsConfig
from trm_interp.studies.starts import COORDINATES, Starts

ENDING = ("first_solved", "solved_from", "q_halt", "moved")  # numbers of a run, in pieces
Count = Callable[[int], None]  # called with the number of runs of this puzzle that are done


def quiet(done: int) -> None:
    """No progress is shown."""


def run_starts(
    starts: Starts, config: BasinsConfig, run: Run | None = None, count: Count = quiet
) -> Arrays:
    """Runs from the model's own start (0) and from `config.starts` random ones, in chunks.

    answer [start, cell], q_halt and moved [start] of the last step, first_solved and solved_from,
    and the end: the last states in float16, or their coordinates. A shard saves its chunks, and
    gives none.
    """
    n = 1 + config.starts
    whole = starts.keeps_states(n, config.ends)

    def compute(rows: range) -> Arrays:
        state = starts.random(torch.tensor(rows), config.radius, config.shared, config.seed)
        endings = starts.follow(state, config.steps)
        own = ending_columns(endings.answers, endings.q_halt, endings.moved, starts.answer)
        own |= {"answer": endings.answers[:, -1]}
        end = states_of(endings.end) if whole else starts.coordinates(endings.end)
        return own | {"end": end}

    widths: Shapes = {"answer": (len(starts.answer),), **dict.fromkeys(ENDING, ())}
    width = (len(starts.own), *starts.own[0].shape) if whole else (COORDINATES,)
    widths = {**widths, "end": width}
    return _in_chunks("starts", starts.puzzle, n, widths, compute, config, run, count)


def look_at_plane(
    starts: Starts,
    runs: Arrays,
    config: BasinsConfig,
    run: Run | None = None,
    count: Count = quiet,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """An image of `plane_of` the runs: a row a place, with the wrong cells after every step as
    wrong_0, wrong_1, ... (its answers are numbered apart from those of the starts); and its
    corners."""
    plane, names = plane_of(starts, runs, config)
    places = square(plane.corners, config.slice)

    def compute(rows: range) -> Arrays:
        state = starts.on_plane(plane, places[rows.start : rows.stop])
        endings = starts.follow(state, config.steps)._asdict()
        return {name: endings[name] for name in ("answers", "q_halt", "moved")}

    steps = config.steps
    widths = {"answers": (steps, len(starts.answer)), "q_halt": (steps,), "moved": (steps,)}
    runs = _in_chunks("plane", starts.puzzle, len(places), widths, compute, config, run, count)
    wrong = (runs["answers"] != starts.answer).sum(-1)
    at = {"puzzle": starts.puzzle, "x": places[:, 0], "y": places[:, 1]}
    by_step = {f"wrong_{step}": wrong[:, step] for step in range(config.steps)}
    x, y = plane.corners.T
    corners = pd.DataFrame({"puzzle": starts.puzzle, "corner": names, "x": x, "y": y})
    ended = ending_columns(runs["answers"], runs["q_halt"], runs["moved"], starts.answer)
    return pd.DataFrame(at | ended | by_step), corners


def _in_chunks(
    kind: str,
    puzzle: int,
    n: int,
    widths: Shapes,
    compute: Callable[[range], Arrays],
    config: BasinsConfig,
    run: Run | None,
    count: Count,
) -> Arrays:
    size = config.batch_size
    ranges = [range(first, min(first + size, n)) for first in range(0, n, size)]
    names = [f"puzzle-{puzzle:06d}/{kind}-{rows.start:07d}" for rows in ranges]
    chunks = []

    def compute_at(i: int) -> Arrays:
        arrays = compute(ranges[i])
        count(ranges[i].stop)
        return arrays

    for rows, name, get in zip(ranges, names, divided(names, compute_at), strict=False):
        shapes = {key: (len(rows), *width) for key, width in widths.items()}
        chunks.append(get() if run is None else run.part(name, shapes, get))
        count(rows.stop)
    if is_shard():
        return {}
    return {name: np.concatenate([one[name] for one in chunks]) for name in chunks[0]}


def plane_of(starts: Starts, runs: Arrays, config: BasinsConfig) -> tuple[Plane, list[str]]:
    """The plane through the model's own start, the last state of the first run that ends solved,
    and of the first one that does not; the names of the three.

    Where all runs end alike, the first random start takes the place of the missing end.
    """
    solved = (runs["answer"] == starts.answer).all(1)
    points, names = [starts.targets(starts.own)], ["own start"]
    for kind, at in (("solved", solved), ("failed", ~solved)):
        if at.any():
            first = int(at.argmax())
            end = torch.from_numpy(_last_states(starts, runs, first, config))
            end = end.to(starts.x.device, starts.x.dtype)
            points.append(end[list(starts.which)])
            names.append(f"{kind} end of start {first}")
        else:
            state = starts.random(torch.tensor([1]), config.radius, config.shared, config.seed)
            points.append(starts.targets([z[0] for z in state]))
            names.append("random start 1")
    try:
        return plane_through(torch.stack(points)), names
    except ValueError as error:
        where = ", ".join(names)
        raise UserError(
            f"puzzle {starts.puzzle} (from 0), {where}: {error}; try --slice 0"
        ) from None


def states_of(end: Sequence[torch.Tensor]) -> np.ndarray:
    """Last states in float16, [start, state, pos, d_model]."""
    return np.stack([z.half().cpu().numpy() for z in end], 1)


def _last_states(starts: Starts, runs: Arrays, start: int, config: BasinsConfig) -> np.ndarray:
    """Of one start; where only their coordinates are kept, its chunk is run again."""
    if runs["end"].ndim > 2:
        return runs["end"][start]
    first = start // config.batch_size * config.batch_size
    rows = torch.arange(first, min(first + config.batch_size, 1 + config.starts))
    state = starts.random(rows, config.radius, config.shared, config.seed)
    return states_of(starts.follow(state, config.steps).end)[start - first]
