"""What the rules of claims give: a row of the claims table, and the effects behind it.

A verdict is one of `effects.VERDICTS`, by one rule for all claims, `effects.verdict_of`. What was
not measured, or on too few runs, has no verdict. The rules are in `trm_interp/report/rules`.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from trm_interp.analysis.estimates import Auc, Estimate, Median, Number, span
from trm_interp.report.effects import NOT_MEASURED, Effect, verdict_of

Row = dict[str, Any]  # of the claims table


class Judged(NamedTuple):
    """`row`: ours, interval, n, verdict and why; `effects`: none where there is no verdict."""

    row: Row
    effects: tuple[Effect, ...] = ()


def judged(
    ours: str, interval: str, n: object, why: str, effects: Sequence[Effect], verdict: str = ""
) -> Judged:
    """A claim with the verdict of its effects, or with another one; why says which effects hold."""
    verdict = verdict or verdict_of(effects)
    why = "; ".join([*filter(None, [sides(effects)]), why])
    return Judged(verdict_row(ours, interval, n, verdict, why), tuple(effects))


def not_measured(why: str, n: object = "", ours: str = "", interval: str = "") -> Judged:
    """A claim without a verdict."""
    return Judged(verdict_row(ours, interval, n, NOT_MEASURED, why))


def verdict_row(ours: str, interval: str, n: object, verdict: str, why: str) -> Row:
    return {"ours": ours, "interval": interval, "n": n, "verdict": verdict, "why": why}


def sides(effects: Sequence[Effect]) -> str:
    """The effects in words, by the side on which they lie."""
    parts = []
    for heading, members in (
        ("as claimed", [one for one in effects if one.supports]),
        ("opposite", [one for one in effects if one.opposes]),
        ("open", [one for one in effects if not one.direction]),
    ):
        if members:
            parts.append(f"{heading}: {', '.join(one.text for one in members)}")
    return "; ".join(parts)


def percent(share: Number) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def number(value: Number, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def interval_of(one: Estimate | Median | Auc, digits: int = 3) -> str:
    return span(one.low, one.high, f".{digits}f")


def numbers_of(one: Estimate | Median | Auc) -> tuple[Number, Number, Number]:
    """Value, low and high."""
    value = (
        one.value
        if isinstance(one, Estimate)
        else one.median
        if isinstance(one, Median)
        else one.auc
    )
    return value, one.low, one.high


def defined(value: Number) -> bool:
    """Whether it is a number."""
    return value is not None and not math.isnan(value)
