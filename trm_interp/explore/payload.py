"""What the browser gets of runs: once, and then every move of the slider is drawn there.

Boards are bytes in base64, [moment, cell] one after another: the tokens of the guess, flags of
cells (`runs.GIVEN` and so on), and every heat layer in 255 steps of its largest value.
"""

from base64 import b64encode
from typing import Any

import numpy as np

from trm_interp.explore.layers import Layer
from trm_interp.explore.runs import Run
from trm_interp.explore.session import Session

LAYERS = {
    "none": "none",
    "certainty": "certainty of the guess",
    "entropy": "entropy of the cell",
    "change": "|change| of the state",
    "probe": "a probe",
    "feature": "an SAE feature",
    "effect": "patch effect of the fork",
}
COMPUTED = ("probe", "feature", "effect")  # when they are looked at
LEVELS = 255


def payload(session: Session, runs: list[Run], of: str = "") -> dict[str, Any]:
    """Of the runs of a tree, and what is the same for all of them. `of`: which runs they are."""
    task = session.task
    heavy_rows, heavy_columns = task.rulings()
    pads = np.arange(task.vocab, dtype=np.uint8)
    moments = session.moments
    largest = {
        "certainty": 1.0,
        "entropy": float(np.log(task.vocab)),
        "change": max(float(of.change.max()) for run in runs for of in run.readings.values()),
    }
    ends = [m.at for m in moments if m.tick is not None and m.tick.ends_cycle]
    return {
        "of": of,
        "grid": list(task.grid),
        "heavy": [heavy_rows, heavy_columns],
        "glyphs": task.glyphs(pads).tolist(),
        "tokens": list(task.tokens),
        "keys": keys(session),
        "colours": list(task.colours()),
        "moments": [moment.label for moment in moments],
        "cycles": [0, *ends],
        "steps": [0, *session.ends],
        "answer": session.model.answer,
        "largest": {name: round(of, 3) for name, of in largest.items()},
        "runs": [_of(session, run, largest) for run in runs],
    }


def keys(session: Session) -> dict[str, int]:
    """Keys that type a token into a cell: what stands in a cell, or a name of one letter."""
    task = session.task
    glyphs = task.glyphs(np.arange(task.vocab, dtype=np.uint8)).tolist()
    named = zip([*glyphs, *task.tokens], [*range(task.vocab)] * 2, strict=True)
    typed: dict[str, int] = {}
    for name, token in named:
        if token and len(name) == 1:
            typed.setdefault(name.lower(), token)
    return typed


def blank(session: Session) -> int | None:
    """The token of a cell that is asked; None where there is none."""
    tokens = np.arange(session.task.vocab, dtype=np.uint8)
    asked = [int(t) for t in tokens[1:] if session.task.asked(np.full(session.task.cells, t))[0]]
    return asked[0] if asked else None


def _of(session: Session, run: Run, largest: dict[str, float]) -> dict[str, Any]:
    edit, readings = run.node.edit, run.readings
    heat = {
        name: {state: _levels(getattr(of, name), top) for state, of in readings.items()}
        for name, top in largest.items()
    }
    return {
        "name": run.node.name,
        "at": None if edit is None else edit.at,
        "guess": {state: _bytes(of.tokens) for state, of in readings.items()},
        "flags": {state: _bytes(run.flags(state, session.task)) for state in readings},
        "heat": heat,
        "right": {state: run.right(state).tolist() for state in readings},
        "cells": int((run.labels[-1] != 0).sum()),
        "loss": {state: of.loss.round(4).tolist() for state, of in readings.items()},
        "q_halt": run.q_halt.round(3).tolist(),
        "path": {state: of.place.T.round(4).tolist() for state, of in readings.items()},
    }


def heat_payload(name: str, layer: Layer, of: str = "", reading: str = "") -> dict[str, Any]:
    """A layer that was computed when it was looked at. Signed ones have their zero at level 128.

    `of` as in `payload`, `reading`: of which state; so it is not shown over other runs.
    """
    heat = np.stack(layer.heat)
    signed, most = bool(heat.min() < 0), max(float(np.abs(heat).max()), 1e-12)
    level = heat / most * (LEVELS // 2) + (LEVELS + 1) // 2 if signed else heat / most * LEVELS
    runs = [_bytes(one.clip(0, LEVELS).round()) for one in level]
    own = {"layer": name, "of": of, "reading": reading}
    return own | {"runs": runs, "largest": most, "signed": signed}


def _levels(values: np.ndarray, largest: float) -> str:
    return _bytes((values / max(largest, 1e-12) * LEVELS).clip(0, LEVELS).round())


def _bytes(values: np.ndarray) -> str:
    return b64encode(np.ascontiguousarray(values, np.uint8).tobytes()).decode()
