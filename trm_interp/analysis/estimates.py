"""Estimates with their 95 % intervals, as results hold them. None where a number is not defined.

Each is what a function of this package returns as a dictionary, `Share.of(share_with_bounds(x))`.
Bounds are None where there are too few puzzles to have an interval over.
"""

import math
from dataclasses import dataclass
from typing import Generic, TypeGuard, TypeVar

from trm_interp.runtime.records import Record

Number = float | None
T = TypeVar("T")


def span(low: Number, high: Number, form: str = ".3f") -> str:
    """An interval in words; a dash where there is none (None or NaN).

    >>> span(0.25, 1.0), span(None, None)
    ('[0.250, 1.000]', '-')
    """
    return f"[{low:{form}}, {high:{form}}]" if _is_number(low) and _is_number(high) else "-"


def _is_number(value: Number) -> TypeGuard[float]:
    return value is not None and not math.isnan(value)


def with_span(value: Number, low: Number, high: Number, form: str = ".3f") -> str:
    """A number with its interval in words; without where it has none, a dash where it is undefined.

    >>> with_span(0.5, 0.25, 1.0, ".0%"), with_span(0.5, None, None), with_span(None, None, None)
    ('50% [25%, 100%]', '0.500', '-')
    """
    if not _is_number(value):
        return "-"
    interval = span(low, high, form)
    return f"{value:{form}}" if interval == "-" else f"{value:{form}} {interval}"


@dataclass(frozen=True, kw_only=True)
class ByOutcome(Record, Generic[T]):
    """The same of solved and of failed runs."""

    solved: T
    failed: T


@dataclass(frozen=True, kw_only=True)
class Estimate(Record):
    """A mean, a slope or a correlation: see `mean_with_bounds`, `partial_with_bounds`."""

    value: Number
    low: Number
    high: Number

    def text(self, form: str = ".3f") -> str:
        """`with_span`."""
        return with_span(self.value, self.low, self.high, form)


@dataclass(frozen=True, kw_only=True)
class Median(Record):
    """See `median_with_bounds`. None where `n` is 0."""

    median: Number
    low: Number
    high: Number
    n: int

    def text(self, form: str = ".3f") -> str:
        """`with_span`."""
        return with_span(self.median, self.low, self.high, form)


@dataclass(frozen=True, kw_only=True)
class Share(Record):
    """See `share_with_bounds`. The share and its bounds are None where `n` is 0."""

    share: Number
    low: Number
    high: Number
    hits: int
    n: int


@dataclass(frozen=True, kw_only=True)
class Auc(Record):
    """Area under the ROC curve; None where either kind has too few members."""

    auc: Number
    low: Number
    high: Number

    def text(self, form: str = ".2f") -> str:
        """`with_span`."""
        return with_span(self.auc, self.low, self.high, form)


@dataclass(frozen=True, kw_only=True)
class TestedAuc(Auc):
    """See `auc_with_bounds`."""

    p: Number


@dataclass(frozen=True, kw_only=True)
class StratifiedAuc(Auc):
    """See `auc_within`: of the `pairs` within strata."""

    pairs: int


@dataclass(frozen=True, kw_only=True)
class Otsu(Record):
    """The threshold of `otsu`, of log drifts; None where they are all equal."""

    log10_threshold: Number
    share_of_variance: Number


@dataclass(frozen=True, kw_only=True)
class Dip(Record):
    """See `dip_test`."""

    dip: float
    p: float


@dataclass(frozen=True, kw_only=True)
class Mixture(Record):
    """See `mixture`."""

    low: Number
    high: Number
    share_low: Number
    gap: Number
    bic_gain: Number


@dataclass(frozen=True, kw_only=True)
class SettledCell(Record):
    """See `settled_by_solved`."""

    outcome: str
    settled: bool
    n: int
    of_outcome: Number
    of_outcome_low: Number
    of_outcome_high: Number
    of_settling: Number
    of_settling_low: Number
    of_settling_high: Number
