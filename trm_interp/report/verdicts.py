"""The rules by which claims of the seed paper are judged, one function a claim.

A verdict is one of VERDICTS. Rules compare intervals where there are puzzles to have one over, and
say in `why` what they compare. What was not measured, or on too few runs, has no verdict.
"""

import math
from typing import Any, NamedTuple

from trm_interp.analysis.auc import FEWEST
from trm_interp.analysis.estimates import Auc, Estimate, Median, span
from trm_interp.analysis.outcomes import wilson
from trm_interp.analysis.settling import LAST
from trm_interp.report.evidence import BreadthAndDepth, SAEQuality, SearchShares
from trm_interp.sae.results import FeaturesSummary
from trm_interp.studies.basins import PLANE, BasinsResult
from trm_interp.studies.divergence import DivergenceResult
from trm_interp.studies.losses import MAIN, LossesResult
from trm_interp.studies.outcomes import OutcomesResult
from trm_interp.studies.settling import SettlingResult
from trm_interp.studies.stability import StabilityResult

VERDICTS = ("reproduced", "reproduced in part", "refuted", "untestable as stated", "not measured")
REPRODUCED, IN_PART, REFUTED, UNTESTABLE, NOT_MEASURED = VERDICTS
Row = dict[str, Any]  # of the claims table
FEW, MOST = 0.1, 0.5  # shares that the bounds of an interval are compared with
TRANSIENT = 100  # network evaluations: twice what the seed paper reads from its figure 1
PUBLISHED_LEVEL = (11, 12)  # of the failures' loss, in an unstated unit
PUBLISHED_AT = {1: 0.156, 2: 0.539, 3: 0.656, 5: 0.751, 10: 0.834, 16: 0.872}


def verdict_row(ours: str, interval: str, n: object, verdict: str, why: str) -> Row:
    return {"ours": ours, "interval": interval, "n": n, "verdict": verdict, "why": why}


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _interval(one: Estimate | Median | Auc, digits: int = 3) -> str:
    return span(one.low, one.high, f".{digits}f")


def _numbers(one: Estimate | Auc) -> tuple[float, float, float]:
    """Value, low and high; NaN, with which no comparison is true, where they are not defined."""
    value = one.value if isinstance(one, Estimate) else one.auc
    filled = (math.nan if number is None else number for number in (value, one.low, one.high))
    value, low, high = filled
    return value, low, high


def t1(outcomes: OutcomesResult) -> Row:
    """Every published share lies in our interval; in part where more steps solve more puzzles."""
    at = [step for step in PUBLISHED_AT if step <= outcomes.steps]
    low, high = outcomes.exact_low, outcomes.exact_high
    ours = " / ".join(_percent(outcomes.exact[s - 1]) for s in at)
    spans = "; ".join(f"[{_percent(low[s - 1])}, {_percent(high[s - 1])}]" for s in at)
    within = [low[s - 1] <= PUBLISHED_AT[s] <= high[s - 1] for s in at]
    rises = low[at[-1] - 1] > high[0]
    why = (
        f"at step {' / '.join(map(str, at))}; ever solved {_percent(outcomes.ever[-1])} %, "
        f"{outcomes.lost_in_all} puzzles lost again; another model and other puzzles than the "
        "paper's"
    )
    verdict = REPRODUCED if all(within) else IN_PART if rises else REFUTED
    return verdict_row(ours, spans, outcomes.n, verdict, why)


