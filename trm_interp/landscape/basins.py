"""Basins of attraction (figure 3 of the seed paper): where do runs end that start elsewhere?"""

from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
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
from trm_interp.analysis.outcomes import first_solved, half_failed, solved_from, wilson
from trm_interp.analysis.spatial import against_shuffles, lattice, morans_i, nearest, purity
from trm_interp.errors import UserError
from trm_interp.evaluate import solve
from trm_interp.figures.basins import basin_figure, slice_figure
from trm_interp.landscape.config import BasinsConfig
from trm_interp.landscape.parts import Arrays, Parts
from trm_interp.landscape.results import Progress, Results, Tell
from trm_interp.landscape.starts import Starts, radius_of
from trm_interp.landscape.subject import Subject, open_subject
from trm_interp.tasks.sudoku.grid import conflicts, from_tokens, render

# what the numbers do not depend on
APART = {"ckpt", "puzzles", "out", "static", "resume", "overwrite", "shuffles", "neighbours"}
APART |= {"tolerance"}


class Found(NamedTuple):
    """Of one puzzle: rows of the tables, and the line of the summary."""

    starts: pd.DataFrame
    answers: pd.DataFrame
    plane: pd.DataFrame
    corners: pd.DataFrame
    clusters: pd.DataFrame
    radii: pd.DataFrame
    summary: dict[str, Any]


def run(config: BasinsConfig, tell: Tell, progress: Progress) -> dict[str, Any]:
    subject = open_puzzles(config)
    identity = {k: v for k, v in asdict(config).items() if k not in APART} | {
        "device": subject.device.type,
        "checkpoint_sha256": subject.checkpoint.sha256,
        "data_sha256": dict(subject.puzzles.sha256),
    }
    parts = Parts(config.out / "parts", identity, config.resume, config.overwrite)
    results = Results(config.out, config.static)
    chosen = config.indices or parts.get("chosen", lambda: choose(subject, config))["puzzles"]
    per_puzzle = 1 + config.starts + config.slice**2
    found = []
    for i, puzzle in enumerate(chosen):

        def count(done: int, i: int = i) -> None:
            progress(i * per_puzzle + done, len(chosen) * per_puzzle)

        found.append(_look_at(subject, config, int(puzzle), parts, count))
        tell(_line(found[-1].summary))
    tables = {
        name: pd.concat([getattr(one, name) for one in found], ignore_index=True)
        for name in ("starts", "answers", "plane", "corners", "clusters", "radii")
    }
    what = f"{subject.checkpoint.path.name}, {config.starts} starts of {config.target}"
    shape = "one vector for all positions" if config.shared else "one vector a position"
    title = f"Where runs end by where they start: {what} ({shape})"
    for kind in ("start", "end"):
        numbers = tables["starts"].rename(columns={f"{kind}_x": "x", f"{kind}_y": "y"})
        explained = {one.summary["puzzle"]: one.summary[f"{kind}_explained"] for one in found}
        headings = {one.summary["puzzle"]: _heading(one.summary) for one in found}
        figure = basin_figure(numbers, explained, headings, config.steps, kind, title)
        results.figure("basins" if kind == "start" else "ends", figure, numbers)
    if config.slice:
        headings = {one.summary["puzzle"]: _heading(one.summary) for one in found}
        title = f"Planes through three states: {subject.checkpoint.path.name}, {config.target}"
        figure = slice_figure(tables["plane"], tables["corners"], headings, config.steps, title)
        results.figure("planes", figure, tables["plane"])
    for name in ("answers", "corners", "clusters", "radii"):
        results.table(name, tables[name])
    return results.finish(
        subject.said
        | {"settings": asdict(config), "puzzles_looked_at": [one.summary for one in found]}
        | _overall([one.summary for one in found], tables["clusters"])
    )


def lines(summary: dict[str, Any]) -> list[str]:
    clustered = summary["clustered_by_steps"]
    return [
        *(_line(one) for one in summary["puzzles_looked_at"]),
        *(
            f"Moran's I of steps to solution, {where}: p < 0.05 in {hits} of {of} puzzles"
            for where, (hits, of) in clustered.items()
        ),
    ]


def open_puzzles(config: BasinsConfig) -> Subject:
    """UserError where the file has no puzzle of that index."""
    if config.indices is None:
        return open_subject(config)
    most = max(config.indices)
    subject = open_subject(replace(config, limit=most + 1))
    if most >= len(subject.puzzles):
        raise UserError(f"no puzzle {most}: {subject.file} has {len(subject.puzzles)}, from 0")
    return subject


def choose(subject: Subject, config: BasinsConfig) -> Arrays:
    """The first puzzles that the model's own start solves, and as many that it fails, half and
    half as far as they go."""
    read = solve(subject.model, subject.puzzles, config.steps, config.batch_size)
    solved = read.solved[:, -1].numpy()
    return {"puzzles": np.array(half_failed(solved, config.n_puzzles)), "solved": solved}


