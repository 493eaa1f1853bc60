"""Claims about basins, losses and distances: F3, F4, F5 and F5b."""

import numpy as np

from trm_interp.analysis.auc import FEWEST
from trm_interp.analysis.control import auc_of_each
from trm_interp.analysis.estimates import Auc, Estimate
from trm_interp.analysis.resample import LEAST, mean_of_few
from trm_interp.report.effects import (
    About,
    Effect,
    auc_of,
    estimated_effect,
    mean_of,
)
from trm_interp.report.verdicts import (
    Judged,
    defined,
    interval_of,
    judged,
    not_measured,
    number,
    numbers_of,
    percent,
)
from trm_interp.studies.basins import JUDGED, BasinsResult
from trm_interp.studies.divergence import PAPER_TICK, Comparison, DivergenceResult
from trm_interp.studies.losses import EARLY, FALL, MAIN, SOFTMAX, LossCurve, LossesResult

LEFT = 0.1  # of the successes' descent, below which their loss has vanished
FLAT = 0.1  # change of the failures' level over the last half, as a share of it


def f3(basins: BasinsResult) -> Judged:
    """Starts that lie together end alike: solved or not, and among the solved ones the steps.

    Moran's I over the whole direction of a start, less its value by chance, in the mean over
    puzzles. Two principal axes of isotropic noise are no place to look, and the plane through a
    solved and a failed end is chosen for both: neither counts.
    """
    puzzles = basins.puzzles_looked_at
    shares = ", ".join(f"{percent(one.solved)} %" for one in puzzles)
    n = f"{len(puzzles)} x {puzzles[0].n} starts"
    ours = f"solved from {shares} of the starts"
    if basins.tests is None:
        why = "an earlier version's result, unsolved starts mixed with steps: run `basins` again"
        return not_measured(why, n, ours)
    effects = []
    for label, name in JUDGED.items():
        about = About("F3", f"Moran's I of {name}, above chance", 0.0, 1)
        numbers = numbers_of(basins.mean_excess(label))
        effects.append(estimated_effect(about, numbers, len(basins.excess(label))))
    counts = "; ".join(
        f"{one.where}, {one.label}: {one.hits} of {one.tested}" for one in basins.hits
    )
    fails = basins.solved_where_own_start_fails
    why = (
        f"over puzzles; above shuffled labels at a false discovery rate of 5 % in {counts} (the "
        "plane is chosen through both outcomes, two axes are of isotropic noise: they do not "
        f"count); {sum(share > 0.02 for share in fails)} of {len(fails)} puzzles that the own "
        "start fails are solved from more than 2 % of the others"
    )
    intervals = "; ".join(interval_of(basins.mean_excess(label)) for label in JUDGED)
    return judged(ours, intervals, n, why, effects)


def f4(losses: LossesResult) -> Judged:
    """Successes' loss has fallen by cycle 10 as far as it ever does; failures' loss falls in the
    first cycles, and is level in the last half. In stablemax and in softmax.

    The descent is to the loss at the end, not to 0: stablemax has a floor, here near a tenth of the
    start. A level of 11-12 is of an unstated unit and another grid: not testable here.
    """
    good, bad = losses.solved_loss, losses.failed_loss
    if not good or not bad:
        return not_measured("one outcome only", losses.n)
    if min(losses.solved, losses.n - losses.solved) < FEWEST:
        return not_measured(f"fewer than {FEWEST} runs of an outcome", losses.n)
    if not defined(bad[MAIN].slope.value):
        return not_measured("too few H-cycles to have a slope", losses.n)
    if good[MAIN].left is None:
        return not_measured("a result of an earlier version: run `losses` again", losses.n)
    effects, ours, intervals = [], [], []
    for name in (MAIN, SOFTMAX):
        if name not in good or name not in bad:
            continue
        kind, failed = name.split(",")[0], losses.n - losses.solved
        effects += [
            _curve_effect(
                f"share of the successes' descent that is left at cycle {EARLY}, {kind}",
                LEFT, -1, good[name], "left", losses.solved,
            ),
            _curve_effect(
                f"failures' fall by cycle {FALL}, share of their start, {kind}",
                0.0, 1, bad[name], "fall", failed,
            ),
            _curve_effect(
                f"change of the failures' level over the last half, {kind}",
                FLAT, -1, bad[name], "late_change", failed,
            ),
        ]  # fmt: skip
        ours.append(
            f"{kind}: solved {number(good[name].first.value, 2)} -> "
            f"{number(good[name].early.value, 3)} at cycle {EARLY}; failed "
            f"{number(bad[name].first.value, 2)} -> level {number(bad[name].level.value, 2)}"
        )
        intervals.append(f"{interval_of(good[name].early)}; {interval_of(bad[name].level)}")
    why = (
        f"nats per cell; {percent(losses.solved_after_cycle_10)} % of the successes are solved by "
        "cycle 10; a level of 11-12 is not testable here (its unit is not stated, and it is of "
        "another grid)"
    )
    return judged("; ".join(ours), "; ".join(intervals), losses.n, why, effects)


