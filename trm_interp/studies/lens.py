"""The lens: the output head on every recorded state. What is answered when?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from trm_interp.analysis.auc import FEWEST, auc_with_bounds
from trm_interp.analysis.estimates import Number, TestedAuc, with_span
from trm_interp.analysis.lens import agreement, decided, decided_share, mean_among, revisions
from trm_interp.analysis.outcomes import wilson_bounds
from trm_interp.analysis.resample import mean_with_bounds
from trm_interp.core.models.base import RecursiveModel
from trm_interp.figures.bands import Band
from trm_interp.figures.lens import lens_figure
from trm_interp.recording.site_reader import SiteReader, final_solved
from trm_interp.recording.store import Store
from trm_interp.runtime.arrays import Arrays, concatenated
from trm_interp.runtime.records import Record
from trm_interp.runtime.shards import divided, numbered, shard_ends
from trm_interp.studies.results import Figures, OnStoreResult, Progress, Tell, records, results_of
from trm_interp.studies.settings import LensConfig
from trm_interp.studies.subject import open_model, opening, provenance_of, require

Config = LensConfig
CURVES = {  # by puzzle and tick
    "right": "blank cells answered right",
    "exact": "puzzles with every cell right",
    "final": "blank cells answered as at the end of the run",
    "decided": "blank cells whose answer does not change any more",
}
SHARES = ("exact",)  # curves that are shares of the puzzles
NUMBERS = {  # by puzzle
    "decided_tick": "network evaluation at which a blank cell is decided (its index)",
    "revisions": "changes of a blank cell's answer",
    "revised": "share of blank cells that change at all after the first tick",
}
TOGETHER = 16  # puzzles of a piece of the work
CURVE, NUMBER = "curve", "number"  # kinds of arrays of a piece
ByOutcome = dict[str, np.ndarray]  # bool [puzzle] of `solved` and of `failed`


@dataclass(frozen=True, kw_only=True)
class Decision(Record):
    """Mean of a number (`what` it is, in words) over the `n` puzzles that have it."""

    site: str
    number: str
    what: str
    outcome: str
    n: int
    mean: Number
    low: Number
    high: Number


@dataclass(frozen=True, kw_only=True)
class CurvePoint(Record):
    """Mean over the `n` puzzles of an outcome at a network evaluation."""

    tick: int
    mean: Number
    low: Number
    high: Number
    site: str
    curve: str
    outcome: str
    n: int


@dataclass(frozen=True, kw_only=True)
class LensResult(OnStoreResult):
    """`last_tick`: the end of every curve; `auc_for_failed`: how well each number of a site tells
    failed puzzles from solved ones."""

    n_solved: int
    settings: dict[str, int]
    decisions: list[Decision]
    last_tick: list[CurvePoint]
    auc_for_failed: dict[str, TestedAuc]


Result = LensResult


class Readings(NamedTuple):
    """By site and name: curves [puzzle, tick] and numbers [puzzle]; `ticks`: indices by site."""

    curves: dict[tuple[str, str], np.ndarray]
    numbers: dict[tuple[str, str], np.ndarray]
    ticks: dict[str, list[int]]


class Tables(NamedTuple):
    """lens: the curves by site, outcome and tick; decisions: the numbers by site and outcome."""

    lens: pd.DataFrame
    decisions: pd.DataFrame


def run(config: LensConfig, tell: Tell, progress: Progress) -> LensResult:
    """Read every recorded state with the output head, one puzzle in memory at a time."""
    with opening(config, tell) as store:
        require(store, *store.states, whole_boards=True)
        model = open_model(store, config.ckpt, config.device).model
        with results_of("lens", config, Tables._fields, tell=tell, progress=progress) as results:
            readings = read_all(store, model, progress)
            solved = final_solved(store)
            for name, group in (("solved", solved), ("failed", ~solved)):
                if group.sum() < FEWEST:
                    tell(f"{int(group.sum())} {name} puzzles: a comparison needs {FEWEST}")
            result, tables = measure(store, readings, solved, config)
            results.write(figures(result, tables, _step_ticks(store)), tables._asdict())
            return results.finish(result)


def _step_ticks(store: Store) -> list[int]:
    """Network evaluations at which a supervision step begins."""
    return [step * store.schedule.evaluations for step in range(store.n_steps)]


@torch.no_grad()
def head_answers(model: RecursiveModel, states: np.ndarray) -> np.ndarray:
    """Tokens [tick, cell] that the output head reads from states [tick, pos, d_model]."""
    z = torch.from_numpy(states).to(model.device).float()
    return model.readout(z).logits.argmax(-1).to(torch.uint8).cpu().numpy()


def read_all(store: Store, model: RecursiveModel, progress: Progress) -> Readings:
    """Curves and numbers of all puzzles. One puzzle in memory. A shard ends here."""
    readers = {site: SiteReader(store, site) for site in store.states}

    def compute(i: int) -> Arrays:
        parts = []
        for puzzle in range(i * TOGETHER, min((i + 1) * TOGETHER, store.n_puzzles)):
            progress(puzzle, store.n_puzzles)
            parts.append(_read_puzzle(store, model, readers, puzzle))
        return {name: np.stack([part[name] for part in parts]) for name in parts[0]}

    names = numbered("puzzles", -(-store.n_puzzles // TOGETHER))
    parts = [get() for get in divided(names, compute)]
    shard_ends()
    progress(store.n_puzzles, store.n_puzzles)
    read: dict[str, dict[tuple[str, str], np.ndarray]] = {CURVE: {}, NUMBER: {}}
    for name, values in concatenated(parts).items():
        kind, site, what = name.split(" ", 2)
        read[kind][site, what] = values
    ticks = {site: reader.indices for site, reader in readers.items()}
    return Readings(read[CURVE], read[NUMBER], ticks)


def _read_puzzle(
    store: Store, model: RecursiveModel, readers: dict[str, SiteReader], puzzle: int
) -> Arrays:
    """Its curves and numbers, as arrays by kind, site and name."""
    read: Arrays = {}
    label, last = store["labels"][puzzle], store["predictions"][puzzle, -1]
    blank, everything = store.task.asked(store["inputs"][puzzle]), np.ones(len(label), bool)
    for site, reader in readers.items():
        answers = head_answers(model, reader.read(puzzle))
        at, changes = decided(answers), revisions(answers)
        shares = {
            "right": agreement(answers, label, blank),
            "exact": (agreement(answers, label, everything) == 1).astype(float),
            "final": agreement(answers, last, blank),
            "decided": decided_share(at, blank, len(answers)),
        }
        for name, values in shares.items():
            read[f"{CURVE} {site} {name}"] = values
        ticks = np.asarray(reader.indices)[at]
        means = (mean_among(v, blank) for v in (ticks, changes, (changes > 0).astype(int)))
        for name, value in zip(NUMBERS, means, strict=True):
            read[f"{NUMBER} {site} {name}"] = np.asarray(float(value))
    return read


def measure(
    store: Store, readings: Readings, solved: np.ndarray, config: LensConfig
) -> tuple[LensResult, Tables]:
    """The numbers and the tables of these readings."""
    outcomes = {"solved": solved, "failed": ~solved}
    curves = _curve_table(readings, outcomes, config.seed)
    decisions = _decision_table(readings, outcomes, config.seed)
    last = curves.groupby(["site", "curve", "outcome"], sort=False).tail(1)
    result = LensResult(
        **provenance_of(store),
        n_solved=int(solved.sum()),
        settings={"seed": config.seed},
        decisions=[Decision.of(row) for row in records(decisions)],
        last_tick=[CurvePoint.of(row) for row in records(last)],
        auc_for_failed=_auc(readings.numbers, solved, config.seed),
    )
    return result, Tables(curves, decisions)


def _curve_table(readings: Readings, outcomes: ByOutcome, seed: int) -> pd.DataFrame:
    """Rows of site, curve, outcome, tick: mean over puzzles and its 95 % interval."""
    parts = []
    for (site, curve), values in readings.curves.items():
        for outcome, group in outcomes.items():
            if not group.any():
                continue
            mean, low, high = _band(values[group], curve in SHARES, seed)
            columns = {"tick": readings.ticks[site], "mean": mean, "low": low, "high": high}
            of = {"site": site, "curve": curve, "outcome": outcome, "n": int(group.sum())}
            parts.append(pd.DataFrame(columns).assign(**of))
    return pd.concat(parts, ignore_index=True)


def _band(values: np.ndarray, is_share: bool, seed: int) -> Band:
    """Mean over puzzles [tick] with its interval: Wilson's for a share of the puzzles, which are 0
    or 1 each, and the bootstrap's for any other number."""
    if not is_share:
        return mean_with_bounds(values, seed)
    hits, n = values.sum(0), np.full(values.shape[1], len(values))
    return hits / n, *wilson_bounds(hits, n)


