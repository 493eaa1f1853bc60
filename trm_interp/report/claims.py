"""The claims of the seed paper, each beside our number and its verdict."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pandas as pd

from trm_interp.report.verdicts import (
    NOT_MEASURED,
    Found,
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
from trm_interp.runtime.errors import UserError, first_line

MADE_OF = {"breadth": "wide and deep"}  # parts that are made of others


class Claim(NamedTuple):
    """`needs`: parts without whose summary there is nothing to judge."""

    id: str
    claim: str
    published: str
    needs: tuple[str, ...]
    judge: Callable[[Found], dict[str, Any]]


@contextmanager
def reading(what: str) -> Iterator[None]:
    """UserError, which says what is damaged, where a summary lacks what is read in the block."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        why = f"{type(error).__name__} {first_line(error)}"[:120]
        raise UserError(f"{what}: not what the command writes ({why}): run it again") from error


def claims_table(found: Found) -> pd.DataFrame:
    """Columns id, claim, published, ours, interval, n, verdict, why; a row a claim."""
    rows = []
    for claim in CLAIMS:
        row = {"id": claim.id, "claim": claim.claim, "published": claim.published}
        missing = [MADE_OF.get(part, part) for part in claim.needs if part not in found]
        if missing:
            judged = verdict_row("", "", "", NOT_MEASURED, f"needs {', '.join(missing)}")
        else:
            with reading(f"summary of {', '.join(claim.needs)}, claim {claim.id}"):
                judged = claim.judge(found)
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
