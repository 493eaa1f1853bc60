"""The offline dashboard: one HTML file with everything in it, plotly.js included."""

import base64
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from plotly.offline import get_plotlyjs

from trm_interp.runtime.files import write_text
from trm_interp.sae.applied import AppliedSAE
from trm_interp.sae.gather import Observations
from trm_interp.sae.meaning import Meaning
from trm_interp.sae.results import FeaturesSummary
from trm_interp.tasks.base import Task

Column = tuple[str, str, str, int | None]  # key, label, help, digits (None: text)

FACTS = 6  # shown of every feature
EVALS = "in network evaluations"
RECURS = "share of runs that come back beyond the schedule, 0.05 by chance"
PERIOD = f"{EVALS}, over the runs that come back"
BEYOND = "autocorrelation peak less the height that 5 % of aperiodic series reach"
LIST_COLUMNS: tuple[Column, ...] = (
    ("feature", "feature", "number of the SAE unit", 0),
    ("mean", "mean", "mean activation over rows", 3),
    ("density", "density", "share of rows on which it fires", 4),
    ("fact", "best fact", "what it separates best on the board", None),
    ("fact_auc", "AUC", "of that fact; 0.5 is chance", 3),
    ("control_auc", "control", "best |AUC - 0.5| + 0.5 after cells traded their facts", 3),
    ("recurs_solved", "recurs solved", RECURS, 2),
    ("recurs_failed", "recurs failed", RECURS, 2),
    ("recurs_solved_q", "q recurs solved", "false discovery rate at which it recurs", 4),
    ("recurs_failed_q", "q recurs failed", "false discovery rate at which it recurs", 4),
    ("drift_solved", "drift solved", "same-phase drift: 0 schedule only, 1 noise", 3),
    ("drift_failed", "drift failed", "same-phase drift: 0 schedule only, 1 noise", 3),
    ("transient_solved", "transient solved", f"{EVALS}", 0),
    ("transient_failed", "transient failed", f"{EVALS}", 0),
    ("auc_first_step", "AUC failed, step 1", "for failing, at the end of the first step", 3),
    ("apart_from", "apart from", "first evaluation at which it separates outcomes; -1 never", 0),
    ("lead", "lead", "activation before a cell is decided, less at undecided cells", 4),
)
DETAIL_COLUMNS: tuple[Column, ...] = (
    ("largest", "largest", "largest activation", 3),
    ("recurrence_solved", "recurrence solved", BEYOND, 3),
    ("recurrence_failed", "recurrence failed", BEYOND, 3),
    ("period_solved", "period solved", PERIOD, 1),
    ("period_failed", "period failed", PERIOD, 1),
    ("lead_p", "lead p", "sign flips over puzzles", 4),
    ("leads", "leads", "at a false discovery rate of 5 %", 1),
    ("pushes", "pushes", "token that the decoder row pushes through the output head", None),
)
BOUNDED = ("recurrence", "drift", "transient", "lead")


def write_dashboard(path: Path, data: dict[str, Any]) -> Path:
    """One page a feature that fires, of `dashboard_data`; search, sort and pictures in the file."""
    page = files("trm_interp.sae").joinpath("dashboard.html").read_text("utf-8")
    page = page.replace("/*PLOTLY*/", get_plotlyjs().replace("</script", "<\\/script"), 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page.replace("/*DATA*/", json_in_page(data), 1))
    return path


