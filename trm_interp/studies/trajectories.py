"""Claim F2: do successes travel and failures sink? Paths through one pooled PCA, by outcome."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from trm_interp.analysis.estimates import Number
from trm_interp.analysis.outcomes import half_failed
from trm_interp.analysis.pca import NotFinite, Sums, first_sums
from trm_interp.analysis.trajectories import Trajectories, moved, trajectories
from trm_interp.core.losses import PAD
from trm_interp.figures.bands import where
from trm_interp.figures.trajectories import path_figure, umap_figure
from trm_interp.recording.states import states_of
from trm_interp.recording.store import Store
from trm_interp.runtime.arrays import Arrays
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import counted, seed32
from trm_interp.runtime.provenance import versions
from trm_interp.runtime.records import optional
from trm_interp.runtime.shards import divided, numbered, shard_ends
from trm_interp.studies.results import Figures, OnStoreResult, Progress, Tell, results_of
from trm_interp.studies.settings import TrajectoriesConfig
from trm_interp.studies.subject import opening, provenance_of, site_of
from trm_interp.tasks.base import Task

Config = TrajectoriesConfig
UMAP_OF = 30  # components that UMAP starts from
UMAP_INIT = "pca"  # of the places in two dimensions
NAMES = ("paths", "paths_3d", "paths_ticks", "umap")
TOGETHER = 16  # puzzles of a piece, whose sums are a twentieth of their states


@dataclass(frozen=True, kw_only=True)
class TrajectoriesResult(OnStoreResult):
    """`pool`: what the axes are fitted to; `explained`: its shares of variance on the first three;
    `share_between_puzzles`: share of the paths' variance that is between the puzzles' means;
    `drawn`: number of puzzles; `umap`: settings and versions of the embedding, where there is
    one."""

    site: str
    relative: bool
    pool: str
    explained: list[float]
    solved: int
    drawn: int
    share_between_puzzles: Number
    umap: dict[str, int | str] | None = optional()


Result = TrajectoriesResult


class Tables(NamedTuple):
    """points: `at_steps`, of all puzzles, with which are `drawn`; ticks: every update of those that
    are drawn; umap: the points with their places in the embedding."""

    points: pd.DataFrame
    ticks: pd.DataFrame
    umap: pd.DataFrame | None


def run(config: TrajectoriesConfig, tell: Tell, progress: Progress) -> TrajectoriesResult:
    """`paths.csv` has the point of every puzzle and step, drawn or not; `paths_ticks.csv` all
    updates that are drawn."""
    with ExitStack() as stack:
        store = stack.enter_context(opening(config, tell))
        config = replace(config, site=site_of(store, config.site))
        if config.umap and store.n_puzzles < 2:
            raise UserError(
                f"{store.path} holds one puzzle; UMAP needs neighbours: record at least 2"
            )
        results = stack.enter_context(
            results_of("trajectories", config, NAMES, tell=tell, progress=progress)
        )
        paths = _paths(store, config)
        progress(store.n_puzzles, store.n_puzzles)
        result, tables = measure(store, paths, config)
        results.write(figures(result, tables, paths, store.task), {"paths_ticks": tables.ticks})
        return results.finish(result)


def _paths(store: Store, config: TrajectoriesConfig) -> Trajectories:
    """UserError names the first puzzle whose states are not finite."""
    n_components = max(3, UMAP_OF if config.umap else 0)
    width = int(np.prod(store[config.site].shape[-2:]))
    n_components = min(n_components, width)
    first = _first_pass(store, config, n_components)
    try:
        return trajectories(
            states_of(store, config.site), n_components, config.relative, config.seed, first
        )
    except NotFinite as error:
        raise UserError(
            f"{store.path}: {config.site} is not finite, first in puzzle {error.chunk} (from 0)"
        ) from None


def _first_pass(store: Store, config: TrajectoriesConfig, n_components: int) -> Iterator[Sums]:
    """The first of three passes, which shards divide, and at whose end they end."""

    def compute(i: int) -> Arrays:
        puzzles = range(i * TOGETHER, min((i + 1) * TOGETHER, store.n_puzzles))
        states = states_of(store, config.site, puzzles)()
        chunks = map(moved, states) if config.relative else states
        sums = list(first_sums(chunks, n_components, config.seed))
        return {name: np.stack([getattr(of, name) for of in sums]) for name in Sums._fields}

    for get in divided(numbered("puzzles", -(-store.n_puzzles // TOGETHER)), compute):
        for image, total, squares, n in zip(*map(get().get, Sums._fields), strict=True):
            yield Sums(torch.from_numpy(image), torch.from_numpy(total), float(squares), int(n))
    shard_ends()


def measure(
    store: Store, paths: Trajectories, config: TrajectoriesConfig
) -> tuple[TrajectoriesResult, Tables]:
    """The numbers and the tables of these paths."""
    solved = store["solved"][:, -1]
    drawn = half_failed(solved, config.shown)
    points = at_steps(store, paths)
    umap = settings = None
    if config.umap:
        umap, settings = _umap(points, paths, config)
    result = TrajectoriesResult(
        **provenance_of(store),
        site=config.site,
        relative=config.relative,
        pool=f"{counted(store.n_puzzles, 'puzzle')} x {paths.paths.shape[1]} updates of "
        f"{config.site}",
        explained=paths.explained[:3].tolist(),
        solved=int(solved.sum()),
        drawn=len(drawn),
        share_between_puzzles=between_puzzles(paths.paths[..., :3]),
        umap=settings,
    )
    points = points.assign(drawn=points["puzzle"].isin(drawn))
    return result, Tables(points, _by_tick(paths, drawn), umap)


def at_steps(store: Store, paths: Trajectories) -> pd.DataFrame:
    """The last update of every supervision step: where it is, and the board of that moment.

    Columns puzzle, line, step, pc1 .. pc3, solved, solved_at_end, loss, wrong (cells) and
    board (as one line of text).
    """
    n_steps = store.n_steps
    per_step = paths.paths.shape[1] // n_steps
    ends = paths.paths[:, per_step - 1 :: per_step, :3]
    frame = store.frame()
    boards, labels = store["predictions"][:], store["labels"][:]
    table = pd.DataFrame(
        {
            "puzzle": frame["puzzle"],
            "line": frame["puzzle_id"],
            "step": frame["step"],
            **{f"pc{i + 1}": ends[..., i].ravel() for i in range(ends.shape[-1])},
            "solved": frame["solved"],
            "solved_at_end": np.repeat(store["solved"][:, -1], n_steps),
            "loss": frame["loss"],
            "wrong": ((boards != labels[:, None]) & (labels[:, None] != PAD)).sum(-1).ravel(),
        }
    )
    flat = boards.reshape(-1, boards.shape[-1])
    table["board"] = [store.task.text(board) for board in flat]
    return table


def between_puzzles(paths: np.ndarray) -> float:
    """Share of the variance of the paths that is between the puzzles' means, not along paths."""
    means = paths.mean(1)
    total = paths.reshape(-1, paths.shape[-1]).var(0).sum()
    return float(means.var(0).sum() / total) if total else float("nan")


