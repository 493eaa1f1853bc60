"""What the causal studies and the circuits of one subject say together, by question."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from trm_interp.analysis.estimates import Number, Share
from trm_interp.analysis.outcomes import wilson
from trm_interp.figures.bands import where
from trm_interp.runtime.limits import counted
from trm_interp.sae.results import CircuitsSummary
from trm_interp.studies import robustness, spread, trace, used
from trm_interp.studies.ablated import PROBE
from trm_interp.studies.fates import Became

COMMITMENT = "Is early commitment causal?"
WHERE = "Where does the answer live?"
FAILURES = "Are failures wrong or unfinished?"
USED = "Is what probes read used?"
SPREAD = "Do related cells move more than others?"
ROBUST = "Do ends come back from noise?"
RELATED = "What goes with the noise that an end survives?"
EDGES = "Do edges between features hold under ablation?"
COLUMNS = ("question", "what", "value", "low", "high", "n", "verdict")
SUMMARY = "summary.json"


class Verdict(NamedTuple):
    """A number with its 95 % interval, what it is, and what it says. `n`: pairs or puzzles."""

    question: str
    what: str
    value: Number
    low: Number
    high: Number
    n: int
    verdict: str


def verdicts(folder: Path) -> pd.DataFrame:
    """A row a number, of the parts that a folder has: those of `experiments/causal.py`."""
    rows: list[Verdict] = []
    judges: dict[str, tuple[Any, Callable[[Any, Path], Iterator[Verdict]]]] = {
        "trace": (trace.Result, _of_trace),
        "used": (used.Result, _of_used),
        "used-sae": (used.Result, _of_used_features),
        "spread": (spread.Result, _of_spread),
        "spread-late": (spread.Result, _of_spread),
        "robustness": (robustness.Result, _of_robustness),
        "circuits": (CircuitsSummary, _of_circuits),
    }
    for name, (read, judge) in judges.items():
        part = folder / name
        if (part / SUMMARY).exists():
            rows += judge(read.read(part / SUMMARY), part)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def overlap(a: tuple[Number, Number], b: tuple[Number, Number]) -> bool:
    """Whether two intervals share a number; so do those that are not there.

    >>> overlap((0.1, 0.3), (0.2, 0.9)), overlap((0.1, 0.3), (0.4, 0.9)), overlap((0, 1), (2, None))
    (True, False, True)
    """
    if None in (*a, *b):
        return True
    (low, high), (other_low, other_high) = a, b
    return bool(low <= other_high and other_low <= high)  # type: ignore[operator]


def _of_trace(result: trace.Result, folder: Path) -> Iterator[Verdict]:
    """Rescue at the first and the last moment after the start; whose state rescues; later fates."""
    table = pd.read_csv(folder / "sealed.csv")
    pair = where(table, (table["donor"] == "the pair's") & (table["direction"] == "rescue"))
    for site in result.sealed:
        own = where(pair, (pair["site"] == site) & (pair["moment"] >= 1)).sort_values("moment")
        if len(own) < 2:
            continue
        first, last = (_share(own.iloc[at]) for at in (0, -1))
        apart = not overlap((first.low, first.high), (last.low, last.high))
        falls = apart and (last.share or 0) < (first.share or 0)
        verdict = "the fate is sealed on the way" if falls else "no moment is shown to seal it"
        for share, at in ((first, 0), (last, -1)):
            what = f"{site} of the solved run after step {own.iloc[at]['moment']:g} rescues"
            yield Verdict(COMMITMENT, what, share.share, share.low, share.high, share.n, verdict)
    shares = {site: of.rescued for site, of in result.sealed.items()}
    best = max(shares, key=lambda site: shares[site].share or 0.0)
    others = [of for site, of in shares.items() if site != best]
    apart = all(
        not overlap((of.low, of.high), (shares[best].low, shares[best].high)) for of in others
    )
    verdict = f"in {best}" if apart and others else "no state alone is shown to hold it"
    for site, of in shares.items():
        what = f"{site} rescues at some moment"
        yield Verdict(WHERE, what, of.share, of.low, of.high, of.n, verdict)
    if result.unpatched is not None:
        verdict = of_failures(result.unpatched.failed)
        for one in result.unpatched.failed:
            what = f"failed runs {one.steps} steps later: {one.became}"
            yield Verdict(FAILURES, what, one.share, one.low, one.high, one.n, verdict)


def of_failures(each: Sequence[Became]) -> str:
    """What most failed runs are, if the interval of a share lies above one half: those that are
    solved later were unfinished; those at rest, or in a cycle, are wrong; others are on the way."""
    hits = {one.became: one.hits for one in each}
    for verdict, ends in (
        ("unfinished", ("solved",)),
        ("wrong", ("settled", "cycling")),
        ("neither, and wander", ("wandering",)),
    ):
        if wilson(sum(hits.get(end, 0) for end in ends), each[0].n)[0] > 0.5:
            return f"most are {verdict}"
    return "nothing is shown of most"


def _share(row: Any) -> Share:
    n, share = int(row["n"]), float(row["flipped"])
    low, high = wilson(round(share * n), n)
    return Share(share=share, low=low, high=high, hits=round(share * n), n=n)


def _of_used(result: used.Result, folder: Path) -> Iterator[Verdict]:
    """Of every kind and state the moment at which taking it out costs the most."""
    best: dict[tuple[str, str, str], used.Ablated] = {}
    for one in result.ablated:
        key = one.label, one.site, one.what
        if key not in best or (one.loss.value or 0) > (best[key].loss.value or 0):
            best[key] = one
    for (label, site, what), one in best.items():
        text = f"loss without {what} of {label} in {site} after step {one.moment}"
        verdict = "used" if one.is_used else "not shown to be used"
        loss = one.loss
        yield Verdict(USED, text, loss.value, loss.low, loss.high, result.n_test, verdict)


def _of_used_features(result: used.Result, folder: Path) -> Iterator[Verdict]:
    """Those of SAE features alone: a run with an SAE takes the probes out once more."""
    ablated = [one for one in result.ablated if one.what != PROBE]
    yield from _of_used(replace(result, ablated=ablated), folder)


def _of_robustness(result: robustness.Result, folder: Path) -> Iterator[Verdict]:
    """epsilon_50 of random directions by outcome, and what it goes with over ends."""
    for basin in robustness.BASINS:
        fifty = {
            name: one.epsilon_50[basin][robustness.RANDOM]
            for name, one in vars(result.ends).items()
            if one.n
        }
        verdict = "one outcome alone"
        if len(fifty) > 1:
            solved, failed = (fifty[name].median for name in robustness.OUTCOMES)
            apart = not overlap((solved.low, solved.high), (failed.low, failed.high))
            wider = "solved" if (solved.median or 0) > (failed.median or 0) else "failed"
            verdict = f"{wider} ends lie in wider basins" if apart else "no difference is shown"
        for name, one in fifty.items():
            beyond = f", {one.above} of them beyond the sizes tried" if one.above else ""
            text = f"epsilon_50 of {name} ends, by the {basin}{beyond}"
            middle = one.median
            yield Verdict(ROBUST, text, middle.median, middle.low, middle.high, middle.n, verdict)
    for one in result.related:
        of = one.correlation
        text = f"{one.to} with epsilon_50 of {one.ends} ends, by the {one.basin}"
        verdict = "nothing is shown"
        if (of.low or 0) > 0 or (of.high or 0) < 0:
            verdict = "rises with it" if (of.value or 0) > 0 else "falls with it"
        yield Verdict(RELATED, text, of.value, of.low, of.high, one.n, verdict)


def _of_circuits(result: CircuitsSummary, folder: Path) -> Iterator[Verdict]:
    """Of each fate the share of checked edges that beat all matched features, and the order."""
    for fate, of in result.fates.items():
        if of.checked:
            low, high = wilson(of.confirmed, of.checked)
            verdict = "most hold" if low > 0.5 else "most do not" if high < 0.5 else "not shown"
            text = f"strongest edges of {fate} runs that hold beyond every matched feature"
            share = of.confirmed / of.checked
            yield Verdict(EDGES, text, share, low, high, of.checked, verdict)
        if (agree := of.agreement) is not None:
            verdict = "they agree in order" if (agree.low or 0) > 0 else "no agreement is shown"
            text = f"rank correlation of weight and loss in {fate} runs"
            yield Verdict(EDGES, text, agree.value, agree.low, agree.high, of.n, verdict)


def _of_spread(result: spread.Result, folder: Path) -> Iterator[Verdict]:
    """Related over unrelated cells, at the first and the last evaluation of each state."""
    kind = result.settings["kind"]
    for site in dict.fromkeys(one.site for one in result.locality):
        own = [one for one in result.locality if one.site == site and one.ratio.value is not None]
        for one in dict.fromkeys((own[0], own[-1])) if own else ():
            text = f"{kind} changed, {site} after {counted(one.evaluation, 'evaluation')}"
            ratio = one.ratio
            verdict = "related cells more" if (ratio.low or 0) > 1 else "no more than others"
            yield Verdict(SPREAD, text, ratio.value, ratio.low, ratio.high, result.n, verdict)
