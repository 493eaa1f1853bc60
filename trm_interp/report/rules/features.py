"""Claims about sparse autoencoders: F1 and S1."""

from trm_interp.analysis.estimates import span
from trm_interp.report.effects import IN_PART, REPRODUCED, About, estimated_effect, share_effect
from trm_interp.report.evidence import SAEQuality
from trm_interp.report.verdicts import Judged, judged, number, percent
from trm_interp.sae.results import FeaturesSummary


def f1(features: FeaturesSummary) -> Judged:
    """Most of the most active features recur beyond the schedule, in runs of either outcome. The
    intervals are over features."""
    top, median = features.most_active, features.most_active.median
    transients = [median.transient_solved, median.transient_failed]
    ours = (
        f"{top.n} most active: transient {' / '.join(map(number, transients))} evaluations, "
        f"recurrence beyond the schedule in {top.recurring_solved} / {top.recurring_failed}"
    )
    why = (
        "medians, solved / failed; a period that the schedule forces does not count; "
        f"same-phase drift {number(median.drift_solved, 2)} / "
        f"{number(median.drift_failed, 2)} (0: schedule only); of all {features.alive} that "
        f"fire {features.recurring_solved} / {features.recurring_failed} recur"
    )
    effects = [
        share_effect(About("F1", f"share of features that recur, {kind} runs", 0.5, 1), hits, top.n)
        for kind, hits in (("solved", top.recurring_solved), ("failed", top.recurring_failed))
    ]
    return judged(ours, "", features.solved + features.failed, why, effects)


def s1(sae: SAEQuality) -> Judged:
    """A gated SAE leaves less than 0.1 of the variance unexplained, and less than 0.1 of its
    features dead; else in part."""
    ours = (
        f"FVU {number(sae.fvu, 3)}, L0 {sae.l0:.0f}, dead {percent(sae.dead)} %, loss "
        f"recovered {percent(sae.recovered)} %"
    )
    about = About("S1", "fraction of variance unexplained", 0.1, -1)
    fvu = estimated_effect(about, (sae.fvu, sae.fvu_low, sae.fvu_high), sae.n)
    works = fvu.supports and sae.dead < 0.1
    why = f"{sae.seeds} seeds, {sae.d_in} -> {sae.d_sae}; topk: {sae.topk}"
    interval = span(sae.fvu_low, sae.fvu_high)
    return judged(ours, interval, sae.n, why, [fvu], REPRODUCED if works else IN_PART)
