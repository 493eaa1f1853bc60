"""Basins of attraction (figure 3 of the seed paper): where do runs end that start elsewhere?"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from trm_interp.analysis.outcomes import half_failed
from trm_interp.analysis.resample import discoveries
from trm_interp.figures.bands import groups
from trm_interp.figures.basins import basin_figure, slice_figure, slice_movie
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.parts import Arrays, Parts, read_identity
from trm_interp.studies.config import BasinsConfig
from trm_interp.studies.memory import for_basins
from trm_interp.studies.one_puzzle import Found, heading, look_at
from trm_interp.studies.results import Progress, Tell, results_of
from trm_interp.studies.subject import Subject, open_subject
from trm_interp.subjects.evaluate import solve

# what the numbers do not depend on
APART = {"ckpt", "puzzles", "out", "static", "resume", "overwrite", "shuffles", "neighbours"}
APART |= {"tolerance", "skip_bad"}  # a run that skips none does not depend on skip_bad
TABLES = (
    "basins",
    "ends",
    "planes",
    "plane-*",
    "answers",
    "states",
    "corners",
    "radii",
    "clusters",
)


def run(config: BasinsConfig, tell: Tell, progress: Progress) -> dict[str, Any]:
    subject = open_puzzles(config, tell)
    for_basins(subject, config)
    identity = {k: v for k, v in asdict(config).items() if k not in APART} | {
        "device": subject.device.type,
        "checkpoint_sha256": subject.checkpoint.sha256,
        "data_sha256": dict(subject.puzzles.sha256),
    }
    with results_of("basins", config, TABLES, ("parts",), unmarked=_has_parts) as results:
        parts = Parts(config.out / "parts", "basins", identity, tell)
        chosen = config.indices or _chosen(subject, config, parts)
        per_puzzle = 1 + config.starts + config.slice**2
        found: list[Found] = []
        for i, puzzle in enumerate(chosen):

            def count(done: int, before: int = i * per_puzzle) -> None:
                progress(before + done, len(chosen) * per_puzzle)

            found.append(look_at(subject, config, int(puzzle), parts, count))
        for name, (figure, numbers) in figures(found, config, subject.checkpoint.path.name).items():
            results.figure(name, figure, numbers)
        for name in ("answers", "states", "corners", "radii"):
            results.table(name, pd.concat([getattr(one, name) for one in found], ignore_index=True))
        clusters = pd.concat([one.clusters for one in found], ignore_index=True)
        results.table("clusters", clusters)
        summaries = [one.summary for one in found]
        return results.finish(
            subject.said
            | {"settings": asdict(config), "puzzles_looked_at": summaries}
            | _overall(summaries, clusters)
        )


def figures(
    found: list[Found], config: BasinsConfig, model: str
) -> dict[str, tuple[go.Figure, pd.DataFrame]]:
    """Figures with the numbers they plot: starts and ends as points, planes, and a page a plane."""
    headings = {one.summary["puzzle"]: one.heading for one in found}
    shape = "one vector for all positions" if config.shared else "a vector a position"
    what = f"{config.starts} starts of {config.target} a puzzle, {shape}"
    titles = {"start": f"{model}, {what}", "end": f"{model}, where runs end: {what}"}
    table = pd.concat([one.starts for one in found], ignore_index=True)
    drawn = {}
    for name, kind in (("basins", "start"), ("ends", "end")):
        numbers = table.rename(columns={f"{kind}_x": "x", f"{kind}_y": "y"})
        explained = {one.summary["puzzle"]: one.summary[f"{kind}_explained"] for one in found}
        figure = basin_figure(numbers, explained, headings, config.steps, kind, titles[kind])
        drawn[name] = figure, numbers
    if config.slice:
        planes, corners = (
            pd.concat([getattr(one, name) for one in found], ignore_index=True)
            for name in ("plane", "corners")
        )
        title = f"{model}, planes of {config.target} through three states"
        drawn["planes"] = slice_figure(planes, corners, headings, config.steps, title), planes
        for one in found:
            movie = slice_movie(one.plane, one.corners, config.steps, f"{model}, {one.heading}")
            drawn[f"plane-{one.summary['puzzle']}"] = movie, one.plane
    return drawn


def lines(summary: dict[str, Any]) -> list[str]:
    clustered = summary["clustered_by_steps"]
    return [
        *(_line(one) for one in summary["puzzles_looked_at"]),
        *(
            f"Moran's I of steps to solution, {where}: above shuffles in {hits} of {of} puzzles "
            "(false discovery rate 5 %)"
            for where, (hits, of) in clustered.items()
        ),
    ]


def open_puzzles(config: BasinsConfig, tell: Tell = print) -> Subject:
    """UserError where the file has no puzzle of that index."""
    if config.indices is None:
        return open_subject(config, tell)
    most = max(config.indices)
    subject = open_subject(replace(config, limit=most + 1), tell)
    if most >= len(subject.puzzles):
        raise UserError(
            f"no puzzle {most}: {subject.puzzles.source} has {len(subject.puzzles)}, from 0"
        )
    return subject


def choose(subject: Subject, config: BasinsConfig) -> Arrays:
    """The first puzzles that the model's own start solves, and as many that it fails, half and
    half as far as they go."""
    read = solve(subject.model, subject.puzzles, config.steps, config.batch_size)
    solved = read.solved[:, -1].numpy()
    return {"puzzles": np.array(half_failed(solved, config.n_puzzles)), "solved": solved}


def _chosen(subject: Subject, config: BasinsConfig, parts: Parts) -> list[int]:
    n = len(subject.puzzles)
    shapes = {"puzzles": (min(config.n_puzzles, n),), "solved": (n,)}
    found = parts.get("chosen", shapes, lambda: choose(subject, config))
    return half_failed(found["solved"] != 0, config.n_puzzles)


def _has_parts(folder: Path) -> bool:
    """Whether it holds a run from before there were markers."""
    return read_identity(folder / "parts") is not None


def _overall(found: list[dict[str, Any]], clusters: pd.DataFrame) -> dict[str, Any]:
    """Over puzzles: those that the model's own start fails and solves, apart; and how many show
    clusters (at a false discovery rate of 5 % over all tests). A share of each puzzle is listed: a
    handful of puzzles carries no interval."""
    fails = [one["solved"] for one in found if one["own_start_solved_from"] < 0]
    solves = [one["solved"] for one in found if one["own_start_solved_from"] >= 0]
    steps = clusters.query('measure == "Moran\'s I"').dropna(subset=["p"])
    steps = steps.assign(found=discoveries(steps["p"].to_numpy()))
    return {
        "solved_where_own_start_fails": fails,
        "solved_where_own_start_solves": solves,
        "clustered_by_steps": {
            where: [int(rows["found"].to_numpy().sum()), len(rows)]
            for (where,), rows in groups(steps, "where")
        },
    }


def _line(one: dict[str, Any]) -> str:
    return (
        f"{heading(one)}; {one['solved']:.1%} [{one['solved_low']:.1%}, {one['solved_high']:.1%}] "
        f"of {one['n']} starts solved, {one['answers']} answers, {one['states']} states"
    )