def run_starts(
    starts: Starts, config: BasinsConfig, parts: Parts | None = None, count: Any = None
) -> Arrays:
    """Runs from the model's own start (0) and from `config.starts` random ones, in chunks.

    answers [start, step, cell], q_halt and moved [start, step], and the last states in float16.
    """

    def compute(rows: range) -> Arrays:
        state = starts.random(torch.tensor(rows), config.radius, config.shared, config.seed)
        found = starts.follow(state, config.steps)
        z_H, z_L = (z.half().cpu().numpy() for z in found.end)
        return found._asdict() | {"end": np.stack([z_H, z_L], 1)}

    return _in_chunks("starts", starts.puzzle, 1 + config.starts, compute, config, parts, count)


def run_plane(
    starts: Starts,
    plane: Plane,
    config: BasinsConfig,
    parts: Parts | None = None,
    count: Any = None,
) -> tuple[np.ndarray, Arrays]:
    """Places [start, 2] of the image and the runs from there: answers, q_halt and moved."""
    places = square(plane.corners, config.slice)

    def compute(rows: range) -> Arrays:
        state = starts.on_plane(plane, places[rows.start : rows.stop])
        found = starts.follow(state, config.steps)._asdict()
        return {name: found[name] for name in ("answers", "q_halt", "moved")}

    return places, _in_chunks("plane", starts.puzzle, len(places), compute, config, parts, count)


def _in_chunks(
    kind: str,
    puzzle: int,
    n: int,
    compute: Any,
    config: BasinsConfig,
    parts: Parts | None,
    count: Any,
) -> Arrays:
    found = []
    for first in range(0, n, config.batch_size):
        rows = range(first, min(first + config.batch_size, n))
        if parts is None:
            found.append(compute(rows))
        else:
            name = f"puzzle-{puzzle:06d}/{kind}-{first:07d}"
            found.append(parts.get(name, lambda rows=rows: compute(rows)))
        if count is not None:
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
            points.append(starts.targets(type(state)(*(z[0] for z in state))))
            names.append("random start 1")
    return plane_through(torch.stack(points)), names


def _look_at(
    subject: Subject, config: BasinsConfig, puzzle: int, parts: Parts, count: Any
) -> Found:
    starts = Starts(subject, puzzle, config.target)
    runs = run_starts(starts, config, parts, count)
    n = 1 + config.starts
    solved = (runs["answers"] == starts.answer).all(-1)
    moved = starts.moved(torch.arange(n), config.radius, config.shared, config.seed)
    moved = torch.cat([d.flatten(1) for d in moved], 1).cpu().numpy()
    ends = runs["end"].reshape(n, -1)
    places, explained = principal_plane(moved, config.seed)
    end_places, end_explained = principal_plane(ends, config.seed)
    frame = pd.DataFrame(
        {
            "puzzle": puzzle,
            "start": np.arange(n),
            "radius": radius_of(torch.arange(n), config.radius).numpy().round(6),
            "first_solved": first_solved(solved),
            "solved_from": solved_from(solved),
            "answer": same_answer(runs["answers"][:, -1]),
            "state": same_state(ends, config.tolerance),
            "q_halt": runs["q_halt"][:, -1],
            "moved": runs["moved"][:, -1],
            "start_x": places[:, 0],
            "start_y": places[:, 1],
            "end_x": end_places[:, 0],
            "end_y": end_places[:, 1],
        }
    )
    drawn = frame[1:]  # the model's own start is no random one
    answers = _answers(subject, puzzle, drawn, runs["answers"][:, -1])
    summary = _summary(subject, puzzle, frame, drawn, answers, config)
    summary |= {"start_explained": explained, "end_explained": end_explained}
    among = {"plane of two axes": places[1:], "all directions": moved[1:]}
    size = np.linalg.norm(among["all directions"], axis=1, keepdims=True)
    among["all directions"] = among["all directions"] / size
    clusters = [
        _clusters(where, drawn, nearest(points, config.neighbours), config, by_radius=True)
        for where, points in among.items()
    ]
    image, corners = pd.DataFrame(), pd.DataFrame()
    if config.slice:
        plane, names = plane_of(starts, runs, config)
        at, runs = run_plane(starts, plane, config, parts, lambda done: count(n + done))
        solved = (runs["answers"] == starts.answer).all(-1)
        image = pd.DataFrame(
            {
                "puzzle": puzzle,
                "x": at[:, 0],
                "y": at[:, 1],
                "first_solved": first_solved(solved),
                "solved_from": solved_from(solved),
                "answer": same_answer(runs["answers"][:, -1]),
                "q_halt": runs["q_halt"][:, -1],
                "moved": runs["moved"][:, -1],
            }
        )
        x, y = plane.corners.T
        corners = pd.DataFrame({"puzzle": puzzle, "corner": names, "x": x, "y": y})
        weights = lattice(config.slice, config.slice)
        clusters.append(_clusters("slice", image, weights, config, by_radius=False))
        summary["slice_solved"] = float((image["solved_from"] >= 0).mean())
        summary["slice_answers"] = int(image["answer"].nunique())
    by_radius = [
        {"puzzle": puzzle, "radius": radius, **_share("solved", rows["solved_from"] >= 0)}
        | {"answers": int(rows["answer"].nunique())}
        for radius, rows in drawn.groupby("radius")
    ]
    return Found(
        frame,
        answers,
        image,
        corners,
        pd.concat(clusters, ignore_index=True).assign(puzzle=puzzle),
        pd.DataFrame(by_radius),
        summary,
    )


