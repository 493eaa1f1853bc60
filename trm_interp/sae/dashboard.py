"""The offline dashboard: one HTML file with everything in it, plotly.js included."""

import base64
import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from plotly.offline import get_plotlyjs

from trm_interp.runtime.files import write_text
from trm_interp.sae.meaning import Meaning
from trm_interp.sae.opened import Opened
from trm_interp.tasks.sudoku.grid import from_tokens, render, shape_of

if TYPE_CHECKING:
    from trm_interp.sae.gather import Gathered

FACTS = 6  # shown of every feature
EVALS = "in network evaluations"
LIST: tuple[tuple[str, str, str, int | None], ...] = (  # key, label, help, digits (None: text)
    ("feature", "feature", "number of the SAE unit", 0),
    ("mean", "mean", "mean activation over rows", 3),
    ("density", "density", "share of rows on which it fires", 4),
    ("fact", "best fact", "what it tells apart best on the board", None),
    ("fact_auc", "AUC", "of that fact; 0.5 is chance", 3),
    ("control_auc", "control", "best |AUC - 0.5| + 0.5 after cells traded their facts", 3),
    ("recurrence_solved", "recur. solved", "recurrence beyond the schedule's own", 3),
    ("recurrence_failed", "recur. failed", "recurrence beyond the schedule's own", 3),
    ("drift_solved", "drift solved", "same-phase drift: 0 schedule only, 1 noise", 3),
    ("drift_failed", "drift failed", "same-phase drift: 0 schedule only, 1 noise", 3),
    ("transient_solved", "transient solved", f"{EVALS}", 0),
    ("transient_failed", "transient failed", f"{EVALS}", 0),
    ("auc_first_step", "AUC failed, step 1", "for failing, at the end of the first step", 3),
    ("apart_from", "apart from", "first evaluation that tells outcomes apart; -1 never", 0),
    ("lead", "lead", "activation before a cell is decided, less at undecided cells", 4),
)
MORE: tuple[tuple[str, str, str, int | None], ...] = (
    ("largest", "largest", "largest activation", 3),
    ("period_solved", "period solved", EVALS, 1),
    ("period_failed", "period failed", EVALS, 1),
    ("lead_p", "lead p", "sign flips over puzzles", 4),
    ("leads", "leads", "at a false discovery rate of 5 %", 1),
    ("pushes", "pushes digit", "decoder row through the output head", 0),
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
    opened: Opened,
    found: "Gathered",
    table: pd.DataFrame,
    meant: Meaning,
    push: np.ndarray | None,
    summary: dict[str, Any],
) -> dict[str, Any]:
    """What the page reads. Activations over time and boards are bytes, scaled per feature."""
    alive = np.flatnonzero(table["density"].to_numpy() > 0)
    reader, store, solved = opened.reader, opened.store, opened.solved
    known = [column for column in (*LIST, *MORE) if column[0] in table]
    bounds: list[tuple[str, str, str, int | None]] = [
        (f"{name}_{outcome}_{bound}", f"{name} {outcome} {bound}", "95 % over puzzles", 3)
        for name in BOUNDED
        for outcome in ("solved", "failed")
        for bound in ("low", "high")
        if f"{name}_{outcome}_{bound}" in table
    ]
    level = np.zeros((len(alive), 2, len(reader.indices)), np.float32)
    for at, group in enumerate((solved, ~solved)):
        if group.any():
            level[:, at] = found.level[group].mean(0).T[alive]
    scale = level.max(axis=(1, 2))
    examples = found.examples
    top = np.maximum(examples.value[alive], 1e-12)[:, :, None]
    cells, places = found.cells, found.places
    board = examples.board[alive].astype(np.float32)[:, :, places]
    place_of = {int(pos): i for i, pos in enumerate(places)}
    used = sorted({int(p) for p in examples.puzzle[alive].ravel() if p >= 0})
    shape = shape_of(store["inputs"].shape[1])
    per_step = opened.store.schedule.evaluations
    gap = np.abs(np.nan_to_num(meant.auc[alive], nan=0.5) - 0.5)
    strongest = np.argsort(-gap, axis=1, kind="stable")[:, :FACTS]
    return {
        "title": f"SAE features: {opened.path.name} on {opened.site}",
        "about": _about(summary),
        "columns": [_column(c) for c in LIST],
        "details": [_column(c) for c in (*known[1:], *bounds)],
        "rows": {c[0]: _values(table[c[0]].to_numpy()[alive]) for c in (*known, *bounds)},
        "n": {"solved": int(solved.sum()), "failed": int((~solved).sum())},
        "ticks": [int(i) for i in reader.indices],
        "step_of": [tick.step for tick in reader.ticks],
        "steps": sorted({tick.step * per_step for tick in reader.ticks}),
        "scale": [float(f"{v:.4g}") for v in scale],
        "level": _bytes(level / np.maximum(scale, 1e-12)[:, None, None]),
        "board": _bytes(board / top),
        "examples": examples.value.shape[1],
        "cells": [int(cell) for cell in cells],
        "tops": [
            [
                [used.index(int(p)), int(t), place_of.get(int(pos), -1), float(f"{v:.4g}")]
                for v, p, t, pos in zip(
                    examples.value[f],
                    examples.puzzle[f],
                    examples.tick[f],
                    examples.pos[f],
                    strict=True,
                )
                if p >= 0
            ]
            for f in alive
        ],
        "puzzles": [_puzzle(opened, p, bool(solved[p])) for p in used],
        "side": shape.side,
        "box": [shape.box_rows, shape.box_cols],
        "fact_names": meant.names,
        "facts": [
            [[int(k), float(f"{meant.auc[f, k]:.4g}")] for k in row if np.isfinite(meant.auc[f, k])]
            for f, row in zip(alive, strongest, strict=True)
        ],
        "push": None if push is None else np.round(push[alive].astype(float), 4).tolist(),
    }


