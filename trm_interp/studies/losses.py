"""Claim F4: the loss after every H-cycle, in each convention, by outcome and by solve step."""

from typing import Any

import numpy as np
import pandas as pd
import torch

from trm_interp.analysis.divergence import auc_by_tick, bands, slopes
from trm_interp.analysis.losses import (
    CONVENTIONS,
    OVER,
    UNITS,
    by_solve_step,
    losses_in_all_conventions,
)
from trm_interp.analysis.outcomes import first_solved
from trm_interp.analysis.resample import mean_with_bounds
from trm_interp.core.infer import run_batch
from trm_interp.figures.landscape import losses_figure, solve_step_figure
from trm_interp.studies.by_outcome import compared
from trm_interp.studies.config import LossesConfig
from trm_interp.studies.memory import for_losses
from trm_interp.studies.results import Progress, Tell, results_of
from trm_interp.studies.subject import Subject, finite, open_subject

MAIN = CONVENTIONS[0]
EARLY = 10  # cycles by which the successes' loss is near 0, says the seed paper
TABLES = ("losses", "losses_auc", "losses_puzzles", "solve_steps")


def run(config: LossesConfig, tell: Tell, progress: Progress) -> dict[str, Any]:
    """Tables `losses`, `losses_puzzles`, `losses_auc`, `solve_steps`."""
    subject = open_subject(config, tell)
    for_losses(subject, config)
    with results_of("losses", config, TABLES) as results:
        losses, after = measure(subject, config.steps, progress)
        per_step = after.shape[1] // config.steps
        solved = after[:, per_step - 1 :: per_step]
        for values in losses.values():
            finite(values, "the loss", subject.puzzles.lines)
        done = solved[:, -1]
        compared(done, tell)
        banded = pd.concat(
            [
                bands(values, done, config.seed).assign(
                    convention=name, unit=UNITS[name.split(", ")[1]]
                )
                for name, values in losses.items()
            ],
            ignore_index=True,
        )
        banded["cycle"] = banded.pop("tick") + 1
        name = subject.checkpoint.path.name
        title = f"{name}: loss after every H-cycle"
        results.figure("losses", losses_figure(losses, banded, done, title), banded)
        steps = by_solve_step(losses[MAIN], first_solved(solved), config.seed)
        unit = f"stablemax, {UNITS[OVER[0]]}"
        results.figure("solve_steps", solve_step_figure(steps, unit, title), steps)
        auc = auc_by_tick(losses[MAIN], ~done, config.seed)
        auc["cycle"] = auc.pop("tick") + 1
        results.table("losses_auc", auc)
        results.table("losses_puzzles", _by_puzzle(subject, losses))
        cycles = losses[MAIN].shape[1]
        early = min(EARLY, cycles) - 1
        return results.finish(
            {
                **subject.said,
                "steps": config.steps,
                "cycles": cycles,
                "solved": int(done.sum()),
                "auc_at_cycle": {
                    int(at + 1): auc.iloc[at].to_dict() for at in (0, early, cycles - 1)
                },
                "solved_after_cycle_10": _share(after[:, early], done),
                **{
                    outcome: {
                        name: _plateau(values[group], early, config.seed)
                        for name, values in losses.items()
                    }
                    for outcome, group in (("solved_loss", done), ("failed_loss", ~done))
                    if group.any()
                },
            }
        )


def measure(
    subject: Subject, steps: int, progress: Progress
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Losses [puzzle, cycle] by convention, and solved [puzzle, cycle]."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in CONVENTIONS}
    solved = []
    for rows in subject.batches():
        inputs, labels = subject.inputs[rows], subject.labels[rows]
        read = run_batch(subject.model, inputs, labels, steps, "h_cycle", keep_logits=True)
        assert read.logits is not None
        logits = read.logits.flatten(1, 2)  # [puzzle, cycle, cell, vocab]
        asked = subject.puzzles.task.asked(subject.puzzles.inputs[rows])
        is_asked = torch.from_numpy(asked).to(logits.device)
        for name, values in losses_in_all_conventions(logits, is_asked, labels).items():
            parts[name].append(values)
        solved.append(read.solved.flatten(1, 2).numpy())
        progress(rows.stop, len(subject.puzzles))
    return {name: np.concatenate(values) for name, values in parts.items()}, np.concatenate(solved)


def _plateau(values: np.ndarray, early: int, seed: int) -> dict[str, Any]:
    """Level and slope (per cycle) of the last half, and the first, early and last mean."""
    late = values[:, values.shape[1] // 2 :]
    found = {}
    for name, per_puzzle in (
        ("first", values[:, 0]),
        ("early", values[:, early]),
        ("last", values[:, -1]),
        ("level", late.mean(1)),
        ("slope", slopes(late)),
    ):
        mean, low, high = mean_with_bounds(per_puzzle, seed)
        found[name] = {"value": float(mean), "low": float(low), "high": float(high)}
    return found


def _share(solved: np.ndarray, done: np.ndarray) -> float:
    """Of the puzzles solved at the end, those solved by then."""
    return float(solved[done].mean()) if done.any() else float("nan")


def _by_puzzle(subject: Subject, losses: dict[str, np.ndarray]) -> pd.DataFrame:
    """A row a puzzle and H-cycle (from 1), a column a convention."""
    n, cycles = losses[MAIN].shape
    known = {
        "line": np.repeat(subject.puzzles.lines, cycles),
        "cycle": np.tile(np.arange(cycles) + 1, n),
    }
    return pd.DataFrame(known | {name: values.ravel() for name, values in losses.items()})


def lines(summary: dict[str, Any]) -> list[str]:
    """For people."""
    said = [f"{summary['n']} puzzles, {summary['solved']} solved; {MAIN}, in nats"]
    for outcome in ("solved", "failed"):
        if f"{outcome}_loss" in summary:
            known = summary[f"{outcome}_loss"][MAIN]
            spans = ", ".join(
                f"{name} {known[name]['value']:.3g} [{known[name]['low']:.3g}, "
                f"{known[name]['high']:.3g}]"
                for name in ("first", "early", "level", "slope")
                if known[name]["value"] is not None  # two H-cycles have no slope
            )
            said.append(f"{outcome}: {spans}")
    return said
