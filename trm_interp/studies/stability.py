"""Are runs stable? Lyapunov exponents along them, fixed points near where they end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from trm_interp.analysis.auc import auc_with_bounds
from trm_interp.analysis.control import auc_within, partial_with_bounds, thirds
from trm_interp.analysis.estimates import (
    ByOutcome,
    Estimate,
    Median,
    Share,
    StratifiedAuc,
    TestedAuc,
)
from trm_interp.analysis.lyapunov import lyapunov
from trm_interp.analysis.outcomes import half_failed, share_with_bounds
from trm_interp.analysis.resample import median_with_bounds
from trm_interp.analysis.settling import distance, late_drift, log_drift
from trm_interp.core.joint import CycleMap, joined
from trm_interp.core.models.layers import weights_held
from trm_interp.figures.dynamics import eigenvalue_figure, exponent_against_drift, exponent_figure
from trm_interp.runtime.arrays import Arrays, concatenated
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.records import Record, optional
from trm_interp.runtime.shards import shard_ends
from trm_interp.studies.by_outcome import named, subset_of, why_not_compared
from trm_interp.studies.fixed_points import FixedPointsResult, of_outcomes, seek
from trm_interp.studies.memory import for_stability
from trm_interp.studies.results import Figures, OnCheckpointResult, Progress, Tell, results_of
from trm_interp.studies.settings import StabilityConfig
from trm_interp.studies.stages import Stages
from trm_interp.studies.subject import Subject, finite, open_subject

Config = StabilityConfig
EARLIER_NAMES = {  # of fields, in files that earlier versions wrote
    "auc_at_equal_waves": "auc_at_equal_rating",
    "auc_of_waves_for_failure": "auc_of_rating_for_failure",
}
ENDS = "ends"  # of the runs, beside the columns of a piece
NAMES = (
    "exponents",  # a row a run
    "spectrum",  # a row a run and exponent
    "exponent_and_drift",
    "fixed_points",  # a row an end point
    "eigenvalues",  # a row a fixed point and eigenvalue
)
Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True, kw_only=True)
class LeadingExponent(Record):
    """Its median by outcome, its share `above_0`, and how well it tells failed runs: alone, among
    runs of about equal late drift, among puzzles of equal rating (None for a task that has none);
    and its rank correlation with failure `given` nothing, the drift, the ratings or
    both, None with one outcome only. `values`: of every run; None in files of earlier versions."""

    solved: Median
    failed: Median
    above_0: ByOutcome[Share]
    auc_for_failure: TestedAuc
    auc_at_equal_drift: StratifiedAuc
    auc_at_equal_rating: StratifiedAuc | None = optional()
    rank_correlation_with_failure_given: dict[str, Estimate] | None = optional()
    values: ByOutcome[list[float]] | None = optional()


@dataclass(frozen=True, kw_only=True)
class StabilityResult(OnCheckpointResult):
    """Of a `sample` of the `n` puzzles, `solved` and `failed` of them. `lambda_1`: over the whole
    run; `late_lambda_1`: over its later half; both in `unit`. `not_compared`: why outcomes are not
    compared, None where they are. `rating`: the task's main rating, by which puzzles are called
    equally hard; None where it has none. `fixed_points`: None where none were sought."""

    steps: int
    k: int
    dtype: str
    sample: int
    solved: int
    failed: int
    not_compared: str | None
    unit: str
    lambda_1: LeadingExponent
    late_lambda_1: LeadingExponent
    auc_of_drift_for_failure: TestedAuc
    rating: str | None = optional()
    auc_of_rating_for_failure: TestedAuc | None = optional()
    fixed_points: FixedPointsResult | None = optional()

    @classmethod
    def _nested(cls, raw: Any) -> Any:
        if isinstance(raw, dict):
            return {EARLIER_NAMES.get(key, key): cls._nested(value) for key, value in raw.items()}
        return raw


Result = StabilityResult


def run(config: StabilityConfig, tell: Tell, progress: Progress) -> StabilityResult:
    """Exponents along some runs, half of them failed if possible; fixed points near some ends."""
    subject = open_subject(config, tell, float64=True)
    model = subject.model
    dim = len(model.state_names) * model.config.positions * model.config.d_model
    for name in ("k", "eigenvalues"):
        if getattr(config, name) > dim - 2:
            raise UserError(
                f"{name} must be at most {dim - 2} (the joint state has {dim} numbers), "
                f"got {getattr(config, name)}"
            )
    for_stability(subject, config)
    with results_of("stability", config, NAMES, tell=tell, progress=progress) as results:
        n = len(subject.puzzles)
        sample = min(config.sample, n)
        runs = (n, sample * (1 + config.k), 20 * min(config.fixed, sample))
        work = Stages([config.steps * each for each in runs])
        solved = _solved(subject, config.steps, work.stage(0, progress))
        chosen = np.array(half_failed(solved, sample))
        if not subject.task.ratings():
            tell(f"{subject.task.title} puzzles have no ratings: not controlling for them")
        closer = subset_of(subject, chosen)
        with weights_held(model, getattr(torch, config.dtype)):
            exponents, ends = _exponents(closer, chosen, config, work.stage(1, progress))
        solved = (exponents["outcome"] == "solved").to_numpy()
        not_compared = why_not_compared(solved, tell)
        points = None
        if config.fixed:
            picked = np.array(half_failed(solved, config.fixed))
            near = subset_of(closer, picked)
            with weights_held(model, torch.float64):
                points = seek(near, ends[picked], config, work.stage(2, progress))
            points = [
                one.assign(
                    puzzle=chosen[picked][one["run"]], outcome=named(solved)[picked][one["run"]]
                ).drop(columns="run")
                for one in points
            ]
        progress(work.total, work.total)
        tables = _tables(exponents, points, config)
        result = measure(subject, tables, config, not_compared)
        results.write(figures(result, tables), tables)
        return results.finish(result)


def _tables(
    exponents: pd.DataFrame, points: Sequence[pd.DataFrame] | None, config: StabilityConfig
) -> dict[str, pd.DataFrame]:
    names = [f"lambda_{i + 1}" for i in range(config.k)]
    spectrum = exponents.melt(["puzzle", "outcome"], names, var_name="index", value_name="exponent")
    spectrum["index"] = spectrum["index"].str.removeprefix("lambda_").astype(int)
    tables = {
        "exponents": exponents,
        "spectrum": spectrum,
        "exponent_and_drift": exponents.filter(["puzzle", "outcome", "late_drift", "lambda_1"]),
    }
    return tables | (
        dict(zip(("fixed_points", "eigenvalues"), points, strict=True)) if points else {}
    )


def measure(
    subject: Subject, tables: Tables, config: StabilityConfig, not_compared: str | None
) -> StabilityResult:
    """The numbers of these tables."""
    exponents = tables["exponents"]
    failed = (exponents["outcome"] == "failed").to_numpy()
    logs = log_drift(exponents["late_drift"].to_numpy())
    points, task = tables.get("fixed_points"), subject.task
    rating, names = task.main_rating(), task.controls()
    return StabilityResult(
        **subject.provenance,
        steps=config.steps,
        k=config.k,
        dtype=config.dtype,
        sample=len(exponents),
        solved=int((~failed).sum()),
        failed=int(failed.sum()),
        not_compared=not_compared,
        unit="nats per network evaluation",
        lambda_1=_leading(exponents, "lambda_1", names, rating, config.seed),
        late_lambda_1=_leading(exponents, "late_lambda_1", names, rating, config.seed),
        auc_of_drift_for_failure=TestedAuc.of(auc_with_bounds(logs, failed, config.seed)),
        rating=rating,
        auc_of_rating_for_failure=None
        if rating is None
        else TestedAuc.of(
            auc_with_bounds(exponents[rating].to_numpy(np.float64), failed, config.seed)
        ),
        fixed_points=None if points is None else of_outcomes(points, config.seed),
    )


def _leading(
    table: pd.DataFrame, name: str, controls: tuple[str, ...], rating: str | None, seed: int
) -> LeadingExponent:
    """Does the exponent tell failed runs, and what of that do drift and rating explain?"""
    values, failed = table[name].to_numpy(), (table["outcome"] == "failed").to_numpy()
    logs = log_drift(table["late_drift"].to_numpy())
    ratings = table[list(controls)].to_numpy(np.float64)
    ratings = ratings[:, np.ptp(ratings, axis=0) > 0]
    given_what = {
        "nothing": ratings[:, :0],
        "drift": logs[:, None],
        "rating": ratings,
        "both": np.column_stack([logs, ratings]),
    }
    correlation = None
    if failed.any() and not failed.all():
        correlation = {
            given: Estimate.of(partial_with_bounds(values, failed.astype(float), control, seed))
            for given, control in given_what.items()
        }
    medians, above = {}, {}
    for kind, group in (("solved", ~failed), ("failed", failed)):
        medians[kind] = Median.of(median_with_bounds(values[group], seed))
        above[kind] = Share.of(share_with_bounds(values[group] > 0))
    at_equal_rating = None
    if rating is not None:
        groups = table[rating].to_numpy()
        at_equal_rating = StratifiedAuc.of(auc_within(values, failed, groups, seed))
    return LeadingExponent(
        **medians,
        above_0=ByOutcome(**above),
        auc_for_failure=TestedAuc.of(auc_with_bounds(values, failed, seed)),
        auc_at_equal_drift=StratifiedAuc.of(auc_within(values, failed, thirds(logs), seed)),
        auc_at_equal_rating=at_equal_rating,
        rank_correlation_with_failure_given=correlation,
        values=ByOutcome(solved=values[~failed].tolist(), failed=values[failed].tolist()),
    )


def _solved(subject: Subject, steps: int, progress: Progress) -> np.ndarray:
    solved = []
    for rows in subject.batches():
        solved.append(subject.run(rows, steps).solved[:, -1].numpy())
        progress(rows.stop, len(subject.puzzles))
    return np.concatenate(solved)


def _exponents(
    subject: Subject, chosen: np.ndarray, config: StabilityConfig, progress: Progress
) -> tuple[pd.DataFrame, Tensor]:
    """One row a run, and where the runs ended [run, dim]. A shard ends here.

    Outcome and drift are of the very run that the exponents are of.
    """
    model, n = subject.model, len(subject.puzzles)
    h_cycles = model.config.schedule.h_cycles
    maps = config.steps * h_cycles

    def compute(rows: slice) -> Arrays:
        state, x = subject.begin(rows, getattr(torch, config.dtype))
        cycle, labels = CycleMap(model, x), subject.labels[rows].to(subject.device)
        at_step = [model.answer_of(state).flatten(1)]
        moved: list[Tensor] = []

        def watch(done: int, z: Tensor) -> None:
            if done % h_cycles == 0:
                answer = cycle.answer(z).flatten(1)
                moved.append(distance(answer, at_step.pop()))
                at_step.append(answer)
            progress(rows.start * maps + done * (rows.stop - rows.start), n * maps)

        grown = lyapunov(cycle.push, joined(state), config.k, maps, seed=config.seed, watch=watch)
        drift = late_drift(torch.stack(moved, 1).cpu().double().numpy())
        finite(grown.state.cpu().numpy(), "the last state", chosen[rows])
        over_all = grown.exponents(cycle.evaluations)
        late = grown.exponents(cycle.evaluations, first=maps // 2)
        leading = np.column_stack([over_all[:, 0], late[:, 0]])
        finite(leading, "the leading exponent", chosen[rows])
        return {
            ENDS: grown.state.cpu().numpy(),
            "puzzle": chosen[rows],
            "line": subject.puzzles.lines[rows],
            "outcome": named(cycle.right(grown.state, labels).cpu().numpy()),
            "late_drift": drift,
            **{f"lambda_{i + 1}": over_all[:, i] for i in range(config.k)},
            **{f"late_lambda_{i + 1}": late[:, i] for i in range(config.k)},
        }

    parts = list(subject.in_pieces("exponents", compute))
    shard_ends()
    joined_parts = concatenated(parts)
    ends = torch.from_numpy(joined_parts.pop(ENDS)).to(subject.device)
    table = pd.DataFrame(joined_parts)
    ratings = subject.task.rate(subject.puzzles, config.seed)
    wanted = dict.fromkeys([*subject.task.controls(), *filter(None, [subject.task.main_rating()])])
    rated = {name: ratings[name] for name in wanted}
    return table.assign(**rated), ends


def figures(result: StabilityResult, tables: Tables) -> Figures:
    """The leading exponents, the first of them against drift, and eigenvalues at fixed points."""
    spectrum, drift = tables["spectrum"], tables["exponent_and_drift"]
    title = f"Finite-time Lyapunov exponents over {result.steps} steps, n = {result.sample}"
    drawn: Figures = {
        "spectrum": (exponent_figure(spectrum, title), spectrum),
        "exponent_and_drift": (
            exponent_against_drift(drift, "Leading exponent and late drift"),
            drift,
        ),
    }
    if "eigenvalues" in tables:
        title = "Leading eigenvalues of one H-cycle at the fixed points"
        eigenvalues = tables["eigenvalues"]
        drawn["eigenvalues"] = eigenvalue_figure(eigenvalues, title), eigenvalues
    return drawn


def lines(result: StabilityResult) -> list[str]:
    """The result in words."""
    text = [
        f"{result.sample} of {result.n} runs of {result.steps} steps: "
        f"{result.solved} solved, {result.failed} failed; exponents in {result.unit}"
    ]
    for leading, when in (
        (result.lambda_1, "all of the run"),
        (result.late_lambda_1, "its later half"),
    ):
        medians = ", ".join(
            f"{kind} {one.text('+.4f')}"
            for kind, one in (("solved", leading.solved), ("failed", leading.failed))
            if one.n
        )
        text.append(f"median leading exponent over {when}: {medians}")
    if result.not_compared is None:
        auc = result.lambda_1.auc_for_failure
        text.append(f"AUC for failure {auc.text()}")
        given = result.lambda_1.rank_correlation_with_failure_given or {}
        spans = ", ".join(
            f"{name} {one.text('+.2f')}" for name, one in given.items() if one.value is not None
        )
        text.append(f"rank correlation with failure given {spans}")
    if points := result.fixed_points:
        text += [
            one.line(kind)
            for kind, one in (("solved", points.solved), ("failed", points.failed))
            if one.n
        ]
    return text
