"""What the patches of `trace` say: tables, agreement, and when the fate of a pair is sealed.

Arrays have the axes cell, pair and outcome, in the order of `patch.OUTCOMES`; a change is a patched
run's outcome less that of the same run as it is.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from trm_interp.analysis.control import partial_with_bounds
from trm_interp.analysis.estimates import Estimate, Median, Share
from trm_interp.analysis.outcomes import named_share, share_with_bounds
from trm_interp.analysis.resample import mean_estimate, mean_with_bounds, median_with_bounds
from trm_interp.patch.pairs import Pairs
from trm_interp.patch.patching import OUTCOMES
from trm_interp.runtime.arrays import Arrays
from trm_interp.runtime.records import Record
from trm_interp.studies.results import records
from trm_interp.studies.settings import TraceConfig
from trm_interp.studies.subject import Subject
from trm_interp.studies.trace_later import other_fate
from trm_interp.studies.traced import CONTROLS, DIRECTIONS, PAIR, RESCUE, Plan

LEAST_PAIRS = 3  # of which a correlation over pairs is told
FLIP, RIGHT, LOSS = (OUTCOMES.index(name) for name in ("exact", "cells", "loss"))
Changes = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Sealing(Record):
    """When the fate of a pair is sealed, by one state at all its positions. Moments are counted in
    supervision steps that are done, from 0, the start; a window is named by its first one.

    `rescued`, `ruined`: pairs that some moment rescues or ruins; `last_rescue`, `last_ruin`: of
    these the last such moment, after which no moment does. A pair that flips at the last moment of
    all may flip at later ones, which are not tried. `by_rating`: rank correlation of the last
    rescue with the rating, over pairs that are rescued. `donors`: share of the moments that rescue
    a pair, by whose state it is, mean over pairs.
    """

    rescued: Share
    ruined: Share
    last_rescue: Median
    last_ruin: Median
    by_rating: Estimate
    donors: dict[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class Strong(Record):
    """A cell: the change of the loss that patching it makes, in nats per cell."""

    direction: str
    site: str
    group: str
    moment: float
    flipped: Estimate
    loss: Estimate


def rated(
    subject: Subject, config: TraceConfig, puzzles: np.ndarray
) -> tuple[str | None, np.ndarray]:
    """The main rating of these puzzles, NaN where there is none."""
    name = subject.task.main_rating()
    if name is None:
        return None, np.full(len(puzzles), np.nan)
    values = subject.task.rate(subject.puzzles.subset(puzzles), config.seed)
    return name, np.asarray(values[name], np.float64)


def agreement(estimate: np.ndarray, exact: np.ndarray, seed: int) -> Estimate:
    """Spearman's correlation over the cells of a pair, [cell, pair] each; mean over pairs."""
    each = []
    for pair in range(estimate.shape[1]):
        there = np.isfinite(estimate[:, pair]) & np.isfinite(exact[:, pair])
        ranks = pd.DataFrame({"a": estimate[there, pair], "b": exact[there, pair]}).rank()
        flat = (ranks.nunique() < 2).any() if len(ranks) else True
        each.append(np.nan if flat else float(np.corrcoef(ranks["a"], ranks["b"])[0, 1]))
    return _mean(np.array(each), seed)


def _mean(values: np.ndarray, seed: int) -> Estimate:
    """Over pairs that have a number."""
    there = values[np.isfinite(values)]
    return mean_estimate(there, seed) if len(there) else Estimate(value=None, low=None, high=None)


def last_flip(plan: Plan, chosen: np.ndarray, change: np.ndarray, site: str) -> np.ndarray:
    """[pair]: the last moment at which patching all of a site changes whether the puzzle is solved,
    in supervision steps done; NaN where none does."""
    place = {cell: i for i, cell in enumerate(chosen)}
    own = [i for i in plan.whole if plan.cells[i].site == site]
    at = np.array([plan.done[plan.cells[i].moment] for i in own])
    flips = np.abs(change[[place[i] for i in own], :, FLIP]) > 0
    return np.where(flips.any(0), np.where(flips, at[:, None], -np.inf).max(0), np.nan)


def sealing(
    plan: Plan,
    config: TraceConfig,
    chosen: np.ndarray,
    changes: Changes,
    last: dict[tuple[str, str], np.ndarray],
    ratings: np.ndarray,
) -> dict[str, Sealing]:
    place, sealed = {cell: i for i, cell in enumerate(chosen)}, {}
    for site in dict.fromkeys(plan.cells[i].site for i in plan.whole):
        rescue, ruin = (last[direction, site] for direction in DIRECTIONS)
        own = [k for k, i in enumerate(plan.whole) if plan.cells[i].site == site]
        cells = [place[plan.whole[k]] for k in own]
        donors = {PAIR: changes[RESCUE][cells]}
        donors |= {name: changes[f"{RESCUE}/{name}"][own] for name in CONTROLS}
        there = np.isfinite(rescue) & np.isfinite(ratings)
        enough = there.sum() >= LEAST_PAIRS
        none = np.zeros((int(there.sum()), 0))
        sealed[site] = Sealing(
            rescued=Share.of(share_with_bounds(np.isfinite(rescue))),
            ruined=Share.of(share_with_bounds(np.isfinite(ruin))),
            last_rescue=Median.of(median_with_bounds(rescue[np.isfinite(rescue)], config.seed)),
            last_ruin=Median.of(median_with_bounds(ruin[np.isfinite(ruin)], config.seed)),
            by_rating=Estimate.of(
                partial_with_bounds(rescue[there], ratings[there], none, config.seed)
            )
            if enough
            else Estimate(value=None, low=None, high=None),
            donors={name: _mean(of[..., FLIP].mean(0), config.seed) for name, of in donors.items()},
        )
    return sealed


