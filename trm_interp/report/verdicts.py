"""The rules by which claims of the seed paper are judged, one function a claim.

A verdict is one of VERDICTS. Rules compare intervals where there are puzzles to have one over, and
say in `why` what they looked at. What was not measured, or on too few runs, has no verdict.
"""

from typing import Any

from trm_interp.analysis.auc import FEWEST
from trm_interp.analysis.outcomes import wilson

VERDICTS = ("reproduced", "reproduced in part", "refuted", "untestable as stated", "not measured")
REPRODUCED, IN_PART, REFUTED, UNTESTABLE, NOT_MEASURED = VERDICTS
Found = dict[str, dict[str, Any]]  # summaries by part
FEW, MOST = 0.1, 0.5  # shares that the bounds of an interval are compared with
TRANSIENT = 100  # network evaluations: twice what the seed paper reads from its figure 1
PUBLISHED_AT = {1: 0.156, 2: 0.539, 3: 0.656, 5: 0.751, 10: 0.834, 16: 0.872}


def verdict_row(ours: str, interval: str, n: object, verdict: str, why: str) -> dict[str, Any]:
    return {"ours": ours, "interval": interval, "n": n, "verdict": verdict, "why": why}


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _span(low: float | None, high: float | None, digits: int = 3) -> str:
    return "-" if low is None or high is None else f"[{low:.{digits}f}, {high:.{digits}f}]"


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _drift(known: dict[str, Any]) -> str:
    if known.get("median") is None:
        return "-"
    return f"{known['median']:.2g} [{known['low']:.2g}, {known['high']:.2g}]"


def t1(found: Found) -> dict[str, Any]:
    """Every published share lies in our interval; in part where more steps solve more puzzles."""
    known = found["table1"]
    at = [step for step in PUBLISHED_AT if step <= known["steps"]]
    ours = " / ".join(_percent(known["exact"][s - 1]) for s in at)
    spans = "; ".join(
        f"[{_percent(known['exact_low'][s - 1])}, {_percent(known['exact_high'][s - 1])}]"
        for s in at
    )
    within = [
        known["exact_low"][s - 1] <= PUBLISHED_AT[s] <= known["exact_high"][s - 1] for s in at
    ]
    rises = known["exact_low"][at[-1] - 1] > known["exact_high"][0]
    lost = known["lost_in_all"]
    why = (
        f"at step {' / '.join(map(str, at))}; ever solved {_percent(known['ever'][-1])} %, {lost} "
        "puzzles lost again; another model and other puzzles than the paper's"
    )
    if all(within):
        return verdict_row(ours, spans, known["n"], REPRODUCED, why)
    return verdict_row(ours, spans, known["n"], IN_PART if rises else REFUTED, why)


def t2(found: Found) -> dict[str, Any]:
    """The best of K by Q is above the plain run, intervals apart, and closes at least half of its
    gap to 1; in part where it is above at all."""
    known = found["table2"]
    at = [step for step in (1, 2, 3, 5) if step <= known["steps"]]
    last = at[-1] - 1
    ours = " / ".join(_percent(known["best_q"][s - 1]) for s in at)
    plain = " / ".join(_percent(known["baseline"][s - 1]) for s in at)
    span = "; ".join(
        f"[{_percent(known['best_q_low'][s - 1])}, {_percent(known['best_q_high'][s - 1])}]"
        for s in at
    )
    better = known["best_q_low"][last] > known["baseline_high"][last]
    gain = known["best_q"][last] - known["baseline"][last]
    closed = gain / max(1e-9, 1 - known["baseline"][last])
    why = (
        f"K {known['k']}, sigma {known['sigma']:g} on {known['target']}; plain {plain}; pass@K "
        f"{_percent(known['pass_at_k'][last])} at step {last + 1}; closes {closed:.0%} of the gap"
        " (published 91 %)"
    )
    verdict = REPRODUCED if better and closed >= 0.5 else IN_PART if gain > 0 else REFUTED
    return verdict_row(ours, span, known["n"], verdict, why)


