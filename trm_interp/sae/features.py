"""`trm-interp features`: everything there is to say of a feature, in tables and pictures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trm_interp.figures.features import activity_figure, drift_figure
from trm_interp.figures.style import write_html
from trm_interp.files import write_json, write_text
from trm_interp.sae.config import FeaturesConfig
from trm_interp.sae.dashboard import write_dashboard
from trm_interp.sae.dynamics import STILL, recurrence, transient_cycles
from trm_interp.sae.early import Separation, separation, sign_flip_p
from trm_interp.sae.gather import Gathered, gather
from trm_interp.sae.meaning import Meaning, head_push, meaning
from trm_interp.sae.opened import Opened, Progress, open_model, opening, quiet
from trm_interp.sae.resample import discoveries, mean_with_bounds

BANDS = 300  # resamples behind the bands of figure 1
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
    per_cycle = opened.store.meta["model"]["l_cycles"] + 1
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


def look_at_features(
    config: FeaturesConfig, tell: Callable[[str], None] = print, progress: Progress = quiet
) -> dict[str, Path]:
    """Everything that `trm-interp features` does: the files that it wrote, by name."""
    with opening(config, tell) as opened:
        push = _push(opened, config, tell)
        found = gather(opened, config.examples, progress)
        apart = separation(found.level, opened.solved, config.seed)
        meant = meaning(found.acts, found.facts, len(found.cells), config.seed)
        table = feature_table(opened, found, apart, meant, push, config.shuffles, config.seed)
        summary = {**opened.said, **summarise(table, apart, opened.solved)}
        figures = figure_1(opened, found, config.top, config.seed)
        out = config.out
        files = {
            "dashboard": out / "dashboard.html",
            "figure 1": out / "figure1.html",
            "drift": out / "drift.html",
            "table": out / "features.csv",
            "figure 1 numbers": out / "figure1.csv",
            "summary": out / "summary.json",
        }
        write_dashboard(files["dashboard"], opened, found, table, meant, push, summary)
        write_html(figures[0], files["figure 1"])
        write_html(figures[1], files["drift"])
        write_text(files["table"], table.to_csv(index=False))
        write_text(files["figure 1 numbers"], figures[2].to_csv(index=False))
        write_json(files["summary"], json.loads(pd.Series(summary).to_json()))
    return files


def summarise(table: pd.DataFrame, apart: Separation, solved: np.ndarray) -> dict[str, Any]:
    """Counts and medians over the features that fire."""
    alive = table[table["density"] > 0]
    names = [
        f"{n}_{o}"
        for n in ("transient", "recurrence", "period", "drift")
        for o in ("solved", "failed")
    ]
    return {
        "alive": len(alive),
        "dead": float((table["density"] == 0).mean()),
        "median": {name: float(alive[name].median()) for name in names},
        "recurring_solved": int((alive["recurrence_solved_low"] > 0).sum()),
        "recurring_failed": int((alive["recurrence_failed_low"] > 0).sum()),
        "separating": int((alive["apart_from"] >= 0).sum()),
        "separating_tests": int(apart.found.sum()),
        "separating_tests_by_chance": apart.by_chance,
        "leading": int(alive["leads"].sum()),
        "above_control": int(((alive["fact_auc"] - 0.5).abs() + 0.5 > alive["control_auc"]).sum()),
        "solved": int(solved.sum()),
        "failed": int((~solved).sum()),
    }


def figure_1(opened: Opened, found: Gathered, top: int, seed: int) -> tuple[Any, Any, pd.DataFrame]:
    """The top features over time by outcome, the same-phase drift, and the first one's numbers."""
    reader, solved = opened.reader, opened.solved
    chosen = np.argsort(-found.level.mean(axis=(0, 1)), kind="stable")[:top]
    rows = []
    for outcome, group in (("solved", solved), ("failed", ~solved)):
        if not group.any():
            continue
        mean, low, high = mean_with_bounds(found.level[group][:, :, chosen], seed, BANDS)
        for at, feature in enumerate(chosen):
            columns = {"tick": reader.indices, "mean": mean[:, at], "low": low[:, at]}
            frame = pd.DataFrame({**columns, "high": high[:, at]})
            rows.append(frame.assign(feature=int(feature), outcome=outcome, n=int(group.sum())))
    numbers = pd.concat(rows, ignore_index=True)
    per_step = opened.store.meta["model"]
    per_step = per_step["h_cycles"] * (per_step["l_cycles"] + 1)
    steps = sorted({t.step * per_step for t in reader.ticks})
    what = f"{opened.path.name} on {opened.site}"
    activity = activity_figure(numbers, steps, f"{top} most active features of {what}")
    curves = {}
    for outcome, group in (("solved", solved), ("failed", ~solved)):
        if group.any():
            curves[outcome] = mean_with_bounds(found.drift_curve[group], seed, BANDS)
    at = reader.indices[: found.drift_curve.shape[1]]
    return activity, drift_figure(at, curves, steps, f"same-phase drift of {what}"), numbers


def _push(opened: Opened, config: FeaturesConfig, tell: Callable[[str], None]) -> np.ndarray | None:
    """What every decoder row adds to the digits' logits; None where the checkpoint is away."""
    source = config.ckpt or opened.store.meta.get("checkpoint", {}).get("path", "")
    if config.ckpt is None and not Path(source).exists():
        tell(f"no checkpoint at {source or 'the place the store names'}: no output directions")
        return None
    checkpoint, wrong = open_model(opened, config.ckpt, config.force_mismatch)
    if wrong:
        tell(f"mismatch: {wrong}")
    rows = opened.sae.W_dec.detach().float().cpu().numpy()
    return head_push(rows, checkpoint.model.lm_head.weight.detach().float().cpu().numpy())
