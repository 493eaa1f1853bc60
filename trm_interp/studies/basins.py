"""Basins of attraction (figure 3 of the seed paper): where do runs end that start elsewhere?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from trm_interp.analysis.basins import SOLVED, STEPS
from trm_interp.analysis.estimates import Estimate
from trm_interp.analysis.outcomes import half_failed
from trm_interp.analysis.resample import discoveries, mean_of_few
from trm_interp.figures.basins import basin_figure, slice_figure, slice_movie
from trm_interp.figures.start_paths import start_path_figure
from trm_interp.runtime.arrays import Arrays
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.records import Record, optional
from trm_interp.runtime.runs import Run, read_identity
from trm_interp.runtime.shards import is_shard, shard_ends
from trm_interp.search.noise import target_states
from trm_interp.search.settings import ALL_STATES
from trm_interp.studies.memory import for_basins
from trm_interp.studies.one_puzzle import (
    DIRECTIONS,
    PLANE,
    OnePuzzle,
    PuzzleBasins,
    look_at,
)
from trm_interp.studies.results import (
    PARTS,
    Figures,
    OnCheckpointResult,
    Progress,
    Tell,
    records,
    results_of,
)
from trm_interp.studies.settings import BasinsConfig
from trm_interp.studies.start_runs import run_starts
from trm_interp.studies.starts import COORDINATES, Starts
from trm_interp.studies.subject import Subject, open_subject
from trm_interp.subjects.evaluate import solve

Config = BasinsConfig
# what the numbers do not depend on
APART = {"ckpt", "puzzles", "out", "static", "style", "width", "resume", "overwrite"}
APART |= {"shuffles", "neighbours", "shown", "compile", "tolerance"}
APART |= {"ends"}  # said where only coordinates are kept, which earlier versions did not do
APART |= {"skip_bad"}  # a run that skips none does not depend on it
NAMES = (
    "trajectories",
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


SPACES = (DIRECTIONS, PLANE)  # not the two axes, which are of isotropic noise
JUDGED = {SOLVED: "solved or not", STEPS: "steps of the solved"}  # labels, in words


class Clustered(NamedTuple):
    """In `hits` of `tested` puzzles starts cluster by a label, in the space `where`."""

    where: str
    label: str
    hits: int
    tested: int


@dataclass(frozen=True, kw_only=True)
class ClusterTest(Record):
    """Moran's I of a label among the `n` starts of a puzzle: its `value`, its mean and `p` under
    shuffles. `clustered`: above them at a false discovery rate of 5 % over all tests."""

    where: str
    label: str
    puzzle: int
    n: int
    value: float
    chance: float
    p: float
    clustered: bool


@dataclass(frozen=True, kw_only=True)
class BasinsResult(OnCheckpointResult):
    """`solved_where_...`: share of the random starts that are solved, a puzzle each, apart by what
    the model's own start does. A handful of puzzles carries no interval. `tests`: do starts that
    lie together end alike, in all directions and on the plane, by whether they are solved and,
    among the solved, by their steps. None in files of earlier versions, which have
    `clustered_by_steps` instead: there unsolved starts count as one step more than all."""

    settings: dict[str, Any]
    puzzles_looked_at: list[PuzzleBasins]
    solved_where_own_start_fails: list[float]
    solved_where_own_start_solves: list[float]
    tests: list[ClusterTest] | None = optional()
    clustered_by_steps: dict[str, tuple[int, int]] | None = optional()

    def __post_init__(self) -> None:
        if not self.puzzles_looked_at:
            raise ValueError("puzzles_looked_at is empty")

    @property
    def hits(self) -> list[Clustered]:
        """The tests, counted by place and label."""
        if self.tests is None:
            earlier = self.clustered_by_steps or {}
            return [Clustered(where, "steps", *counts) for where, counts in earlier.items()]
        kinds = dict.fromkeys((one.where, one.label) for one in self.tests)
        return [
            Clustered(where, label, sum(one.clustered for one in of), len(of))
            for where, label in kinds
            for of in [[one for one in self.tests if (one.where, one.label) == (where, label)]]
        ]

    def excess(self, label: str) -> list[float]:
        """Moran's I of a label less its value by chance, in all directions, a puzzle each."""
        return [
            one.value - one.chance
            for one in self.tests or []
            if (one.where, one.label) == (DIRECTIONS, label)
        ]

    def mean_excess(self, label: str) -> Estimate:
        """Its mean over puzzles with Student's 95 % interval: they are a handful."""
        return mean_of_few(np.array(self.excess(label)))