def _decision_table(readings: Readings, outcomes: ByOutcome, seed: int) -> pd.DataFrame:
    """Rows of site, number, outcome: mean over puzzles and its 95 % bootstrap interval."""
    rows = []
    for (site, name), values in readings.numbers.items():
        for outcome, group in outcomes.items():
            if group.any():
                mean, low, high = map(float, mean_with_bounds(values[group], seed))
                row = {"site": site, "number": name, "what": NUMBERS[name], "outcome": outcome}
                n = int(np.isfinite(values[group]).sum())
                rows.append(row | {"n": n, "mean": mean, "low": low, "high": high})
    return pd.DataFrame(rows)


def _auc(
    numbers: Mapping[tuple[str, str], np.ndarray], solved: np.ndarray, seed: int
) -> dict[str, TestedAuc]:
    """How well each number tells failed puzzles from solved ones (puzzles with blank cells)."""
    by_number = {}
    for (site, name), values in numbers.items():
        there = np.isfinite(values)
        auc = auc_with_bounds(values[there], ~solved[there], seed)
        by_number[f"{site} {name}"] = TestedAuc.of(auc)
    return by_number


def figures(result: LensResult, tables: Tables, step_ticks: list[int]) -> Figures:
    """The curves over network evaluations, by site and outcome."""
    sites = list(dict.fromkeys(row.site for row in result.last_tick))
    title = f"What the output head reads from {' and '.join(sites)} at every tick"
    return {"lens": (lens_figure(tables.lens, CURVES, step_ticks, title), tables.lens)}


def lines(result: LensResult) -> list[str]:
    """The result in words."""
    return [
        f"{row.site} of {row.n} {row.outcome} puzzles: {row.what}: "
        + with_span(row.mean, row.low, row.high, ".3g")
        for row in result.decisions
        if row.mean is not None
    ]
