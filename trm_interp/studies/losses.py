"""Claim F4: the loss after every H-cycle, in each convention, by outcome and by solve step."""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from trm_interp.analysis.divergence import auc_by_tick, bands, slopes
from trm_interp.analysis.estimates import Estimate, Number, TestedAuc
from trm_interp.analysis.losses import (
    CONVENTIONS,
    OVER,
    UNITS,
    by_solve_step,
    losses_in_all_conventions,
)
from trm_interp.analysis.outcomes import first_solved
from trm_interp.analysis.resample import bounds, mean_with_bounds, resamples
from trm_interp.figures.outcomes import losses_figure, solve_step_figure
from trm_interp.runtime.arrays import Arrays, concatenated
from trm_interp.runtime.limits import counted
from trm_interp.runtime.records import Record, optional
from trm_interp.runtime.shards import shard_ends
from trm_interp.studies.by_outcome import why_not_compared
from trm_interp.studies.memory import for_losses
from trm_interp.studies.results import Figures, OnCheckpointResult, Progress, Tell, results_of
from trm_interp.studies.settings import LossesConfig
from trm_interp.studies.subject import Subject, finite, open_subject

Config = LossesConfig
MAIN, SOFTMAX = "stablemax, cells", "softmax, cells"  # that claim F4 is judged in
SOLVED = "solved"  # beside the losses, in pieces
EARLY = 10  # cycles by which the successes' loss is near 0, says the seed paper
FALL = 3  # cycles in which the failures' loss falls, says the seed paper


@dataclass(frozen=True, kw_only=True)
class CycleAuc(TestedAuc):
    """How well the loss after H-cycle `cycle` (from 1) tells failed puzzles from solved ones."""

    cycle: float


