"""Claim T1: which puzzles are solved when, and does the halting head know it?"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from trm_interp.analysis.auc import auc_with_bounds
from trm_interp.analysis.estimates import Number, TestedAuc
from trm_interp.analysis.outcomes import (
    calibration_error,
    calibration_table,
    outcome_table,
    outcomes_by_rating,
)
from trm_interp.core.infer import Readouts
from trm_interp.figures.latex import latex_table
from trm_interp.figures.outcomes import outcomes_figure
from trm_interp.runtime.limits import counted
from trm_interp.studies.memory import for_outcomes
from trm_interp.studies.results import Figures, OnCheckpointResult, Progress, Tell, results_of
from trm_interp.studies.settings import OutcomesConfig
from trm_interp.studies.subject import Subject, finite, open_subject
from trm_interp.subjects import equilibria
from trm_interp.subjects.evaluate import solve

Config = OutcomesConfig
SHARES = ("exact", "ever", "lost_again")
ENDS = ("", "_low", "_high")
PRINTED = (1, 2, 3, 5, 10, 16, 32, 64)  # supervision steps that are printed


@dataclass(frozen=True, kw_only=True)
class OutcomesResult(OnCheckpointResult):
    """Shares of puzzles after each of `steps` supervision steps, with 95 % Wilson intervals.

    `exact`: solved at the step; `ever`: at the step or an earlier one; `lost_again`: of those
    solved a step before, not solved now. `lost_in_all`: puzzles solved at some step and not at the
    last. `sure`: the model would halt at the last step.
    """

    steps: int
    solved: int
    exact: list[float]
    exact_low: list[float]
    exact_high: list[float]
    ever: list[float]
    ever_low: list[float]
    ever_high: list[float]
    lost_again: list[Number]
    lost_again_low: list[Number]
    lost_again_high: list[Number]
    lost_in_all: int
    calibration_error: float
    sure_and_wrong: int
    unsure_and_right: int
    q_halt_tells_solved: TestedAuc
    ratings_tell_failed: dict[str, TestedAuc]

    @classmethod
    def _nested(cls, raw: Any) -> Any:
        """Files of earlier versions call `lost_again` `unsolved`."""
        if not isinstance(raw, dict):
            return raw
        return {name.replace("unsolved", "lost_again"): value for name, value in raw.items()}

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, f"{name}{end}")) for name in SHARES for end in ENDS}
        if self.steps < 1 or lengths != {self.steps}:
            raise ValueError(f"not one share for each of {self.steps} steps")


Result = OutcomesResult


class Tables(NamedTuple):
    """outcomes: `outcome_table`; calibration: of the halting head; ratings: outcomes by rating;
    puzzles: a row a puzzle."""

    outcomes: pd.DataFrame
    calibration: pd.DataFrame
    ratings: pd.DataFrame
    puzzles: pd.DataFrame


def run(config: OutcomesConfig, tell: Tell, progress: Progress) -> OutcomesResult:
    """Solve all puzzles, rate them, and compare."""
    subject = open_subject(config, tell)
    for_outcomes(subject, config)
    subject = subject.compiled_for(config, len(subject.puzzles) * config.steps, tell)
    with results_of("outcomes", config, Tables._fields, tell=tell, progress=progress) as results:
        how = (config.steps, config.batch_size)
        read = solve(subject.model, subject.puzzles, *how, progress=progress, stage="solved")
        if not subject.task.ratings():
            tell(f"{subject.task.title} puzzles have no ratings: skipping outcomes by rating")
        result, tables = measure(subject, read, config)
        if found := equilibria.convergence(subject.model, read.residual, subject.puzzles.lines):
            tell(equilibria.line(found, len(subject.puzzles)))
        results.write(figures(result, tables), tables._asdict())
        results.write_latex("outcomes", latex(result))
        return results.finish(result)


def measure(
    subject: Subject, read: Readouts, config: OutcomesConfig
) -> tuple[OutcomesResult, Tables]:
    """The numbers and the tables of these read-outs."""
    solved = read.solved.numpy()
    q_halt = finite(read.q_halt.numpy(), "the halting logit", subject.puzzles.lines)
    table, calibration = outcome_table(solved), calibration_table(q_halt, solved)
    ratings = subject.task.rate(subject.puzzles, config.seed)
    by_rating, predictive = _by_ratings(ratings, solved, q_halt, config.seed)
    last = solved[:, -1]
    puzzles = pd.DataFrame(
        {
            "line": subject.puzzles.lines,
            "solved": last,
            "first_solved": np.where(solved.any(1), solved.argmax(1) + 1, -1),
            "q_halt": q_halt[:, -1],
            **ratings,
        }
    )
    if read.residual is not None:
        residual = read.residual.numpy()
        puzzles["residual"] = residual[:, -1].max(-1)  # the worst H-cycle of the last step
        puzzles["converged"] = equilibria.converged(subject.model, residual)[:, -1]
    sure = read.halts[:, -1].numpy()
    shares: dict[str, Any] = {
        f"{name}{end}": table[f"{name}{end}"].tolist() for name in SHARES for end in ENDS
    }
    result = OutcomesResult(
        **subject.provenance,
        steps=config.steps,
        solved=int(last.sum()),
        **shares,
        lost_in_all=int((solved.any(1) & ~last).sum()),
        calibration_error=calibration_error(calibration),
        sure_and_wrong=int((sure & ~last).sum()),
        unsure_and_right=int((~sure & last).sum()),
        q_halt_tells_solved=TestedAuc.of(auc_with_bounds(q_halt[:, -1], last, config.seed)),
        ratings_tell_failed=predictive,
    )
    return result, Tables(table, calibration, by_rating, puzzles)


def _by_ratings(
    ratings: dict[str, np.ndarray], solved: np.ndarray, q_halt: np.ndarray, seed: int
) -> tuple[pd.DataFrame, dict[str, TestedAuc]]:
    """Outcomes in groups of each rating that varies, and how well it tells what fails."""
    groups, predictive = [], {}
    for name, values in ratings.items():
        values = np.asarray(values, float)
        if np.ptp(values):
            groups.append(outcomes_by_rating(values, solved, q_halt).assign(rating=name))
            predictive[name] = TestedAuc.of(auc_with_bounds(values, ~solved[:, -1], seed))
    return pd.concat(groups, ignore_index=True) if groups else pd.DataFrame(), predictive


def figures(result: OutcomesResult, tables: Tables) -> Figures:
    """Accuracy by step, and the calibration of the halting head."""
    title = f"{result.model_name}: {counted(result.n, 'puzzle')}"
    return {
        "outcomes": (outcomes_figure(tables.outcomes, tables.calibration, title), tables.outcomes)
    }


def latex(result: OutcomesResult) -> str:
    """Table 1: shares (%) of puzzles solved, at the steps of PRINTED."""
    steps = [step for step in PRINTED if step <= result.steps]
    shown = pd.DataFrame({"step (from 1)": map(str, steps)})
    for name, label in (("exact", "at the step"), ("ever", "ever"), ("lost_again", "lost again")):
        ends = [
            [_number(getattr(result, f"{name}{end}")[step - 1]) for step in steps] for end in ENDS
        ]
        shown[label] = [
            ""
            if not np.isfinite(one).all()
            else "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * x for x in one))
            for one in zip(*ends, strict=True)
        ]
    note = (
        f"Percent of {result.n} puzzles solved at a supervision step (from 1), at it or before, "
        "and of those solved one step before not solved now; with 95 % Wilson intervals."
    )
    return latex_table(shown, note=note)


def _number(value: Number) -> float:
    return np.nan if value is None else value


def lines(result: OutcomesResult) -> list[str]:
    """The result in words."""
    shares = ", ".join(
        f"{step}: {result.exact[step - 1]:.1%}" for step in PRINTED if step <= result.steps
    )
    auc = result.q_halt_tells_solved.auc
    return [
        f"{counted(result.n, 'puzzle')}; solved at step {shares}",
        f"ever solved {result.ever[-1]:.1%}, lost again {result.lost_in_all}",
        f"halting head: sure and wrong {result.sure_and_wrong}, unsure and right "
        f"{result.unsure_and_right}, AUC {'-' if auc is None else f'{auc:.3f}'}, "
        f"calibration error {result.calibration_error:.3f}",
    ]
