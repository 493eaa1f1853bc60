"""Claim F5: do failures leave the successes early, and for good? With the same-puzzle control."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from trm_interp.analysis.auc import FEWEST, auc_with_bounds
from trm_interp.analysis.divergence import auc_by_tick, bands, distance_to_successes, slopes
from trm_interp.analysis.pca import NotFinite
from trm_interp.analysis.resample import mean_with_bounds
from trm_interp.core.clock import schedule
from trm_interp.core.infer import Readouts, run_batch
from trm_interp.core.models.trm import TRM, State
from trm_interp.figures.landscape import divergence_figure
from trm_interp.recording.hooks import HookedTRM, recording
from trm_interp.recording.states import states_of
from trm_interp.recording.store import Store
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import require_memory
from trm_interp.studies.by_outcome import compared
from trm_interp.studies.config import DivergenceConfig
from trm_interp.studies.results import Progress, Results, Tell, results_of
from trm_interp.studies.subject import open_model, opening, said_of

PAPER_TICK = 50  # by which failures have left, says the seed paper
TABLES = ("divergence", "divergence_auc", "same_puzzle", "same_puzzle_auc", "same_puzzle_starts")


def run(config: DivergenceConfig, tell: Tell, progress: Progress) -> dict[str, Any]:
    """Over puzzles, from the store; and over starts of one puzzle, which the checkpoint runs."""
    with opening(config, config.site, tell) as store, ExitStack() as stack:
        checkpoint = open_model(store, config.ckpt, config.device) if config.starts else None
        need = 2 * 2 * config.starts * math.prod(store[config.site].shape[1:])  # float16, joined
        require_memory(need, f"the states of {config.starts} starts", "lower --starts")
        results = stack.enter_context(results_of("divergence", config, TABLES))
        solved = store["solved"][:, -1]
        n_solved = int(solved.sum())
        over_puzzles = {}
        few = f"{store.path}: {n_solved} solved runs; a centroid that leaves one out needs 2"
        if n_solved < 2:
            tell(few)
        else:
            compared(solved, tell)
            far = _distances(
                states_of(store, config.site), solved, f"{store.path}: {config.site}", "puzzle"
            )
            starts = range(0, far.shape[1], far.shape[1] // store.n_steps)
            over_puzzles = _compare(results, "divergence", far, solved, starts, config)
        control = {}
        if checkpoint is not None:
            control = _same_puzzle(store, checkpoint.model, config, results, tell, progress)
        if not over_puzzles and not control.get("puzzles"):
            raise UserError(few)
        summary = {
            **said_of(store),
            "site": config.site,
            "solved": n_solved,
            "failed": len(solved) - n_solved,
            "over_puzzles": over_puzzles,
            "same_puzzle": control,
        }
        return results.finish(summary)


def _distances(
    read: Callable[[], Iterator[np.ndarray]], solved: np.ndarray, what: str, unit: str
) -> np.ndarray:
    """`distance_to_successes`; UserError names the first run that is not finite."""
    try:
        return distance_to_successes(read, solved)
    except NotFinite as error:
        raise UserError(f"{what} is not finite, first in {unit} {error.chunk}") from None


def _compare(
    results: Results,
    name: str,
    far: np.ndarray,
    solved: np.ndarray,
    starts: range,
    config: DivergenceConfig,
    what: str = "the mean of other solved puzzles",
    owner: np.ndarray | None = None,
) -> dict[str, Any]:
    """Draw, and the numbers that the claim is judged by; with `owner`, the puzzle of each run, only
    runs of one puzzle are compared with each other."""
    banded = bands(far, solved, config.seed)
    auc = auc_by_tick(far, ~solved, config.seed, owner)
    title = f"{config.site}: distance to {what} at the same update"
    tick = f"update of {config.site}"
    results.figure(name, divergence_figure(banded, auc, starts, title, tick), banded)
    results.table(f"{name}_auc", auc)
    apart, closer = (auc["low"] > 0.5).to_numpy(), (auc["high"] < 0.5).to_numpy()
    late = far[:, far.shape[1] // 2 :]
    found = {
        "n_solved": int(solved.sum()),
        "n_failed": int((~solved).sum()),
        "first_apart": int(apart.argmax()) if apart.any() else None,
        "first_closer": int(closer.argmax()) if closer.any() else None,
        "auc": {int(at): auc.iloc[at].to_dict() for at in (0, min(PAPER_TICK, len(auc) - 1), -1)},
    }
    for outcome, group in (("solved", solved), ("failed", ~solved)):
        if group.any():
            at = [0, min(PAPER_TICK, far.shape[1] - 1), far.shape[1] // 2, far.shape[1] - 1]
            found[f"{outcome}_at"] = {int(t): _with_bounds(far[group, t], config.seed) for t in at}
            found[f"{outcome}_late_slope"] = _with_bounds(slopes(late[group]), config.seed)
    return found


def _with_bounds(values: np.ndarray, seed: int) -> dict[str, float]:
    """Mean over puzzles with its 95 % bootstrap interval."""
    mean, low, high = mean_with_bounds(values, seed)
    return {"value": float(mean), "low": float(low), "high": float(high)}


def _same_puzzle(
    store: Store,
    plain: TRM,
    config: DivergenceConfig,
    results: Results,
    tell: Tell,
    progress: Progress,
) -> dict[str, Any]:
    """Many starts of one puzzle: what is left of the distance when the input is the same.

    Takes the first puzzles, failed ones first, that some starts solve and some do not. Distances
    are to the mean of the same puzzle's other solved starts, and pairs for the AUC are of one
    puzzle: its intervals are over starts of these puzzles, not over puzzles. `of_each` has them one
    by one.
    """
    model = HookedTRM.of(plain, store.n_steps)
    clean = store["solved"][:, -1]
    order = [*np.flatnonzero(~clean), *np.flatnonzero(clean)]
    far, solved, owner, tried = [], [], [], 0
    for puzzle in order:
        if tried == config.tries or len(far) == config.control_puzzles:
            break
        progress(tried, config.tries)
        tried += 1
        inputs = torch.from_numpy(store["inputs"][[puzzle]])
        labels = torch.from_numpy(store["labels"][[puzzle]])
        go = partial(_run_starts, model, inputs, labels, store.n_steps, config, int(puzzle))
        ok = go().solved[:, -1].numpy()
        if min(ok.sum(), (~ok).sum()) < FEWEST:
            continue
        read = partial(_starts_states, go, model, config.site)
        far.append(_distances(read, ok, config.site, f"start of puzzle {puzzle}, number"))
        solved.append(ok)
        owner += [int(puzzle)] * len(ok)
    progress(config.tries, config.tries)
    if not far:
        tell(f"none of {tried} puzzles has {FEWEST} solved and {FEWEST} failed starts: no control")
        return {"tried": tried, "puzzles": []}
    per_step = far[0].shape[1] // store.n_steps
    starts = range(0, far[0].shape[1], per_step)
    what = f"the mean of the same puzzle's other solved starts ({len(far)} puzzles)"
    if len(far) < config.control_puzzles:
        tell(
            f"{len(far)} of {tried} puzzles have {FEWEST} solved and {FEWEST} failed starts: more "
            "--tries or --starts may find the others"
        )
    joined, outcome = np.concatenate(far), np.concatenate(solved)
    owners = np.array(owner)
    found = _compare(results, "same_puzzle", joined, outcome, starts, config, what, owners)
    results.table("same_puzzle_starts", pd.DataFrame({"puzzle": owner, "solved": outcome}))
    at = min(PAPER_TICK, joined.shape[1] - 1)
    of_each = {
        int(puzzle): auc_with_bounds(joined[mine, at], ~outcome[mine], config.seed)
        for puzzle in sorted(set(owner))
        for mine in [owners == puzzle]
    }
    known = {"tried": tried, "puzzles": list(of_each), "starts": config.starts, "of_each": of_each}
    return known | found


def _run_starts(
    model: HookedTRM,
    inputs: Tensor,
    labels: Tensor,
    n_steps: int,
    config: DivergenceConfig,
    puzzle: int,
) -> Readouts:
    """One puzzle from standard normal starts, z_H and z_L, per position."""
    many = config.starts
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed((config.seed * 1_000_003 + puzzle) % 2**63)
    shape = (2, many, model.config.positions, model.config.d_model)
    z_H, z_L = torch.randn(shape, generator=generator).to(device)
    return run_batch(
        model, inputs.expand(many, -1), labels.expand(many, -1), n_steps, start=State(z_H, z_L)
    )


def _starts_states(go: Callable[[], Readouts], model: HookedTRM, site: str) -> Iterator[np.ndarray]:
    """The states [update, coordinate] of one start after another."""
    config = model.config
    ticks = schedule(model.n_sup, config.h_cycles, config.l_cycles)
    kept: list[Tensor] = []
    names = [tick.hook for tick in ticks if tick.writes == site]
    with recording(model, names, lambda name, z: kept.append(z.half().cpu())):
        go()
    states = torch.stack(kept, dim=1).flatten(2)  # [start, update, coordinate]
    yield from states.numpy()


def lines(summary: dict[str, Any]) -> list[str]:
    """For people."""
    said = []
    for name, found in (
        ("over puzzles", summary["over_puzzles"]),
        ("over starts of one puzzle", summary["same_puzzle"]),
    ):
        if "auc" not in found:
            said.append(f"{name}: nothing to compare")
            continue
        first, closer = found["first_apart"], found["first_closer"]
        when = "at no update" if first is None else f"first at update {first}"
        auc = " -> ".join(
            "-" if at["auc"] is None else f"{at['auc']:.3f}" for at in found["auc"].values()
        )
        said.append(
            f"{name} ({found['n_solved']} solved, {found['n_failed']} failed): AUC of the distance "
            f"at the first, {PAPER_TICK}th and last update {auc}; failed ones are farther {when}"
            + ("" if closer is None else f", nearer first at update {closer}")
        )
    return said