def _about(summary: dict[str, Any]) -> str:
    variant = f" ({summary['gated_variant']})" if summary["gated_variant"] else ""
    seen = summary["n_trained_on"]
    kind = f"puzzles ({seen} of them trained on)" if seen else "held-out puzzles"
    text = (
        f"{summary['arch']}{variant} {summary['d_in']} -> {summary['d_sae']}; "
        f"{summary['alive']} features fire, {summary['dead']:.1%} do not; {summary['n_puzzles']} "
        f"{kind}, {summary['solved']} solved and {summary['failed']} failed"
    )
    return text + (f"; MISMATCH: {summary['mismatch']}" if summary["mismatch"] else "")


def _column(column: tuple[str, str, str, int | None]) -> dict[str, Any]:
    return dict(zip(("key", "label", "help", "digits"), column, strict=True))


def _values(values: np.ndarray) -> list[Any]:
    """Plain numbers; what is not finite becomes null."""
    if values.dtype.kind == "f":
        return [float(f"{v:.5g}") if np.isfinite(v) else None for v in values]
    return [str(v) for v in values] if values.dtype.kind not in "iub" else values.tolist()


def _bytes(shares: np.ndarray) -> str:
    """Shares in [0, 1] as one byte each."""
    return base64.b64encode(
        np.clip(np.rint(255 * shares), 0, 255).astype(np.uint8).tobytes()
    ).decode()


def _puzzle(opened: Opened, at: int, solved: bool) -> dict[str, Any]:
    store, index = opened.store, int(opened.puzzles[at])
    return {
        "line": int(store["puzzle_id"][index]),
        "solved": solved,
        "givens": render(from_tokens(store["inputs"][index])),
        "answer": render(from_tokens(store["labels"][index])),
        "guesses": [render(from_tokens(guess)) for guess in store["predictions"][index]],
    }
