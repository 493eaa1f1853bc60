"""The claims of the seed paper, each with our number, its effects and its verdict."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pandas as pd

from trm_interp.report.effects import Effect
from trm_interp.report.evidence import Evidence
from trm_interp.report.rules.dynamics import f2, w1, w2
from trm_interp.report.rules.features import f1, f1b, s1, s1b
from trm_interp.report.rules.landscape import f3, f4, f5, f5b
from trm_interp.report.rules.tables import c1, t1, t2, t2b
from trm_interp.report.verdicts import Judged, not_measured


class Claim(NamedTuple):
    """`needs`: the results, by their names in `Evidence`, that `judge` gets in this order."""

    id: str
    claim: str
    published: str
    needs: tuple[str, ...]
    judge: Callable[..., Judged]


def judge_all(evidence: Evidence) -> Iterator[tuple[Claim, Judged]]:
    """Every claim with its row and effects; without effects where it was not measured."""
    for claim in CLAIMS:
        results = {name: getattr(evidence, name) for name in claim.needs}
        missing = [name for name, result in results.items() if result is None]
        if missing:
            yield claim, not_measured(f"needs {', '.join(missing)}")
        else:
            yield claim, claim.judge(*results.values())


def claims_table(evidence: Evidence) -> pd.DataFrame:
    """Columns id, claim, published, ours, interval, n, verdict, why; a row a claim."""
    return pd.DataFrame(
        {"id": claim.id, "claim": claim.claim, "published": claim.published} | judged.row
        for claim, judged in judge_all(evidence)
    )


def effects_of(evidence: Evidence) -> list[Effect]:
    """The effects of all claims that were measured."""
    return [one for _, judged in judge_all(evidence) for one in judged.effects]


EFFECT_COLUMNS = ("claim", "name", "estimate", "low", "high", "n", "null", "claimed", "direction")


def effects_table(evidence: Evidence) -> pd.DataFrame:
    """A row an effect, in EFFECT_COLUMNS: see `Effect`."""
    rows = [[getattr(one, name) for name in EFFECT_COLUMNS] for one in effects_of(evidence)]
    return pd.DataFrame(rows, columns=list(EFFECT_COLUMNS))


CLAIMS = [
    Claim(
        "T1",
        "more steps solve more, most of it by step 2: solved at step 1 / 2 / 3 / 5 / 10 / 16, %",
        "15.6 / 53.9 / 65.6 / 75.1 / 83.4 / 87.2",
        ("table1",),
        t1,
    ),
    Claim(
        "T2",
        "best of 50 noisy starts by Q solves more, at step 2 / 3 / 5, %",
        "77.1 / 94.7 / 97.8; gain +23.2 / +29.1 / +22.7",
        ("table2",),
        t2,
    ),
    Claim(
        "T2b",
        "best of 50 noisy starts by Q gains nothing at step 1, %",
        "15.6; gain +0.0",
        ("table2",),
        t2b,
    ),
    Claim(
        "F1",
        "the most active SAE features are periodic in the end",
        "almost periodic",
        ("fig1",),
        f1,
    ),
    Claim(
        "F1b",
        "before that they have a transient",
        "about 50 updates",
        ("fig1",),
        f1b,
    ),
    Claim(
        "F2",
        "failures sink into attractors",
        "failures settle, successes travel",
        ("settling",),
        f2,
    ),
    Claim(
        "F3",
        "the start decides: clustered basins, some unsolved",
        "coloured clusters, black where unsolved",
        ("fig3",),
        f3,
    ),
    Claim(
        "F4",
        "the successes' loss vanishes within 10 cycles, the failures' stays flat",
        "near 0 by cycle 10; 11-12 (unit not stated)",
        ("fig4",),
        f4,
    ),
    Claim(
        "F5",
        "failures leave the successes within 50 updates and keep diverging",
        "apart within 50 updates, then further",
        ("fig5",),
        f5,
    ),
    Claim(
        "F5b",
        "the same within a puzzle: failed starts leave its solved starts",
        "not measured: a control of F5",
        ("fig5",),
        f5b,
    ),
    Claim(
        "S1",
        "a gated SAE explains residual activations",
        "512 -> 16 384, no quality stated",
        ("sae",),
        s1,
    ),
    Claim(
        "S1b",
        "it explains more than PCA that keeps as much of a row",
        "not measured: a control of S1",
        ("sae",),
        s1b,
    ),
    Claim(
        "C1",
        "failures come from the start, not from too few steps",
        "breadth helps",
        ("origins",),
        c1,
    ),
    Claim(
        "W1",
        "against F2: failures wander (a later draft)",
        "0 of 254 failures settle",
        ("settling",),
        w1,
    ),
    Claim(
        "W2",
        "failed runs are unstable, solved ones hardly (a later draft)",
        "median lambda_1 +0.012 solved, +0.103 failed; AUC 0.993",
        ("stability",),
        w2,
    ),
]
