"""Tables of a circuit: edges with intervals, levels of features, and checks by ablation."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from trm_interp.analysis.control import partial_rank_correlation
from trm_interp.analysis.estimates import Estimate
from trm_interp.analysis.resample import mean_estimate, mean_with_bounds
from trm_interp.figures.bands import where
from trm_interp.sae.applied import Progress
from trm_interp.sae.circuits_settings import CircuitsConfig
from trm_interp.sae.edges import Edges, Through, ablated
from trm_interp.sae.steer import matched

SETTLED, WANDERING = "settled", "wandering"
FATES = (SETTLED, WANDERING)
CHECKS = ("fate", "source_tick", "source", "target", "weight", "lost", "lost_low", "lost_high")
CHECKS += ("most_of_controls", "rank_p")
ENDS = ("source_tick", "source", "target")
Lost = dict[tuple[int, int], np.ndarray]  # by tick and source: [itself and controls, puzzle, k]


def fates_of(measured: Edges, tolerance: float) -> dict[str, np.ndarray]:
    """Masks of the puzzles by what their runs came to, those that there are: settled, or wandering,
    which here means all others."""
    settled = measured.moved <= tolerance
    masks = {SETTLED: settled, WANDERING: ~settled}
    return {fate: of for fate, of in masks.items() if of.any()}


def edge_table(
    through: Through, measured: Edges, by_fate: Mapping[str, np.ndarray], seed: int
) -> pd.DataFrame:
    """A row a fate and edge: source_tick, target_tick, source, target, and the weight with its 95 %
    interval over puzzles."""
    k, n_ticks = len(through.features), len(through.ticks)
    tick, source, target = (of.ravel() for of in np.indices((n_ticks, k, k)))
    ticks, features = np.array(through.ticks), np.array(through.features)
    tables = []
    for fate, rows in by_fate.items():
        mean, low, high = mean_with_bounds(measured.weights[rows].astype(np.float64), seed)
        tables.append(
            pd.DataFrame(
                {
                    "fate": fate,
                    "source_tick": ticks[tick],
                    "target_tick": ticks[tick] + through.lag,
                    "source": features[source],
                    "target": features[target],
                    "weight": mean.ravel(),
                    "low": low.ravel(),
                    "high": high.ravel(),
                    "n": int(rows.sum()),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def strong(table: pd.DataFrame, fate: str, most: int, to_itself: bool) -> pd.DataFrame:
    """The strongest edges of a fate, by the size of their weight; none of weight 0. `to_itself`:
    with those from a feature to itself."""
    kept = to_itself | (table["source"] != table["target"])
    of = where(table, kept & (table["fate"] == fate) & (table["weight"] != 0))
    return of.iloc[np.argsort(-np.abs(of["weight"].to_numpy()), kind="stable")[:most]]


def level_table(
    through: Through, measured: Edges, by_fate: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """Mean activation over cells and puzzles: a row a fate, tick and feature."""
    tick, feature = (of.ravel() for of in np.indices(measured.levels.shape[1:]))
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "fate": fate,
                    "tick": np.array(measured.at)[tick],
                    "feature": np.array(through.features)[feature],
                    "activation": measured.levels[rows].mean(0).ravel(),
                }
            )
            for fate, rows in by_fate.items()
        ],
        ignore_index=True,
    )


def ends_of(table: pd.DataFrame) -> list[tuple[int, int]]:
    """The different tick and source of edges, in order."""
    pairs = zip(table["source_tick"], table["source"], strict=True)
    return sorted({(int(tick), int(source)) for tick, source in pairs})


def controls_of(
    measured: Edges,
    ticks: Sequence[int],
    picked: Mapping[str, pd.DataFrame],
    n: int,
    seed: int,
) -> dict[tuple[int, int], list[int]]:
    """By tick and source of the picked edges: n random features that fire there about as often and
    as strongly. None is a target of the source, as what a feature does to itself a cycle later is
    no measure of chance.

    UserError where fewer than n others fire at a tick.
    """
    controls = {}
    for end in sorted({end for of in picked.values() for end in ends_of(of)}):
        tick, source = end
        density = measured.density[ticks.index(tick)].copy()
        for of in picked.values():
            start, of_source, target = (of[name].to_numpy(int) for name in ENDS)
            density[target[(start == tick) & (of_source == source) & (target != source)]] = 0
        mean = measured.mean_activation[ticks.index(tick)]
        controls[end] = matched(density, mean, source, n, seed).tolist()
    return controls


def ablate_sources(
    through: Through,
    picked: Mapping[str, pd.DataFrame],
    measured: Edges,
    config: CircuitsConfig,
    progress: Progress,
) -> Lost:
    """What all features lose when each source of the picked edges is ablated, and when each of its
    matched random features is."""
    controls = controls_of(measured, through.ticks, picked, config.controls, config.seed)
    if not controls:
        return {}
    what: dict[int, list[int]] = {}
    for (tick, source), others in controls.items():
        what.setdefault(tick, []).extend([source, *others])
    lost, size = ablated(through, what, progress), 1 + config.controls
    place = {end: [s for t, s in controls if t == end[0]].index(end[1]) for end in controls}
    return {end: lost[end[0]][size * i : size * (i + 1)] for end, i in place.items()}


def check_table(
    through: Through,
    picked: Mapping[str, pd.DataFrame],
    by_fate: Mapping[str, np.ndarray],
    lost: Lost,
    seed: int,
) -> pd.DataFrame:
    """A row an edge: its weight, what the target `lost` when the source was ablated, with its
    interval over puzzles, the largest loss or gain by a control, and `rank_p`, the share of the
    source and its controls with at least its effect."""
    rows = []
    for fate, of in picked.items():
        for tick, source, target, weight in zip(
            *(of[name] for name in ("source_tick", "source", "target", "weight")), strict=True
        ):
            at = through.features.index(target)
            losses = lost[int(tick), int(source)][:, by_fate[fate], at].astype(np.float64)
            mean, low, high = map(float, mean_with_bounds(losses[0], seed))
            size = np.abs(losses.mean(1))
            most, rank_p = float(size[1:].max()), float((size >= size[0]).mean())
            rows.append((fate, tick, source, target, weight, mean, low, high, most, rank_p))
    return pd.DataFrame(rows, columns=list(CHECKS))


def agreements(
    through: Through,
    picked: Mapping[str, pd.DataFrame],
    by_fate: Mapping[str, np.ndarray],
    weights: np.ndarray,
    lost: Lost,
    seed: int,
) -> dict[str, Estimate]:
    """By fate the rank correlation, within a puzzle, of the weights [puzzle, tick, k, k] of all
    edges from the ablated sources with what their targets lose; mean over puzzles."""
    by_fate_agreement = {}
    for fate, of in picked.items():
        chosen, guess, real = by_fate[fate], [], []
        for tick, source in ends_of(of):
            at = through.ticks.index(tick), through.features.index(source)
            guess.append(weights[chosen][:, *at])
            real.append(lost[tick, source][0, chosen])
        if not guess:
            continue
        pairs = zip(np.concatenate(guess, 1), np.concatenate(real, 1), strict=True)
        none = np.zeros((sum(one.shape[1] for one in guess), 0))
        each = [partial_rank_correlation(a, b, none) for a, b in pairs]
        by_fate_agreement[fate] = mean_estimate(np.array(each, np.float64), seed)
    return by_fate_agreement