def t2(search: SearchShares) -> Row:
    """The best of K by Q is above the plain run, intervals apart, and closes at least half of its
    gap to 1; in part where it is above at all."""
    at = [step for step in (1, 2, 3, 5) if step <= search.steps]
    last = at[-1] - 1
    best, low, high = search.best_q.share, search.best_q.low, search.best_q.high
    baseline = search.baseline.share
    ours = " / ".join(_percent(best[s - 1]) for s in at)
    plain = " / ".join(_percent(baseline[s - 1]) for s in at)
    spans = "; ".join(f"[{_percent(low[s - 1])}, {_percent(high[s - 1])}]" for s in at)
    better = low[last] > search.baseline.high[last]
    gain = best[last] - baseline[last]
    closed = gain / max(1e-9, 1 - baseline[last])
    why = (
        f"K {search.k}, sigma {search.sigma:g} on {search.target}; plain {plain}; pass@K "
        f"{_percent(search.pass_at_k.share[last])} at step {last + 1}; closes {closed:.0%} of the "
        "gap (published 91 %)"
    )
    verdict = REPRODUCED if better and closed >= 0.5 else IN_PART if gain > 0 else REFUTED
    return verdict_row(ours, spans, search.n, verdict, why)


def f1(features: FeaturesSummary) -> Row:
    """Recurrence with its interval above 0 in most of the most active features of either outcome,
    after a transient of at most TRANSIENT evaluations; in part with one of the two."""
    top, median = features.most_active, features.most_active.median
    transients = [median.transient_solved, median.transient_failed]
    ours = (
        f"{top.n} most active: transient {' / '.join(map(_number, transients))} evaluations, "
        f"recurrence beyond the schedule in {top.recurring_solved} / {top.recurring_failed}"
    )
    why = (
        "medians, solved / failed; a period that the schedule forces does not count; "
        f"same-phase drift {_number(median.drift_solved, 2)} / "
        f"{_number(median.drift_failed, 2)} (0: schedule only); of all {features.alive} that "
        f"fire {features.recurring_solved} / {features.recurring_failed} recur"
    )
    short = all(value is not None and value <= TRANSIENT for value in transients)
    most = min(top.recurring_solved, top.recurring_failed) > 0.5 * top.n
    verdict = REPRODUCED if most and short else IN_PART if most or short else REFUTED
    return verdict_row(ours, "", features.solved + features.failed, verdict, why)


class _AtRest(NamedTuple):
    """Runs at rest of how many, by outcome; and the row of claims about it, without a verdict."""

    solved: tuple[int, int]
    failed: tuple[int, int]
    row: Row


def _at_rest(settling: SettlingResult) -> _AtRest:
    fates, drift = settling.fates, settling.late_drift
    solved = (fates.solved.settled, settling.solved)
    failed = (fates.failed.settled, settling.failed)
    ours = (
        f"at rest at step {settling.steps}: {solved[0]} of {solved[1]} solved, "
        f"{failed[0]} of {failed[1]} failed"
    )
    auc = settling.auc_of_drift_for_failure
    why = (
        f"no H-cycle of the last {LAST} steps moves them by more than {settling.tolerance:g} RMS "
        f"(period 1); median late drift {drift.solved.text('.2g')} solved, "
        f"{drift.failed.text('.2g')} failed, AUC for failing {auc.text()}"
    )
    if long := settling.long:
        why += f"; after {long.horizons[-1]} steps failed runs are {long.dynamics.failed.text}"
    spans = f"{span(*wilson(*solved))}; {span(*wilson(*failed))}"
    return _AtRest(solved, failed, verdict_row(ours, spans, settling.n, NOT_MEASURED, why))


def f2(settling: SettlingResult) -> Row:
    """Failures come to rest, and successes less so."""
    solved, failed, row = _at_rest(settling)
    if min(solved[1], failed[1]) < FEWEST:
        return row | {"why": f"fewer than {FEWEST} runs of an outcome; {row['why']}"}
    (_, most_solved), (least_failed, most_failed) = wilson(*solved), wilson(*failed)
    if most_failed <= FEW:
        return row | {"verdict": REFUTED}
    return row | {"verdict": REPRODUCED if least_failed >= max(MOST, most_solved) else IN_PART}