def f1(found: Found) -> dict[str, Any]:
    """Recurrence with its interval above 0 in most of the most active features of either outcome,
    after a transient of at most TRANSIENT evaluations; in part with one of the two."""
    known = found["fig1"]
    top = known["most_active"]
    median, recurring = top["median"], [top["recurring_solved"], top["recurring_failed"]]
    transients = [median["transient_solved"], median["transient_failed"]]
    ours = (
        f"{top['n']} most active: transient {' / '.join(map(_number, transients))} evaluations, "
        f"recurrence beyond the schedule in {recurring[0]} / {recurring[1]}"
    )
    why = (
        "medians, solved / failed; a period that the 6 + 1 schedule forces does not count; "
        f"same-phase drift {_number(median['drift_solved'], 2)} / "
        f"{_number(median['drift_failed'], 2)} (0: schedule only); of all {known['alive']} that "
        f"fire {known['recurring_solved']} / {known['recurring_failed']} recur"
    )
    short = all(value is not None and value <= TRANSIENT for value in transients)
    most = min(recurring) > 0.5 * top["n"]
    verdict = REPRODUCED if most and short else IN_PART if most or short else REFUTED
    return verdict_row(ours, "", known["solved"] + known["failed"], verdict, why)


def _settled(found: Found) -> tuple[dict[str, tuple[int, int]], dict[str, Any]]:
    """Settled runs of how many, by outcome; and the row of claims about it, without a verdict."""
    known = found["settling"]
    of = {kind: (known["fates"][kind]["settled"], known[kind]) for kind in ("solved", "failed")}
    said = {kind: f"{hits} of {n} {kind}" for kind, (hits, n) in of.items()}
    spans = {kind: _span(*wilson(hits, n)) for kind, (hits, n) in of.items()}
    auc, drift = known["auc_of_drift_for_failure"], known["late_drift"]
    why = (
        f"within {known['tolerance']:g} of where they were; median late drift "
        f"{_drift(drift['solved'])} solved, {_drift(drift['failed'])} failed, AUC for failing "
        f"{_number(auc['auc'], 2)} {_span(auc['low'], auc['high'])}"
    )
    if known.get("long"):
        long = known["long"]
        fates = long["dynamics"]["failed"]
        why += f"; after {long['horizons'][-1]} steps failed runs are " + ", ".join(
            f"{count} {fate}" for fate, count in fates.items()
        )
    ours = f"settled at step {known['steps']}: {said['solved']}, {said['failed']}"
    return of, verdict_row(
        ours, f"{spans['solved']}; {spans['failed']}", known["n"], NOT_MEASURED, why
    )


def f2(found: Found) -> dict[str, Any]:
    """Failures settle, and successes less so."""
    of, row = _settled(found)
    if min(n for _, n in of.values()) < FEWEST:
        return row | {"why": f"fewer than {FEWEST} runs of an outcome; {row['why']}"}
    (_, most_solved), (failed, most_failed) = (wilson(*of[kind]) for kind in ("solved", "failed"))
    if most_failed <= FEW:
        return row | {"verdict": REFUTED}
    return row | {"verdict": REPRODUCED if failed >= max(MOST, most_solved) else IN_PART}


