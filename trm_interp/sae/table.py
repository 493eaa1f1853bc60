"""One row a feature: its use, its dynamics, what it comes before and what it means."""

from typing import Any

import numpy as np
import pandas as pd

from trm_interp.analysis.recurrence import STILL, recurrence, transient_cycles
from trm_interp.analysis.resample import discoveries, mean_with_bounds
from trm_interp.sae.early import Separation, sign_flip_p
from trm_interp.sae.gather import Gathered
from trm_interp.sae.meaning import Meaning
from trm_interp.sae.opened import Opened

AT_ONCE = 512  # features whose series are transformed together: bounds the memory


def feature_table(
    opened: Opened,
    found: Gathered,
    apart: Separation,
    meant: Meaning,
    push: np.ndarray | None,
    shuffles: int,
    seed: int,
) -> pd.DataFrame:
    """One row a feature: use, dynamics by outcome with intervals, order of events, meaning.

    Transients and periods in network evaluations; `drift` and `recurrence` as in `dynamics`.
    Intervals (95 %) over puzzles.
    """
    reader, solved = opened.reader, opened.solved
    cycle = reader.ticks_per_cycle
    per_cycle = opened.store.model.l_cycles + 1
    series = np.moveaxis(found.level, 1, 2)  # [puzzle, feature, tick]
    still = STILL * series.max(axis=(0, 2))
    active = series.max(-1) > np.maximum(still, 1e-12)
    parts = [slice(first, first + AT_ONCE) for first in range(0, opened.d_sae, AT_ONCE)]
    back = [recurrence(series[:, part], cycle, shuffles, seed, still[part]) for part in parts]
    settled = [transient_cycles(series[:, part], cycle) for part in parts]
    measured = {
        "transient": np.where(active, np.concatenate(settled, 1) * float(per_cycle), np.nan),
        "recurrence": np.concatenate([one.excess for one in back], 1),
        "period": np.concatenate([one.period for one in back], 1) / cycle * per_cycle,
        "drift": found.drift,
    }
    table = pd.DataFrame(
        {
            "feature": np.arange(opened.d_sae),
            "density": found.density,
            "mean": found.level.mean(axis=(0, 1)),
            "largest": found.largest,
        }
    )
    for name, values in measured.items():
        for outcome, chosen in (("solved", solved), ("failed", ~solved)):
            shown = values[chosen] if chosen.any() else np.full((1, opened.d_sae), np.nan)
            mean, low, high = mean_with_bounds(shown, seed)
            table[f"{name}_{outcome}"] = mean
            table[f"{name}_{outcome}_low"], table[f"{name}_{outcome}_high"] = low, high
    first_step = max(i for i, t in enumerate(reader.ticks) if t.step == reader.ticks[0].step)
    when = np.where(apart.found.any(0), apart.found.argmax(0), -1)
    table["auc_first_step"] = apart.auc[first_step]
    table["apart_from"] = [reader.indices[i] if i >= 0 else -1 for i in when]
    p = sign_flip_p(found.lead, seed)
    mean, low, high = mean_with_bounds(found.lead, seed)
    table["lead"], table["lead_low"], table["lead_high"], table["lead_p"] = mean, low, high, p
    table["leads"] = discoveries(p)
    at, auc, control = meant.best()
    table["fact"], table["fact_auc"], table["control_auc"] = (
        [meant.names[i] for i in at],
        auc,
        control,
    )
    if push is not None:
        table["pushes"] = push.argmax(1) + 1
        table["push"] = push.max(1)
    return table


def most_active(level: np.ndarray, top: int) -> np.ndarray:
    """Numbers of the features with the largest mean activation in `level` [puzzle, tick, feature],
    which figure 1 shows."""
    return np.argsort(-level.mean(axis=(0, 1)), kind="stable")[:top]


def summarise(
    table: pd.DataFrame, apart: Separation, solved: np.ndarray, top: np.ndarray
) -> dict[str, Any]:
    """Counts and medians over the features that fire, and over the `most_active` ones, `top`."""
    alive = {
        name: column.to_numpy()[table["density"].to_numpy() > 0] for name, column in table.items()
    }
    return {
        "alive": len(alive["feature"]),
        "dead": float((table["density"].to_numpy() == 0).mean()),
        **_dynamics(alive),
        "most_active": {
            "n": len(top),
            **_dynamics({name: column.to_numpy()[top] for name, column in table.items()}),
        },
        "separating": int((alive["apart_from"] >= 0).sum()),
        "separating_tests": int(apart.found.sum()),
        "separating_tests_by_chance": apart.by_chance,
        "leading": int(alive["leads"].sum()),
        "above_control": int((np.abs(alive["fact_auc"] - 0.5) + 0.5 > alive["control_auc"]).sum()),
        "solved": int(solved.sum()),
        "failed": int((~solved).sum()),
    }


def _dynamics(columns: dict[Any, np.ndarray]) -> dict[str, Any]:
    """Medians by outcome, and how many recur beyond the schedule with their interval above 0."""
    names = [
        f"{n}_{o}"
        for n in ("transient", "recurrence", "period", "drift")
        for o in ("solved", "failed")
    ]
    return {
        "median": {name: _median(columns[name]) for name in names},
        "recurring_solved": int((columns["recurrence_solved_low"] > 0).sum()),
        "recurring_failed": int((columns["recurrence_failed_low"] > 0).sum()),
    }


def _median(values: np.ndarray) -> float | None:
    """Of those that are numbers; None where none is."""
    there = values[np.isfinite(values)]
    return float(np.median(there)) if len(there) else None
