"""Claim F5: do failures leave the successes early, and for good? With the same-puzzle control."""

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from trm_interp.analysis.auc import auc_with_bounds
from trm_interp.analysis.divergence import auc_by_tick, bands, distance_to_successes, slopes
from trm_interp.analysis.estimates import Auc, Estimate, TestedAuc
from trm_interp.analysis.pca import NotFinite
from trm_interp.analysis.resample import mean_estimate
from trm_interp.figures.outcomes import divergence_figure
from trm_interp.recording.states import states_of
from trm_interp.recording.store import Store
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import counted, require_memory
from trm_interp.runtime.records import Record, optional
from trm_interp.runtime.shards import is_shard
from trm_interp.studies.by_outcome import why_not_compared
from trm_interp.studies.results import Figures, OnStoreResult, Progress, Tell, results_of
from trm_interp.studies.same_puzzle import Control, Distances, over_starts_of
from trm_interp.studies.settings import DivergenceConfig
from trm_interp.studies.subject import open_model, opening, provenance_of, site_of

Config = DivergenceConfig
PAPER_TICK = 50  # by which failures have left, says the seed paper
NAMES = ("divergence", "divergence_auc", "same_puzzle", "same_puzzle_auc", "same_puzzle_starts")


@dataclass(frozen=True, kw_only=True)
class TickAuc(TestedAuc):
    """Of the distance for failing, at update `tick`."""

    tick: float


@dataclass(frozen=True, kw_only=True)
class StartsAuc(Auc):
    """The same over the `pairs` of a solved and a failed start of one puzzle."""

    pairs: float
    tick: float


A = TypeVar("A", TickAuc, StartsAuc)


@dataclass(frozen=True, kw_only=True)
class RunDistances(Record):
    """Of every run: its outcome, its distance at PAPER_TICK and at the last update, the slope of
    its distance over the last half; and its `puzzle` where only runs of one puzzle are compared."""

    failed: list[bool]
    at_paper_tick: list[float]
    at_last: list[float]
    late_slope: list[float]
    puzzle: list[int] | None = optional()

    def split(self, values: list[float]) -> tuple[list[float], list[float]]:
        """Of these values, one a run, those of failed runs and those of solved ones."""
        pairs = list(zip(values, self.failed, strict=True))
        return [x for x, failed in pairs if failed], [x for x, failed in pairs if not failed]


@dataclass(frozen=True, kw_only=True)
class Comparison(Record, Generic[A]):
    """Distances of solved and failed runs to the mean solved run.

    `first_apart`, `first_closer`: first update at which failed runs are farther from it, or nearer
    to it, intervals apart. `auc` at the first update, PAPER_TICK and the last. `solved_at`,
    `failed_at`: mean distance by update; the slopes, per update, are of the last half. None where
    no run has that outcome. `runs`: a number a run; None in files of earlier versions.
    """

    n_solved: int
    n_failed: int
    first_apart: int | None
    first_closer: int | None
    auc: dict[str, A]
    solved_at: dict[str, Estimate] | None = optional()
    solved_late_slope: Estimate | None = optional()
    failed_at: dict[str, Estimate] | None = optional()
    failed_late_slope: Estimate | None = optional()
    runs: RunDistances | None = optional()

    def __post_init__(self) -> None:
        if len(self.auc) < 2:
            raise ValueError("auc lacks the first or the last update")

    @property
    def at_paper_tick(self) -> A:
        """The AUC at update PAPER_TICK, or at the last one of fewer."""
        return list(self.auc.values())[-2]

    @property
    def at_last(self) -> A:
        """The AUC at the last update."""
        return list(self.auc.values())[-1]


OverPuzzles = Comparison[TickAuc]  # runs of different puzzles
OverStarts = Comparison[StartsAuc]  # runs of one puzzle from random starts, of several puzzles


@dataclass(frozen=True, kw_only=True)
class SamePuzzle(Record):
    """The control: of `tried` puzzles those with enough starts of either outcome, and the
    distance between runs of the same input. `of_each`: the AUC at PAPER_TICK by puzzle."""

    tried: int
    puzzles: list[int]
    starts: int | None = optional()
    of_each: dict[str, TestedAuc] | None = optional()
    compared: OverStarts | None = optional()

    def to_json(self) -> dict[str, Any]:
        """With the comparison's fields among its own."""
        own = super().to_json()
        return own | own.pop("compared", {})


