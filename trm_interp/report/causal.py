"""What `trace`, `used` and `spread` of one subject say together, by question."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from trm_interp.analysis.estimates import Number, Share
from trm_interp.analysis.outcomes import wilson
from trm_interp.figures.bands import where
from trm_interp.runtime.limits import counted
from trm_interp.studies import spread, trace, used
from trm_interp.studies.fates import Became

COMMITMENT = "Is early commitment causal?"
WHERE = "Where does the answer live?"
FAILURES = "Are failures wrong or unfinished?"
USED = "Is what probes read used?"
SPREAD = "Do related cells move more than others?"
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
    """A row a number, of the parts that a folder has: `trace`, `used`, `spread`, `spread-late`."""
    rows: list[Verdict] = []
    judges: dict[str, tuple[Any, Callable[[Any, Path], Iterator[Verdict]]]] = {
        "trace": (trace.Result, _of_trace),
        "used": (used.Result, _of_used),
        "spread": (spread.Result, _of_spread),
        "spread-late": (spread.Result, _of_spread),
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
