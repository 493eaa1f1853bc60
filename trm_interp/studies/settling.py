"""Do runs come to rest? Drift by outcome after 16 steps, and the fates of long rollouts.

The fate of a run is the same thing in every table: at rest (`settled` in files) where no H-cycle
moves it by more than the tolerance, cycling where it is back within the tolerance after up to
BACK steps, in H-cycles, wandering where it is not. This is judged over the last LAST steps, of the
short runs and before every horizon of the long ones. The first horizon of long runs is the end of
the short ones, whose fate there is that of the short runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from trm_interp.analysis.auc import auc_with_bounds
from trm_interp.analysis.bimodality import dip_test, mixture, otsu
from trm_interp.analysis.estimates import (
    ByOutcome,
    Dip,
    Median,
    Mixture,
    Otsu,
    SettledCell,
    Share,
    TestedAuc,
)
from trm_interp.analysis.outcomes import half_failed, share_with_bounds
from trm_interp.analysis.resample import median_with_bounds
from trm_interp.analysis.settling import (
    LAST,
    fate_of,
    in_steps,
    in_words,
    late_drift,
    log_drift,
    period,
)
from trm_interp.analysis.settling_tables import (
    fates_of_failures,
    recurrence_bands,
    same_phase_bands,
    settled_by_solved,
)
from trm_interp.figures.dynamics import (
    drift_histogram,
    fate_figure,
    recurrence_figure,
    same_phase_figure,
)
from trm_interp.runtime.limits import counted
from trm_interp.runtime.records import optional
from trm_interp.studies.by_outcome import named, subset_of, why_not_compared
from trm_interp.studies.fates import (
    PUBLISHED_BAND,
    Became,
    Fates,
    FatesWithin,
    LongRuns,
    Resting,
    fates_by_outcome,
    fates_within,
    shares_within_band,
    within_table,
)
from trm_interp.studies.memory import for_settling
from trm_interp.studies.results import (
    Figures,
    OnCheckpointResult,
    Progress,
    Tell,
    records,
    results_of,
)
from trm_interp.studies.rollouts import (
    BACK,
    Count,
    Long,
    Short,
    lags_of,
    long_runs,
    short_runs,
)
from trm_interp.studies.settings import SettlingConfig
from trm_interp.studies.subject import Subject, open_subject

Config = SettlingConfig
HORIZONS = (64, 128, 256)  # steps at which fates of long rollouts are read, besides first and last


@dataclass(frozen=True, kw_only=True)
class SettlingResult(OnCheckpointResult):
    """Distances are RMS: `norm_of_rms_1` is the Euclidean norm of a state of RMS 1. `not_compared`:
    why solved and failed runs are not compared, None where they are. `dip`, `mixture`: None for
    fewer than 10 runs, or equal ones. `fates`: within `tolerance`; `fates_within`: within each of
    TOLERANCES and that one; `within_band`: runs whose late drift is at most PUBLISHED_BAND, the
    draft's measure. Both are None in files of earlier versions."""

    steps: int
    tolerance: float
    solved: int
    failed: int
    not_compared: str | None
    late_drift: ByOutcome[Median]
    norm_of_rms_1: float
    otsu: Otsu
    dip: Dip | None
    mixture: Mixture | None
    settled_by_solved: list[SettledCell]
    fates: ByOutcome[Fates]
    auc_of_drift_for_failure: TestedAuc
    long: LongRuns | None = optional()
    fates_within: list[FatesWithin] | None = optional()
    within_band: ByOutcome[Share] | None = optional()

    @property
    def rests(self) -> list[Resting]:
        """Runs at rest as claims are judged by: within this run's tolerance, and by the draft's
        measure."""
        fates = self.fates
        ours = Resting(
            f"at rest within {self.tolerance:g} RMS",
            (fates.solved.settled, self.solved),
            (fates.failed.settled, self.failed),
        )
        if self.within_band is None:
            return [ours]
        solved, failed = self.within_band.solved, self.within_band.failed
        measure = f"late drift within {PUBLISHED_BAND:g} RMS a step"
        return [ours, Resting(measure, (solved.hits, solved.n), (failed.hits, failed.n))]


Result = SettlingResult


class LongSample(NamedTuple):
    """Long runs of the `picked` puzzles, read after `horizons` supervision steps."""

    picked: np.ndarray
    horizons: list[int]
    h_cycles: int  # a step
    runs: Long


Tables = Mapping[str, pd.DataFrame]
NAMES = (
    "late_drift",  # a row a run
    "fates_within",  # a row a tolerance, outcome and fate
    "settled_by_solved",  # within the tolerance
    "otsu_by_solved",  # below Otsu's threshold
    "same_phase_drift",  # bands by outcome over the run
    "recurrence",  # bands by outcome over lags
    "long_runs",  # a row a long run and horizon
    "fates",  # what failed runs became by each horizon
)


