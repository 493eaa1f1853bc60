"""Claim F2: do successes travel and failures sink? Paths through one pooled PCA, by outcome."""

from contextlib import ExitStack
from typing import Any

import numpy as np
import pandas as pd

from trm_interp.analysis.outcomes import half_failed
from trm_interp.analysis.pca import NotFinite
from trm_interp.analysis.trajectories import Trajectories, trajectories
from trm_interp.figures.bands import where
from trm_interp.figures.trajectories import path_figure
from trm_interp.recording.states import states_of
from trm_interp.recording.store import Store
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import seed32
from trm_interp.runtime.provenance import versions
from trm_interp.studies.config import TrajectoriesConfig
from trm_interp.studies.results import Progress, Results, Tell, results_of
from trm_interp.studies.subject import opening, said_of
from trm_interp.tasks.sudoku.grid import from_tokens, shape_of

UMAP_OF = 30  # components that UMAP starts from
UMAP_INIT = "pca"  # of the places in two dimensions
TABLES = ("paths", "paths_3d", "paths_ticks", "umap")


def run(config: TrajectoriesConfig, tell: Tell, progress: Progress) -> dict[str, Any]:
    """`paths.csv` has the point of every puzzle and step, drawn or not; `paths_ticks.csv` all
    updates that are drawn."""
    with ExitStack() as stack:
        store = stack.enter_context(opening(config, config.site, tell))
        if config.umap and store.n_puzzles < 2:
            raise UserError(
                f"{store.path} holds one puzzle; UMAP needs neighbours: record at least 2"
            )
        results = stack.enter_context(results_of("trajectories", config, TABLES))
        solved = store["solved"][:, -1]
        n_components = max(3, UMAP_OF if config.umap else 0)
        width = int(np.prod(store[config.site].shape[-2:]))
        try:
            found = trajectories(
                states_of(store, config.site),
                min(n_components, width),
                config.relative,
                config.seed,
            )
        except NotFinite as error:
            raise UserError(
                f"{store.path}: {config.site} is not finite, first in puzzle {error.chunk}"
            ) from None
        progress(store.n_puzzles, store.n_puzzles)
        points = at_steps(store, found)
        drawn = half_failed(solved, config.shown)
        pool = f"{store.n_puzzles} puzzles x {found.paths.shape[1]} updates of {config.site}"
        title = f"{len(drawn)} puzzles{', from their first state' if config.relative else ''}"
        title += f"; axes of {pool}"
        per_step = found.paths.shape[1] // store.n_steps
        for dimensions in (2, 3):
            figure = path_figure(
                found.paths[drawn],
                where(points, points["puzzle"].isin(drawn)),
                found.explained,
                title,
                per_step,
                dimensions,
                shape_of(store["labels"].shape[-1]).side,
            )
            name = "paths" if dimensions == 2 else "paths_3d"
            results.figure(name, figure, points.assign(drawn=points["puzzle"].isin(drawn)))
        results.table("paths_ticks", _by_tick(found, drawn))
        summary = {
            **said_of(store),
            "site": config.site,
            "relative": config.relative,
            "pool": pool,
            "explained": found.explained[:3],
            "solved": int(solved.sum()),
            "drawn": len(drawn),
            "share_between_puzzles": between_puzzles(found.paths[..., :3]),
        }
        if config.umap:
            summary["umap"] = _umap(points, found, per_step, config, results)
        return results.finish(summary)


def at_steps(store: Store, found: Trajectories) -> pd.DataFrame:
    """The last update of every supervision step: where it is, and the board of that moment.

    Columns puzzle, line, step (from 1), pc1 .. pc3, solved, solved_at_end, loss, board (digits,
    row by row, blanks as dots) and wrong (cells).
    """
    n_steps = store.n_steps
    per_step = found.paths.shape[1] // n_steps
    ends = found.paths[:, per_step - 1 :: per_step, :3]
    frame = store.frame()
    boards, labels = store["predictions"][:], store["labels"][:]
    table = pd.DataFrame(
        {
            "puzzle": frame["puzzle"],
            "line": frame["puzzle_id"],
            "step": frame["step"] + 1,
            **{f"pc{i + 1}": ends[..., i].ravel() for i in range(ends.shape[-1])},
            "solved": frame["solved"],
            "solved_at_end": np.repeat(store["solved"][:, -1], n_steps),
            "loss": frame["loss"],
            "wrong": (boards != labels[:, None]).sum(-1).ravel(),
        }
    )
    table["board"] = [
        "".join("." if digit == 0 else str(digit) for digit in from_tokens(board))
        for board in boards.reshape(-1, boards.shape[-1])
    ]
    return table


def between_puzzles(paths: np.ndarray) -> float:
    """Share of the variance of the paths that is between the puzzles' means, not along paths."""
    means = paths.mean(1)
    total = paths.reshape(-1, paths.shape[-1]).var(0).sum()
    return float(means.var(0).sum() / total) if total else float("nan")


def _by_tick(found: Trajectories, drawn: list[int]) -> pd.DataFrame:
    n_ticks = found.paths.shape[1]
    return pd.DataFrame(
        {
            "puzzle": np.repeat(drawn, n_ticks),
            "update": np.tile(np.arange(n_ticks), len(drawn)),
            **{f"pc{i + 1}": found.paths[drawn, :, i].ravel() for i in range(3)},
        }
    )


def _umap(
    points: pd.DataFrame,
    found: Trajectories,
    per_step: int,
    config: TrajectoriesConfig,
    results: Results,
) -> dict[str, Any]:
    """The steps' points in two dimensions that keep neighbours; the embedding is stored."""
    from trm_interp.runtime.caches import let_numba_cache

    let_numba_cache()
    import umap

    from trm_interp.figures.trajectories import umap_figure

    states = found.paths[:, per_step - 1 :: per_step].reshape(len(points), -1)
    neighbours = min(15, len(points) - 1)
    embedded = np.asarray(umap.UMAP(**umap_settings(neighbours, config.seed)).fit_transform(states))
    table = points.assign(umap1=embedded[:, 0], umap2=embedded[:, 1])
    side = shape_of(len(table["board"][0])).side
    results.figure("umap", umap_figure(table, f"UMAP of {len(table)} states", side), table)
    made = {"umap-learn": umap.__version__, **versions()}
    return {
        "seed": config.seed,
        "neighbours": neighbours,
        "from_components": states.shape[1],
        "init": UMAP_INIT,
    } | made


def umap_settings(neighbours: int, seed: int) -> dict[str, Any]:
    """With these the seed holds: the spectral start of UMAP's default differs between processes,
    and threads add up in any order."""
    known = {"random_state": seed32(seed), "n_jobs": 1, "init": UMAP_INIT}
    return {"n_neighbors": neighbours, **known}


def lines(summary: dict[str, Any]) -> list[str]:
    """For people."""
    shares = ", ".join(f"{share:.1%}" for share in summary["explained"])
    return [
        f"{summary['pool']}; {summary['solved']} solved at the end",
        f"variance along the first three axes: {shares}; "
        f"{summary['share_between_puzzles']:.1%} of it is between puzzles, not along their paths",
    ]
