"""`trm-interp features`: everything there is to say of a feature, in tables and pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trm_interp.analysis.resample import mean_with_bounds
from trm_interp.figures.features import activity_figure, drift_figure
from trm_interp.figures.style import write_html
from trm_interp.runtime.files import write_json, write_text
from trm_interp.runtime.outputs import remove_own, writing
from trm_interp.sae.config import FeaturesConfig
from trm_interp.sae.dashboard import dashboard_data, write_dashboard
from trm_interp.sae.early import separation
from trm_interp.sae.gather import Gathered, check_gathering, gather
from trm_interp.sae.meaning import head_push, meaning
from trm_interp.sae.opened import Opened, Progress, open_model, opening, quiet
from trm_interp.sae.table import feature_table, most_active, summarise

COMMAND = "features"
FILES = {
    "dashboard": "dashboard.html",
    "figure 1": "figure1.html",
    "drift": "drift.html",
    "table": "features.csv",
    "figure 1 numbers": "figure1.csv",
    "drift numbers": "drift.csv",
    "summary": "summary.json",
}
PICTURES = [f"{name}.{kind}" for name in ("figure1", "drift") for kind in ("png", "pdf")]
NAMES = (*FILES.values(), *PICTURES, "plotly.min.js")
BANDS = 300  # resamples behind the bands of figure 1


def look_at_features(
    config: FeaturesConfig, tell: Callable[[str], None] = print, progress: Progress = quiet
) -> dict[str, Path]:
    """Everything that `trm-interp features` does: the files that it wrote, by name."""
    files = {name: config.out / file for name, file in FILES.items()}
    with opening(config, tell) as opened:
        push = _push(opened, config, tell)
        check_gathering(opened, config.examples)
        overwrite = config.overwrite
        with writing(config.out, COMMAND, NAMES, overwrite=overwrite, resumable=False, clear=False):
            found = gather(opened, config.examples, progress)
            apart = separation(found.level, opened.solved, config.seed)
            meant = meaning(found.acts, found.facts, len(found.cells), config.seed)
            table = feature_table(opened, found, apart, meant, push, config.shuffles, config.seed)
            top = most_active(found.level, config.top)
            summary = {**opened.said, **summarise(table, apart, opened.solved, top)}
            figures = figure_1(opened, found, top, config.seed)
            page = dashboard_data(opened, found, table, meant, push, summary)
            remove_own(config.out, COMMAND, NAMES)
            write_dashboard(files["dashboard"], page)
            write_html(figures[0], files["figure 1"], config.static)
            write_html(figures[1], files["drift"], config.static)
            write_text(files["table"], table.to_csv(index=False))
            write_text(files["figure 1 numbers"], figures[2].to_csv(index=False))
            write_text(files["drift numbers"], figures[3].to_csv(index=False))
            write_json(files["summary"], summary)
    return files


def figure_1(
    opened: Opened, found: Gathered, top: np.ndarray, seed: int
) -> tuple[Any, Any, pd.DataFrame, pd.DataFrame]:
    """The top features over time by outcome, the same-phase drift, and the numbers of either."""
    reader, solved = opened.reader, opened.solved
    rows = []
    for outcome, group in (("solved", solved), ("failed", ~solved)):
        if not group.any():
            continue
        mean, low, high = mean_with_bounds(found.level[group][:, :, top], seed, BANDS)
        for at, feature in enumerate(top):
            columns = {"tick": reader.indices, "mean": mean[:, at], "low": low[:, at]}
            frame = pd.DataFrame({**columns, "high": high[:, at]})
            rows.append(frame.assign(feature=int(feature), outcome=outcome, n=int(group.sum())))
    numbers = pd.concat(rows, ignore_index=True)
    per_step = opened.store.schedule.evaluations
    steps = sorted({t.step * per_step for t in reader.ticks})
    what = f"{opened.path.name} on {opened.site}"
    activity = activity_figure(numbers, steps, f"{len(top)} most active features of {what}")
    curves = {}
    for outcome, group in (("solved", solved), ("failed", ~solved)):
        if group.any():
            curves[outcome] = mean_with_bounds(found.drift_curve[group], seed, BANDS)
    at = reader.indices[: found.drift_curve.shape[1]]
    columns = ("mean", "low", "high")
    drifts = [
        pd.DataFrame({"tick": at, **dict(zip(columns, curve, strict=True)), "outcome": outcome})
        for outcome, curve in curves.items()
    ]
    drift = drift_figure(at, curves, steps, f"same-phase drift of {what}")
    return activity, drift, numbers, pd.concat(drifts, ignore_index=True)


def _push(opened: Opened, config: FeaturesConfig, tell: Callable[[str], None]) -> np.ndarray | None:
    """What every decoder row adds to the digits' logits; None where the checkpoint is away."""
    source = config.ckpt or opened.store.checkpoint_path or ""
    if config.ckpt is None and not (source and Path(source).exists()):
        tell(f"no checkpoint at {source or 'the place the store names'}: no output directions")
        return None
    checkpoint, wrong = open_model(opened, config.ckpt, config.force_mismatch)
    if wrong:
        tell(f"mismatch: {wrong}")
    rows = opened.sae.W_dec.detach().float().cpu().numpy()
    return head_push(rows, checkpoint.model.lm_head.weight.detach().float().cpu().numpy())