def _by_tick(paths: Trajectories, drawn: list[int]) -> pd.DataFrame:
    n_ticks = paths.paths.shape[1]
    return pd.DataFrame(
        {
            "puzzle": np.repeat(drawn, n_ticks),
            "update": np.tile(np.arange(n_ticks), len(drawn)),
            **{f"pc{i + 1}": paths.paths[drawn, :, i].ravel() for i in range(3)},
        }
    )


def _umap(
    points: pd.DataFrame, paths: Trajectories, config: TrajectoriesConfig
) -> tuple[pd.DataFrame, dict[str, int | str]]:
    """The steps' points in two dimensions that keep neighbours, and how they were embedded."""
    from trm_interp.runtime.caches import let_numba_cache

    let_numba_cache()
    import umap

    per_puzzle = len(points) // len(paths.paths)  # supervision steps
    per_step = paths.paths.shape[1] // per_puzzle
    states = paths.paths[:, per_step - 1 :: per_step].reshape(len(points), -1)
    neighbours = min(15, len(points) - 1)
    embedded = np.asarray(umap.UMAP(**umap_settings(neighbours, config.seed)).fit_transform(states))
    settings = {
        "seed": config.seed,
        "neighbours": neighbours,
        "from_components": states.shape[1],
        "init": UMAP_INIT,
        "umap-learn": umap.__version__,
        **versions(),
    }
    return points.assign(umap1=embedded[:, 0], umap2=embedded[:, 1]), settings


def umap_settings(neighbours: int, seed: int) -> dict[str, Any]:
    """With these the seed holds: the spectral start of UMAP's default differs between processes,
    and threads add up in any order."""
    reproducible = {"random_state": seed32(seed), "n_jobs": 1, "init": UMAP_INIT}
    return {"n_neighbors": neighbours, **reproducible}


def figures(result: TrajectoriesResult, tables: Tables, paths: Trajectories, task: Task) -> Figures:
    """The drawn paths in two and three dimensions, and the embedding where there is one."""
    points = tables.points
    drawn = where(points, points["drawn"])
    lines_of = paths.paths[np.unique(drawn["puzzle"].to_numpy())]
    per_step = paths.paths.shape[1] // (1 + int(points["step"].to_numpy().max()))
    title = (
        f"{counted(result.drawn, 'puzzle')}{', from their first state' if result.relative else ''}"
    )
    title += f"; axes of {result.pool}"
    is_grid = len(points["board"].iloc[0]) == task.cells  # a character a cell
    columns = task.grid[1] if is_grid else None
    made: Figures = {}
    for name, dimensions in (("paths", 2), ("paths_3d", 3)):
        figure = path_figure(
            lines_of,
            drawn,
            paths.explained,
            title,
            per_step,
            dimensions,
            columns,
            result.relative,
        )
        made[name] = figure, points
    if tables.umap is not None:
        title = f"UMAP of {result.site} of {counted(result.n, 'puzzle')} after each step"
        made["umap"] = umap_figure(tables.umap, title, columns), tables.umap
    return made


def lines(result: TrajectoriesResult) -> list[str]:
    """The result in words."""
    shares = ", ".join(f"{share:.1%}" for share in result.explained)
    between = result.share_between_puzzles
    return [
        f"{result.pool}; {result.solved} solved at the end",
        f"variance along the first three axes: {shares}; "
        f"{'-' if between is None else f'{between:.1%}'} of it is between puzzles, not along their "
        "paths",
    ]
