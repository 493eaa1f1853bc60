"""What patched runs of `trace` become some steps after they are read."""

import numpy as np
import pandas as pd

from trm_interp.analysis.estimates import ByOutcome
from trm_interp.analysis.outcomes import share_with_bounds
from trm_interp.analysis.settling import FATES
from trm_interp.figures.bands import where
from trm_interp.runtime.arrays import Arrays
from trm_interp.studies.fates import Became
from trm_interp.studies.results import records
from trm_interp.studies.traced import CONTROLS, DIRECTIONS, PAIR, RESCUE, RUIN, Plan

NOBODY = "nobody's"  # of runs that are not patched
SOLVED = "solved"


def became(fate: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """What each run has become: solved, or else its fate; "" where nothing was run (NaN).

    >>> became(np.array([0.0, 2.0, np.nan]), np.array([1.0, 0.0, np.nan])).tolist()
    ['solved', 'wandering', '']
    """
    there = np.isfinite(fate)
    names = np.array(FATES)[np.where(there, fate, 0).astype(int)]
    return np.where(there, np.where(exact == 1, SOLVED, names), "")


def later_table(plan: Plan, chosen: np.ndarray, kept: Arrays) -> pd.DataFrame:
    """A row a direction, donor, whole cell and what runs can become, with the share of the pairs
    that do, as in `share_with_bounds`. Runs that are not patched are of no site and moment."""
    own, rows = np.searchsorted(chosen, plan.whole), []
    for direction in DIRECTIONS:
        for donor in (NOBODY, PAIR, *CONTROLS):
            name = {NOBODY: f"unchanged/{direction}", PAIR: direction}.get(
                donor, f"{direction}/{donor}"
            )
            if f"fate/{name}" not in kept:
                continue
            ends = became(kept[f"fate/{name}"], kept[f"exact/{name}"])
            cells = [plan.cells[i] for i in plan.whole]
            of_cells = ends[own] if donor == PAIR else ends
            for at, values in enumerate(of_cells):
                place = {"site": "", "moment": np.nan}
                if donor != NOBODY:
                    place = {"site": cells[at].site, "moment": plan.done[cells[at].moment]}
                for end in (SOLVED, *FATES):
                    share = share_with_bounds(values[values != ""] == end)
                    rows.append(
                        {"direction": direction, "donor": donor, **place, "became": end, **share}
                    )
    columns = [
        "direction",
        "donor",
        "site",
        "moment",
        "became",
        *share_with_bounds(np.ones(1, bool)),
    ]
    return pd.DataFrame(rows, columns=columns)


def other_fate(direction: str, kept: Arrays) -> np.ndarray | None:
    """[cell, pair]: 1 where a patched run becomes something else than the plain one, 0 where not,
    NaN where nothing was patched; None where no fates were read."""
    if f"fate/{direction}" not in kept:
        return None
    after, before = (
        became(kept[f"fate/{name}"], kept[f"exact/{name}"])
        for name in (direction, f"unchanged/{direction}")
    )
    return np.where(after == "", np.nan, (after != before).astype(float))


def unpatched(table: pd.DataFrame, later: int) -> ByOutcome[list[Became]] | None:
    """What the solved and the failed runs of the pairs become by themselves."""
    plain = where(table, table["donor"] == NOBODY)
    if not len(plain):
        return None

    def of(direction: str) -> list[Became]:
        names = ("became", "share", "low", "high", "hits", "n")
        rows = [row for row in records(plain) if row["direction"] == direction]
        return [Became.of({"steps": later} | {name: row[name] for name in names}) for row in rows]

    return ByOutcome(solved=of(RUIN), failed=of(RESCUE))
