"""Are runs stable? Lyapunov exponents along them, fixed points near where they end."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from trm_interp.analysis.auc import auc_with_bounds
from trm_interp.analysis.control import auc_within, partial_with_bounds, thirds
from trm_interp.analysis.fixed_points import find_fixed_points, leading_eigenvalues, speed
from trm_interp.analysis.lyapunov import lyapunov
from trm_interp.analysis.outcomes import half_failed, share_with_bounds
from trm_interp.analysis.resample import median_with_bounds
from trm_interp.analysis.settling import distance, late_drift, log_drift
from trm_interp.core.infer import run_batch
from trm_interp.core.joint import CycleMap, joined
from trm_interp.figures.dynamics import eigenvalue_figure, exponent_against_drift, exponent_figure
from trm_interp.runtime.errors import UserError
from trm_interp.studies.by_outcome import compared, named, part_of
from trm_interp.studies.config import StabilityConfig
from trm_interp.studies.memory import for_stability
from trm_interp.studies.results import Progress, Results, Tell, results_of
from trm_interp.studies.subject import Subject, finite, open_subject

OUTCOMES = ("solved", "failed")
RATINGS = ("tier", "waves", "guesses_all")
TOLERANCE = 1e-8  # RMS of F(z) - z at a fixed point, in float64
TABLES = ("exponents", "spectrum", "exponent_and_drift", "fixed_points", "eigenvalues")


def run(config: StabilityConfig, tell: Tell, progress: Progress) -> dict[str, Any]:
    subject = open_subject(config, tell, float64=True)
    dim = 2 * subject.model.config.positions * subject.model.config.d_model
    for name in ("k", "eigenvalues"):
        if getattr(config, name) > dim - 2:
            raise UserError(
                f"{name} must be at most {dim - 2} (the joint state has {dim} numbers), "
                f"got {getattr(config, name)}"
            )
    for_stability(subject, config)
    with results_of("stability", config, TABLES) as results:
        n = len(subject.puzzles)
        sample = min(config.sample, n)
        work = _Work(config.steps, [n, sample * (1 + config.k), 20 * min(config.fixed, sample)])
        solved = _solved(subject, config.steps, work.part(0, progress))
        chosen = np.array(half_failed(solved, sample))
        closer = part_of(subject, chosen)
        table, end = _exponents(closer, chosen, config, work.part(1, progress))
        results.table("exponents", table)
        solved = (table["outcome"] == "solved").to_numpy()
        summary: dict[str, Any] = {
            **subject.said,
            "steps": config.steps,
            "k": config.k,
            "dtype": config.dtype,
            "sample": len(chosen),
            "solved": int(solved.sum()),
            "failed": int((~solved).sum()),
            "not_compared": compared(solved, tell),
            "unit": "nats per network evaluation",
            **_compare(table, config.seed),
        }
        _draw(table, config, results)
        if config.fixed:
            picked = np.array(half_failed(solved, config.fixed))
            found, eigen = _fixed_points(
                part_of(closer, picked), end[picked], config, work.part(2, progress)
            )
            for part in (found, eigen):
                part["puzzle"] = chosen[picked][part["run"]]
                part["outcome"] = named(solved)[picked][part["run"]]
            summary["fixed_points"] = _said_of_fixed_points(found, config.seed)
            results.table("fixed_points", found.drop(columns="run"))
            title = "Leading eigenvalues of one H-cycle at the fixed points"
            numbers = eigen.drop(columns="run")
            results.figure("eigenvalues", eigenvalue_figure(numbers, title), numbers)
        progress(work.total, work.total)
        return results.finish(summary)


class _Work:
    """Progress over parts, in supervision steps of one puzzle at the cost of plain inference."""

    def __init__(self, steps: int, runs: list[int]) -> None:
        self.sizes = [steps * n for n in runs]
        self.total = sum(self.sizes)

    def part(self, i: int, progress: Progress) -> Progress:
        """Told a share of its own part."""
        before, size = sum(self.sizes[:i]), self.sizes[i]
        return lambda done, of: progress(before + size * done // of, self.total)


def _solved(subject: Subject, steps: int, progress: Progress) -> np.ndarray:
    parts = []
    for rows in subject.batches():
        read = run_batch(subject.model, subject.inputs[rows], subject.labels[rows], steps)
        parts.append(read.solved[:, -1].numpy())
        progress(rows.stop, len(subject.puzzles))
    return np.concatenate(parts)


def _exponents(
    subject: Subject, chosen: np.ndarray, config: StabilityConfig, progress: Progress
) -> tuple[pd.DataFrame, Tensor]:
    """One row a run, and where the runs ended [run, dim].

    Outcome and drift are of the very run that the exponents are of.
    """
    model, n = subject.model, len(subject.puzzles)
    maps = config.steps * model.config.h_cycles
    parts, ends = [], []
    for rows in subject.batches():
        state, x = subject.begin(rows, getattr(torch, config.dtype))
        cycle, labels = CycleMap(model, x), subject.labels[rows].to(subject.device)
        at_step = [state.z_H.flatten(1)]
        moved: list[Tensor] = []

        def watch(
            done: int,
            z: Tensor,
            cycle: CycleMap = cycle,
            at_step: list[Tensor] = at_step,
            moved: list[Tensor] = moved,
            rows: slice = rows,
        ) -> None:
            if done % model.config.h_cycles == 0:
                z_H = cycle.answer(z).flatten(1)
                moved.append(distance(z_H, at_step.pop()))
                at_step.append(z_H)
            progress(rows.start * maps + done * (rows.stop - rows.start), n * maps)

        grown = lyapunov(cycle.push, joined(state), config.k, maps, seed=config.seed, watch=watch)
        drift = late_drift(torch.stack(moved, 1).cpu().double().numpy())
        ends.append(grown.state)
        finite(grown.state.cpu().numpy(), "the last state", chosen[rows])
        over_all = grown.exponents(cycle.evaluations)
        late = grown.exponents(cycle.evaluations, first=maps // 2)
        leading = np.column_stack([over_all[:, 0], late[:, 0]])
        finite(leading, "the leading exponent", chosen[rows])
        part = {
            "puzzle": chosen[rows],
            "line": subject.puzzles.lines[rows],
            "outcome": named(cycle.right(grown.state, labels).cpu().numpy()),
            "late_drift": drift,
            **{f"lambda_{i + 1}": over_all[:, i] for i in range(config.k)},
            **{f"late_lambda_{i + 1}": late[:, i] for i in range(config.k)},
        }
        parts.append(pd.DataFrame(part))
    table = pd.concat(parts, ignore_index=True)
    ratings = subject.puzzles.task.rate(subject.puzzles, config.seed)
    for name in RATINGS:
        table[name] = ratings[name]
    return table, torch.cat(ends)


def _compare(table: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Does the leading exponent tell failed runs, and what of that do drift and rating explain?"""
    failed = (table["outcome"] == "failed").to_numpy()
    logs = log_drift(table["late_drift"].to_numpy())
    ratings = table[list(RATINGS)].to_numpy(np.float64)
    ratings = ratings[:, np.ptp(ratings, axis=0) > 0]
    known = {
        "nothing": ratings[:, :0],
        "drift": logs[:, None],
        "rating": ratings,
        "both": np.column_stack([logs, ratings]),
    }
    found: dict[str, Any] = {}
    for name in ("lambda_1", "late_lambda_1"):
        values = table[name].to_numpy()
        found[name] = {
            **{
                kind: median_with_bounds(values[failed == (kind == "failed")], seed)
                for kind in OUTCOMES
            },
            "above_0": {
                kind: share_with_bounds(values[failed == (kind == "failed")] > 0)
                for kind in OUTCOMES
            },
            "auc_for_failure": auc_with_bounds(values, failed, seed),
            "auc_at_equal_drift": auc_within(values, failed, thirds(logs), seed),
            "auc_at_equal_waves": auc_within(values, failed, table["waves"].to_numpy(), seed),
        }
        if failed.any() and not failed.all():
            found[name]["rank_correlation_with_failure_given"] = {
                given: partial_with_bounds(values, failed.astype(float), controls, seed)
                for given, controls in known.items()
            }
    found["auc_of_drift_for_failure"] = auc_with_bounds(logs, failed, seed)
    found["auc_of_waves_for_failure"] = auc_with_bounds(
        table["waves"].to_numpy(np.float64), failed, seed
    )
    return found


