"""Tables of a comparison: effects of every subject, effects and verdicts over all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from trm_interp.analysis.many import common_side, over_models
from trm_interp.analysis.resample import TIMES
from trm_interp.figures.latex import booktabs
from trm_interp.report.claims import Claim
from trm_interp.report.compare_subjects import Subject
from trm_interp.report.effects import (
    CONTRADICTED,
    IN_PART,
    INCONCLUSIVE,
    MIXED,
    NOT_MEASURED,
    NOT_TESTABLE,
    REPRODUCED,
    About,
    Effect,
    verdict_of,
)
from trm_interp.runtime.limits import counted

OVER = "over checkpoints"  # last column of the matrix
ALONE = "on this model only"
SHORT = {REPRODUCED: "yes", IN_PART: "in part", CONTRADICTED: "no"}  # in LaTeX's narrow columns
SHORT |= {MIXED: "mixed", INCONCLUSIVE: "open", NOT_TESTABLE: "n.t.", NOT_MEASURED: "--"}


@dataclass(frozen=True)
class OverSubjects:
    """An effect over `subjects`, which are of `k` training runs.

    `effect`: its mean over runs with the interval of a hierarchical bootstrap; `side` of its null
    on which all estimates lie, clearly each or clearly over runs: 1 or -1; 0 where there is none,
    None where two subjects contradict each other.
    """

    effect: Effect
    side: int | None
    k: int
    subjects: tuple[str, ...]

    @property
    def towards_claim(self) -> int | None:
        """1 where that is the claimed side, -1 the other one; 0 and None as `side`."""
        return self.side and self.side * self.effect.claimed

    @property
    def side_in_words(self) -> str:
        """On which side of the null it lies; of a single model alone it is not said."""
        if self.k < 2:
            return "one model only"
        words = {1: "as claimed", -1: "opposite", 0: "open", None: "subjects contradict each other"}
        return words[self.towards_claim]


@dataclass(frozen=True)
class ClaimOver:
    """A claim with its verdict over `k` training runs, and the effects that decide it."""

    claim: Claim
    verdict: str
    k: int
    effects: tuple[OverSubjects, ...]

    @property
    def text(self) -> str:
        """The verdict with the number of models, or that there is one only."""
        if self.k == 0:
            return self.verdict
        return ALONE if self.k == 1 else f"{self.verdict} (over {counted(self.k, 'checkpoint')})"


def over_subjects(subjects: Sequence[Subject]) -> list[ClaimOver]:
    """Every claim that is judged on any subject, over all of them."""
    claims = {claim.id: claim for one in subjects for claim, _ in one.judged}
    return [_claim_over(claim, subjects) for claim in claims.values()]


def _claim_over(claim: Claim, subjects: Sequence[Subject]) -> ClaimOver:
    rows = [(one, of) for one in subjects for kind, of in one.judged if kind.id == claim.id]
    rows = [(one, of) for one, of in rows if of.row["verdict"] != NOT_MEASURED]
    # where it can be tested on some, the others say nothing about it
    rows = [pair for pair in rows if pair[1].row["verdict"] != NOT_TESTABLE] or rows
    pairs = [(one, effect) for one, of in rows for effect in of.effects]
    names = list(dict.fromkeys(effect.name for _, effect in pairs))
    by_name = [[pair for pair in pairs if pair[1].name == name] for name in names]
    effects = [over for same in by_name if (over := _over(same))]
    words = [of.row["verdict"] for _, of in rows]
    k = len({one.run for one, _ in rows})
    if not rows:
        verdict = NOT_MEASURED
    elif any(of.row["verdict"] != verdict_of(of.effects) for _, of in rows):
        verdict = verdict_of_words(words)  # their rule does not go by effects alone
    else:
        # one that is defined on a single model of several agrees with nothing
        agreed = [one.towards_claim for one in effects if one.k > 1 or k == 1]
        verdict = verdict_of_sides([*agreed, *[0] * (len(names) - len(agreed))])
    return ClaimOver(claim, verdict, k, tuple(effects))


def _over(pairs: Sequence[tuple[Subject, Effect]]) -> OverSubjects | None:
    """The same effect of several subjects; None where it is defined on none of them."""
    pairs = [pair for pair in pairs if None not in (pair[1].estimate, pair[1].low, pair[1].high)]
    if not pairs:
        return None
    effects, first = [effect for _, effect in pairs], pairs[0][1]
    about = About(first.claim, first.name, first.null, first.claimed)
    estimates, low, high = (
        np.array([getattr(effect, name) for effect in effects], float)
        for name in ("estimate", "low", "high")
    )
    runs = [one.run for one, _ in pairs]
    model = np.array([runs.index(run) for run in runs])
    draws = np.stack([draws_of(effect, about.seed + i) for i, effect in enumerate(effects)])
    over = over_models(estimates, draws, model, about.seed)
    effect = about.effect(over.value, over.low, over.high, over.k, over.replicates)
    side = common_side(estimates, low, high, first.null)
    if side and side != effect.direction and any(one.direction != side for one in effects):
        side = 0  # clear neither on each subject nor over all of them
    return OverSubjects(effect, side, over.k, tuple(one.name for one, _ in pairs))


def draws_of(effect: Effect, seed: int) -> np.ndarray:
    """Replicates of an effect over its puzzles, [TIMES].

    Where its result does not hold them, and where they are narrower than half of its interval, as
    those of a share of 0 or 1 are, they are normal on each side of the estimate, as wide as the
    interval. ValueError for an effect without an interval.
    """
    value, low, high = effect.estimate, effect.low, effect.high
    if value is None or low is None or high is None:
        raise ValueError(f"{effect.claim} {effect.name}: no interval to draw from")
    rng = np.random.default_rng(seed)
    there = effect.draws[np.isfinite(effect.draws)]
    if len(there):
        least, most = np.quantile(there, [0.025, 0.975])
        if most - least >= (high - low) / 2:
            return there[rng.integers(len(there), size=TIMES)]
    normal = rng.standard_normal(TIMES) / norm.ppf(0.975)
    return value + np.where(normal > 0, (high - value) * normal, (value - low) * normal)


def verdict_of_sides(sides: Sequence[int | None]) -> str:
    """What effects say together of which each lies on the claimed side (1), on the other (-1) or on
    neither (0) with all subjects, or on either with some (None).

    As `effects.verdict_of` for one subject, and mixed where subjects contradict each other.

    >>> verdict_of_sides([1, 1]), verdict_of_sides([1, 0]), verdict_of_sides([0, -1])
    ('reproduced', 'reproduced in part', 'contradicted')
    >>> verdict_of_sides([1, -1]), verdict_of_sides([1, None]), verdict_of_sides([0, 0])
    ('mixed', 'mixed', 'inconclusive')
    """
    for_it, against = sides.count(1), sides.count(-1)
    if None in sides or (for_it and against):
        return MIXED
    if against:
        return CONTRADICTED
    if for_it:
        return REPRODUCED if for_it == len(sides) else IN_PART
    return INCONCLUSIVE


def verdict_of_words(verdicts: Sequence[str]) -> str:
    """The verdict on which all subjects agree; else mixed where some contradict what others
    reproduce, in part where all reproduce some of it, or inconclusive.

    >>> verdict_of_words(["not testable here", "not testable here"])
    'not testable here'
    >>> verdict_of_words(["reproduced", "contradicted"])
    'mixed'
    >>> verdict_of_words(["reproduced", "reproduced in part"])
    'reproduced in part'
    """
    words = set(verdicts)
    if len(words) == 1:
        return words.pop()
    for_it = words & {REPRODUCED, IN_PART}
    if MIXED in words or (for_it and CONTRADICTED in words):
        return MIXED
    return IN_PART if for_it == words else INCONCLUSIVE


# as files

EFFECTS = ("claim", "effect", "estimate", "low", "high", "n", "null", "claimed")
FACTS = ("subject", "puzzles", "task", "architecture", "seed", "weights", "training_step")


def effects_table(subjects: Sequence[Subject]) -> pd.DataFrame:
    """A row an effect of a subject: EFFECTS, FACTS, `verdict` of the claim on that subject, and the
    `command` lines that made it."""
    rows = []
    for one in subjects:
        for claim, judged in one.judged:
            command = " && ".join(one.commands(claim))
            facts = [one.facts[name] for name in FACTS]
            rows += [
                [*numbers_of(effect), *facts, judged.row["verdict"], command]
                for effect in judged.effects
            ]
    return pd.DataFrame(rows, columns=[*EFFECTS, *FACTS, "verdict", "command"])


def over_table(claims: Sequence[ClaimOver]) -> pd.DataFrame:
    """A row an effect over all subjects: EFFECTS, of which `n` is training runs; its `side`, and
    `subjects`."""
    rows = [
        [*numbers_of(one.effect), one.side_in_words, " ".join(one.subjects)]
        for claim in claims
        for one in claim.effects
    ]
    return pd.DataFrame(rows, columns=[*EFFECTS, "side", "subjects"])


def numbers_of(effect: Effect) -> list[object]:
    """Values for EFFECTS."""
    one = effect
    return [one.claim, one.name, one.estimate, one.low, one.high, one.n, one.null, one.claimed]


def verdicts_table(subjects: Sequence[Subject], claims: Sequence[ClaimOver]) -> pd.DataFrame:
    """The matrix: id, claim, published, a column a subject, and OVER."""
    rows = []
    for over in claims:
        cells = {one.name: verdict_on(one, over.claim) for one in subjects}
        rows.append(
            {"id": over.claim.id, "claim": over.claim.claim, "published": over.claim.published}
            | cells
            | {OVER: over.text}
        )
    columns = ["id", "claim", "published", *(one.name for one in subjects), OVER]
    return pd.DataFrame(rows, columns=columns)


def verdict_on(subject: Subject, claim: Claim) -> str:
    """Of a claim on one subject."""
    rows = [of.row for kind, of in subject.judged if kind.id == claim.id]
    return str(rows[0]["verdict"]) if rows else NOT_MEASURED


def latex(subjects: Sequence[Subject], claims: Sequence[ClaimOver]) -> str:
    """The matrix as a table of booktabs, with a line on what its words mean."""
    names = [one.name for one in subjects]
    rows = []
    for over in claims:
        cells = [SHORT[verdict_on(one, over.claim)] for one in subjects]
        last = ALONE if over.k == 1 else SHORT[over.verdict]
        last += f" ({over.k})" if over.k > 1 else ""
        rows.append([over.claim.id, over.claim.claim, *cells, last])
    legend = ", ".join(f"{short}: {word}" for word, short in SHORT.items() if short != word)
    note = f"{legend}; in brackets the number of independently trained checkpoints."
    align = f"l p{{0.36\\linewidth}} {'l' * len(names)} l"
    return booktabs(["", "claim", *names, OVER], rows, align, note)
