"""Claim T1: which puzzles are solved when, and does the halting head know it?"""

from typing import Any

import numpy as np
import pandas as pd

from trm_interp.analysis.auc import auc_with_bounds
from trm_interp.analysis.outcomes import (
    calibration_error,
    calibration_table,
    outcome_table,
    outcomes_by_rating,
)
from trm_interp.figures.landscape import outcomes_figure
from trm_interp.studies.config import OutcomesConfig
from trm_interp.studies.memory import for_outcomes
from trm_interp.studies.results import Progress, Tell, results_of
from trm_interp.studies.subject import finite, open_subject
from trm_interp.subjects.evaluate import solve

TABLES = ("outcomes", "calibration", "ratings", "puzzles")


def run(config: OutcomesConfig, tell: Tell, progress: Progress) -> dict[str, Any]:
    """Solve, rate, and compare: tables `outcomes`, `calibration`, `ratings`, `puzzles`."""
    subject = open_subject(config, tell)
    for_outcomes(subject, config)
    with results_of("outcomes", config, TABLES) as results:
        read = solve(
            subject.model, subject.puzzles, config.steps, config.batch_size, progress=progress
        )
        solved = read.solved.numpy()
        q_halt = finite(read.q_halt.numpy(), "the halting logit", subject.puzzles.lines)
        table, calibration = outcome_table(solved), calibration_table(q_halt, solved)
        name = subject.checkpoint.path.name
        results.figure(
            "outcomes", outcomes_figure(table, calibration, f"{name}: {len(solved)} puzzles"), table
        )
        results.table("calibration", calibration)

        ratings = subject.puzzles.task.rate(subject.puzzles, config.seed)
        by, predictive = _by_ratings(ratings, solved, q_halt, config.seed)
        results.table("ratings", by)
        results.table(
            "puzzles",
            pd.DataFrame(
                {
                    "line": subject.puzzles.lines,
                    "solved": solved[:, -1],
                    "first_solved": np.where(solved.any(1), solved.argmax(1) + 1, -1),
                    "q_halt": q_halt[:, -1],
                    **ratings,
                }
            ),
        )
        sure = q_halt[:, -1] > 0
        return results.finish(
            {
                **subject.said,
                "steps": config.steps,
                "solved": int(solved[:, -1].sum()),
                **{
                    f"{kind}{end}": table[f"{kind}{end}"].tolist()
                    for kind in ("exact", "ever", "unsolved")
                    for end in ("", "_low", "_high")
                },
                "lost_in_all": int((solved.any(1) & ~solved[:, -1]).sum()),
                "calibration_error": calibration_error(calibration),
                "sure_and_wrong": int((sure & ~solved[:, -1]).sum()),
                "unsure_and_right": int((~sure & solved[:, -1]).sum()),
                "q_halt_tells_solved": auc_with_bounds(q_halt[:, -1], solved[:, -1], config.seed),
                "ratings_tell_failed": predictive,
            }
        )


def _by_ratings(
    ratings: dict[str, np.ndarray], solved: np.ndarray, q_halt: np.ndarray, seed: int
) -> tuple[pd.DataFrame, dict[str, dict[str, float]]]:
    """Outcomes in groups of each rating that varies, and how well it tells what fails."""
    parts, predictive = [], {}
    for name, values in ratings.items():
        values = np.asarray(values, float)
        if np.ptp(values):
            parts.append(outcomes_by_rating(values, solved, q_halt).assign(rating=name))
            predictive[name] = auc_with_bounds(values, ~solved[:, -1], seed)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(), predictive


def lines(summary: dict[str, Any]) -> list[str]:
    """For people."""
    at = [step for step in (1, 2, 3, 5, 10, 16, 32, 64) if step <= summary["steps"]]
    told = summary["q_halt_tells_solved"]["auc"]
    return [
        f"{summary['n']} puzzles; solved at step "
        + ", ".join(f"{step}: {summary['exact'][step - 1]:.1%}" for step in at),
        f"ever solved {summary['ever'][-1]:.1%}, lost again {summary['lost_in_all']}",
        f"halting head: sure and wrong {summary['sure_and_wrong']}, unsure and right "
        f"{summary['unsure_and_right']}, AUC {'-' if told is None else f'{told:.3f}'}, "
        f"calibration error {summary['calibration_error']:.3f}",
    ]
