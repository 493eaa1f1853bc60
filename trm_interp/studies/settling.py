"""Do runs come to rest? Drift by outcome after 16 steps, and what long rollouts come to.

Everything is read while the network runs: of a run only its last states are held.

The fate of a run is the same thing in every table: settled where no H-cycle moves it by more than
the tolerance, cycling where it is back within the tolerance after some H-cycles or steps, wandering
where it is not. Short runs are asked over their last LAST steps, in H-cycles; long ones over WINDOW
steps before a horizon, in steps. Their first horizon is the end of the short runs, and tells what
those have come to.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from trm_interp.analysis.auc import auc_with_bounds
from trm_interp.analysis.bimodality import dip_test, mixture, otsu
from trm_interp.analysis.outcomes import half_failed, share_with_bounds
from trm_interp.analysis.resample import mean_with_bounds, median_with_bounds
from trm_interp.analysis.settling import (
    FATES,
    LAST,
    Past,
    distance,
    fate_of,
    in_steps,
    late_drift,
    log_drift,
    period,
    settled_by_solved,
)
from trm_interp.core.joint import CycleMap, joined
from trm_interp.figures.dynamics import (
    drift_histogram,
    fate_figure,
    recurrence_figure,
    same_phase_figure,
)
from trm_interp.studies.by_outcome import compared, named, part_of
from trm_interp.studies.config import SettlingConfig
from trm_interp.studies.memory import for_settling
from trm_interp.studies.results import Progress, Results, Tell, results_of
from trm_interp.studies.subject import Subject, finite, open_subject

HORIZONS = (64, 128, 256)  # steps at which long rollouts are looked at, besides first and last
WINDOW = 8  # steps before a horizon, in all of which a period has to hold
LONGEST_PERIOD = 32  # steps
BACK = 8  # steps that the recurrence of the short runs looks back
AT_REST = 2e-6  # RMS change a step, near float32's rounding: such a run is not run on
TABLES = (
    "late_drift",
    "settled_by_solved",
    "otsu_by_solved",
    "same_phase_drift",
    "recurrence",
    "long_runs",
    "fates",
)


class Short(NamedTuple):
    """Runs of some steps. Distances are RMS."""

    solved: np.ndarray  # bool [puzzle, step]
    per_step: np.ndarray  # [puzzle, step, 2], change of z_H and z_L from one step to the next
    per_cycle: np.ndarray  # [puzzle, cycle, 2], from one H-cycle's end to the next
    back: np.ndarray  # [puzzle, moment, lag], late state to itself some H-cycles earlier


class Long(NamedTuple):
    """Long runs, at each horizon."""

    solved: np.ndarray  # bool [puzzle, horizon]
    ever: np.ndarray  # bool [puzzle, horizon], at some step after the first horizon
    period: np.ndarray  # [puzzle, horizon], in steps; 0 for none
    fate: np.ndarray  # [puzzle, horizon]


def run(config: SettlingConfig, tell: Tell, progress: Progress) -> dict[str, Any]:
    subject = open_subject(config, tell)
    for_settling(subject, config, LONGEST_PERIOD, BACK)
    with results_of("settling", config, TABLES) as results:
        n_long = min(config.long_limit, len(subject.puzzles)) if config.long else 0
        total = len(subject.puzzles) * config.steps + n_long * config.long
        short = _short_runs(subject, config.steps, lambda done: progress(done, total))
        solved = short.solved[:, -1]
        missing = compared(solved, tell)
        periods = period(np.moveaxis(short.back, 0, -1), config.tolerance)  # in H-cycles
        summary: dict[str, Any] = {
            **subject.said,
            "steps": config.steps,
            "tolerance": config.tolerance,
            "solved": int(solved.sum()),
            "failed": int((~solved).sum()),
            "not_compared": missing,
            **_drifts(short, periods, config, results, subject),
        }
        _curves(short, config, results, subject)
        if n_long:
            picked = np.array(half_failed(solved, n_long))
            begun = len(subject.puzzles) * config.steps
            horizons = [config.steps, *(h for h in HORIZONS if config.steps < h < config.long)]
            horizons += [config.long] if config.long > config.steps else []
            far = _long_runs(
                part_of(subject, picked),
                picked,
                horizons,
                config.tolerance,
                lambda done: progress(begun + done, total),
            )
            far.period[:, 0] = in_steps(periods[picked], subject.model.config.h_cycles)
            far.fate[:, 0] = fate_of(periods[picked])
            summary["long"] = _fates(far, horizons, picked, config, results)
        progress(total, total)
        return results.finish(summary)


# running


def _short_runs(subject: Subject, steps: int, progress: Any) -> Short:
    parts = []
    for rows in subject.batches():
        parts.append(_short_batch(subject, rows, steps))
        progress(rows.stop * steps)
    return Short(*map(np.concatenate, zip(*parts, strict=True)))


def _short_batch(subject: Subject, rows: slice, steps: int) -> Short:
    state, x = subject.begin(rows)
    cycle, z = CycleMap(subject.model, x), joined(state)
    labels = subject.labels[rows].to(subject.device)
    h_cycles = subject.model.config.h_cycles
    past = Past(min(BACK, steps - LAST) * h_cycles)
    per_step, per_cycle, solved, back = [], [], [], []
    begun = z
    for done in range(1, steps * h_cycles + 1):
        past.add(z)
        image = cycle(z)
        per_cycle.append(_both(image, z))
        if done > (steps - LAST) * h_cycles:
            back.append(past.distances(image).T)
        z = image
        if done % h_cycles == 0:
            per_step.append(_both(z, begun))
            solved.append(cycle.right(z, labels))
            begun = z
    found = [torch.stack(part, 1).cpu().numpy() for part in (solved, per_step, per_cycle, back)]
    finite(found[2], "the state", range(rows.start, rows.stop))
    return Short(*found)


def _both(z: Tensor, other: Tensor) -> Tensor:
    """[run, 2]: how far z_H and z_L moved."""
    return distance(z.unflatten(1, (2, -1)), other.unflatten(1, (2, -1)))


def _long_runs(
    subject: Subject, names: np.ndarray, horizons: list[int], tolerance: float, progress: Any
) -> Long:
    """`names`: what the puzzles are called in an error."""
    parts = []
    for rows in subject.batches():
        told = rows.start * horizons[-1]

        def tell_steps(done: int, told: int = told, n: int = rows.stop - rows.start) -> None:
            progress(told + done * n)

        parts.append(_long_batch(subject, rows, names[rows], horizons, tolerance, tell_steps))
    return Long(*map(np.concatenate, zip(*parts, strict=True)))


def _long_batch(
    subject: Subject,
    rows: slice,
    names: np.ndarray,
    horizons: list[int],
    tolerance: float,
    progress: Any,
) -> Long:
    """Runs that are at rest at a horizon keep what they have come to there."""
    state, x = subject.begin(rows)
    cycle, z = CycleMap(subject.model, x), joined(state)
    labels = subject.labels[rows].to(subject.device)
    n, past = len(z), Past(LONGEST_PERIOD)
    going = torch.arange(n, device=z.device)
    right = torch.zeros(n, dtype=torch.bool, device=z.device)
    ever, periods, fates = torch.zeros_like(right), np.zeros(n, np.int64), np.full(n, FATES[-1])
    window: list[Tensor] = []
    moved: list[Tensor] = []
    found: list[tuple[np.ndarray, ...]] = []
    for done in range(1, horizons[-1] + 1):
        past.add(z)
        ahead = next(horizon for horizon in horizons if horizon >= done)
        near_the_end = done > ahead - WINDOW
        for _ in range(subject.model.config.h_cycles):
            image = cycle(z)
            if near_the_end:
                moved.append(distance(image, z))
            z = image
        right[going] = cycle.right(z, labels[going])
        if done > horizons[0]:
            ever |= right
        if near_the_end:
            lags = max(1, min(LONGEST_PERIOD, ahead - WINDOW))
            window.append(past.distances(z, lags))
        if done == ahead:
            near = torch.stack(window).cpu().numpy()  # [moment, lag, run]
            those = going.cpu().numpy()
            finite(near[:, 0].T, f"the state at step {done}", names[those])
            at_rest = (torch.stack(moved) <= tolerance).all(0).cpu().numpy()
            periods[those] = period(near, tolerance)
            fates[those] = fate_of(periods[those], at_rest)
            now = (right.cpu().numpy(), ever.cpu().numpy(), periods, fates)
            found.append(tuple(values.copy() for values in now))
            moving = torch.from_numpy(near[:, 0].max(0) > AT_REST).to(z.device)
            if not moving.any():
                break
            going, z, past = going[moving], z[moving], past.rows(moving)
            cycle, window, moved = cycle.rows(moving), [], []
        progress(done)
    found += [found[-1]] * (len(horizons) - len(found))
    return Long(*(np.stack(part, 1) for part in zip(*found, strict=True)))


# what was found


def _drifts(
    short: Short, periods: np.ndarray, config: SettlingConfig, results: Results, subject: Subject
) -> dict[str, Any]:
    """Late drift: by outcome, its bimodality, and settled (back where it was, within the tolerance)
    against solved; beside it the same table for what lies below Otsu's threshold. `periods` in
    H-cycles."""
    solved = short.solved[:, -1]
    drift = late_drift(short.per_step[..., 0])
    logs = log_drift(drift)
    threshold, share = otsu(logs) if len(logs) > 1 else (np.nan, np.nan)
    fates = fate_of(periods)
    table = pd.DataFrame(
        {
            "puzzle": np.arange(len(solved)),
            "line": subject.puzzles.lines,
            "outcome": named(solved),
            "late_drift": drift,
            "late_drift_z_L": late_drift(short.per_step[..., 1]),
            "log_drift": logs,
            "below_otsu": ~(logs > threshold),
            "window_steps": LAST,
            "tolerance": config.tolerance,
            "period_h_cycles": periods,
            "period_steps": in_steps(periods, subject.model.config.h_cycles),
            "fate": fates,
        }
    )
    title = f"Late drift of {len(solved)} runs of {config.steps} steps"
    results.figure("late_drift", drift_histogram(table, threshold, title), table)
    cells = settled_by_solved(fates == "settled", solved)
    results.table("settled_by_solved", cells)
    results.table("otsu_by_solved", settled_by_solved(~(logs > threshold), solved))
    by_fate = {
        kind: {fate: int((fates[those] == fate).sum()) for fate in FATES}
        for kind, those in (("solved", solved), ("failed", ~solved))
    }
    several = len(logs) >= 10 and np.ptp(logs) > 0
    model = subject.model.config
    return {
        "late_drift": {
            kind: median_with_bounds(drift[solved == (kind == "solved")], config.seed)
            for kind in ("solved", "failed")
        },
        "norm_of_rms_1": (model.positions * model.d_model) ** 0.5,  # |z_H|
        "otsu": {"log10_threshold": threshold, "share_of_variance": share},
        "dip": dip_test(logs, config.seed) if several else None,
        "mixture": mixture(logs, config.seed) if several else None,
        "settled_by_solved": cells.to_dict("records"),
        "fates": by_fate,
        "auc_of_drift_for_failure": auc_with_bounds(logs, ~solved, config.seed),
    }


def _curves(short: Short, config: SettlingConfig, results: Results, subject: Subject) -> None:
    """Same-phase drift over the run, and distance to the past at its end, with bands."""
    solved = short.solved[:, -1]
    outcomes = [(name, solved == (name == "solved")) for name in ("solved", "failed")]
    outcomes = [(name, rows) for name, rows in outcomes if rows.any()]
    h_cycles = subject.model.config.h_cycles
    drift, lags = [], []
    for outcome, rows in outcomes:
        for i, state in enumerate(("z_H", "z_L")):
            band = mean_with_bounds(log_drift(short.per_cycle[rows, :, i]), config.seed)
            steps = np.arange(1, short.per_cycle.shape[1] + 1) / h_cycles
            drift.append(_rows(steps, "step", [10**b for b in band], state=state, outcome=outcome))
        band = mean_with_bounds(np.nanmean(short.back[rows], axis=1), config.seed)
        lags.append(_rows(np.arange(1, short.back.shape[2] + 1), "lag", band, outcome=outcome))
    numbers = pd.concat(drift)
    results.figure(
        "same_phase_drift", same_phase_figure(numbers, "Drift at equal phase, by outcome"), numbers
    )
    numbers = pd.concat(lags)
    title = f"How far the last {LAST} steps are from their own past"
    results.figure("recurrence", recurrence_figure(numbers, title), numbers)


def _rows(x: np.ndarray, name: str, band: Any, **more: str) -> pd.DataFrame:
    mean, low, high = band
    return pd.DataFrame({**more, name: x, "mean": mean, "low": low, "high": high})


def _fates(
    far: Long, horizons: list[int], picked: np.ndarray, config: SettlingConfig, results: Results
) -> dict[str, Any]:
    """Where runs that had failed, and runs that were solved, are at each horizon."""
    gaps = np.diff(horizons)
    windows = [LAST, *(min(WINDOW, int(gap)) for gap in gaps)]
    runs = [
        {
            "puzzle": picked,
            "outcome": named(far.solved[:, 0]),
            "steps": horizon,
            "solved": far.solved[:, i],
            "ever_solved_later": far.ever[:, i],
            "window_steps": windows[i],
            "tolerance": config.tolerance,
            "period_steps": far.period[:, i],
            "fate": far.fate[:, i],
        }
        for i, horizon in enumerate(horizons)
    ]
    each = pd.concat([pd.DataFrame(run) for run in runs], ignore_index=True)
    results.table("long_runs", each)
    rows = []
    for horizon in horizons:
        at = each.query("outcome == 'failed' and steps == @horizon")
        became = np.where(at["solved"], "solved", at["fate"])
        for name in ("solved", *FATES):
            rows.append({"steps": horizon, "became": name, **share_with_bounds(became == name)})
    numbers = pd.DataFrame(rows)
    title = f"What becomes of {int((~far.solved[:, 0]).sum())} failed runs"
    title += f" (back within {config.tolerance:g} RMS)"
    results.figure("fates", fate_figure(numbers, title), numbers)
    failed, last = ~far.solved[:, 0], far.fate[:, -1]
    return {
        "n": len(picked),
        "horizons": horizons,
        "failed": rows,
        "escaped": share_with_bounds(far.ever[failed, -1]),
        "lost": share_with_bounds(~far.solved[~failed, -1]),
        "dynamics": {
            kind: {fate: int((last[those] == fate).sum()) for fate in FATES}
            for kind, those in (("solved", ~failed), ("failed", failed))
        },
    }


def lines(summary: dict[str, Any]) -> list[str]:
    said = [f"{summary['n']} runs of {summary['steps']} steps: {summary['solved']} solved"]
    for kind, drift in summary["late_drift"].items():
        if drift["n"]:
            fates = ", ".join(f"{n} {fate}" for fate, n in summary["fates"][kind].items())
            said.append(
                f"{kind}: median late drift {drift['median']:.2g} [{drift['low']:.2g}, "
                f"{drift['high']:.2g}] RMS a step; {fates} (H-cycles within "
                f"{summary['tolerance']:g} RMS)"
            )
    auc = summary["auc_of_drift_for_failure"]
    if summary["not_compared"] is None:
        said.append(
            f"AUC of drift for failure {auc['auc']:.2f} [{auc['low']:.2f}, {auc['high']:.2f}]"
        )
    if dip := summary["dip"]:
        said.append(f"dip of log drift {dip['dip']:.3f}, p = {dip['p']:.3f}")
    if (far := summary.get("long")) and far["escaped"]["n"]:
        escaped = far["escaped"]
        fates = ", ".join(
            f"{row['hits']} {row['became']}"
            for row in far["failed"]
            if row["steps"] == far["horizons"][-1]
        )
        said.append(
            f"of {escaped['n']} failed runs {escaped['hits']} were solved at some later step; "
            f"at step {far['horizons'][-1]}: {fates}"
        )
    return said
