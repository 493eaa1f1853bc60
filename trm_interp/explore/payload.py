"""What the browser gets of runs: once, and then every move of the slider is drawn there.

Boards are bytes in base64, [moment, cell] one after another: the tokens of the guess, flags of
cells (bits of `SIGNS`), and every heat layer in 255 steps of its largest value. All words and marks
that do not change with the moment are made here; the browser puts them in their places.
"""

from base64 import b64encode
from typing import Any

import numpy as np

from trm_interp.explore.givens import is_deep, markup
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
# of a cell, by their bits: GIVEN, WRONG, CONFLICT, CHANGED of `runs`, then two of the page
SIGNS = ("given", "wrong", "conflict", "changed", "differs", "chosen")
DIFFERS = 16
COMPUTED = ("probe", "feature", "effect")  # when they are looked at
LEVELS = 255


def payload(session: Session, runs: list[Run], of: str = "") -> dict[str, Any]:
    """Of the runs of a tree, and what is the same for all of them. `of`: which runs they are."""
    task = session.task
    pads = np.arange(task.vocab, dtype=np.uint8)
    moments = session.moments
    largest = {
        "certainty": 1.0,
        "entropy": float(np.log(task.vocab)),
        "change": max(float(of.change.max()) for run in runs for of in run.readings.values()),
    }
    return {
        "of": of,
        "markup": markup(task, [run.node.name for run in runs]),
        "ratio": task.grid[1] / task.grid[0],
        "columns": task.grid[1],
        "glyphs": task.glyphs(pads).tolist(),
        "tokens": list(task.tokens),
        "signs": list(SIGNS),
        "keys": keys(session),
        "colours": list(task.colours()),
        "deep": [is_deep(colour) for colour in task.colours()],
        "moments": [moment.label for moment in moments],
        "jumps": jumps(session),
        "layers": {name: _layer(name, most) for name, most in largest.items()},
        "runs": [_of(session, run, runs[0], largest) for run in runs],
    }


def jumps(session: Session) -> dict[str, Any]:
    """By a button of time: the moments that it stops at, and whether it goes on or back."""
    ends = [m.at for m in session.moments if m.tick is not None and m.tick.ends_cycle]
    every, last = list(range(session.last + 1)), [session.last]
    units = {"": every, "cycle-": sorted({0, *ends, *last}), "step-": [0, *session.ends]}
    stops = {f"{unit}{way}": at for unit, at in units.items() for way in ("back", "on")}
    stops |= {"first": [0], "last": last}
    return {
        name: {"stops": at, "onward": name.endswith("on") or name == "last"}
        for name, at in stops.items()
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


def _of(session: Session, run: Run, plain: Run, largest: dict[str, float]) -> dict[str, Any]:
    readings = {}
    for state, of in run.readings.items():
        differs = of.tokens != plain.readings[state].tokens
        flags = run.flags(state, session.task) | np.where(differs, DIFFERS, 0).astype(np.uint8)
        heat = {name: _levels(getattr(of, name), most) for name, most in largest.items()}
        readings[state] = {"guess": _bytes(of.tokens), "flags": _bytes(flags), **heat}
    return {
        "readings": readings,
        "facts": {state: _facts(run, state) for state in run.readings},
    }


def _facts(run: Run, state: str) -> list[str]:
    """What stands below a board, at every moment."""
    cells = int((run.labels[-1] != 0).sum())
    numbers = (run.right(state).tolist(), run.readings[state].loss.tolist(), run.q_halt.tolist())
    words = []
    for right, loss, q in zip(*numbers, strict=True):
        done = "solved" if right == cells else f"{right} of {cells} right"
        words.append(f"{done} · loss {loss:.3f} · q {q:.2f}")
    return words


def _layer(name: str, largest: float, signed: bool = False) -> dict[str, Any]:
    """What a heat layer is: its level of zero, its largest value, and words for both."""
    below = " (orange: below 0)" if signed else ""
    words = f"heat: plain 0, full colour {largest:.3g}{below}"
    return {"name": name, "zero": 128 if signed else 0, "largest": largest, "words": words}


def heat_payload(name: str, layer: Layer, of: str = "", reading: str = "") -> dict[str, Any]:
    """A layer that was computed when it was looked at. Signed ones have their zero at level 128.

    `of` as in `payload`, `reading`: of which state; so it is not shown over other runs.
    """
    heat = np.stack(layer.heat)
    signed, most = bool(heat.min() < 0), max(float(np.abs(heat).max()), 1e-12)
    level = heat / most * (LEVELS // 2) + (LEVELS + 1) // 2 if signed else heat / most * LEVELS
    runs = [_bytes(one.clip(0, LEVELS).round()) for one in level]
    return _layer(name, most, signed) | {"of": of, "reading": reading, "runs": runs}


def _levels(values: np.ndarray, largest: float) -> str:
    return _bytes((values / max(largest, 1e-12) * LEVELS).clip(0, LEVELS).round())


def _bytes(values: np.ndarray) -> str:
    return b64encode(np.ascontiguousarray(values, np.uint8).tobytes()).decode()