def f3(basins: BasinsResult) -> Row:
    """Steps to solution cluster in every puzzle, among random starts and on a plane through them.

    The plane through a solved and a failed end is reported, but does not count: it is chosen for
    both.
    """
    puzzles = basins.puzzles_looked_at
    shares = ", ".join(f"{_percent(one.solved)} %" for one in puzzles)
    counts = "; ".join(f"{one.where}: {one.hits} of {one.tested}" for one in basins.clusters)
    fails = basins.solved_where_own_start_fails
    why = (
        f"Moran's I of the steps to solution above shuffled labels (false discovery rate 5 %): "
        f"{counts} (the plane is chosen through both outcomes and does not count); "
        f"{sum(share > 0.02 for share in fails)} of {len(fails)} puzzles that the own start fails "
        "are solved from more than 2 % of the others"
    )
    tested = [one for one in basins.clusters if one.tested and one.where != PLANE]
    if not tested:
        return verdict_row(shares, "", puzzles[0].n, UNTESTABLE, why)
    if all(one.hits == one.tested for one in tested):
        verdict = REPRODUCED
    else:
        verdict = IN_PART if any(one.hits for one in tested) else REFUTED
    n = f"{len(puzzles)} x {puzzles[0].n} starts"
    return verdict_row(f"solved from {shares} of the starts", "", n, verdict, why)


def f4(losses: LossesResult) -> Row:
    """Successes' loss is below a tenth of its start by cycle 10, and failures' loss is level, at
    PUBLISHED_LEVEL in some convention; in part with one of the first two."""
    good, bad = losses.solved_curve, losses.failed_curve
    if good is None or bad is None:
        return verdict_row("", "", losses.n, NOT_MEASURED, "one outcome only")
    if min(losses.solved, losses.n - losses.solved) < FEWEST:
        why = f"fewer than {FEWEST} runs of an outcome"
        return verdict_row("", "", losses.n, NOT_MEASURED, why)
    first, least_first, _ = _numbers(good.first)
    after_10, _, most_after_10 = _numbers(good.early)
    level, least_level, _ = _numbers(bad.level)
    slope, *slope_bounds = _numbers(bad.slope)
    if math.isnan(slope):
        return verdict_row("", "", losses.n, NOT_MEASURED, "too few H-cycles to have a slope")
    ours = (
        f"solved {first:.2f} -> {after_10:.3f} at cycle 10; failed {_numbers(bad.first)[0]:.2f} "
        f"-> level {level:.2f}, slope {slope:.1g} a cycle"
    )
    fits = losses.conventions_with_level(*PUBLISHED_LEVEL)
    early = most_after_10 < 0.1 * least_first
    flat = max(map(abs, slope_bounds)) * losses.cycles / 2 < 0.1 * least_level
    why = (
        f"{MAIN}, nats; {_percent(losses.solved_after_cycle_10)} % of the successes are solved "
        f"by cycle 10; plateau {'flat' if flat else 'not flat'}; a level of 11-12 "
        + (f"is that of {', '.join(fits)}" if fits else "fits no convention")
    )
    in_part = IN_PART if early or flat else REFUTED
    verdict = REPRODUCED if early and flat and fits else in_part
    interval = f"{_interval(good.early)}; {_interval(bad.level)}"
    return verdict_row(ours, interval, losses.n, verdict, why)