@dataclass(frozen=True, kw_only=True)
class DivergenceResult(OnStoreResult):
    """`over_puzzles`: None where fewer than two puzzles are solved; `same_puzzle`: None where the
    control was left out. Their JSON is then empty."""

    site: str
    solved: int
    failed: int
    over_puzzles: OverPuzzles | None
    same_puzzle: SamePuzzle | None

    def to_json(self) -> dict[str, Any]:
        own = super().to_json()
        return own | {name: own[name] or {} for name in ("over_puzzles", "same_puzzle")}

    @classmethod
    def _nested(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        nested = dict(raw)
        if nested.get("over_puzzles") == {}:
            nested["over_puzzles"] = None
        control = nested.get("same_puzzle")
        if isinstance(control, dict):
            own = {field.name for field in fields(SamePuzzle)}
            flat = {name: value for name, value in control.items() if name not in own}
            control = {name: value for name, value in control.items() if name in own}
            nested["same_puzzle"] = control | ({"compared": flat} if flat else {}) or None
        return nested


Result = DivergenceResult


class Tables(NamedTuple):
    """Of one comparison: bands by outcome and update, and the AUC by update."""

    bands: pd.DataFrame
    auc: pd.DataFrame


def run(config: DivergenceConfig, tell: Tell, progress: Progress) -> DivergenceResult:
    """Over puzzles, from the store; and over starts of one puzzle, which the checkpoint runs."""
    with opening(config, tell) as store, ExitStack() as stack:
        config = replace(config, site=site_of(store, config.site))
        checkpoint = open_model(store, config.ckpt, config.device) if config.starts else None
        if checkpoint is None and is_shard():
            raise UserError("shards divide the starts of the control, and --starts 0 has none")
        need = 2 * 2 * config.starts * math.prod(store[config.site].shape[1:])  # float16, joined
        require_memory(need, f"the states of {config.starts} starts", "lower --starts")
        results = stack.enter_context(
            results_of("divergence", config, NAMES, tell=tell, progress=progress)
        )
        starts = None
        if checkpoint is not None:  # first: the rest is not divided
            starts = over_starts_of(store, checkpoint.model, config, tell, progress)
        solved = store["solved"][:, -1]
        over_puzzles = same_puzzle = None
        comparisons: dict[str, Tables] = {}
        tables: dict[str, pd.DataFrame] = {}
        few = f"{store.path}: {solved.sum()} solved runs; a centroid that leaves one out needs 2"
        if solved.sum() < 2:
            tell(few)
        else:
            why_not_compared(solved, tell)
            runs = over_puzzles_of(store, solved, config.site)
            over_puzzles, comparisons["divergence"] = compare(TickAuc, runs, config.seed)
        if starts is not None:
            same_puzzle = SamePuzzle(tried=starts.tried, puzzles=[])
            if starts.runs is not None:
                over, comparisons["same_puzzle"] = compare(StartsAuc, starts.runs, config.seed)
                same_puzzle = control(starts, over, config)
                tables["same_puzzle_starts"] = starts.runs.table()
        if not comparisons:
            raise UserError(few)
        result = DivergenceResult(
            **provenance_of(store),
            site=config.site,
            solved=int(solved.sum()),
            failed=int((~solved).sum()),
            over_puzzles=over_puzzles,
            same_puzzle=same_puzzle,
        )
        tables |= {f"{name}_auc": one.auc for name, one in comparisons.items()}
        results.write(figures(result, comparisons, store.n_steps), tables)
        return results.finish(result)


def over_puzzles_of(store: Store, solved: np.ndarray, site: str) -> Distances:
    """The runs of a store. UserError names the first one that is not finite."""
    try:
        far = distance_to_successes(states_of(store, site), solved)
    except NotFinite as error:
        raise UserError(
            f"{store.path}: {site} is not finite, first in puzzle {error.chunk} (from 0)"
        ) from None
    return Distances(far, solved)


def compare(kind: type[A], distances: Distances, seed: int) -> tuple[Comparison[A], Tables]:
    """The numbers that the claim is judged by, and the curves behind them."""
    far, solved, owner = distances
    auc = auc_by_tick(far, ~solved, seed, owner)
    apart, closer = (auc["low"] > 0.5).to_numpy(), (auc["high"] < 0.5).to_numpy()
    late = far[:, far.shape[1] // 2 :]
    last = far.shape[1] - 1
    by_outcome: dict[str, Any] = {}
    for outcome, group in (("solved", solved), ("failed", ~solved)):
        if group.any():
            at = [0, min(PAPER_TICK, last), far.shape[1] // 2, last]
            by_outcome[f"{outcome}_at"] = {str(t): mean_estimate(far[group, t], seed) for t in at}
            by_outcome[f"{outcome}_late_slope"] = mean_estimate(slopes(late[group]), seed)
    runs = RunDistances(
        failed=(~solved).tolist(),
        at_paper_tick=_rounded(far[:, min(PAPER_TICK, last)]),
        at_last=_rounded(far[:, last]),
        late_slope=_rounded(slopes(late)),
        puzzle=None if owner is None else owner.tolist(),
    )
    comparison = Comparison(
        n_solved=int(solved.sum()),
        n_failed=int((~solved).sum()),
        first_apart=int(apart.argmax()) if apart.any() else None,
        first_closer=int(closer.argmax()) if closer.any() else None,
        auc={str(at): kind.of(_row(auc, at)) for at in (0, min(PAPER_TICK, last), -1)},
        **by_outcome,
        runs=runs,
    )
    return comparison, Tables(bands(far, solved, seed), auc)


def _row(auc: pd.DataFrame, at: int) -> dict[str, Any]:
    """Of an update, which files of results have called `tick` from the beginning."""
    return auc.iloc[at].rename({"update": "tick"}).to_dict()


def _rounded(values: np.ndarray) -> list[float]:
    """To seven digits, which float32 has."""
    return [float(f"{value:.7g}") for value in values]


def control(starts: Control, compared: OverStarts, config: DivergenceConfig) -> SamePuzzle:
    """The comparison of starts, and the AUC of each puzzle by itself."""
    assert starts.runs is not None
    far, solved, owner = starts.runs
    at = min(PAPER_TICK, far.shape[1] - 1)
    of_each = {
        puzzle: TestedAuc.of(auc_with_bounds(far[mine, at], ~solved[mine], config.seed))
        for puzzle in starts.puzzles
        for mine in [owner == puzzle]
    }
    return SamePuzzle(
        tried=starts.tried,
        puzzles=starts.puzzles,
        starts=config.starts,
        of_each={str(puzzle): auc for puzzle, auc in of_each.items()},
        compared=compared,
    )


def figures(result: DivergenceResult, comparisons: Mapping[str, Tables], n_steps: int) -> Figures:
    """Distances by outcome over the AUC, of each comparison that was made."""
    means = {"divergence": "the mean of other solved puzzles"}
    if result.same_puzzle:
        n = len(result.same_puzzle.puzzles)
        means["same_puzzle"] = (
            f"the mean of the same puzzle's other solved starts ({counted(n, 'puzzle')})"
        )
    drawn: Figures = {}
    for name, tables in comparisons.items():
        title = f"{result.site}: distance to {means[name]} at the same update"
        updates = len(tables.auc)
        steps = range(0, updates, updates // n_steps)
        tick = f"update of {result.site} (from 0)"
        figure = divergence_figure(tables.bands, tables.auc, steps, title, tick, means[name])
        drawn[name] = figure, tables.bands
    return drawn


def lines(result: DivergenceResult) -> list[str]:
    """The result in words."""
    over_starts = result.same_puzzle and result.same_puzzle.compared
    text = []
    for name, one in (
        ("over puzzles", result.over_puzzles),
        ("over starts of one puzzle", over_starts),
    ):
        if one is None:
            text.append(f"{name}: nothing to compare")
            continue
        runs = f"{name} ({one.n_solved} solved, {one.n_failed} failed)"
        if all(at.auc is None for at in one.auc.values()):
            text.append(f"{runs}: too few runs of one outcome for a comparison")
            continue
        first, closer = one.first_apart, one.first_closer
        when = "at no update" if first is None else f"first at update {first}"
        auc = " -> ".join("-" if at.auc is None else f"{at.auc:.3f}" for at in one.auc.values())
        text.append(
            f"{runs}: AUC of the distance at the first, {PAPER_TICK}th and last update {auc}; "
            f"failed ones are farther {when}"
            + ("" if closer is None else f", nearer first at update {closer}")
        )
    return text