def _clusters(
    where: str, rows: pd.DataFrame, weights: Any, config: BasinsConfig, by_radius: bool
) -> pd.DataFrame:
    """Moran's I of the steps to solution (unsolved counts as one more than all) and the purity of
    outcome and answer, beside labels shuffled among starts of the same radius."""
    steps = rows["solved_from"].to_numpy()
    groups = rows["radius"].rank(method="dense").to_numpy(np.int64) if by_radius else None
    measured = {
        ("Moran's I", "steps"): (morans_i, np.where(steps < 0, config.steps, steps).astype(float)),
        ("purity", "solved"): (purity, (steps >= 0).astype(np.int64)),
        ("purity", "answer"): (purity, rows["answer"].to_numpy()),
    }
    return pd.DataFrame(
        [
            {"where": where, "measure": measure, "label": label, "n": len(rows)}
            | against_shuffles(f, v, weights, config.seed, groups, config.shuffles)._asdict()
            for (measure, label), (f, v) in measured.items()
        ]
    )


def _answers(subject: Subject, puzzle: int, drawn: pd.DataFrame, last: np.ndarray) -> pd.DataFrame:
    """Every final answer, the most frequent one first: share, mistakes, conflicts, grid."""
    table = shares(drawn["answer"].to_numpy()).rename(columns={"basin": "answer"})
    solution = from_tokens(subject.puzzles.labels[puzzle])
    first = drawn.drop_duplicates("answer").set_index("answer")["start"]
    grids = [from_tokens(last[first[answer]]) for answer in table["answer"]]
    return table.assign(
        puzzle=puzzle,
        wrong_cells=[int((grid != solution).sum()) for grid in grids],
        conflicts=[int(conflicts(grid).sum()) for grid in grids],
        grid=[render(grid) for grid in grids],
    )


def _summary(
    subject: Subject,
    puzzle: int,
    frame: pd.DataFrame,
    drawn: pd.DataFrame,
    answers: pd.DataFrame,
    config: BasinsConfig,
) -> dict[str, Any]:
    ever, solved = drawn["first_solved"] >= 0, drawn["solved_from"] >= 0
    wrong = answers[answers["wrong_cells"] > 0]
    states = drawn["state"].value_counts()
    return {
        "puzzle": puzzle,
        "line": int(subject.puzzles.lines[puzzle]),
        "own_start_solved_from": int(frame["solved_from"][0]),
        **_share("solved", solved),
        **{k: v for k, v in _share("ever", ever).items() if k != "n"},
        "median_solved_from": float(drawn.loc[solved, "solved_from"].median()),
        "answers": len(answers),
        "wrong_answers": len(wrong),
        "largest_wrong_share": float(wrong["share"].max()) if len(wrong) else 0.0,
        "states": len(states),
        "states_of_one_start": int((states == 1).sum()),
        "states_of_failures": int(drawn.loc[~solved, "state"].nunique()),
        "still_moving": float((drawn["moved"] > config.tolerance).mean()),
        "failures_still_moving": float((drawn.loc[~solved, "moved"] > config.tolerance).mean()),
    }


def _share(name: str, hits: pd.Series) -> dict[str, Any]:
    low, high = wilson(int(hits.sum()), len(hits))
    return {"n": len(hits), name: float(hits.mean()), f"{name}_low": low, f"{name}_high": high}


def _overall(found: list[dict[str, Any]], clusters: pd.DataFrame) -> dict[str, Any]:
    """Over puzzles: those that the model's own start fails and solves, apart; and how many show
    clusters. A share of each puzzle is listed: a handful of puzzles carries no interval."""
    fails = [one["solved"] for one in found if one["own_start_solved_from"] < 0]
    solves = [one["solved"] for one in found if one["own_start_solved_from"] >= 0]
    steps = clusters[clusters["measure"] == "Moran's I"].dropna(subset="p")
    return {
        "solved_where_own_start_fails": fails,
        "solved_where_own_start_solves": solves,
        "clustered_by_steps": {
            str(where): [int((rows["p"] < 0.05).sum()), len(rows)]
            for where, rows in steps.groupby("where", sort=False)
        },
    }


def _heading(one: dict[str, Any]) -> str:
    own = one["own_start_solved_from"]
    return f"puzzle {one['puzzle']}, own start " + (f"solves at {own + 1}" if own >= 0 else "fails")


def _line(one: dict[str, Any]) -> str:
    return (
        f"{_heading(one)}: {one['solved']:.1%} [{one['solved_low']:.1%}, {one['solved_high']:.1%}] "
        f"of {one['n']} starts solved, {one['answers']} answers, {one['states']} states"
    )
