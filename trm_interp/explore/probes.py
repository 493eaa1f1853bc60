"""Probes that `trm-interp probes` has fitted, on the page: as heat, and what they say of a cell."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.explore.runs import Run
from trm_interp.runtime.errors import UserError, first_line
from trm_interp.runtime.shapes import Float

if TYPE_CHECKING:
    import pandas as pd

    from trm_interp.explore.session import Session

SUMMARY, WEIGHTS = "summary.json", "weights.csv"
MARK = "fitted: "  # what names of these probes begin with, among those that the page fits itself
SAID = 6  # labels of a cell that are told


@dataclass(frozen=True)
class Fitted:
    """Probes of one state for one label, after some evaluations: their numbers, `weights` [fit,
    d_model], `offsets` [fit]."""

    ticks: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray

    def nearest(self, session: "Session") -> np.ndarray:
        """[moment]: place of the probe that was fitted nearest to each moment."""
        schedule = session.model.config.schedule
        done = [-1]
        for moment in session.moments[1:]:
            assert moment.tick is not None
            step, h, l = moment.tick[:3]
            done.append(step * schedule.evaluations + h * len(schedule.cycle) + l)
        return np.abs(np.array(done)[:, None] - self.ticks).argmin(1)


@dataclass(frozen=True)
class FittedProbes:
    """A folder of them. `probes`: by state and label."""

    path: Path
    probes: dict[tuple[str, str], Fitted]

    def labels(self, state: str | None = None) -> list[str]:
        """Of a state, or of any."""
        return list(dict.fromkeys(label for of, label in self.probes if state in (None, of)))

    def chance(
        self, session: "Session", run: Run, state: str, label: str
    ) -> Float[np.ndarray, "moment cell"]:
        """Probability of a label in every cell, by the probe that is nearest to each moment."""
        probe = self.probes.get((state, label))
        if probe is None:
            has = ", ".join(self.labels(state)) or "none"
            raise UserError(
                f"no probe of {state} for {label[:40]!r} in {self.path}; there is: {has}"
            )
        values = states_of(session, run, state)
        at = probe.nearest(session)
        odds = np.einsum("mcd,md->mc", values, probe.weights[at]) + probe.offsets[at][:, None]
        return (1 / (1 + np.exp(-odds))).astype(np.float32)

    def said(self, session: "Session", run: Run, state: str, cell: int, moment: int) -> str:
        """What the probes say of a cell at a moment, the likeliest first; empty without any."""
        z = getattr(session.states_at(run.node, moment), state)
        z = z[0, session.model.config.prefix + cell].float().cpu().numpy()
        said = []
        for label in self.labels(state):
            probe = self.probes[state, label]
            at = int(probe.nearest(session)[moment])
            said.append((1 / (1 + np.exp(-(probe.weights[at] @ z + probe.offsets[at]))), label))
        most = sorted(said, key=lambda one: -one[0])[:SAID]
        return ", ".join(f"{label} {chance:.2f}" for chance, label in most)


def states_of(session: "Session", run: Run, state: str) -> Float[np.ndarray, "moment cell d_model"]:
    """A state at every moment, less the prefix."""
    written = session.written(run.node, state)
    values = written.values[:, session.model.config.prefix :].float().cpu().numpy()
    return values[written.index(session.last)]


def open_probes(path: Path | str, checkpoint: Checkpoint) -> FittedProbes:
    """What `trm-interp probes` wrote. UserError where it does not fit the checkpoint."""
    import pandas as pd  # takes a third of a second

    from trm_interp.studies.probes import ProbesResult

    path = Path(path)
    for name in (SUMMARY, WEIGHTS):
        if not (path / name).is_file():
            raise UserError(f"{path}: no {name} here; `trm-interp probes` writes one")
    result = ProbesResult.read(path / SUMMARY)
    theirs = str(result.checkpoint_sha256)
    if theirs != checkpoint.sha256:
        raise UserError(
            f"{path} has probes of checkpoint {theirs[:12]}, {checkpoint.path} is "
            f"{checkpoint.sha256[:12]}: open them with their own (--ckpt)"
        )
    try:
        table = pd.read_csv(path / WEIGHTS)
        wide = sum(str(name)[1:].isdecimal() for name in table.columns)
        columns = [f"w{i}" for i in range(checkpoint.model.config.d_model)]
        if wide != len(columns):
            raise ValueError(f"its probes have {wide} numbers, states have {len(columns)}")
        probes = {
            (str(state), str(label)): _fitted(of.sort_values("tick"), columns)
            for (state, label), of in table.groupby(["site", "label"], sort=False)  # type: ignore
        }
    except (ValueError, KeyError) as error:
        raise UserError(f"{path / WEIGHTS}: {first_line(error)[:120]}") from None
    if not probes:
        raise UserError(
            f"{path} has no probe: its labels were all of one kind; record more puzzles"
        )
    return FittedProbes(path, probes)


def _fitted(table: "pd.DataFrame", columns: list[str]) -> Fitted:
    weights, offsets = table[columns].to_numpy(float), table["offset"].to_numpy(float)
    if not (np.isfinite(weights).all() and np.isfinite(offsets).all()):
        raise ValueError("weights must be finite")
    return Fitted(table["tick"].to_numpy(int), weights, offsets)
