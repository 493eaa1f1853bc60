"""Claims about sparse autoencoders: F1, F1b, S1 and S1b."""

from trm_interp.analysis.estimates import span
from trm_interp.analysis.recurrence import FEWEST
from trm_interp.report.effects import (
    NOT_TESTABLE,
    About,
    Effect,
    bounded_share_effect,
    estimated_effect,
    share_effect,
)
from trm_interp.report.evidence import SAEQuality
from trm_interp.report.verdicts import Judged, judged, not_measured, number, numbers_of, percent
from trm_interp.runtime.limits import counted
from trm_interp.sae.results import FeaturesSummary, RunsOfFeatures

TRANSIENT = (25, 100)  # evaluations, within a factor of two of the published 50

AGAINST = {"pca": "as many numbers a row", "pca-bits": "as many bits a row"}


def f1(features: FeaturesSummary) -> Judged:
    """In most runs of either outcome most of the most active features recur beyond the schedule.

    A test that is not passed is no evidence of the opposite: against the claim count only runs in
    which a period with half of the variance can be excluded for half of the features or more.
    """
    top, median, test = features.most_active, features.most_active.median, features.recurrence_test
    n = features.solved + features.failed
    if test is None:
        return not_measured(_OLD_NULL, n)
    if test.h_cycles < FEWEST:
        why = f"the tail of a run has {test.h_cycles} H-cycles: recurrence needs {FEWEST}"
        return judged("", "", n, why, [], NOT_TESTABLE)
    ours = (
        f"{top.recurring_solved} / {top.recurring_failed} of the {top.n} most active features "
        "recur beyond the schedule"
    )
    periods = [number(median.period_solved, 1), number(median.period_failed, 1)]
    why = (
        f"solved / failed, against aperiodic series, q at most 0.05 over all {features.alive} that "
        f"fire, of which {features.recurring_solved} / {features.recurring_failed} recur; period "
        f"of the most active that do {' / '.join(periods)} evaluations; same-phase drift "
        f"{number(median.drift_solved, 2)} / {number(median.drift_failed, 2)} (0: schedule only)"
    )
    effects = [
        _most_recur(About("F1", f"share of {kind} runs in which most recur", 0.5, 1), runs)
        for kind, runs in (("solved", test.solved), ("failed", test.failed))
    ]
    return judged(ours, "", n, why, effects)


_OLD_NULL = (
    "recurrence was tested against shuffled phases, which trends and random walks pass: run "
    "`features` again"
)


def _most_recur(about: About, runs: RunsOfFeatures) -> Effect:
    """The share of runs in which more than half of the features recur. Its interval reaches from
    that of the runs in which they do to that of the runs in which they may."""
    measured = [
        (recurs > 0.5, may > 0.5)
        for recurs, may in zip(runs.recurs, runs.may_recur, strict=True)
        if recurs is not None and may is not None
    ]
    do, may = (sum(column) for column in zip(*measured, strict=True)) if measured else (0, 0)
    return bounded_share_effect(about, do, may, len(measured))


def f1b(features: FeaturesSummary) -> Judged:
    """In most runs of either outcome the transient of the most active features, their median, is
    about as long as published: within TRANSIENT. No part of the claim that they recur."""
    top, median, test = features.most_active, features.most_active.median, features.recurrence_test
    n = features.solved + features.failed
    if test is None:
        return not_measured("needs a number a run: run `features` again", n)
    shortest, longest = TRANSIENT
    effects = []
    for kind, runs in (("solved", test.solved), ("failed", test.failed)):
        lengths = [one for one in runs.transient if one is not None]
        hits = sum(shortest <= one <= longest for one in lengths)
        name = f"share of {kind} runs with a transient of {shortest} to {longest} evaluations"
        effects.append(share_effect(About("F1b", name, 0.5, 1), hits, len(lengths)))
    transients = " / ".join(map(number, (median.transient_solved, median.transient_failed)))
    ours = f"{transients} evaluations"
    why = f"median of the {top.n} most active features, solved / failed"
    return judged(ours, "", n, why, effects)


def s1(sae: SAEQuality) -> Judged:
    """The paper states no quality that the SAE could reach or miss: its numbers, and no verdict."""
    ours = (
        f"FVU {number(sae.fvu, 3)}, L0 {sae.l0:.0f}, dead {percent(sae.dead)} %, loss "
        f"recovered {percent(sae.recovered)} %{_exact(sae, 'sae')}"
    )
    why = (
        f"the paper states no quality; {counted(sae.seeds, 'seed')}, {sae.d_in} -> {sae.d_sae}; "
        f"topk: {sae.topk}"
    )
    interval = span(sae.fvu_low, sae.fvu_high)
    return judged(ours, interval, sae.n, why, [], NOT_TESTABLE)


def s1b(sae: SAEQuality) -> Judged:
    """It leaves less unexplained than PCA that keeps as many numbers of a row, and than PCA whose
    code of a row is as long in bits."""
    codes = sae.baselines or {}
    compared = [(name, words) for name, words in AGAINST.items() if name in codes]
    if not compared:
        return not_measured("needs sae-eval --baselines pca,pca-bits", sae.n)
    ours = f"FVU {number(sae.fvu, 3)}" + "".join(
        f"; PCA with {words}, {codes[name].active:.0f}: {number(codes[name].fvu.value, 3)}"
        for name, words in compared
    )
    others = [
        f"{name} {number(code.fvu.value, 3)}{_exact(sae, name)}" for name, code in codes.items()
    ]
    effects = [
        estimated_effect(
            About("S1b", f"FVU less that of PCA with {words}", 0, -1),
            numbers_of(codes[name].sae_less),
            sae.n,
        )
        for name, words in compared
    ]
    why = f"FVU of other codes of the same rows: {', '.join(others)}"
    return judged(ours, "", sae.n, why, effects)


def _exact(sae: SAEQuality, name: str) -> str:
    """What splicing a code in costs in exact accuracy, in words; nothing where it was not."""
    exact = sae.exact or {}
    if name not in exact or "clean" not in exact:
        return ""
    return f", exact {number(exact['clean'], 2)} -> {number(exact[name], 2)} spliced in"