def run(config: SettlingConfig, tell: Tell, progress: Progress) -> SettlingResult:
    """Run all puzzles for some steps, and some of them for many."""
    subject = open_subject(config, tell)
    n_long = min(config.long_limit, len(subject.puzzles)) if config.long else 0
    begun = len(subject.puzzles) * config.steps
    total = begun + n_long * config.long
    # the larger stage is that which shards divide: long runs are of puzzles that need the short
    divide = begun >= n_long * config.long
    for_settling(subject, config, BACK, divide)
    with results_of("settling", config, NAMES, tell=tell, progress=progress) as results:
        subject = subject.compiled_for(config, total, tell)
        short = short_runs(subject, config.steps, lambda done: progress(done, total), divide)
        not_compared = why_not_compared(short.solved[:, -1], tell)
        periods = period(np.moveaxis(short.back, 0, -1), config.tolerance)  # in H-cycles
        sample = None
        if n_long:
            count = partial(_count_from, progress, begun, total)
            sample = run_long(subject, short, periods, n_long, config, count)
        progress(total, total)
        result, tables = measure(subject, short, periods, sample, config, not_compared)
        results.write(figures(result, tables), tables)
        return results.finish(result)


def _count_from(progress: Progress, begun: int, total: int, done: int) -> None:
    progress(begun + done, total)


def run_long(
    subject: Subject,
    short: Short,
    periods: np.ndarray,
    n: int,
    config: SettlingConfig,
    count: Count,
) -> LongSample:
    """Run `n` puzzles on, half failed where there are that many. Their first horizon is the end of
    the short runs, whose `periods` are in H-cycles."""
    picked = np.array(half_failed(short.solved[:, -1], n))
    horizons = [config.steps, *(h for h in HORIZONS if config.steps < h < config.long)]
    horizons += [config.long] if config.long > config.steps else []
    h_cycles = subject.model.config.schedule.h_cycles
    runs = long_runs(
        subset_of(subject, picked),
        picked,
        horizons,
        config.tolerance,
        lags_of(config.steps, h_cycles),
        count,
    )
    runs.period[:, 0] = periods[picked]
    runs.fate[:, 0] = fate_of(periods[picked])
    return LongSample(picked, horizons, h_cycles, runs)


def measure(
    subject: Subject,
    short: Short,
    periods: np.ndarray,
    sample: LongSample | None,
    config: SettlingConfig,
    not_compared: str | None,
) -> tuple[SettlingResult, Tables]:
    """The numbers and the tables of these runs. A run is at rest where it is back within the
    tolerance after every H-cycle, so that its period is 1; Otsu's threshold of the late drift is
    another way to say so."""
    solved, model = short.solved[:, -1], subject.model
    drift = late_drift(short.per_step[..., model.state_names.index(model.answer)])
    logs = log_drift(drift)
    threshold, share = otsu(logs) if len(logs) > 1 else (np.nan, np.nan)
    late = _drift_table(subject, short, periods, threshold, config)
    settled = settled_by_solved((late["fate"] == "settled").to_numpy(), solved)
    several = len(logs) >= 10 and np.ptp(logs) > 0
    outcomes = {"solved": solved, "failed": ~solved}
    h_cycles, size = model.config.schedule.h_cycles, model.config.positions * model.config.d_model
    tables = {
        "late_drift": late,
        "settled_by_solved": settled,
        "otsu_by_solved": settled_by_solved(late["below_otsu"].to_numpy(), solved),
        "same_phase_drift": same_phase_bands(
            short.per_cycle, model.state_names, outcomes, h_cycles, config.seed
        ),
        "recurrence": recurrence_bands(short.back, outcomes, config.seed),
    }
    within = fates_within(short.back, solved, config.tolerance)
    tables["fates_within"] = within_table(within)
    long = None
    if sample is not None:
        long, more = measure_long(sample, config)
        tables |= more
    result = SettlingResult(
        **subject.provenance,
        steps=config.steps,
        tolerance=config.tolerance,
        solved=int(solved.sum()),
        failed=int((~solved).sum()),
        not_compared=not_compared,
        late_drift=ByOutcome(
            **{
                kind: Median.of(median_with_bounds(drift[group], config.seed))
                for kind, group in outcomes.items()
            }
        ),
        norm_of_rms_1=size**0.5,
        otsu=Otsu(log10_threshold=threshold, share_of_variance=share),
        dip=Dip.of(dip_test(logs, config.seed)) if several else None,
        mixture=Mixture.of(mixture(logs, config.seed)) if several else None,
        settled_by_solved=[SettledCell.of(row) for row in records(settled)],
        fates=fates_by_outcome(late["fate"].to_numpy(), solved),
        fates_within=within,
        within_band=shares_within_band(drift, solved),
        auc_of_drift_for_failure=TestedAuc.of(auc_with_bounds(logs, ~solved, config.seed)),
        long=long,
    )
    return result, tables