def f3(found: Found) -> dict[str, Any]:
    """Steps to solution cluster in every puzzle, among random starts and on a plane through them.

    The plane through a solved and a failed end is told, but does not count: it is chosen for both.
    """
    known = found["fig3"]
    puzzles = known["puzzles_looked_at"]
    shares = ", ".join(f"{_percent(one['solved'])} %" for one in puzzles)
    clustered = known["clustered_by_steps"]
    told = "; ".join(f"{where}: {hits} of {of}" for where, (hits, of) in clustered.items())
    fails = known["solved_where_own_start_fails"]
    why = (
        f"Moran's I of the steps to solution above shuffled labels (false discovery rate 5 %): "
        f"{told} (the plane is chosen through both outcomes and does not count); "
        f"{sum(share > 0.02 for share in fails)} of {len(fails)} puzzles that the own start fails "
        "are solved from more than 2 % of the others"
    )
    tested = [(hits, of) for where, (hits, of) in clustered.items() if of and where != "plane"]
    if not tested:
        return verdict_row(shares, "", puzzles[0]["n"], UNTESTABLE, why)
    if all(hits == of for hits, of in tested):
        verdict = REPRODUCED
    else:
        verdict = IN_PART if any(hits for hits, _ in tested) else REFUTED
    n = f"{len(puzzles)} x {puzzles[0]['n']} starts"
    return verdict_row(f"solved from {shares} of the starts", "", n, verdict, why)


def f4(found: Found) -> dict[str, Any]:
    """Successes' loss is below a tenth of its start by cycle 10, and failures' loss is level, at
    11-12 in some convention; in part with one of the first two."""
    known = found["fig4"]
    if "failed_loss" not in known or "solved_loss" not in known:
        return verdict_row("", "", known["n"], NOT_MEASURED, "one outcome only")
    if min(known["solved"], known["n"] - known["solved"]) < FEWEST:
        why = f"fewer than {FEWEST} runs of an outcome"
        return verdict_row("", "", known["n"], NOT_MEASURED, why)
    name = "stablemax, cells"
    good, bad = known["solved_loss"][name], known["failed_loss"][name]
    ours = (
        f"solved {good['first']['value']:.2f} -> {good['early']['value']:.3f} at cycle 10; failed "
        f"{bad['first']['value']:.2f} -> level {bad['level']['value']:.2f}, slope "
        f"{bad['slope']['value']:.1g} a cycle"
    )
    interval = (
        f"{_span(good['early']['low'], good['early']['high'])}; "
        f"{_span(bad['level']['low'], bad['level']['high'])}"
    )
    levels = {c: v["level"] for c, v in known["failed_loss"].items()}
    fits = [c for c, level in levels.items() if level["low"] <= 12 and level["high"] >= 11]
    early = good["early"]["high"] < 0.1 * good["first"]["low"]
    steepest = max(abs(bad["slope"][end]) for end in ("low", "high"))
    flat = steepest * known["cycles"] / 2 < 0.1 * bad["level"]["low"]
    why = (
        f"{name}, nats; {_percent(known['solved_after_cycle_10'])} % of the successes are solved "
        f"by cycle 10; plateau {'flat' if flat else 'not flat'}; a level of 11-12 "
        + (f"is that of {', '.join(fits)}" if fits else "fits no convention")
    )
    in_part = IN_PART if early or flat else REFUTED
    verdict = REPRODUCED if early and flat and fits else in_part
    return verdict_row(ours, interval, known["n"], verdict, why)


def f5(found: Found) -> dict[str, Any]:
    """Failures are farther from the mean success at update 50 (AUC above 0.5) and go on leaving it;
    in part with one of the two, or among starts of one puzzle only."""
    known = found["fig5"]
    over, same = known["over_puzzles"], known["same_puzzle"]
    measured: list[dict[str, Any]] = list(over["auc"].values()) if over else []
    if not measured or measured[1]["auc"] is None:
        return verdict_row("", "", known["n"], NOT_MEASURED, "too few runs of either outcome")
    _, at_50, last = measured
    ours = (
        f"AUC of the distance for failing {at_50['auc']:.2f} at update 50, {last['auc']:.2f} last"
    )
    interval = f"{_span(at_50['low'], at_50['high'])}; {_span(last['low'], last['high'])}"
    slope = over["failed_late_slope"]
    diverging = slope["low"] > 0
    why = (
        f"slope of the failures' distance in the second half {slope['value']:.2g} an update "
        f"{_span(slope['low'], slope['high'], 5)}"
    )
    left = left_alike = at_50["low"] > 0.5
    if same.get("auc"):
        control = list(same["auc"].values())
        left_alike = control[1]["low"] > 0.5
        why += (
            f"; among starts of one puzzle AUC {control[1]['auc']:.2f} at 50, "
            f"{control[2]['auc']:.2f} last ({len(same['puzzles'])} puzzles)"
        )
        if left_alike and not left:
            why += ": failures do leave their own puzzle's successes"
    some = left or left_alike or diverging
    verdict = REPRODUCED if left and diverging else IN_PART if some else REFUTED
    return verdict_row(ours, interval, known["n"], verdict, why)