def _columns(values: np.ndarray, name: str, seed: int) -> Changes:
    """Means over pairs, [row, pair], with their intervals."""
    mean, low, high = mean_with_bounds(values.T, seed)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def _shares(flips: np.ndarray, name: str) -> Changes:
    """Shares of the pairs that have a number and are not 0, [row, pair], with their intervals."""
    rows = pd.DataFrame([named_share(name, row[np.isfinite(row)] != 0) for row in flips])
    return {column: rows[column].to_numpy() for column in rows}


def cell_table(
    plan: Plan, config: TraceConfig, chosen: np.ndarray, kept: Arrays, changes: Changes
) -> pd.DataFrame:
    """A row a direction and cell; what was not measured is NaN."""
    tables = []
    for direction in DIRECTIONS:
        guess = kept[f"estimate/{direction}"]
        change = np.full((*guess.shape, len(OUTCOMES)), np.nan)
        change[chosen] = changes[direction]
        columns = _columns(np.abs(change[..., FLIP]), "flipped", config.seed)
        for at, name in list(enumerate(OUTCOMES))[FLIP + 1 :]:
            columns |= _columns(change[..., at], name, config.seed)
        columns |= _columns(guess, "estimate", config.seed)
        if (other := other_fate(direction, kept)) is not None:
            all_cells = np.full(guess.shape, np.nan)
            all_cells[chosen] = other
            columns |= _columns(all_cells, "other_fate", config.seed)
        tables.append(
            pd.DataFrame(
                {
                    "direction": direction,
                    "site": [cell.site for cell in plan.cells],
                    "group": [cell.group for cell in plan.cells],
                    "moment": [plan.done[cell.moment] for cell in plan.cells],
                    **columns,
                    "n": np.isfinite(guess).sum(1),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def sealed_table(
    plan: Plan, config: TraceConfig, chosen: np.ndarray, changes: Changes
) -> pd.DataFrame:
    """A row a direction, donor and whole cell.

    Shares of pairs that flip have Wilson intervals: a bootstrap's is empty where all pairs do, or
    none.
    """
    own, tables = np.searchsorted(chosen, plan.whole), []
    for direction in DIRECTIONS:
        for donor in (PAIR, *CONTROLS):
            change = changes[f"{direction}/{donor}"] if donor in CONTROLS else None
            change = changes[direction][own] if change is None else change
            tables.append(
                pd.DataFrame(
                    {
                        "direction": direction,
                        "donor": donor,
                        "site": [plan.cells[i].site for i in plan.whole],
                        "moment": [plan.done[plan.cells[i].moment] for i in plan.whole],
                        **_shares(change[..., FLIP], "flipped"),
                        **_columns(change[..., RIGHT], "cells", config.seed),
                        **_columns(change[..., LOSS], "loss", config.seed),
                        "n": np.isfinite(change[..., FLIP]).sum(1),
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


def pair_table(
    subject: Subject,
    pairs: Pairs,
    valid: np.ndarray,
    differ: np.ndarray,
    rating: str | None,
    ratings: np.ndarray,
    last: dict[tuple[str, str], np.ndarray],
) -> pd.DataFrame:
    table = {
        "line": subject.puzzles.lines[pairs.puzzle[valid]],
        "solved_start": pairs.solved[valid],
        "failed_start": pairs.failed[valid],
        "cells_differ": differ,
    }
    if rating is not None:
        table["rating"] = ratings
    table |= {f"last_{direction}_{site}": of for (direction, site), of in last.items()}
    return pd.DataFrame(table)


def strongest(table: pd.DataFrame, most: int = 10) -> list[Strong]:
    """The measured cells with the largest mean change of the loss."""
    there = table.dropna(subset=["loss"])
    order = np.argsort(-np.abs(there["loss"].to_numpy(float)), kind="stable")[:most]

    def estimate(row: dict[str, Any], name: str) -> Estimate:
        return Estimate(value=row[name], low=row[f"{name}_low"], high=row[f"{name}_high"])

    return [
        Strong(
            direction=row["direction"],
            site=row["site"],
            group=row["group"],
            moment=row["moment"],
            flipped=estimate(row, "flipped"),
            loss=estimate(row, "loss"),
        )
        for row in records(there.iloc[order])
    ]