def _drift_table(
    subject: Subject, short: Short, periods: np.ndarray, threshold: float, config: SettlingConfig
) -> pd.DataFrame:
    """A row per run: its late drift and its fate. `periods` in H-cycles."""
    solved = short.solved[:, -1]
    drifts = {
        "late_drift" if state == subject.model.answer else f"late_drift_{state}": late_drift(
            short.per_step[..., i]
        )
        for i, state in enumerate(subject.model.state_names)
    }
    logs = log_drift(drifts["late_drift"])
    return pd.DataFrame(
        {
            "puzzle": np.arange(len(solved)),
            "line": subject.puzzles.lines,
            "outcome": named(solved),
            **drifts,
            "log_drift": logs,
            "below_otsu": ~(logs > threshold),
            "window_steps": LAST,
            "tolerance": config.tolerance,
            "longest_lag_h_cycles": short.back.shape[2],
            "period_h_cycles": periods,
            "period_steps": in_steps(periods, subject.model.config.schedule.h_cycles),
            "fate": fate_of(periods),
        }
    )


def measure_long(
    sample: LongSample, config: SettlingConfig
) -> tuple[LongRuns, dict[str, pd.DataFrame]]:
    """Where runs that had failed, and runs that were solved, are at each horizon."""
    picked, horizons, h_cycles, runs = sample
    solved = runs.solved[:, 0]
    windows = [LAST, *(min(LAST, int(gap)) for gap in np.diff(horizons))]
    longest = lags_of(horizons[0], h_cycles)
    at_each = [
        pd.DataFrame(
            {
                "puzzle": picked,
                "outcome": named(solved),
                "steps": horizon,
                "solved": runs.solved[:, i],
                "ever_solved_later": runs.ever[:, i],
                "window_steps": windows[i],
                "tolerance": config.tolerance,
                "longest_lag_h_cycles": longest,
                "period_h_cycles": runs.period[:, i],
                "period_steps": in_steps(runs.period[:, i], h_cycles),
                "fate": runs.fate[:, i],
            }
        )
        for i, horizon in enumerate(horizons)
    ]
    each = pd.concat(at_each, ignore_index=True)
    fates = fates_of_failures(each, horizons)
    long = LongRuns(
        n=len(picked),
        horizons=horizons,
        failed=[Became.of(row) for row in records(fates)],
        escaped=Share.of(share_with_bounds(runs.ever[~solved, -1])),
        lost=Share.of(share_with_bounds(~runs.solved[solved, -1])),
        dynamics=fates_by_outcome(runs.fate[:, -1], solved),
    )
    return long, {"long_runs": each, "fates": fates}


def figures(result: SettlingResult, tables: Tables) -> Figures:
    """Late drift, drift over the run, recurrence at its end, and what failed runs became."""
    late, drift, recurrence = (tables[n] for n in ("late_drift", "same_phase_drift", "recurrence"))
    threshold = result.otsu.log10_threshold
    title = f"Late drift of {counted(result.n, 'run')} of {counted(result.steps, 'step')}"
    past = f"How far the last {LAST} steps are from their own past"
    drawn: Figures = {
        "late_drift": (
            drift_histogram(late, np.nan if threshold is None else threshold, title),
            late,
        ),
        "same_phase_drift": (same_phase_figure(drift, "Drift at equal phase, by outcome"), drift),
        "recurrence": (recurrence_figure(recurrence, past), recurrence),
    }
    if result.long:
        title = f"What becomes of {result.long.escaped.n} failed runs"
        drawn["fates"] = fate_figure(tables["fates"], title, _meaning(result)), tables["fates"]
    return drawn


def _meaning(result: SettlingResult) -> str:
    """What the fates are, with period and tolerance."""
    return (
        f"at rest: no H-cycle moves a run by more than {result.tolerance:g} RMS (period 1); "
        "cycling: it is back within that later; wandering: it is not"
    )


def lines(result: SettlingResult) -> list[str]:
    """The result in words."""
    text = [
        f"{counted(result.n, 'run')} of {counted(result.steps, 'step')}: {result.solved} solved"
    ]
    for kind, drift, fates in (
        ("solved", result.late_drift.solved, result.fates.solved),
        ("failed", result.late_drift.failed, result.fates.failed),
    ):
        if drift.n:
            text.append(f"{kind}: median late drift {drift.text('.2g')} RMS a step; {fates.text}")
    text.append(f"over the last {LAST} steps; {_meaning(result)}")
    auc = result.auc_of_drift_for_failure
    if result.not_compared is None:
        text.append(f"AUC of drift for failure {auc.text()}")
    if result.dip:
        text.append(f"dip of log drift {result.dip.dip:.3f}, p = {result.dip.p:.3f}")
    if result.long and result.long.escaped.n:
        escaped, last = result.long.escaped, result.long.horizons[-1]
        became = ", ".join(
            f"{one.hits} {in_words(one.became)}" for one in result.long.failed if one.steps == last
        )
        text.append(
            f"of {escaped.n} failed runs {escaped.hits} were solved at some later step; "
            f"at step {last}: {became}"
        )
    return text
