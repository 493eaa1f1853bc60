"""Everything that is measured of one puzzle whose runs start elsewhere: tables and numbers.

The helper of `basins`, which looks at several puzzles.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse
import torch

from trm_interp.analysis.basins import (
    cluster_table,
    principal_plane,
    radius_of,
    same_answer,
    same_state,
    shares,
)
from trm_interp.analysis.estimates import Number
from trm_interp.analysis.outcomes import named_share
from trm_interp.analysis.spatial import lattice, nearest
from trm_interp.figures.bands import groups
from trm_interp.runtime.arrays import Arrays
from trm_interp.runtime.records import Record, optional
from trm_interp.runtime.runs import Run
from trm_interp.studies.settings import BasinsConfig
from trm_interp.studies.start_paths import start_paths
from trm_interp.studies.start_runs import Count, look_at_plane, quiet, run_starts
from trm_interp.studies.starts import Starts
from trm_interp.studies.subject import Subject

DIRECTIONS = "all directions"  # where neighbours are those of the nearest direction
PLANE = "plane"  # where starts lie that are chosen through both outcomes
CLUSTERS = ["where", "measure", "label", "n", "value", "chance", "p"]  # columns


@dataclass(frozen=True, kw_only=True)
class PuzzleBasins(Record):
    """One puzzle, by its place in the file and its line; numbers and intervals over its `n` random
    starts.

    `own_start_solved_from`: step (from 0) from which the model's own start stays solved, -1: never.
    `ever`: solved at some step. `answers`, `states`: different ends; `states_of_one_start` of them
    are reached from one start only. `still_moving`: changed by more than the tolerance in the last
    step. `start_explained`, `end_explained`, `path_explained` (of the states after steps; None in
    files of earlier versions): shares of variance along two principal axes. `plane_`: of the places
    of the plane's image.
    """

    puzzle: int
    line: int
    own_start_solved_from: int
    n: int
    solved: float
    solved_low: float
    solved_high: float
    ever: float
    ever_low: float
    ever_high: float
    median_solved_from: Number
    answers: int
    wrong_answers: int
    largest_wrong_share: float
    states: int
    states_of_one_start: int
    states_of_failures: int
    still_moving: float
    failures_still_moving: Number
    start_explained: list[Number]
    end_explained: list[Number]
    path_explained: list[Number] | None = optional()
    plane_solved: float | None = optional()
    plane_answers: int | None = optional()

    @property
    def heading(self) -> str:
        """Which puzzle, and the outcome of the model's own start."""
        own = self.own_start_solved_from
        outcome = "fails" if own < 0 else f"solves at step {own + 1}"
        return f"puzzle {self.puzzle} (from 0): own start {outcome}"


class OnePuzzle(NamedTuple):
    """starts: a row a start, 0 the model's own. answers, states: a row a final answer, and a final
    state within the tolerance. plane, corners: a row a place of the image (empty without one) and
    of the three states that span it. clusters: do starts that lie together end alike? radii: solved
    by radius. paths: a row a start that is shown and step. numbers: a summary."""

    starts: pd.DataFrame
    answers: pd.DataFrame
    states: pd.DataFrame
    plane: pd.DataFrame
    corners: pd.DataFrame
    clusters: pd.DataFrame
    radii: pd.DataFrame
    paths: pd.DataFrame
    numbers: PuzzleBasins


def look_at(
    subject: Subject,
    config: BasinsConfig,
    puzzle: int,
    run: Run | None = None,
    count: Count = quiet,
) -> OnePuzzle:
    """Run everything of one puzzle (its place in `subject.puzzles`) and measure it.

    With `run`, chunks of runs are saved there, or read if they were saved before.
    """
    starts = Starts(subject, puzzle, config.target)
    runs = run_starts(starts, config, run, count)
    moved, ends = _points(starts, runs, config)
    table, explained = _start_table(starts, runs, moved, ends, config)
    drawn = table.iloc[1:]  # the model's own start is no random one
    answers = answer_table(starts, drawn, runs["answer"])
    clusters = _start_clusters(drawn, moved[1:], config)
    plane, corners, of_plane = pd.DataFrame(), pd.DataFrame(), {}
    if config.slice:
        n = 1 + config.starts
        plane, corners = look_at_plane(starts, runs, config, run, lambda done: count(n + done))
        clusters[PLANE] = _lattice_clusters(plane, config)
        of_plane = {
            "plane_solved": float(np.mean(plane["solved_from"] >= 0)),
            "plane_answers": len(np.unique(plane["answer"])),
        }
    paths, along = start_paths(starts, config, run)
    explained["path_explained"] = along
    each = [one.assign(where=where) for where, one in clusters.items()]
    return OnePuzzle(
        starts=table,
        answers=answers,
        states=_state_table(starts, drawn),
        plane=plane,
        corners=corners,
        clusters=pd.concat(each, ignore_index=True)[CLUSTERS].assign(puzzle=puzzle),
        radii=_radius_table(starts, drawn),
        paths=paths,
        numbers=PuzzleBasins(**summarise(starts, table, answers, config), **explained, **of_plane),
    )


# tables


def _points(starts: Starts, runs: Arrays, config: BasinsConfig) -> tuple[np.ndarray, np.ndarray]:
    """[start, number]: what is added to the targets at the start, and all states at the end."""
    n = 1 + config.starts
    moved = starts.moved(torch.arange(n), config.radius, config.shared, config.seed)
    return torch.cat([d.flatten(1) for d in moved], 1).cpu().numpy(), runs["end"].reshape(n, -1)


