"""`trm-interp features`: what features do over time and on the board, in tables and figures."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from plotly import graph_objects as go

from trm_interp.analysis.resample import mean_with_bounds
from trm_interp.figures.features import activity_figure, drift_figure
from trm_interp.figures.index import INDEX, Entry, index_page, of_table
from trm_interp.figures.look import Look
from trm_interp.figures.paper import caption_of
from trm_interp.figures.style import CAPTIONS, write_html
from trm_interp.runtime.runs import Run, quiet
from trm_interp.runtime.settings import command_line
from trm_interp.sae.applied import AppliedSAE, Progress, applying, model_of
from trm_interp.sae.dashboard import dashboard_data, step_starts, write_dashboard
from trm_interp.sae.dynamics import dynamics_of
from trm_interp.sae.early import separation
from trm_interp.sae.gather import Observations, check_gathering, gather
from trm_interp.sae.meaning import head_push, meaning_of
from trm_interp.sae.results import FeaturesSummary
from trm_interp.sae.settings import FeaturesConfig
from trm_interp.sae.table import feature_table, most_active, summarise

COMMAND = "features"
FILES = {
    "dashboard": "dashboard.html",
    "figure 1": "figure1.html",
    "drift": "drift.html",
    "table": "features.csv",
    "figure 1 numbers": "figure1.csv",
    "figure 1 total": "figure1_total.csv",
    "drift numbers": "drift.csv",
    "summary": "summary.json",
}
PICTURES = [f"{name}{end}" for name in ("figure1", "drift") for end in (".png", ".pdf", *CAPTIONS)]
NAMES = (*FILES.values(), *PICTURES, "plotly.min.js", INDEX)
BANDS = 300  # resamples behind the bands of figure 1


def run(
    config: FeaturesConfig, tell: Callable[[str], None] = print, progress: Progress = quiet
) -> dict[str, Path]:
    """Everything that `trm-interp features` does: the files that it wrote, by name."""
    with applying(config, tell) as applied:
        push = _push(applied, config, tell)
        check_gathering(applied, config.examples)
        with Run(
            config.out,
            COMMAND,
            NAMES,
            overwrite=config.overwrite,
            resumable=False,
            clears_at_once=False,
            tell=tell,
            progress=progress,
        ) as output:
            observed = gather(applied, config.examples, output.advance)
            output.note("(testing when features fire and what they mean)")
            separated = separation(observed.level, applied.solved, config.seed)
            cells = len(observed.cells)
            meaning = meaning_of(observed.acts, observed.facts, cells, config.seed)
            dynamics = dynamics_of(applied, observed, config.surrogates, config.seed)
            table = feature_table(
                applied, observed, separated, meaning, push, dynamics, config.seed
            )
            top = most_active(observed.level, config.top)
            counts = summarise(table, separated, applied.solved, top)
            test = dynamics.test(applied.by_outcome, top, config.surrogates)
            summary = FeaturesSummary(**applied.measured_on, **counts, recurrence_test=test)
            page = dashboard_data(applied, observed, table, meaning, push, summary)
            total = total_activity(applied, observed, config.seed)
            figures = {
                "figure 1": activity(applied, observed, top, total, config.seed),
                "drift": drift(applied, observed, config.seed),
            }
            output.clear()
            output.note("(drawing)")
            write_dashboard(config.out / FILES["dashboard"], page)
            for name, (figure, numbers) in figures.items():
                write_html(figure, config.out / FILES[name], Look.of(config))
                output.write_text(FILES[f"{name} numbers"], numbers.to_csv(index=False))
            output.write_text(FILES["figure 1 total"], total.to_csv(index=False))
            output.write_text(FILES["table"], table.to_csv(index=False))
            shown = [
                Entry(FILES["dashboard"], "Every feature: when it fires, and where on boards.")
            ]
            shown += [Entry(FILES[name], caption_of(one)) for name, (one, _) in figures.items()]
            tables = {f"{name} numbers": numbers for name, (_, numbers) in figures.items()}
            tables |= {"figure 1 total": total, "table": table}
            rows = [of_table(FILES[name], one) for name, one in tables.items()]
            made_by = command_line(COMMAND, config)
            output.write_text(INDEX, index_page(f"trm-interp {COMMAND}", made_by, [], shown, rows))
            output.write_json(FILES["summary"], summary.to_json())
    return {name: config.out / file for name, file in FILES.items()}


def lines(files: Mapping[str, Path]) -> list[str]:
    """Which files there are."""
    return [f"wrote {file} ({name})" for name, file in files.items()]


def total_activity(applied: AppliedSAE, observed: Observations, seed: int) -> pd.DataFrame:
    """Mean activation summed over all features, with bands: outcome, n, tick, mean, low, high."""
    parts = []
    for outcome, chosen in applied.by_outcome.items():
        if chosen.any():
            total = observed.level[chosen].sum(-1, dtype=np.float64)
            band = dict(zip(("mean", "low", "high"), mean_with_bounds(total, seed), strict=True))
            start = {"outcome": outcome, "n": int(chosen.sum()), "tick": applied.reader.indices}
            parts.append(pd.DataFrame(start | band))
    return pd.concat(parts, ignore_index=True)


def activity(
    applied: AppliedSAE, observed: Observations, top: np.ndarray, total: pd.DataFrame, seed: int
) -> tuple[go.Figure, pd.DataFrame]:
    """The top features over time by outcome, with bands, above all of them together (`total`); and
    the numbers that are drawn."""
    parts = []
    for outcome, chosen in applied.by_outcome.items():
        if not chosen.any():
            continue
        mean, low, high = mean_with_bounds(observed.level[chosen][:, :, top], seed, BANDS)
        for at, feature in enumerate(top):
            columns = {"tick": applied.reader.indices, "mean": mean[:, at], "low": low[:, at]}
            frame = pd.DataFrame({**columns, "high": high[:, at]})
            parts.append(frame.assign(feature=int(feature), outcome=outcome, n=int(chosen.sum())))
    numbers = pd.concat(parts, ignore_index=True)
    title = f"The {len(top)} most active features of {_sae_and_site(applied)}"
    return activity_figure(numbers, step_starts(applied), title, total), numbers


def drift(applied: AppliedSAE, observed: Observations, seed: int) -> tuple[go.Figure, pd.DataFrame]:
    """The same-phase drift by outcome, with bands; and the numbers that are drawn."""
    curves = {
        outcome: mean_with_bounds(observed.drift_curve[chosen], seed, BANDS)
        for outcome, chosen in applied.by_outcome.items()
        if chosen.any()
    }
    ticks = applied.reader.indices[: observed.drift_curve.shape[1]]
    columns = ("mean", "low", "high")
    parts = [
        pd.DataFrame({"tick": ticks, **dict(zip(columns, curve, strict=True)), "outcome": outcome})
        for outcome, curve in curves.items()
    ]
    title = f"Same-phase drift of {_sae_and_site(applied)}"
    sizes = {outcome: int(applied.by_outcome[outcome].sum()) for outcome in curves}
    figure = drift_figure(ticks, curves, step_starts(applied), title, sizes)
    return figure, pd.concat(parts, ignore_index=True)


def _sae_and_site(applied: AppliedSAE) -> str:
    return f"{applied.path.name} on {applied.site}"


def _push(
    applied: AppliedSAE, config: FeaturesConfig, tell: Callable[[str], None]
) -> np.ndarray | None:
    """What every decoder row adds to the logits of answers; None where the checkpoint is away, or
    its logits are no linear map of a state."""
    source = config.ckpt or applied.store.checkpoint_path or ""
    if config.ckpt is None and not (source and Path(source).exists()):
        tell(f"no checkpoint at {source or 'the place the store names'}: no output directions")
        return None
    checkpoint, mismatch = model_of(applied, config.ckpt, config.force_mismatch)
    if mismatch:
        tell(f"mismatch: {mismatch}")
    head = checkpoint.model.logit_weight
    if head is None:
        return None
    rows = applied.sae.W_dec.detach().float().cpu().numpy()
    answers = applied.store.task.answer_tokens
    return head_push(rows, head.detach().float().cpu().numpy(), answers)
