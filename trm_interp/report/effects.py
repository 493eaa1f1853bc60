"""Effects: the numbers that a claim is judged by, each with its interval and the value that would
say nothing; and the one rule that makes a verdict of them."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from trm_interp.analysis.auc import FEWEST, auc_draws
from trm_interp.analysis.estimates import Number, with_span
from trm_interp.analysis.outcomes import paired_difference, wilson
from trm_interp.analysis.resample import TIMES, mean_draws, median_draws

VERDICTS = (
    "reproduced",
    "reproduced in part",
    "contradicted",
    "mixed",
    "inconclusive",
    "not testable here",
    "not measured",
)
(REPRODUCED, IN_PART, CONTRADICTED, MIXED, INCONCLUSIVE, NOT_TESTABLE, NOT_MEASURED) = VERDICTS


def _none() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Effect:
    """One number of a claim.

    `low`, `high`: 95 % interval over puzzles, None where it is not defined; `n`: puzzles or runs.
    `null`: the value that would say nothing, or the bound that the claim is compared with.
    `claimed`: +1 where the claim says above it, -1 below. `draws`: bootstrap replicates of the
    estimate over puzzles, empty where the result does not hold what they are made of.
    """

    claim: str
    name: str
    estimate: Number
    low: Number
    high: Number
    n: int
    null: float
    claimed: int
    draws: np.ndarray = field(default_factory=_none, repr=False)

    def __post_init__(self) -> None:
        if self.claimed not in (1, -1):
            raise ValueError(f"claimed must be 1 or -1, got {self.claimed}")

    @property
    def direction(self) -> int:
        """+1 or -1 where the interval is clear of the null, else 0 (also where there is none)."""
        if self.low is not None and self.low > self.null:
            return 1
        return -1 if self.high is not None and self.high < self.null else 0

    @property
    def supports(self) -> bool:
        """Whether it lies where the claim says, clear of the null."""
        return self.direction == self.claimed

    @property
    def opposes(self) -> bool:
        """Whether it lies on the other side, clear of the null."""
        return self.direction == -self.claimed

    @property
    def text(self) -> str:
        """Name, estimate and interval, and what they are compared with."""
        side = ">" if self.claimed > 0 else "<"
        number = with_span(self.estimate, self.low, self.high, ".3g")
        return f"{self.name} {number} (claimed {side} {self.null:g})"


def verdict_of(effects: Sequence[Effect]) -> str:
    """What these effects say together.

    Reproduced: all lie where the claim says, each interval clear of its null. In part: some do, and
    none lies on the other side. Contradicted: some lie on the other side, and none where the claim
    says. Mixed: both. Inconclusive: every interval holds its null. Not measured: there is none.

    >>> def share(low, high):
    ...     return Effect(
    ...         claim="F2", name="share", estimate=0.5, low=low, high=high, n=9, null=0.5, claimed=1
    ...     )
    >>> verdict_of([share(0.6, 0.9), share(0.4, 0.6)])
    'reproduced in part'
    >>> verdict_of([share(0.4, 0.6)]), verdict_of([share(0.1, 0.2)])
    ('inconclusive', 'contradicted')
    """
    if all(one.low is None and one.high is None for one in effects):
        return NOT_MEASURED
    for_it, against = (
        sum(getattr(one, side) for one in effects) for side in ("supports", "opposes")
    )
    if against:
        return MIXED if for_it else CONTRADICTED
    if for_it:
        return REPRODUCED if for_it == len(effects) else IN_PART
    return INCONCLUSIVE


# how effects are made


@dataclass(frozen=True)
class About:
    """What an effect is of: see `Effect`."""

    claim: str
    name: str
    null: float
    claimed: int

    @property
    def seed(self) -> int:
        """The same for the same name, so that draws can be made again."""
        return zlib.crc32(f"{self.claim} {self.name}".encode())

    def effect(
        self, estimate: Number, low: Number, high: Number, n: int, draws: np.ndarray | None = None
    ) -> Effect:
        """With these numbers. NaN is None."""
        numbers = (None if x is None or np.isnan(x) else float(x) for x in (estimate, low, high))
        value, low, high = numbers
        return Effect(
            claim=self.claim,
            name=self.name,
            estimate=value,
            low=low,
            high=high,
            n=n,
            null=self.null,
            claimed=self.claimed,
            draws=_none() if draws is None or value is None else draws,
        )


Of = tuple[int, int]  # hits and how many there are


def share_effect(about: About, hits: int, n: int) -> Effect:
    """A share with its Wilson interval; its draws are binomial."""
    if not n:
        return about.effect(None, None, None, 0)
    draws = _binomial((hits, n), np.random.default_rng(about.seed))
    return about.effect(hits / n, *wilson(hits, n), n, draws)


def bounded_share_effect(about: About, least: int, most: int, n: int) -> Effect:
    """A share of which only bounds were measured: `least` of n are hits, `most` of them may be.

    From the lower end of Wilson's interval of the one to the upper end of the other, so that what
    is open speaks for neither side. The estimate is the lower bound. Half of the draws are of
    either bound.
    """
    if not n:
        return about.effect(None, None, None, 0)
    rng = np.random.default_rng(about.seed)
    draws = np.where(np.arange(TIMES) % 2, _binomial((least, n), rng), _binomial((most, n), rng))
    return about.effect(least / n, wilson(least, n)[0], wilson(most, n)[1], n, draws)


def difference_effect(about: About, of: Of, less: Of) -> Effect:
    """One share less another, as if of different puzzles: wide where they are of the same ones.

    The interval is Newcombe's (1998, his method 10), from Wilson's of both shares, which is not
    empty where all are hits.
    """
    if not of[1] or not less[1]:
        return about.effect(None, None, None, 0)
    rng = np.random.default_rng(about.seed)
    (p, (low_p, high_p)), (q, (low_q, high_q)) = ((h / n, wilson(h, n)) for h, n in (of, less))
    below = np.hypot(p - low_p, high_q - q)
    above = np.hypot(high_p - p, q - low_q)
    draws = _binomial(of, rng) - _binomial(less, rng)
    return about.effect(p - q, p - q - below, p - q + above, min(of[1], less[1]), draws)


def _binomial(of: Of, rng: np.random.Generator) -> np.ndarray:
    hits, n = of
    return rng.binomial(n, hits / n, TIMES) / n


class Crossed(NamedTuple):
    """Puzzles by two runs of each: solved by both, only by the first, only by the second, by
    neither. Counts; not whole where only both sums were known and independence was assumed."""

    both: float
    gained: float
    lost: float
    neither: float

    @classmethod
    def of(cls, first: int, second: int, n: int, gained: int | None) -> "Crossed":
        """From how many each solves, and how many only the first one does (None: not known).

        >>> Crossed.of(80, 50, 100, gained=35)
        Crossed(both=45, gained=35, lost=5, neither=15)
        >>> Crossed.of(80, 50, 100, gained=None)
        Crossed(both=40.0, gained=40.0, lost=10.0, neither=10.0)
        """
        both = first * second / n if gained is None else first - gained
        return cls(both, first - both, second - both, n - first - second + both)

    def draws(self, seed: int) -> np.ndarray:
        """Multinomial replicates of the four shares, [4, times]."""
        counts, rng = np.array(self), np.random.default_rng(seed)
        return rng.multinomial(round(counts.sum()), counts / counts.sum(), TIMES).T / counts.sum()


def paired_effect(about: About, crossed: Crossed) -> Effect:
    """Share that the first run solves less that of the second, of the same puzzles: see
    `paired_difference`."""
    drawn = crossed.draws(about.seed)
    numbers = paired_difference(*map(float, crossed))
    return about.effect(*numbers, round(sum(crossed)), drawn[1] - drawn[2])


def closed_gap_effect(about: About, crossed: Crossed) -> Effect:
    """What the first run gains over the second, as a share of what the second one fails.

    The interval is of multinomial replicates; one in which the second run fails nothing has no such
    share, and another stands in its place. Not defined where it fails nothing at all.
    """
    failed = crossed.gained + crossed.neither
    if not failed:
        return about.effect(None, None, None, 0)
    _, gained, lost, neither = crossed.draws(about.seed)
    fails = np.flatnonzero(gained + neither > 0)
    drawn = np.resize(fails, TIMES)  # all in order, the first ones again where some are missing
    draws = (gained - lost)[drawn] / (gained + neither)[drawn]
    low, high = np.quantile(draws, [0.025, 0.975])
    closed = (crossed.gained - crossed.lost) / failed
    return about.effect(closed, float(low), float(high), round(failed), draws)


def estimated_effect(
    about: About,
    numbers: tuple[Number, Number, Number],
    n: int,
    draw: Callable[[int], np.ndarray] | None = None,
) -> Effect:
    """An estimate with its bounds as a result has them; `draw` makes replicates with a seed."""
    return about.effect(*numbers, n, None if draw is None else draw(about.seed))


Values = Sequence[float] | None  # a number a run; None in files of earlier versions


def median_of(values: Values) -> Callable[[int], np.ndarray] | None:
    """How to draw a median."""
    return None if values is None else partial(median_draws, np.asarray(values, float))


def mean_of(values: Values) -> Callable[[int], np.ndarray] | None:
    """How to draw a mean."""
    return None if values is None else partial(mean_draws, np.asarray(values, float))


def auc_of(positive: Values, negative: Values) -> Callable[[int], np.ndarray] | None:
    """How to draw the AUC of a number for the runs of `positive`."""
    if positive is None or negative is None or min(len(positive), len(negative)) < FEWEST:
        return None
    return partial(auc_draws, np.asarray(positive, float), np.asarray(negative, float))