def _draw(table: pd.DataFrame, config: StabilityConfig, results: Results) -> None:
    names = [f"lambda_{i + 1}" for i in range(config.k)]
    numbers = table.melt(["puzzle", "outcome"], names, var_name="index", value_name="exponent")
    numbers["index"] = numbers["index"].str.removeprefix("lambda_").astype(int)
    title = f"Finite-time Lyapunov exponents over {config.steps} steps, n = {len(table)}"
    results.figure("spectrum", exponent_figure(numbers, title), numbers)
    numbers = table.filter(["puzzle", "outcome", "late_drift", "lambda_1"])
    title = "Leading exponent and late drift"
    results.figure("exponent_and_drift", exponent_against_drift(numbers, title), numbers)


def _fixed_points(
    subject: Subject, ends: Tensor, config: StabilityConfig, progress: Progress
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row an end point, and one row an eigenvalue of those that converged. In float64.

    The map of one H-cycle: its fixed points are those of a supervision step too.
    """
    n = len(subject.puzzles)
    x = subject.model.embed(subject.inputs.to(subject.device), torch.float64)
    cycle, start = CycleMap(subject.model, x), ends.double()
    found = find_fixed_points(cycle.push, start, TOLERANCE)
    progress(n, 2 * n)
    right = cycle.right(found.state, subject.labels.to(subject.device))
    q_start = speed(start, cycle(start))
    rows = pd.DataFrame(
        {
            "run": np.arange(n),
            "converged": found.converged.cpu().numpy(),
            "newton_steps": found.steps.cpu().numpy(),
            "q_start": q_start.cpu().numpy(),
            "q": found.q.cpu().numpy(),
            "moved": distance(found.state, start).cpu().numpy(),
            "right": right.cpu().numpy(),
        }
    )
    eigen = []
    for i in np.flatnonzero(rows["converged"]):
        one = cycle.rows(torch.tensor([int(i)], device=x.device))
        values = leading_eigenvalues(one.push, found.state[int(i)], config.eigenvalues, config.seed)
        eigen += [(int(i), rank, v.real, v.imag, abs(v)) for rank, v in enumerate(values, 1)]
        progress(n + int(i), 2 * n)
    columns = ["run", "rank", "real", "imag", "modulus"]
    table = pd.DataFrame(eigen, columns=columns).astype({"run": int})
    largest = table.query("rank == 1").set_index("run")["modulus"]
    rows["largest_modulus"] = largest.reindex(rows["run"]).to_numpy()
    return rows, table


def _said_of_fixed_points(rows: pd.DataFrame, seed: int) -> dict[str, Any]:
    said: dict[str, Any] = {"map": "one H-cycle", "tolerance": TOLERANCE}
    for kind in OUTCOMES:
        part = rows.query("outcome == @kind")
        there = part.query("converged")
        said[kind] = {
            "n": len(part),
            "converged": share_with_bounds(part["converged"].to_numpy()),
            "right_of_converged": share_with_bounds(there["right"].to_numpy()),
            "q_start": median_with_bounds(part["q_start"].to_numpy(float), seed),
            "q": median_with_bounds(part["q"].to_numpy(float), seed),
            "moved": median_with_bounds(there["moved"].to_numpy(float), seed),
            "largest_modulus": median_with_bounds(
                there["largest_modulus"].dropna().to_numpy(float), seed
            ),
            "modulus_above_1": share_with_bounds(there["largest_modulus"].to_numpy() > 1),
        }
    return said


def lines(summary: dict[str, Any]) -> list[str]:
    said = [
        f"{summary['sample']} of {summary['n']} runs of {summary['steps']} steps: "
        f"{summary['solved']} solved, {summary['failed']} failed; exponents in {summary['unit']}"
    ]
    for name, when in (("lambda_1", "all of the run"), ("late_lambda_1", "its later half")):
        medians = ", ".join(
            f"{kind} {part['median']:+.4f} [{part['low']:+.4f}, {part['high']:+.4f}]"
            for kind in OUTCOMES
            if (part := summary[name][kind])["n"]
        )
        said.append(f"median leading exponent over {when}: {medians}")
    if summary["not_compared"] is None:
        auc = summary["lambda_1"]["auc_for_failure"]
        said.append(f"AUC for failure {auc['auc']:.2f} [{auc['low']:.2f}, {auc['high']:.2f}]")
        given = summary["lambda_1"]["rank_correlation_with_failure_given"]
        told = ", ".join(
            f"{name} {part['value']:+.2f} [{part['low']:+.2f}, {part['high']:+.2f}]"
            for name, part in given.items()
            if part["value"] is not None
        )
        said.append(f"rank correlation with failure given {told}")
    for kind in OUTCOMES if "fixed_points" in summary else ():
        part = summary["fixed_points"][kind]
        if part["n"]:
            share = part["converged"]["share"]
            line = f"from {part['n']} {kind} ends: {share:.0%} reach a fixed point"
            if part["right_of_converged"]["share"] is not None:
                line += f", {part['right_of_converged']['share']:.0%} of which decode right"
            if part["largest_modulus"]["n"]:
                line += f", largest eigenvalue {part['largest_modulus']['median']:.3f} (median)"
            said.append(line)
    return said