Result = BasinsResult


def run(config: BasinsConfig, tell: Tell, progress: Progress) -> BasinsResult:
    """Run some puzzles from many starts. `resume` continues a run that was killed."""
    subject = open_puzzles(config, tell)
    config = named_target(subject, config)
    for_basins(subject, config)
    subject = subject.compiled_for(config, n_steps(subject, config), tell, _earlier(config))
    identity = {k: v for k, v in asdict(config).items() if k not in APART} | {
        "device": subject.device.type,
        "checkpoint_sha256": subject.checkpoint.sha256,
        "data_sha256": dict(subject.puzzles.sha256),
    }
    if subject.compiled:  # runs of earlier versions, which did not compile, do not say so
        identity["compiled"] = True
    whole = Starts(subject, 0, config.target).keeps_states(1 + config.starts, config.ends)
    if not whole:
        identity["ends"] = "coordinates"
        tell(f"keeping {COORDINATES} random coordinates of last states, not all (--ends)")
    with results_of(
        "basins",
        config,
        NAMES,
        identity=identity,
        tell=tell,
        progress=progress,
        unmarked=_has_parts,
    ) as results:
        chosen = config.indices or _chosen(subject, config, results.run)
        per_puzzle = starts_of_one(config)
        puzzles: list[OnePuzzle] = []
        for i, puzzle in enumerate(chosen):

            def count(done: int, before: int = i * per_puzzle) -> None:
                results.run.advance(before + done, len(chosen) * per_puzzle)

            if is_shard():  # planes and paths need the ends of all starts
                run_starts(Starts(subject, int(puzzle), config.target), config, count=count)
            else:
                puzzles.append(look_at(subject, config, int(puzzle), results.run, count))
        shard_ends()
        result = measure(subject, config, puzzles)
        tables = ("answers", "states", "corners", "radii", "clusters")
        results.write(
            figures(result, puzzles, config), {name: joined(puzzles, name) for name in tables}
        )
        return results.finish(result)


def starts_of_one(config: BasinsConfig) -> int:
    """Runs of every puzzle: the model's own start, random ones, and places of a plane."""
    return 1 + config.starts + config.slice**2


def n_steps(subject: Subject, config: BasinsConfig) -> int:
    """Supervision steps of all runs, those that choose the puzzles included."""
    n = len(subject.puzzles)
    first = 0 if config.indices else n
    n_looked_at = len(config.indices or range(min(config.n_puzzles, n)))
    return config.steps * (first + n_looked_at * starts_of_one(config))


def _earlier(config: BasinsConfig) -> bool | None:
    """Whether the run to resume has compiled the networks; None where there is none."""
    begun = read_identity(config.out / PARTS / "identity.json") if config.resume else None
    return None if begun is None else bool(begun.get("compiled", False))


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


def named_target(subject: Subject, config: BasinsConfig) -> BasinsConfig:
    """With the name of the target state where its role (`answer`, `latent`) was given."""
    targets = target_states(subject.model, config.target)
    return config if config.target in ALL_STATES else replace(config, target=targets[0])


def choose(subject: Subject, config: BasinsConfig) -> Arrays:
    """The first puzzles that the model's own start solves, and as many that it fails, half and
    half as far as they go."""
    read = solve(subject.model, subject.puzzles, config.steps, config.batch_size)
    solved = read.solved[:, -1].numpy()
    return {"puzzles": np.array(half_failed(solved, config.n_puzzles)), "solved": solved}