def f5(divergence: DivergenceResult) -> Row:
    """Failures are farther from the mean success at update 50 (AUC above 0.5) and keep leaving it;
    in part with one of the two, or among starts of one puzzle only."""
    over = divergence.over_puzzles
    if over is None or over.at_paper_tick.auc is None or over.failed_late_slope is None:
        why = "too few runs of either outcome"
        return verdict_row("", "", divergence.n, NOT_MEASURED, why)
    at_50, slope = over.at_paper_tick, over.failed_late_slope
    ours = (
        f"AUC of the distance for failing {_number(at_50.auc, 2)} at update 50, "
        f"{_number(over.at_last.auc, 2)} last"
    )
    diverging = _numbers(slope)[1] > 0
    why = (
        f"slope of the failures' distance in the second half {slope.value:.2g} an update "
        f"{_interval(slope, 5)}"
    )
    left = left_alike = _numbers(at_50)[1] > 0.5
    if (same := divergence.same_puzzle) and (starts := same.compared):
        left_alike = _numbers(starts.at_paper_tick)[1] > 0.5
        why += (
            f"; among starts of one puzzle AUC {_number(starts.at_paper_tick.auc, 2)} at 50, "
            f"{_number(starts.at_last.auc, 2)} last ({len(same.puzzles)} puzzles)"
        )
        if left_alike and not left:
            why += ": failures do leave their own puzzle's successes"
    some = left or left_alike or diverging
    verdict = REPRODUCED if left and diverging else IN_PART if some else REFUTED
    interval = f"{_interval(at_50)}; {_interval(over.at_last)}"
    return verdict_row(ours, interval, divergence.n, verdict, why)


def s1(sae: SAEQuality) -> Row:
    """A gated SAE leaves less than 0.1 of the variance unexplained, and less than 0.1 of its
    features dead; else in part."""
    ours = (
        f"FVU {_number(sae.fvu, 3)}, L0 {sae.l0:.0f}, dead {_percent(sae.dead)} %, loss "
        f"recovered {_percent(sae.recovered)} %"
    )
    works = sae.fvu_high is not None and sae.fvu_high < 0.1 and sae.dead < 0.1
    why = f"{sae.seeds} seeds, {sae.d_in} -> {sae.d_sae}; topk: {sae.topk}"
    interval = span(sae.fvu_low, sae.fvu_high)
    return verdict_row(ours, interval, sae.n, REPRODUCED if works else IN_PART, why)


def c1(searches: BreadthAndDepth, settling: SettlingResult) -> Row:
    """Breadth against depth at equal evaluations, on the same puzzles."""
    wide, deep = searches.breadth, searches.depth
    ours = (
        f"at {searches.evaluations} evaluations: breadth {_percent(wide.share)} %, depth "
        f"{_percent(deep.share)} %"
    )
    interval = f"{span(wide.low, wide.high)} against {span(deep.low, deep.high)}"
    why = searches.of
    if long := settling.long:
        why += f"; {long.escaped.hits} of {long.escaped.n} failed runs are solved by running to "
        why += f"{long.horizons[-1]} steps"
    wins, loses = wide.low > deep.high, wide.high < deep.low
    verdict = REPRODUCED if wins else REFUTED if loses else IN_PART
    return verdict_row(ours, interval, searches.n, verdict, why)


def w1(settling: SettlingResult) -> Row:
    """Failures do not come to rest."""
    _, failed, row = _at_rest(settling)
    if failed[1] < FEWEST:
        return row | {"why": f"fewer than {FEWEST} failed runs; {row['why']}"}
    low, high = wilson(*failed)
    return row | {"verdict": REPRODUCED if high <= FEW else REFUTED if low >= MOST else IN_PART}


def w2(stability: StabilityResult) -> Row:
    """The failures' leading exponent is above 0, and above that of successes; in part with one."""
    leading = stability.lambda_1
    solved, failed, auc = leading.solved, leading.failed, leading.auc_for_failure
    if auc.auc is None or failed.low is None:
        return verdict_row("", "", "", NOT_MEASURED, "too few runs of either outcome")
    ours = (
        f"median {solved.median:+.3f} solved, {failed.median:+.3f} failed; "
        f"AUC {_number(auc.auc, 2)}"
    )
    interval = f"{_interval(solved)}; {_interval(failed)}; {_interval(auc)}"
    drift = leading.auc_at_equal_drift
    why = f"per network evaluation; at equal late drift the AUC is {_number(drift.auc, 2)}"
    positive, apart = failed.low > 0, _numbers(auc)[1] > 0.5
    verdict = REPRODUCED if positive and apart else IN_PART if positive or apart else REFUTED
    return verdict_row(ours, interval, solved.n + failed.n, verdict, why)
