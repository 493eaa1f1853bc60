"""Axes along which paths are drawn: of the run on screen, of all runs seen so far, of a store."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.explore.recent import Recent
from trm_interp.explore.runs import Axes, Run, axes_of
from trm_interp.runtime.errors import UserError

if TYPE_CHECKING:
    from trm_interp.explore.session import Session
    from trm_interp.recording.store import Store

BASES = {"run": "this run", "seen": "runs seen"}
STORED = {"store": "the store"}
MOST_SEEN = 12  # runs whose states are pooled, the last ones that were looked at
MOST_ROWS = 1024  # states of a store that are pooled


class StoredAxes:
    """Principal axes of the states of a recorded run at the ends of all its H-cycles."""

    def __init__(self, path: Path, store: "Store") -> None:
        self.path, self._store, self._axes = path, store, Recent(4)

    def of(self, state: str) -> Axes:
        """Of as many of the first puzzles as come to `MOST_ROWS` states. UserError where the store
        does not hold this one."""
        return self._axes.once(state, lambda: self._computed(state))

    def _computed(self, state: str) -> Axes:
        store = self._store
        if state not in store.names:
            raise UserError(f"{self.path} holds no {state}; it holds {', '.join(store.names)}")
        ticks = {  # the last one of every H-cycle that writes the state
            tick[:2]: tick
            for tick in store.schedule.ticks(store.n_steps)
            if tick.writes == state and tick.step in store.steps
        }
        puzzles = range(min(store.n_puzzles, max(1, MOST_ROWS // len(ticks))))
        rows = [store.at(tick, puzzles).reshape(len(puzzles), -1) for tick in ticks.values()]
        return axes_of(np.concatenate(rows).astype(np.float32))


def open_axes(path: Path | str, checkpoint: Checkpoint) -> StoredAxes:
    """Axes of a store. UserError where it is of another checkpoint, or has no whole states."""
    from trm_interp.recording.store import Store  # h5py takes a moment

    store = Store(path)
    if store.checkpoint_sha256 != checkpoint.sha256:
        raise UserError(
            f"{path} has runs of checkpoint {store.checkpoint_sha256[:12]}, {checkpoint.path} is "
            f"{checkpoint.sha256[:12]}: open it with its own (--ckpt)"
        )
    if len(store.positions) != checkpoint.model.config.positions:
        raise UserError(
            f"{path} has {len(store.positions)} of {checkpoint.model.config.positions} positions: "
            "paths need all of them"
        )
    return StoredAxes(Path(path), store)


def bases_of(session: "Session") -> dict[str, str]:
    """What the page offers: by name, what it is called."""
    return BASES if session.stored is None else BASES | STORED


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
    """Runs as the page draws their paths; `basis`: a key of `bases_of`."""
    if basis == "seen":
        return along(session, runs, state, pooled_axes(session, session.seen(MOST_SEEN), state))
    if basis == "store" and session.stored is not None:
        return along(session, runs, state, session.stored.of(state))
    return runs