@dataclass(frozen=True, kw_only=True)
class PuzzleLosses(Record):
    """Of every puzzle of an outcome: the loss after the first H-cycle, after FALL and EARLY of them
    and after the last; and `level` and `late_change` of the last half, the slope times its
    length."""

    first: list[float]
    after_fall: list[float]
    early: list[float]
    last: list[float]
    level: list[float]
    late_change: list[float]

    def mean_losses(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Means of each, over puzzles as often as `counts` [*times, puzzle] has them."""
        weights = counts / counts.sum(-1, keepdims=True)
        return {one.name: weights @ np.array(getattr(self, one.name)) for one in fields(self)}

    def ratio(self, what: str, counts: np.ndarray) -> np.ndarray:
        """`left`, `fall` or `late_change` as in `LossCurve`; NaN over 0."""
        means = self.mean_losses(counts)
        first, last = means["first"], means["last"]
        with np.errstate(invalid="ignore", divide="ignore"):
            if what == "left":
                return (means["early"] - last) / np.where(first > last, first - last, np.nan)
            if what == "fall":
                return (first - means["after_fall"]) / first
            return np.abs(means["late_change"]) / means["level"]

    def draws(self, what: str, seed: int) -> np.ndarray:
        """`ratio` of puzzles that are drawn again."""
        return self.ratio(what, resamples(len(self.first), seed))

    def estimate(self, what: str, seed: int) -> Estimate:
        """`ratio` with its 95 % bootstrap interval over puzzles, without for a single one."""
        n = len(self.first)
        low, high = bounds(self.draws(what, seed)) if n > 1 else (np.nan, np.nan)
        value = self.ratio(what, np.ones(n))
        return Estimate(value=float(value), low=float(low), high=float(high))


@dataclass(frozen=True, kw_only=True)
class LossCurve(Record):
    """Mean loss over puzzles of an outcome after the first H-cycle, after EARLY of them and after
    the last; `level` and `slope` (per cycle) are of the last half.

    Ratios of means: `left`, of the descent from the first to the last cycle the share that is left
    at EARLY; `fall`, how far the loss has fallen after FALL cycles, as a share of its start;
    `late_change`, how far the level moves over the last half, up or down, as a share of it. They
    and `puzzles` are None in the conventions that are not judged, and in files of earlier versions.
    """

    first: Estimate
    early: Estimate
    last: Estimate
    level: Estimate
    slope: Estimate
    left: Estimate | None = optional()
    fall: Estimate | None = optional()
    late_change: Estimate | None = optional()
    puzzles: PuzzleLosses | None = optional()


@dataclass(frozen=True, kw_only=True)
class LossesResult(OnCheckpointResult):
    """`solved_loss` and `failed_loss` by convention, None where no puzzle has that outcome."""

    steps: int
    cycles: int
    solved: int
    auc_at_cycle: dict[str, CycleAuc]
    solved_after_cycle_10: Number
    solved_loss: dict[str, LossCurve] | None = optional()
    failed_loss: dict[str, LossCurve] | None = optional()

    @property
    def solved_curve(self) -> LossCurve | None:
        """In the MAIN convention."""
        return self.solved_loss[MAIN] if self.solved_loss else None

    @property
    def failed_curve(self) -> LossCurve | None:
        """In the MAIN convention."""
        return self.failed_loss[MAIN] if self.failed_loss else None


Result = LossesResult


class Tables(NamedTuple):
    """losses: bands by convention, outcome and H-cycle; solve_steps: the loss by when a puzzle is
    first solved; losses_auc: by cycle; losses_puzzles: a row a puzzle and cycle."""

    losses: pd.DataFrame
    solve_steps: pd.DataFrame
    losses_auc: pd.DataFrame
    losses_puzzles: pd.DataFrame


class Runs(NamedTuple):
    """Every puzzle after every H-cycle: losses by convention, and whether it is solved."""

    losses: dict[str, np.ndarray]  # [puzzle, cycle]
    solved: np.ndarray  # bool [puzzle, cycle]


def run(config: LossesConfig, tell: Tell, progress: Progress) -> LossesResult:
    """Read the loss of every puzzle after every H-cycle, and compare the outcomes."""
    subject = open_subject(config, tell)
    for_losses(subject, config)
    subject = subject.compiled_for(config, len(subject.puzzles) * config.steps, tell)
    with results_of("losses", config, Tables._fields, tell=tell, progress=progress) as results:
        runs = read_losses(subject, config.steps, progress)
        for values in runs.losses.values():
            finite(values, "the loss", subject.puzzles.lines)
        why_not_compared(runs.solved[:, -1], tell)
        result, tables = measure(subject, runs, config)
        results.write(figures(result, tables, runs), tables._asdict())
        return results.finish(result)


def read_losses(subject: Subject, steps: int, progress: Progress) -> Runs:
    """The losses of all puzzles, a batch at a time."""

    def compute(rows: slice) -> Arrays:
        read = subject.run(rows, steps, every="h_cycle", keep_logits=True)
        assert read.logits is not None
        logits = read.logits.flatten(1, 2)  # [puzzle, cycle, cell, vocab]
        asked = torch.from_numpy(subject.task.asked(subject.puzzles.inputs[rows]))
        losses = losses_in_all_conventions(logits, asked, subject.labels[rows])
        progress(rows.stop, len(subject.puzzles))
        return {**losses, SOLVED: read.solved.flatten(1, 2).numpy()}

    parts = list(subject.in_pieces("losses", compute))
    shard_ends()
    joined = concatenated(parts)
    return Runs({name: joined[name] for name in CONVENTIONS}, joined[SOLVED])


def measure(subject: Subject, runs: Runs, config: LossesConfig) -> tuple[LossesResult, Tables]:
    """The numbers and the tables of these runs."""
    losses, solved = runs
    cycles = solved.shape[1]
    per_step = cycles // config.steps
    at_step = solved[:, per_step - 1 :: per_step]
    done = at_step[:, -1]
    auc = auc_by_tick(losses[MAIN], ~done, config.seed)
    auc["h_cycles_done"] = auc.pop("update") + 1
    early = min(EARLY, cycles) - 1
    curves: dict[str, Any] = {
        outcome: {
            name: _loss_curve(values[group], early, config.seed, name in (MAIN, SOFTMAX))
            for name, values in losses.items()
        }
        for outcome, group in (("solved_loss", done), ("failed_loss", ~done))
        if group.any()
    }
    result = LossesResult(
        **subject.provenance,
        steps=config.steps,
        cycles=cycles,
        solved=int(done.sum()),
        auc_at_cycle={
            str(at + 1): CycleAuc.of(auc.iloc[at].rename({"h_cycles_done": "cycle"}).to_dict())
            for at in (0, early, cycles - 1)
        },
        solved_after_cycle_10=_share(solved[:, early], done),
        **curves,
    )
    tables = Tables(
        _bands(losses, done, config.seed),
        by_solve_step(losses[MAIN], first_solved(at_step), config.seed),
        auc,
        _by_puzzle(subject, losses),
    )
    return result, tables


def _bands(losses: dict[str, np.ndarray], done: np.ndarray, seed: int) -> pd.DataFrame:
    """Mean loss with its interval by convention, outcome and H-cycle (from 1)."""
    parts = [
        bands(values, done, seed).assign(convention=name, unit=UNITS[name.split(", ")[1]])
        for name, values in losses.items()
    ]
    banded = pd.concat(parts, ignore_index=True)
    banded["h_cycles_done"] = banded.pop("update") + 1
    return banded


def _loss_curve(values: np.ndarray, early: int, seed: int, judged: bool) -> LossCurve:
    late = values[:, values.shape[1] // 2 :]
    estimates: dict[str, Any] = {}
    for name, per_puzzle in (
        ("first", values[:, 0]),
        ("early", values[:, early]),
        ("last", values[:, -1]),
        ("level", late.mean(1)),
        ("slope", slopes(late)),
    ):
        mean, low, high = mean_with_bounds(per_puzzle, seed)
        estimates[name] = Estimate(value=float(mean), low=float(low), high=float(high))
    if judged:
        puzzles = PuzzleLosses(
            first=_short(values[:, 0]),
            after_fall=_short(values[:, min(FALL, values.shape[1]) - 1]),
            early=_short(values[:, early]),
            last=_short(values[:, -1]),
            level=_short(late.mean(1)),
            late_change=_short(slopes(late) * (late.shape[1] - 1)),
        )
        ratios = ("left", "fall", "late_change")
        estimates |= {what: puzzles.estimate(what, seed) for what in ratios}
        estimates["puzzles"] = puzzles if late.shape[1] > 1 else None
    return LossCurve(**estimates)


def _short(values: np.ndarray) -> list[float]:
    """To five digits, to keep the summary small."""
    return [float(f"{value:.5g}") for value in values]


def _share(solved: np.ndarray, done: np.ndarray) -> float:
    """Of the puzzles solved at the end, those solved by then."""
    return float(solved[done].mean()) if done.any() else float("nan")


def _by_puzzle(subject: Subject, losses: dict[str, np.ndarray]) -> pd.DataFrame:
    """A row a puzzle and H-cycle (from 1), a column a convention."""
    n, cycles = losses[MAIN].shape
    rows = {
        "line": np.repeat(subject.puzzles.lines, cycles),
        "h_cycles_done": np.tile(np.arange(cycles) + 1, n),
    }
    return pd.DataFrame(rows | {name: values.ravel() for name, values in losses.items()})


def figures(result: LossesResult, tables: Tables, runs: Runs) -> Figures:
    """Loss over H-cycles by outcome, in every convention; and by when a puzzle is solved."""
    title = f"{result.model_name}: loss after every H-cycle"
    unit = f"stablemax, {UNITS[OVER[0]]}"
    per_step = result.cycles // result.steps
    begins = [step * per_step + 0.5 for step in range(1, result.steps)]
    by_outcome = losses_figure(runs.losses, tables.losses, runs.solved[:, -1], title, begins)
    by_step = solve_step_figure(tables.solve_steps, unit, title, begins)
    return {
        "losses": (by_outcome, tables.losses),
        "solve_steps": (by_step, tables.solve_steps),
    }


def lines(result: LossesResult) -> list[str]:
    """The result in words."""
    text = [f"{counted(result.n, 'puzzle')}, {result.solved} solved; {MAIN}, in nats"]
    for outcome, estimates in (("solved", result.solved_curve), ("failed", result.failed_curve)):
        if estimates is None:
            continue
        spans = ", ".join(
            f"{name} {one.text('.3g')}"
            for name in ("first", "early", "level", "slope")
            if (one := getattr(estimates, name)).value is not None  # two H-cycles have no slope
        )
        text.append(f"{outcome}: {spans}")
    return text
