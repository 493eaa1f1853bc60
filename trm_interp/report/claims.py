"""The claims of the seed paper, each with our number and its verdict."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd

from trm_interp.report.evidence import Evidence
from trm_interp.report.verdicts import (
    NOT_MEASURED,
    c1,
    f1,
    f2,
    f3,
    f4,
    f5,
    s1,
    t1,
    t2,
    verdict_row,
    w1,
    w2,
)

MADE_OF = {"breadth": "wide and deep"}  # results that are made of several jobs'


class Claim(NamedTuple):
    """`needs`: the results, by their names in `Evidence`, that `judge` gets in this order."""

    id: str
    claim: str
    published: str
    needs: tuple[str, ...]
    judge: Callable[..., dict[str, Any]]


def claims_table(evidence: Evidence) -> pd.DataFrame:
    """Columns id, claim, published, ours, interval, n, verdict, why; a row a claim."""
    rows = []
    for claim in CLAIMS:
        row = {"id": claim.id, "claim": claim.claim, "published": claim.published}
        results = {name: getattr(evidence, name) for name in claim.needs}
        missing = [MADE_OF.get(name, name) for name, result in results.items() if result is None]
        if missing:
            judged = verdict_row("", "", "", NOT_MEASURED, f"needs {', '.join(missing)}")
        else:
            judged = claim.judge(*results.values())
        rows.append(row | judged)
    return pd.DataFrame(rows)


CLAIMS = [
    Claim(
        "T1",
        "share of puzzles solved at step 1 / 2 / 3 / 5 / 10 / 16, %",
        "15.6 / 53.9 / 65.6 / 75.1 / 83.4 / 87.2",
        ("table1",),
        t1,
    ),
    Claim(
        "T2",
        "best of 50 noisy starts by Q solves more, at step 1 / 2 / 3 / 5, %",
        "15.6 / 77.1 / 94.7 / 97.8",
        ("table2",),
        t2,
    ),
    Claim(
        "F1",
        "the most active SAE features are periodic after a transient",
        "transient about 50 updates, then almost periodic",
        ("fig1",),
        f1,
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
        "S1",
        "a gated SAE explains residual activations",
        "512 -> 16 384, no quality stated",
        ("sae",),
        s1,
    ),
    Claim(
        "C1",
        "failures come from the start, not from too few steps",
        "breadth helps",
        ("breadth", "settling"),
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