def _curve_effect(
    name: str, null: float, claimed: int, curve: LossCurve, what: str, n: int
) -> Effect:
    one, values = getattr(curve, what) or Estimate(value=None, low=None, high=None), curve.puzzles
    draw = values and (lambda seed: values.draws(what, seed))
    return estimated_effect(About("F4", name, null, claimed), numbers_of(one), n, draw or None)


def f5(divergence: DivergenceResult) -> Judged:
    """Failures are farther from the mean success of other puzzles at update 50 and at the end, and
    keep leaving it."""
    over = divergence.over_puzzles
    if over is None:
        return not_measured("fewer than two solved puzzles", divergence.n)
    return _leaving("F5", over, divergence.n, "distance to the mean of other solved puzzles")


def f5b(divergence: DivergenceResult) -> Judged:
    """The same within a puzzle: distances to the mean of its other solved starts.

    Means over puzzles, of which there are a handful. Files of earlier versions do not tell the
    puzzles apart: their intervals are over starts.
    """
    same = divergence.same_puzzle
    if same is None or same.compared is None:
        return not_measured("the control was left out, or no puzzle has starts of both outcomes")
    n = f"{len(same.puzzles)} x {same.starts} starts"
    why = "distance to the mean of the same puzzle's other solved starts; intervals over"
    runs = same.compared.runs
    if runs is None or runs.puzzle is None:
        return _leaving("F5b", same.compared, n, f"{why} starts")
    if len(same.puzzles) < LEAST:
        return not_measured("one puzzle has starts of both outcomes: no interval over puzzles", n)
    failed, puzzle = np.array(runs.failed), np.array(runs.puzzle)
    early, last = (
        mean_of_few(auc_of_each(np.array(values), failed, puzzle))
        for values in (runs.at_paper_tick, runs.at_last)
    )
    slopes, of_failed = np.array(runs.late_slope)[failed], puzzle[failed]
    each = [slopes[of_failed == one].mean() for one in np.unique(of_failed)]
    slope, many = mean_of_few(np.array(each)), len(each)
    effects = [
        estimated_effect(about, numbers_of(one), many)
        for about, one in zip(_abouts("F5b"), (early, last, slope), strict=True)
    ]
    return judged(*_distances(early, last), n, f"{why} puzzles", effects)


def _leaving(claim: str, over: Comparison, n: object, why: str) -> Judged:
    """AUC of the distance for failing early and late, and the failures' slope."""
    slope = over.failed_late_slope
    if over.at_paper_tick.auc is None or slope is None:
        return not_measured("too few runs of either outcome", n)
    runs, many = over.runs, over.n_solved + over.n_failed
    effects = []
    *of_auc, of_slope = _abouts(claim)
    for about, auc, values in (
        (of_auc[0], over.at_paper_tick, runs and runs.at_paper_tick),
        (of_auc[1], over.at_last, runs and runs.at_last),
    ):
        draw = auc_of(*(runs.split(values) if runs and values else (None, None)))
        effects.append(estimated_effect(about, numbers_of(auc), many, draw))
    late = runs and runs.split(runs.late_slope)[0]
    effects.append(estimated_effect(of_slope, numbers_of(slope), over.n_failed, mean_of(late)))
    return judged(*_distances(over.at_paper_tick, over.at_last), n, why, effects)


def _abouts(claim: str) -> tuple[About, About, About]:
    """Of the effects of F5 and F5b: AUC early and late, and the failures' slope."""
    auc = "AUC of the distance for failing at"
    return (
        About(claim, f"{auc} update {PAPER_TICK}", 0.5, 1),
        About(claim, f"{auc} the last update", 0.5, 1),
        About(claim, "slope of the failures' distance in the second half, an update", 0.0, 1),
    )


def _distances(early: Auc | Estimate, last: Auc | Estimate) -> tuple[str, str]:
    """Our AUCs and their intervals, in words."""
    values = [number(numbers_of(one)[0], 2) for one in (early, last)]
    ours = f"AUC of the distance for failing {values[0]} at update {PAPER_TICK}, {values[1]} last"
    return ours, f"{interval_of(early)}; {interval_of(last)}"