def _start_table(
    starts: Starts, runs: Arrays, moved: np.ndarray, ends: np.ndarray, config: BasinsConfig
) -> tuple[pd.DataFrame, dict[str, list[float]]]:
    """A row a start, with its place and that of its end along two principal axes; and the shares of
    variance that those explain."""
    order = torch.arange(len(ends))
    table = pd.DataFrame(
        {
            "puzzle": starts.puzzle,
            "start": order.numpy(),
            "radius": radius_of(order, config.radius).numpy().round(6),
            "first_solved": runs["first_solved"],
            "solved_from": runs["solved_from"],
            "answer": same_answer(runs["answer"]),
            "q_halt": runs["q_halt"],
            "moved": runs["moved"],
            "state": same_state(ends, config.tolerance),
        }
    )
    explained = {}
    for kind, points in (("start", moved), ("end", ends)):
        places, along = principal_plane(points, config.seed)
        table[f"{kind}_x"], table[f"{kind}_y"] = places.T
        explained[f"{kind}_explained"] = along.tolist()
    return table, explained


def _start_clusters(
    drawn: pd.DataFrame, moved: np.ndarray, config: BasinsConfig
) -> dict[str, pd.DataFrame]:
    """Do starts end alike that lie together in two axes, or in all directions?"""
    axes = drawn[["start_x", "start_y"]].to_numpy()
    directions = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    solved, k = drawn["solved_from"].to_numpy() >= 0, config.neighbours
    clusters = {}
    for where, points in (("two axes", axes), (DIRECTIONS, directions)):
        among = nearest(points[solved], k) if solved.sum() > k else None
        clusters[where] = _clusters(drawn, nearest(points, k), among, config)
    return clusters


def _clusters(
    rows: pd.DataFrame,
    weights: scipy.sparse.csr_matrix,
    among_solved: scipy.sparse.csr_matrix | None,
    config: BasinsConfig,
) -> pd.DataFrame:
    return cluster_table(rows, weights, among_solved, config.seed, config.shuffles)


def _lattice_clusters(plane: pd.DataFrame, config: BasinsConfig) -> pd.DataFrame:
    """Of the places of the image, by the edges that they share."""
    weights = lattice(config.slice, config.slice)
    solved = np.flatnonzero(plane["solved_from"].to_numpy() >= 0)
    among = weights[solved][:, solved]
    return _clusters(plane, weights, among if among.nnz else None, config)


def _state_table(starts: Starts, drawn: pd.DataFrame) -> pd.DataFrame:
    """Every final state, the most frequent one first, and how many of its starts are solved."""
    table = shares(drawn["state"].to_numpy()).rename(columns={"basin": "state"})
    solved = drawn.groupby("state")["solved_from"].agg(lambda since: (since >= 0).mean())
    return table.assign(puzzle=starts.puzzle, solved=solved.loc[table["state"]].to_numpy())


def _radius_table(starts: Starts, drawn: pd.DataFrame) -> pd.DataFrame:
    """Different answers and the share solved, by how far the starts are from the model's own."""
    rows = []
    for (radius,), at in groups(drawn.sort_values("radius"), "radius"):
        hits = np.asarray(at["solved_from"]) >= 0
        row = {"puzzle": starts.puzzle, "radius": radius, "answers": len(np.unique(at["answer"]))}
        rows.append(row | {"n": len(hits), **named_share("solved", hits)})
    return pd.DataFrame(rows)


def answer_table(starts: Starts, drawn: pd.DataFrame, last: np.ndarray) -> pd.DataFrame:
    """Every final answer, the most frequent one first: share, wrong cells (given ones among them),
    cells in conflict, grid."""
    table = shares(drawn["answer"].to_numpy()).rename(columns={"basin": "answer"})
    task = starts.subject.task
    given = ~task.asked(starts.subject.puzzles.inputs[starts.puzzle])
    first = drawn.drop_duplicates("answer").set_index("answer")["start"]
    grids = last[first.loc[table["answer"]].to_numpy()]  # tokens [answer, cell]
    wrong = grids != starts.answer
    return table.assign(
        puzzle=starts.puzzle,
        wrong_cells=wrong.sum(1),
        wrong_givens=wrong[:, given].sum(1),
        conflicts=task.conflicts(grids).sum(1),
        grid=[task.text(grid) for grid in grids],
    )


def summarise(
    starts: Starts, table: pd.DataFrame, answers: pd.DataFrame, config: BasinsConfig
) -> dict[str, Any]:
    """The fields of a `PuzzleBasins` that are over the random starts."""
    drawn = table.iloc[1:]
    columns = ("first_solved", "solved_from", "state", "moved")
    first, since, state, moved = (drawn[name].to_numpy() for name in columns)
    ever, solved, moving = first >= 0, since >= 0, moved > config.tolerance
    wrong = np.asarray(answers.query("wrong_cells > 0")["share"])
    _, sizes = np.unique(state, return_counts=True)
    return {
        "puzzle": starts.puzzle,
        "line": int(starts.subject.puzzles.lines[starts.puzzle]),
        "own_start_solved_from": int(table["solved_from"].to_numpy()[0]),
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
