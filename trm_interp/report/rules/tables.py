"""Claims about shares of solved puzzles: T1, T2, T2b and C1."""

from trm_interp.analysis.estimates import span
from trm_interp.analysis.resample import bounds
from trm_interp.report.effects import (
    About,
    Crossed,
    Effect,
    closed_gap_effect,
    difference_effect,
    estimated_effect,
    mean_of,
    paired_effect,
    share_effect,
)
from trm_interp.report.evidence import SearchShares
from trm_interp.report.verdicts import Judged, judged, not_measured, percent
from trm_interp.search.results import Curve
from trm_interp.studies.origins import OriginsResult
from trm_interp.studies.outcomes import OutcomesResult

PUBLISHED_AT = {1: 0.156, 2: 0.539, 3: 0.656, 5: 0.751, 10: 0.834, 16: 0.872}
PUBLISHED_BY_STEP_2 = 0.539 / 0.872  # of the puzzles that are solved in the end
FRONT = 2  # supervision steps by which most of what is solved is solved
PUBLISHED_GAIN = {1: 0.0, 2: 0.232, 3: 0.291, 5: 0.227}  # best of 50 less one plain run
NOTHING = 0.05  # a gain below which a step gains nothing: no n here tells less


def t1(outcomes: OutcomesResult) -> Judged:
    """More steps solve more puzzles, and most of what is ever solved is solved by step 2.

    The published shares themselves are of another model and other puzzles: they are shown, and
    decide nothing.
    """
    n, steps = outcomes.n, outcomes.steps
    if steps <= FRONT:
        return not_measured(f"{steps} supervision steps tell nothing about later ones", n)
    at = [step for step in PUBLISHED_AT if step <= steps]
    low, high = outcomes.exact_low, outcomes.exact_high
    ours = " / ".join(percent(outcomes.exact[s - 1]) for s in at)
    spans = "; ".join(f"[{percent(low[s - 1])}, {percent(high[s - 1])}]" for s in at)
    first, last = (_hits(outcomes.exact[i], n) for i in (0, -1))
    by_front, in_all = (_hits(outcomes.ever[i], n) for i in (FRONT - 1, -1))
    effects = [
        difference_effect(
            About("T1", "solved at the last step less at step 1", 0.0, 1), (last, n), (first, n)
        ),
        share_effect(
            About("T1", f"share of the ever solved that is solved by step {FRONT}", 0.5, 1),
            by_front,
            in_all,
        ),
    ]
    why = (
        f"at step {' / '.join(map(str, at))}; published by step {FRONT} "
        f"{PUBLISHED_BY_STEP_2:.2f} of the solved; ever solved {percent(outcomes.ever[-1])} %, "
        f"{outcomes.lost_in_all} puzzles lost again; the published shares are not testable with "
        "another model and other puzzles"
    )
    return judged(ours, spans, n, why, effects)


def _hits(share: float, n: int) -> int:
    return round(share * n)


def t2(search: SearchShares) -> Judged:
    """The best of K by Q solves more than the plain run at steps 2, 3 and 5, and closes at least
    half of its gap to 1 at the last of them."""
    at = [step for step in PUBLISHED_GAIN if 1 < step <= search.steps]
    if not at:
        return not_measured("one supervision step, which T2b is about", search.n)
    effects = [_gain(search, "T2", step, 0.0, 1) for step in at]
    last = at[-1]
    about = About("T2", f"share of the gap to 1 that is closed at step {last}", 0.5, 1)
    effects.append(closed_gap_effect(about, _crossed(search, last)))
    return judged(*_row(search, at), _settings(search, last), effects)


def t2b(search: SearchShares) -> Judged:
    """At step 1 the best of K by Q gains less than NOTHING: the paper has the same share twice."""
    effects = [_gain(search, "T2b", 1, NOTHING, -1)]
    return judged(*_row(search, [1]), _settings(search, 1), effects)


def _gain(search: SearchShares, claim: str, step: int, null: float, claimed: int) -> Effect:
    """Best of K less plain."""
    about = About(claim, f"gain at step {step}", null, claimed)
    return paired_effect(about, _crossed(search, step))


def _crossed(search: SearchShares, step: int) -> Crossed:
    """Puzzles that the best of K and the plain run solve; as if independent where the search is of
    an earlier version, which makes the interval too wide, never too narrow."""
    best, plain = (_at(curve, step, search.n) for curve in (search.best_q, search.baseline))
    gained = None if search.gained is None else search.gained[step - 1]
    return Crossed.of(best, plain, search.n, gained)


def _at(curve: Curve, step: int, n: int) -> int:
    return _hits(curve.share[step - 1], n)


def _row(search: SearchShares, at: list[int]) -> tuple[str, str, int]:
    best, plain = search.best_q, search.baseline
    low, high = best.low, best.high
    gains = " / ".join(f"{100 * (best.share[s - 1] - plain.share[s - 1]):+.1f}" for s in at)
    shares = " / ".join(percent(best.share[s - 1]) for s in at)
    spans = "; ".join(f"[{percent(low[s - 1])}, {percent(high[s - 1])}]" for s in at)
    return f"{shares}; gain {gains}", spans, search.n


def _settings(search: SearchShares, last: int) -> str:
    plain = " / ".join(percent(share) for share in search.baseline.share)
    published = " / ".join(f"{100 * gain:+.1f}" for gain in PUBLISHED_GAIN.values())
    return (
        f"K {search.k}, sigma {search.sigma:g} on {search.target}; plain {plain} at step 1 to "
        f"{search.steps}; pass@K {percent(search.pass_at_k.share[last - 1])} at step {last}; "
        f"published gain at 1 / 2 / 3 / 5 {published}"
    )


def c1(origins: OriginsResult) -> Judged:
    """The start decides more of the variance than the puzzle as it is written, and the best of the
    starts solves more than one run of as many evaluations, of all puzzles."""
    starts, n = origins.settings["starts"], origins.n
    more = About("C1", "variance that the start decides less that of the input", 0.0, 1)
    drawn = origins.start_over_input_draws(more.seed)
    low, high = map(float, bounds(drawn))
    gain = origins.gain
    effects = [
        more.effect(origins.start_over_input, low, high, n, drawn),
        estimated_effect(
            About("C1", "solved by the best start less by one deep run", 0.0, 1),
            (gain.value, gain.low, gain.high),
            n,
            mean_of(origins.gains),
        ),
    ]
    shares = ", ".join(f"{name} {one.text('.0%')}" for name, one in origins.shares.items())
    breadth, depth = origins.breadth_by_starts, origins.depth
    ours = f"breadth {percent(breadth.share)} %, depth {percent(depth.share)} %; variance: {shares}"
    why = (
        f"all puzzles; {starts} x {origins.settings['steps']} against 1 x {origins.deep_steps} "
        f"steps; of {origins.recovered_by_starts.n} that the plain run fails, other starts solve "
        f"{origins.recovered_by_starts.hits}, symmetric copies {origins.recovered_by_copies.hits}"
    )
    interval = f"{span(breadth.low, breadth.high)} against {span(depth.low, depth.high)}"
    return judged(ours, interval, n, why, effects)