def json_in_page(data: Any) -> str:
    """JSON that may stand in a script element whatever its texts are: no tag, comment or entity.

    >>> json_in_page({"name": "<!--<script> & \\u2028"})
    '{"name":"\\\\u003c!--\\\\u003cscript\\\\u003e \\\\u0026 \\\\u2028"}'
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))  # in ASCII, U+2028 escaped
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def dashboard_data(
    applied: AppliedSAE,
    observed: Observations,
    table: pd.DataFrame,
    meaning: Meaning,
    push: np.ndarray | None,
    summary: FeaturesSummary,
) -> dict[str, Any]:
    """What the page reads. Activations over time and boards are bytes, scaled per feature."""
    alive = np.flatnonzero(table["density"].to_numpy() > 0)
    reader, task = applied.reader, applied.store.task
    columns = [column for column in (*LIST_COLUMNS, *DETAIL_COLUMNS) if column[0] in table]
    bounds = _bounds(table)
    return {
        "title": f"SAE features: {applied.path.name} on {applied.site}",
        "about": _about(summary),
        "columns": [_column(column) for column in LIST_COLUMNS],
        "details": [_column(column) for column in (*columns[1:], *bounds)],
        "rows": {c[0]: _values(table[c[0]].to_numpy()[alive]) for c in (*columns, *bounds)},
        "n": {"solved": summary.solved, "failed": summary.failed},
        "ticks": [int(i) for i in reader.indices],
        "step_of": [tick.step for tick in reader.ticks],
        "steps": step_starts(applied),
        **_levels(applied, observed, alive),
        **_examples(applied, observed, alive),
        **_board_of(task),
        **_facts(meaning, alive),
        "push_names": [task.tokens[token] for token in task.answer_tokens],
        "push": None if push is None else np.round(push[alive].astype(float), 4).tolist(),
    }


def step_starts(applied: AppliedSAE) -> list[int]:
    """The first tick of the run in every supervision step that is looked at."""
    per_step = applied.store.schedule.evaluations
    return sorted({tick.step * per_step for tick in applied.reader.ticks})


def _bounds(table: pd.DataFrame) -> list[Column]:
    """Columns of the intervals that the table has."""
    return [
        (f"{name}_{outcome}_{bound}", f"{name} {outcome} {bound}", "95 % over puzzles", 3)
        for name in BOUNDED
        for outcome in ("solved", "failed")
        for bound in ("low", "high")
        if f"{name}_{outcome}_{bound}" in table
    ]


def _levels(applied: AppliedSAE, observed: Observations, alive: np.ndarray) -> dict[str, Any]:
    """Mean activation over time by outcome, [feature, outcome, tick], as shares of its largest."""
    level = np.zeros((len(alive), 2, len(applied.reader.indices)), np.float32)
    for at, chosen in enumerate(applied.by_outcome.values()):
        if chosen.any():
            level[:, at] = observed.level[chosen].mean(0).T[alive]
    scale = level.max(axis=(1, 2))
    shares = level / np.maximum(scale, 1e-12)[:, None, None]
    return {"scale": [float(f"{v:.4g}") for v in scale], "level": _bytes(shares)}


def _examples(applied: AppliedSAE, observed: Observations, alive: np.ndarray) -> dict[str, Any]:
    """The boards on which a feature is largest; `tops` index `puzzles`, the series and `cells`."""
    examples, solved = observed.examples, applied.solved
    top = np.maximum(examples.value[alive], 1e-12)[:, :, None]
    board = examples.board[alive].astype(np.float32)[:, :, observed.at]
    cell_at = {int(pos): i for i, pos in enumerate(observed.at)}
    used = sorted({int(p) for p in examples.puzzle[alive].ravel() if p >= 0})
    parts = (examples.value, examples.puzzle, examples.tick, examples.pos)
    return {
        "board": _bytes(board / top),
        "examples": examples.value.shape[1],
        "cells": [int(cell) for cell in observed.cells],
        "tops": [
            [
                [used.index(int(p)), int(t), cell_at.get(int(pos), -1), float(f"{v:.4g}")]
                for v, p, t, pos in zip(*(part[feature] for part in parts), strict=True)
                if p >= 0
            ]
            for feature in alive
        ],
        "puzzles": [_puzzle(applied, p, bool(solved[p])) for p in used],
    }


def _board_of(task: Task) -> dict[str, Any]:
    """How boards of the task are drawn: grid, heavy lines, the glyphs and colours of tokens."""
    everywhere = np.repeat(np.arange(task.vocab, dtype=np.uint8)[:, None], task.cells, axis=1)
    return {
        "grid": list(task.grid),
        "rulings": [list(lines) for lines in task.rulings()],
        "glyphs": task.glyphs(everywhere)[:, 0].tolist(),
        "colours": list(task.colours()),
    }


def _facts(meaning: Meaning, alive: np.ndarray) -> dict[str, Any]:
    """The facts that each feature separates best, by their number."""
    gap = np.abs(np.nan_to_num(meaning.auc[alive], nan=0.5) - 0.5)
    strongest = np.argsort(-gap, axis=1, kind="stable")[:, :FACTS]
    return {
        "fact_names": meaning.names,
        "facts": [
            [
                [int(fact), float(f"{meaning.auc[feature, fact]:.4g}")]
                for fact in row
                if np.isfinite(meaning.auc[feature, fact])
            ]
            for feature, row in zip(alive, strongest, strict=True)
        ],
    }


def _about(summary: FeaturesSummary) -> str:
    variant = f" ({summary.gated_variant})" if summary.gated_variant else ""
    seen = summary.n_trained_on
    kind = f"puzzles ({seen} of them trained on)" if seen else "held-out puzzles"
    text = (
        f"{summary.arch}{variant} {summary.d_in} -> {summary.d_sae}; "
        f"{summary.alive} features fire, {summary.dead:.1%} do not; {summary.n_puzzles} "
        f"{kind}, {summary.solved} solved and {summary.failed} failed"
    )
    return text + (f"; MISMATCH: {summary.mismatch}" if summary.mismatch else "")


def _column(column: Column) -> dict[str, Any]:
    return dict(zip(("key", "label", "help", "digits"), column, strict=True))


def _values(values: np.ndarray) -> list[Any]:
    """Plain numbers; what is not finite becomes null."""
    if values.dtype.kind == "f":
        return [float(f"{v:.5g}") if np.isfinite(v) else None for v in values]
    return [str(v) for v in values] if values.dtype.kind not in "iub" else values.tolist()


def _bytes(shares: np.ndarray) -> str:
    """Shares in [0, 1] as one byte each."""
    return _base64(np.clip(np.rint(255 * shares), 0, 255))


def _base64(values: np.ndarray) -> str:
    """Whole numbers from 0 to 255."""
    return base64.b64encode(values.astype(np.uint8).tobytes()).decode()


def _puzzle(applied: AppliedSAE, at: int, solved: bool) -> dict[str, Any]:
    """One byte a cell: tokens, and whether the cell is asked; the guesses step after step."""
    store, index = applied.store, int(applied.puzzles[at])
    inputs = store["inputs"][index]
    return {
        "line": int(store["puzzle_id"][index]),
        "solved": solved,
        "inputs": _base64(inputs),
        "asked": _base64(store.task.asked(inputs)),
        "answer": _base64(store["labels"][index]),
        "guesses": _base64(store["predictions"][index]),
    }
