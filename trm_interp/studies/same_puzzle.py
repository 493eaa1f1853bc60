"""The control of `divergence`: many starts of one puzzle, so that the input is the same."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from trm_interp.analysis.auc import FEWEST
from trm_interp.analysis.divergence import distance_to_successes
from trm_interp.analysis.pca import NotFinite
from trm_interp.core.infer import Readouts, run_batch
from trm_interp.core.models.base import RecursiveModel
from trm_interp.recording.hooks import HookedModel, recording
from trm_interp.recording.sites import hook_targets, recordable
from trm_interp.recording.store import Store
from trm_interp.runtime.arrays import Arrays
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.shards import divided, shard_ends
from trm_interp.studies.results import Progress, Tell
from trm_interp.studies.settings import DivergenceConfig
from trm_interp.tasks.base import PuzzleTensors


class Distances(NamedTuple):
    """Runs that are compared. `far` [run, update]: distance to the mean solved run; `solved`
    [run]; `owner`: the puzzle of each run, and only runs of one puzzle are compared with each
    other; None where all may be."""

    far: np.ndarray
    solved: np.ndarray
    owner: np.ndarray | None = None

    def table(self) -> pd.DataFrame:
        """Outcome and puzzle of every run."""
        return pd.DataFrame({"puzzle": self.owner, "solved": self.solved})


class Control(NamedTuple):
    """`runs` of the `puzzles` that have enough starts of either outcome, out of `tried`; None where
    no puzzle has."""

    tried: int
    runs: Distances | None

    @property
    def puzzles(self) -> list[int]:
        """In ascending order."""
        owner = self.runs and self.runs.owner
        return [] if owner is None else np.unique(owner).tolist()


def over_starts_of(
    store: Store, plain: RecursiveModel, config: DivergenceConfig, tell: Tell, progress: Progress
) -> Control:
    """Many starts of single puzzles: distances between runs of the same input.

    Takes the first puzzles, failed ones first, that some starts solve and some do not. Distances
    are to the mean of the same puzzle's other solved starts: intervals are over starts of these
    puzzles, not over puzzles. A shard tries its part of all `tries`, and ends here.
    """
    model = HookedModel.of(plain, store.n_steps)
    clean = store["solved"][:, -1]
    order = [*np.flatnonzero(~clean), *np.flatnonzero(clean)][: config.tries]
    puzzles = [int(puzzle) for puzzle in order]

    def compute(i: int) -> Arrays:
        progress(i, len(puzzles))
        return _distances(store, model, config, puzzles[i])

    far, solved, owner, tried = [], [], [], 0
    for get in divided([f"puzzle-{puzzle}" for puzzle in puzzles], compute):
        if len(far) == config.control_puzzles:
            break
        one = get()
        tried += 1
        if len(one["far"]):
            far.append(one["far"])
            solved.append(one["solved"])
            owner.append(np.full(len(one["solved"]), puzzles[tried - 1]))
    shard_ends()
    progress(len(puzzles), len(puzzles))
    needed = f"{FEWEST} solved and {FEWEST} failed starts"
    if not far:
        tell(f"none of {tried} puzzles has {needed}: skipping the control")
        return Control(tried, None)
    if len(far) < config.control_puzzles:
        tell(
            f"{len(far)} of {tried} puzzles have {needed}: more --tries or --starts may find others"
        )
    return Control(tried, Distances(*map(np.concatenate, (far, solved, owner))))


def _distances(store: Store, model: HookedModel, config: DivergenceConfig, puzzle: int) -> Arrays:
    """Of every start of a puzzle whether it is solved, and how far it is; without the distances
    where too few starts have either outcome."""
    go = partial(_run_starts, model, store.tensors([puzzle]), store.n_steps, config, puzzle)
    ok = go().solved[:, -1].numpy()
    if min(ok.sum(), (~ok).sum()) < FEWEST:
        return {"solved": ok, "far": np.zeros((0, 0), np.float32)}
    try:
        far = distance_to_successes(partial(_states, go, model, config.site), ok)
    except NotFinite as error:
        where = f"first in start {error.chunk} of puzzle {puzzle} (both from 0)"
        raise UserError(f"{config.site} is not finite, {where}") from None
    return {"solved": ok, "far": far}


def _run_starts(
    model: HookedModel,
    given: PuzzleTensors,
    n_steps: int,
    config: DivergenceConfig,
    puzzle: int,
) -> Readouts:
    """One puzzle from standard normal starts, every state, per position."""
    many = config.starts
    generator = torch.Generator().manual_seed((config.seed * 1_000_003 + puzzle) % 2**63)
    shape = (len(model.state_names), many, model.config.positions, model.config.d_model)
    start = model.State(*torch.randn(shape, generator=generator).to(model.device))
    inputs, labels, own = given.at(torch.zeros(many, dtype=torch.int64))
    return run_batch(model, inputs, labels, n_steps, start=start, identifiers=own)


def _states(go: Callable[[], Readouts], model: HookedModel, site: str) -> Iterator[np.ndarray]:
    """The states [update, coordinate] of one start after another."""
    kept: list[Tensor] = []
    site_of_run = {site: recordable(model.config, model.n_sup)[site]}
    names = list(hook_targets(model.config, site_of_run, model.n_sup))
    with recording(model, names, lambda name, z: kept.append(z.half().cpu())):
        go()
    states = torch.stack(kept, dim=1).flatten(2)  # [start, update, coordinate]
    yield from states.numpy()
