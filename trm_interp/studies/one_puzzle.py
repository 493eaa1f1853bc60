"""Everything that is measured of one puzzle whose runs start elsewhere: tables and a summary."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse
import torch

from trm_interp.analysis.basins import (
    Plane,
    plane_through,
    principal_plane,
    same_answer,
    same_state,
    shares,
    square,
)
from trm_interp.analysis.outcomes import first_solved, named_share, solved_from
from trm_interp.analysis.spatial import against_shuffles, lattice, morans_i, nearest, purity
from trm_interp.core.models.trm import State
from trm_interp.figures.bands import groups
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.parts import Arrays, Parts, Shapes
from trm_interp.studies.config import BasinsConfig
from trm_interp.studies.starts import Starts, radius_of
from trm_interp.studies.subject import Subject
from trm_interp.tasks.sudoku.grid import conflicts, from_tokens, render

Count = Callable[[int], None]  # told how many runs of this puzzle are done


def quiet(done: int) -> None:
    """Progress that nobody watches."""


class Found(NamedTuple):
    """Of one puzzle. starts: a row a start, 0 the model's own. answers, states: a row a final
    answer, and a final state within the tolerance. plane, corners: a row a place of the image
    (empty without one) and of the three states that span it. clusters: do starts that lie together
    end alike? radii: solved by radius."""

    starts: pd.DataFrame
    answers: pd.DataFrame
    states: pd.DataFrame
    plane: pd.DataFrame
    corners: pd.DataFrame
    clusters: pd.DataFrame
    radii: pd.DataFrame
    summary: dict[str, Any]

    @property
    def heading(self) -> str:
        return heading(self.summary)


def heading(summary: dict[str, Any]) -> str:
    own = summary["own_start_solved_from"]
    said = "fails" if own < 0 else f"solves at step {own + 1}"
    return f"puzzle {summary['puzzle']}: own start {said}"


def look_at(
    subject: Subject,
    config: BasinsConfig,
    puzzle: int,
    parts: Parts | None = None,
    count: Count = quiet,
) -> Found:
    """Run everything of one puzzle (its place in `subject.puzzles`) and measure it.

    With `parts`, chunks of runs are saved there, or read where they already are.
    """
    starts = Starts(subject, puzzle, config.target)
    runs = run_starts(starts, config, parts, count)
    n = 1 + config.starts
    moved = starts.moved(torch.arange(n), config.radius, config.shared, config.seed)
    moved = torch.cat([d.flatten(1) for d in moved], 1).cpu().numpy()
    ends = runs["end"].reshape(n, -1)
    frame = pd.DataFrame(
        {
            "puzzle": puzzle,
            "start": np.arange(n),
            "radius": radius_of(torch.arange(n), config.radius).numpy().round(6),
            **outcomes(starts, runs),
            "state": same_state(ends, config.tolerance),
        }
    )
    explained = {}
    for kind, points in (("start", moved), ("end", ends)):
        places, explained[f"{kind}_explained"] = principal_plane(points, config.seed)
        frame[f"{kind}_x"], frame[f"{kind}_y"] = places.T
    drawn = frame.iloc[1:]  # the model's own start is no random one
    answers = answer_table(starts, drawn, runs["answers"][:, -1])
    states = shares(drawn["state"].to_numpy()).rename(columns={"basin": "state"})
    solved_of = drawn.groupby("state")["solved_from"].agg(lambda since: (since >= 0).mean())
    states = states.assign(puzzle=puzzle, solved=solved_of.loc[states["state"]].to_numpy())
    summary = summarise(starts, frame, answers, config) | explained
    axes = frame[["start_x", "start_y"]].to_numpy()[1:]
    directions = moved[1:] / np.linalg.norm(moved[1:], axis=1, keepdims=True)
    clusters = [
        cluster_table(where, drawn, nearest(points, config.neighbours), config)
        for where, points in (("two axes", axes), ("all directions", directions))
    ]
    image, corners = pd.DataFrame(), pd.DataFrame()
    if config.slice:
        image, corners = look_at_plane(starts, runs, config, parts, lambda done: count(n + done))
        weights = lattice(config.slice, config.slice)
        clusters.append(cluster_table("plane", image, weights, config))
        summary["plane_solved"] = float(np.mean(image["solved_from"] >= 0))
        summary["plane_answers"] = len(np.unique(image["answer"]))
    by_radius = []
    for (radius,), rows in groups(drawn.sort_values("radius"), "radius"):
        known = {"puzzle": puzzle, "radius": radius, "answers": len(np.unique(rows["answer"]))}
        hits = np.asarray(rows["solved_from"]) >= 0
        by_radius.append(known | {"n": len(hits), **named_share("solved", hits)})
    return Found(
        frame,
        answers,
        states,
        image,
        corners,
        pd.concat(clusters, ignore_index=True).assign(puzzle=puzzle),
        pd.DataFrame(by_radius),
        summary,
    )


def run_starts(
    starts: Starts, config: BasinsConfig, parts: Parts | None = None, count: Count = quiet
) -> Arrays:
    """Runs from the model's own start (0) and from `config.starts` random ones, in chunks.

    answers [start, step, cell], q_halt and moved [start, step], and the last states in float16.
    """

    def compute(rows: range) -> Arrays:
        state = starts.random(torch.tensor(rows), config.radius, config.shared, config.seed)
        found = starts.follow(state, config.steps)
        z_H, z_L = (z.half().cpu().numpy() for z in found.end)
        return found._asdict() | {"end": np.stack([z_H, z_L], 1)}

    n, widths = 1 + config.starts, _widths(starts, config, with_end=True)
    return _in_chunks("starts", starts.puzzle, n, widths, compute, config, parts, count)


def look_at_plane(
    starts: Starts,
    runs: Arrays,
    config: BasinsConfig,
    parts: Parts | None = None,
    count: Count = quiet,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """An image of `plane_of` the runs: a row a place, with the wrong cells after every step as
    wrong_0, wrong_1, ... (its answers are numbered apart from those of the starts); and its
    corners."""
    plane, names = plane_of(starts, runs, config)
    places = square(plane.corners, config.slice)

    def compute(rows: range) -> Arrays:
        state = starts.on_plane(plane, places[rows.start : rows.stop])
        found = starts.follow(state, config.steps)._asdict()
        return {name: found[name] for name in ("answers", "q_halt", "moved")}

    n, widths = len(places), _widths(starts, config)
    runs = _in_chunks("plane", starts.puzzle, n, widths, compute, config, parts, count)
    wrong = (runs["answers"] != starts.answer).sum(-1)
    known = {"puzzle": starts.puzzle, "x": places[:, 0], "y": places[:, 1]}
    by_step = {f"wrong_{step}": wrong[:, step] for step in range(config.steps)}
    x, y = plane.corners.T
    corners = pd.DataFrame({"puzzle": starts.puzzle, "corner": names, "x": x, "y": y})
    return pd.DataFrame(known | outcomes(starts, runs) | by_step), corners


def _widths(starts: Starts, config: BasinsConfig, with_end: bool = False) -> Shapes:
    """What every run has of each array."""
    widths = {"answers": (config.steps, len(starts.answer)), "q_halt": (config.steps,)}
    widths |= {"moved": (config.steps,)}
    return widths | ({"end": (2, *starts.own.z_H.shape)} if with_end else {})


def _in_chunks(
    kind: str,
    puzzle: int,
    n: int,
    widths: Shapes,
    compute: Callable[[range], Arrays],
    config: BasinsConfig,
    parts: Parts | None,
    count: Count,
) -> Arrays:
    found = []
    for first in range(0, n, config.batch_size):
        rows = range(first, min(first + config.batch_size, n))
        if parts is None:
            found.append(compute(rows))
        else:
            file = f"puzzle-{puzzle:06d}/{kind}-{first:07d}"
            shapes = {name: (len(rows), *width) for name, width in widths.items()}
            found.append(parts.get(file, shapes, lambda rows=rows: compute(rows)))
        count(rows.stop)
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def plane_of(starts: Starts, runs: Arrays, config: BasinsConfig) -> tuple[Plane, list[str]]:
    """The plane through the model's own start, the last state of the first run that ends solved,
    and of the first one that does not; the names of the three.

    Where all runs end alike, the first random start stands in for the end that is not there.
    """
    solved = (runs["answers"][:, -1] == starts.answer).all(1)
    points, names = [starts.targets(starts.own)], ["own start"]
    for kind, at in (("solved", solved), ("failed", ~solved)):
        if at.any():
            first = int(at.argmax())
            end = torch.from_numpy(runs["end"][first]).to(starts.x.device, starts.x.dtype)
            points.append(end[list(starts.which)])
            names.append(f"{kind} end of start {first}")
        else:
            state = starts.random(torch.tensor([1]), config.radius, config.shared, config.seed)
            points.append(starts.targets(State(*(z[0] for z in state))))
            names.append("random start 1")
    try:
        return plane_through(torch.stack(points)), names
    except ValueError as error:
        said = ", ".join(names)
        raise UserError(f"puzzle {starts.puzzle}, {said}: {error}; try --slice 0") from None


def outcomes(starts: Starts, runs: Arrays) -> dict[str, np.ndarray]:
    """Columns of runs: steps to solution (from 0, -1: never), number of the last answer, the
    halting logit and the RMS change of z_H in the last step."""
    solved = (runs["answers"] == starts.answer).all(-1)
    return {
        "first_solved": first_solved(solved),
        "solved_from": solved_from(solved),
        "answer": same_answer(runs["answers"][:, -1]),
        "q_halt": runs["q_halt"][:, -1],
        "moved": runs["moved"][:, -1],
    }


def cluster_table(
    where: str, rows: pd.DataFrame, weights: scipy.sparse.csr_matrix, config: BasinsConfig
) -> pd.DataFrame:
    """Moran's I of the steps to solution (unsolved counts as one more than all) and the purity of
    outcome and answer, beside shuffled labels: among starts of the same radius, if they have one.
    """
    steps, radii = rows["solved_from"].to_numpy(), None
    if "radius" in rows:
        radii = np.unique(rows["radius"], return_inverse=True)[1]
    measured = {
        ("Moran's I", "steps"): (morans_i, np.where(steps < 0, config.steps, steps).astype(float)),
        ("purity", "solved"): (purity, (steps >= 0).astype(np.int64)),
        ("purity", "answer"): (purity, rows["answer"].to_numpy()),
    }
    return pd.DataFrame(
        [
            {"where": where, "measure": measure, "label": label, "n": len(rows)}
            | against_shuffles(f, v, weights, config.seed, radii, config.shuffles)._asdict()
            for (measure, label), (f, v) in measured.items()
        ]
    )


def answer_table(starts: Starts, drawn: pd.DataFrame, last: np.ndarray) -> pd.DataFrame:
    """Every final answer, the most frequent one first: share, wrong cells (given ones among them),
    cells in conflict, grid."""
    table = shares(drawn["answer"].to_numpy()).rename(columns={"basin": "answer"})
    solution = from_tokens(starts.answer)
    given = from_tokens(starts.subject.puzzles.inputs[starts.puzzle]) > 0
    first = drawn.drop_duplicates("answer").set_index("answer")["start"]
    grids = [from_tokens(last[first[answer]]) for answer in table["answer"]]
    return table.assign(
        puzzle=starts.puzzle,
        wrong_cells=[int((grid != solution).sum()) for grid in grids],
        wrong_givens=[int((grid != solution)[given].sum()) for grid in grids],
        conflicts=[int(conflicts(grid).sum()) for grid in grids],
        grid=[render(grid) for grid in grids],
    )


def summarise(
    starts: Starts, frame: pd.DataFrame, answers: pd.DataFrame, config: BasinsConfig
) -> dict[str, Any]:
    """Numbers over the random starts; intervals are over starts."""
    drawn = frame.iloc[1:]
    columns = ("first_solved", "solved_from", "state", "moved")
    first, since, state, moved = (drawn[name].to_numpy() for name in columns)
    ever, solved, moving = first >= 0, since >= 0, moved > config.tolerance
    wrong = np.asarray(answers.query("wrong_cells > 0")["share"])
    _, sizes = np.unique(state, return_counts=True)
    return {
        "puzzle": starts.puzzle,
        "line": int(starts.subject.puzzles.lines[starts.puzzle]),
        "own_start_solved_from": int(frame["solved_from"].to_numpy()[0]),
        "n": len(solved),
        **named_share("solved", solved),
        **named_share("ever", ever),
        "median_solved_from": float(np.median(since[solved])) if solved.any() else np.nan,
        "answers": len(answers),
        "wrong_answers": len(wrong),
        "largest_wrong_share": float(wrong.max(initial=0.0)),
        "states": len(sizes),
        "states_of_one_start": int((sizes == 1).sum()),
        "states_of_failures": len(np.unique(state[~solved])),
        "still_moving": float(moving.mean()),
        "failures_still_moving": float(moving[~solved].mean()) if not solved.all() else np.nan,
    }
