"""Estimates with their 95 % intervals, as results hold them. None where a number is not defined.

Each is what a function of this package returns as a dictionary, `Share.of(share_with_bounds(x))`.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

from trm_interp.runtime.records import Record

Number = float | None
T = TypeVar("T")


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


@dataclass(frozen=True, kw_only=True)
class Median(Record):
    """See `median_with_bounds`. None where `n` is 0."""

    median: Number
    low: Number
    high: Number
    n: int


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
