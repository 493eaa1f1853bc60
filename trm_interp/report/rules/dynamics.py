"""Claims about where runs go: F2, W1 and W2."""

from trm_interp.analysis.auc import FEWEST
from trm_interp.analysis.estimates import span
from trm_interp.analysis.outcomes import wilson
from trm_interp.analysis.settling import LAST
from trm_interp.report.effects import (
    About,
    Effect,
    auc_of,
    difference_effect,
    estimated_effect,
    median_of,
    share_effect,
)
from trm_interp.report.verdicts import (
    Judged,
    interval_of,
    judged,
    not_measured,
    number,
    numbers_of,
)
from trm_interp.studies.fates import Resting
from trm_interp.studies.settling import SettlingResult
from trm_interp.studies.stability import StabilityResult

MOST = 0.5  # share of the failed runs that rest, above which failures settle


def f2(settling: SettlingResult) -> Judged:
    """Most failures come to rest, and successes less so: within our tolerance, and by the measure
    of the draft that W1 is from."""
    if min(settling.solved, settling.failed) < FEWEST:
        return _too_few(settling, f"fewer than {FEWEST} runs of an outcome")
    effects = []
    for rest in settling.rests:
        effects.append(_failed_at_rest("F2", rest, 1))
        about = About("F2", f"failed less solved runs {rest.measure}, shares", 0.0, 1)
        effects.append(difference_effect(about, rest.failed, rest.solved))
    return judged(*_row(settling), _why(settling), effects)


def w1(settling: SettlingResult) -> Judged:
    """Most failures do not come to rest, by either measure of F2."""
    if settling.failed < FEWEST:
        return _too_few(settling, f"fewer than {FEWEST} failed runs")
    effects = [_failed_at_rest("W1", rest, -1) for rest in settling.rests]
    return judged(*_row(settling), _why(settling), effects)


def _failed_at_rest(claim: str, rest: Resting, claimed: int) -> Effect:
    about = About(claim, f"share of failed runs {rest.measure}", MOST, claimed)
    return share_effect(about, *rest.failed)


def _too_few(settling: SettlingResult, why: str) -> Judged:
    ours, interval, n = _row(settling)
    return not_measured(f"{why}; {_why(settling)}", n, ours, interval)


def _row(settling: SettlingResult) -> tuple[str, str, int]:
    """Runs at rest by outcome and measure."""
    ours = "; ".join(
        f"{rest.measure} {rest.solved[0]} of {rest.solved[1]} solved, {rest.failed[0]} of "
        f"{rest.failed[1]} failed"
        for rest in settling.rests
    )
    spans = "; ".join(
        span(*wilson(*of)) for rest in settling.rests for of in (rest.solved, rest.failed)
    )
    return f"at step {settling.steps}: {ours}", spans, settling.n


def _why(settling: SettlingResult) -> str:
    drift, auc = settling.late_drift, settling.auc_of_drift_for_failure
    why = (
        f"at rest: no H-cycle of the last {LAST} steps moves a run by more (period 1); late drift: "
        f"mean change of the answer state a step over these, median {drift.solved.text('.2g')} "
        f"solved, {drift.failed.text('.2g')} failed, AUC for failing {auc.text()}"
    )
    if long := settling.long:
        why += (
            f"; after {long.horizons[-1]} steps failed runs are {long.dynamics.failed.text}, "
            f"within {settling.tolerance:g} RMS"
        )
    return why


def w2(stability: StabilityResult) -> Judged:
    """The failures' leading exponent is above 0, and above that of successes."""
    leading = stability.lambda_1
    solved, failed, auc = leading.solved, leading.failed, leading.auc_for_failure
    if auc.auc is None or failed.low is None:
        return not_measured("too few runs of either outcome")
    ours = (
        f"median {solved.median:+.3f} solved, {failed.median:+.3f} failed; AUC {number(auc.auc, 2)}"
    )
    interval = f"{interval_of(solved)}; {interval_of(failed)}; {interval_of(auc)}"
    drift, n = leading.auc_at_equal_drift, solved.n + failed.n
    why = f"per network evaluation; at equal late drift the AUC is {number(drift.auc, 2)}"
    values = leading.values
    draw_median = median_of(values and values.failed)
    draw_auc = auc_of(values and values.failed, values and values.solved)
    about = About("W2", "median lambda_1 of failed runs", 0.0, 1)
    effects = [
        estimated_effect(about, numbers_of(failed), failed.n, draw_median),
        estimated_effect(
            About("W2", "AUC of lambda_1 for failing", 0.5, 1), numbers_of(auc), n, draw_auc
        ),
    ]
    return judged(ours, interval, n, why, effects)