def _chosen(subject: Subject, config: BasinsConfig, run: Run) -> list[int]:
    n = len(subject.puzzles)
    shapes = {"puzzles": (min(config.n_puzzles, n),), "solved": (n,)}
    chosen = run.part("chosen", shapes, lambda: choose(subject, config))
    return half_failed(chosen["solved"] != 0, config.n_puzzles)


def _has_parts(folder: Path) -> bool:
    """Whether it holds a run from before there were markers."""
    return read_identity(folder / PARTS / "identity.json") is not None


def joined(puzzles: Sequence[OnePuzzle], name: str) -> pd.DataFrame:
    """One table of all puzzles, by its name in `OnePuzzle`."""
    return pd.concat([getattr(one, name) for one in puzzles], ignore_index=True)


def measure(subject: Subject, config: BasinsConfig, puzzles: Sequence[OnePuzzle]) -> BasinsResult:
    """The numbers over all these puzzles."""
    numbers = [one.numbers for one in puzzles]
    tests = joined(puzzles, "clusters").query(
        f'measure == "Moran\'s I" and where in {list(SPACES)}'
    )
    tests = tests.dropna(subset=["p"])
    tests = tests.assign(clustered=discoveries(tests["p"].to_numpy()))
    return BasinsResult(
        **subject.provenance,
        settings=asdict(config),
        puzzles_looked_at=numbers,
        solved_where_own_start_fails=[n.solved for n in numbers if n.own_start_solved_from < 0],
        solved_where_own_start_solves=[n.solved for n in numbers if n.own_start_solved_from >= 0],
        tests=[ClusterTest.of(row) for row in records(tests.drop(columns="measure"))],
    )


def figures(result: BasinsResult, puzzles: Sequence[OnePuzzle], config: BasinsConfig) -> Figures:
    """Starts and ends as points, planes, and a page a plane."""
    model, steps = result.model_name, config.steps
    headings = {one.numbers.puzzle: one.numbers.heading for one in puzzles}
    shape = "one vector for all positions" if config.shared else "a vector a position"
    drawn_from = f"{config.starts} starts of {config.target} a puzzle, {shape}"
    titles = {"start": f"{model}, {drawn_from}", "end": f"{model}, where runs end: {drawn_from}"}
    starts = joined(puzzles, "starts")
    drawn: Figures = {}
    if config.shown:
        paths = joined(puzzles, "paths")
        along = {one.numbers.puzzle: np.array(one.numbers.path_explained) for one in puzzles}
        n = min(config.shown, config.starts)
        title = f"{model}, runs from {n} starts of {config.target} a puzzle: {shape}"
        figure = start_path_figure(paths, along, headings, title, config.target)
        drawn["trajectories"] = figure, paths
    for name, kind in (("basins", "start"), ("ends", "end")):
        table = starts.rename(columns={f"{kind}_x": "x", f"{kind}_y": "y"})
        explained = {
            one.numbers.puzzle: np.array(getattr(one.numbers, f"{kind}_explained"))
            for one in puzzles
        }
        drawn[name] = basin_figure(table, explained, headings, steps, kind, titles[kind]), table
    if config.slice:
        planes, corners = joined(puzzles, PLANE), joined(puzzles, "corners")
        title = f"{model}, planes of {config.target} through three states"
        drawn["planes"] = slice_figure(planes, corners, headings, steps, title), planes
        for one in puzzles:
            movie = slice_movie(one.plane, one.corners, steps, f"{model}, {one.numbers.heading}")
            drawn[f"plane-{one.numbers.puzzle}"] = movie, one.plane
    return drawn


def lines(result: BasinsResult) -> list[str]:
    """The result in words."""
    return [
        *(
            f"{one.heading}; {one.solved:.1%} [{one.solved_low:.1%}, {one.solved_high:.1%}] "
            f"of {one.n} starts solved, {one.answers} answers, {one.states} states"
            for one in result.puzzles_looked_at
        ),
        *(
            f"Moran's I of {JUDGED.get(one.label, one.label)}, {one.where}: above shuffles in "
            f"{one.hits} of {one.tested} puzzles (false discovery rate 5 %)"
            for one in result.hits
        ),
    ]