def s1(found: Found) -> dict[str, Any]:
    """A gated SAE leaves less than 0.1 of the variance unexplained, and less than 0.1 of its
    features dead; else in part."""
    known = found["sae"]
    gated = known["gated"]
    ours = (
        f"FVU {gated['fvu']:.3f}, L0 {gated['l0']:.0f}, dead {_percent(gated['dead'])} %, loss "
        f"recovered {_percent(gated['recovered'])} %"
    )
    works = gated["fvu_high"] < 0.1 and gated["dead"] < 0.1
    why = f"{gated['seeds']} seeds, {gated['d_in']} -> {gated['d_sae']}; topk: {known['beside']}"
    interval = _span(gated["fvu_low"], gated["fvu_high"])
    return verdict_row(ours, interval, gated["n"], REPRODUCED if works else IN_PART, why)


def c1(found: Found) -> dict[str, Any]:
    """Breadth against depth at equal evaluations, on the same puzzles."""
    known, long = found["breadth"], found["settling"].get("long")
    wide, deep = known["breadth"], known["depth"]
    ours = (
        f"at {known['evaluations']} evaluations: breadth {_percent(wide['best_q'])} %, depth "
        f"{_percent(deep['best_q'])} %"
    )
    interval = (
        f"{_span(wide['best_q_low'], wide['best_q_high'])} against "
        f"{_span(deep['best_q_low'], deep['best_q_high'])}"
    )
    why = known["of"]
    if long:
        escaped = long["escaped"]
        why += f"; {escaped['hits']} of {escaped['n']} failed runs are solved by running to "
        why += f"{long['horizons'][-1]} steps"
    wins, loses = wide["best_q_low"] > deep["best_q_high"], wide["best_q_high"] < deep["best_q_low"]
    verdict = REPRODUCED if wins else REFUTED if loses else IN_PART
    return verdict_row(ours, interval, known["n"], verdict, why)


def w1(found: Found) -> dict[str, Any]:
    """Failures do not settle."""
    of, row = _settled(found)
    if of["failed"][1] < FEWEST:
        return row | {"why": f"fewer than {FEWEST} failed runs; {row['why']}"}
    low, high = wilson(*of["failed"])
    return row | {"verdict": REPRODUCED if high <= FEW else REFUTED if low >= MOST else IN_PART}


def w2(found: Found) -> dict[str, Any]:
    """The failures' leading exponent is above 0, and above that of successes; in part with one."""
    known = found["stability"]["lambda_1"]
    solved, failed, auc = known["solved"], known["failed"], known["auc_for_failure"]
    if auc["auc"] is None:
        return verdict_row("", "", "", NOT_MEASURED, "too few runs of either outcome")
    medians = f"median {solved['median']:+.3f} solved, {failed['median']:+.3f} failed"
    ours = f"{medians}; AUC {auc['auc']:.2f}"
    interval = (
        f"{_span(solved['low'], solved['high'])}; {_span(failed['low'], failed['high'])}; "
        f"{_span(auc['low'], auc['high'])}"
    )
    drift = known["auc_at_equal_drift"]
    why = f"per network evaluation; at equal late drift the AUC is {_number(drift['auc'], 2)}"
    positive, apart = failed["low"] > 0, auc["low"] > 0.5
    verdict = REPRODUCED if positive and apart else IN_PART if positive or apart else REFUTED
    return verdict_row(ours, interval, solved["n"] + failed["n"], verdict, why)
