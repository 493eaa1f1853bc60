"""One row a feature: its use, its dynamics, what it comes before and what it means."""

from typing import Any

import numpy as np
import pandas as pd

from trm_interp.analysis.resample import discoveries, mean_with_bounds
from trm_interp.sae.applied import AppliedSAE
from trm_interp.sae.dynamics import MEASURES, Dynamics
from trm_interp.sae.early import Separation, sign_flip_p
from trm_interp.sae.gather import Observations
from trm_interp.sae.meaning import Meaning
from trm_interp.sae.results import FeatureMedians, MostActive

RATE = 0.05  # of false discoveries among features that recur
Columns = dict[str, np.ndarray]


def feature_table(
    applied: AppliedSAE,
    observed: Observations,
    separation: Separation,
    meaning: Meaning,
    push: np.ndarray | None,
    dynamics: Dynamics,
    seed: int,
) -> pd.DataFrame:
    """One row a feature: use, dynamics by outcome with intervals, order of events, meaning.

    Transients and periods in network evaluations; `drift` and `recurrence` as in `dynamics`;
    `recurs_*` as in `Dynamics.pooled`. Intervals (95 %) over puzzles.
    """
    at, auc, control = meaning.best()
    columns = {
        "feature": np.arange(applied.d_sae),
        "density": observed.density,
        "mean": observed.level.mean(axis=(0, 1)),
        "largest": observed.largest,
        **_over_time(applied, dynamics, observed.density > 0, seed),
        **_order_of_events(applied, observed, separation, seed),
        "fact": [meaning.names[i] for i in at],
        "fact_auc": auc,
        "control_auc": control,
    }
    if push is not None:
        task = applied.store.task
        answers = np.array([task.tokens[token] for token in task.answer_tokens])
        columns |= {"pushes": answers[push.argmax(1)], "push": push.max(1)}
    return pd.DataFrame(columns)


def _over_time(applied: AppliedSAE, dynamics: Dynamics, alive: np.ndarray, seed: int) -> Columns:
    """Mean and interval of each of MEASURES over the solved and the failed puzzles, and the test
    for recurrence over them; [feature]."""
    columns = {}
    for name in MEASURES:
        for outcome, chosen in applied.by_outcome.items():
            empty = np.full((1, applied.d_sae), np.nan)
            values = getattr(dynamics, name)[chosen] if chosen.any() else empty
            columns |= _bounded(f"{name}_{outcome}", values, seed)
    for outcome, chosen in applied.by_outcome.items():
        share, p, q = dynamics.pooled(chosen, alive)
        names = (f"recurs_{outcome}", f"recurs_{outcome}_p", f"recurs_{outcome}_q")
        columns |= dict(zip(names, (share, p, q), strict=True))
    return columns


def _order_of_events(
    applied: AppliedSAE, observed: Observations, separation: Separation, seed: int
) -> dict[str, np.ndarray]:
    """When a feature separates outcomes, and whether it leads decisions; [feature]."""
    ticks = applied.reader.ticks
    first_step = max(i for i, tick in enumerate(ticks) if tick.step == ticks[0].step)
    significant = separation.significant
    first = np.array(applied.reader.indices)[significant.argmax(0)]
    p = sign_flip_p(observed.lead, seed)
    return {
        "auc_first_step": separation.auc[first_step],
        "apart_from": np.where(significant.any(0), first, -1),
        **_bounded("lead", observed.lead, seed),
        "lead_p": p,
        "leads": discoveries(p),
    }


def _bounded(name: str, values: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Mean over puzzles and its interval as three columns."""
    mean, low, high = mean_with_bounds(values, seed)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def most_active(level: np.ndarray, top: int) -> np.ndarray:
    """Numbers of the features with the largest mean activation in `level` [puzzle, tick, feature],
    which figure 1 shows."""
    return np.argsort(-level.mean(axis=(0, 1)), kind="stable")[:top]


def summarise(
    table: pd.DataFrame, separation: Separation, solved: np.ndarray, top: np.ndarray
) -> dict[str, Any]:
    """The counts and medians of `FeaturesSummary`: over the features that fire, and over the
    `most_active` ones, `top`.

    `separating`: features that separate outcomes at some tick, `separating_tests`: how many tests
    of a feature at a tick do, and how many by chance. `leading`: features that fire before cells
    are decided. `above_control`: features whose best fact beats the best of the shuffled control.
    """
    fires = table["density"].to_numpy() > 0
    alive = {name: column.to_numpy()[fires] for name, column in table.items()}
    above = np.abs(alive["fact_auc"] - 0.5) + 0.5 > alive["control_auc"]
    return {
        "alive": len(alive["feature"]),
        "dead": float((table["density"].to_numpy() == 0).mean()),
        **_medians(alive),
        "most_active": MostActive(
            n=len(top),
            **_medians({name: column.to_numpy()[top] for name, column in table.items()}),
        ),
        "separating": int((alive["apart_from"] >= 0).sum()),
        "separating_tests": int(separation.significant.sum()),
        "separating_tests_by_chance": separation.by_chance,
        "leading": int(alive["leads"].sum()),
        "above_control": int(above.sum()),
        "solved": int(solved.sum()),
        "failed": int((~solved).sum()),
    }


def _medians(columns: dict[Any, np.ndarray]) -> dict[str, Any]:
    """Medians by outcome, of periods over features that recur; and how many of these there are."""
    recurring = {one: columns[f"recurs_{one}_q"] <= RATE for one in ("solved", "failed")}
    medians = {
        f"{name}_{outcome}": _median(
            columns[f"{name}_{outcome}"][recurs if name == "period" else slice(None)]
        )
        for name in MEASURES
        for outcome, recurs in recurring.items()
    }
    counts = {f"recurring_{outcome}": int(recurs.sum()) for outcome, recurs in recurring.items()}
    return {"median": FeatureMedians(**medians), **counts}


def _median(values: np.ndarray) -> float | None:
    """Of the finite values; None if there are none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else None
