"""Axes along which paths are drawn: those of the run on screen, or of all runs seen so far."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from trm_interp.explore.runs import Axes, Run, axes_of

if TYPE_CHECKING:
    from trm_interp.explore.session import Session

BASES = {"run": "this run", "seen": "runs seen"}
MOST_SEEN = 12  # runs whose states are pooled, the last ones that were looked at


def pooled_axes(session: "Session", seen: Sequence[Run], state: str) -> Axes:
    """Principal axes of a state at the ends of all H-cycles of several runs, from the start of the
    first of them."""
    ends = [0, *(m.at for m in session.moments if m.tick is not None and m.tick.ends_cycle)]
    rows = []
    for run in seen:
        written = session.written(run.node, state)
        at = written.index(session.last)[ends]
        rows.append(written.values[at].flatten(1).float().cpu().numpy())
    return axes_of(np.concatenate(rows))


def along(session: "Session", runs: Sequence[Run], state: str, axes: Axes) -> list[Run]:
    """The same runs with the places of a state along other axes, from the start of the first."""
    placed = []
    origin = runs[0].axes[state].origin
    for run in runs:
        written = session.written(run.node, state)
        values = written.values.flatten(1).float().cpu().numpy()
        place = replace(axes, origin=origin).place(values)[written.index(session.last)]
        reading = replace(run.readings[state], place=place)
        of = {"readings": run.readings | {state: reading}, "axes": run.axes | {state: axes}}
        placed.append(replace(run, **of))
    return placed


def on_basis(session: "Session", runs: Sequence[Run], state: str, basis: str) -> Sequence[Run]:
    """Runs as the page draws their paths; `basis`: a key of BASES."""
    if basis != "seen":
        return runs
    return along(session, runs, state, pooled_axes(session, session.seen(MOST_SEEN), state))
