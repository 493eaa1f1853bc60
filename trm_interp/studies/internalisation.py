"""Equilibrium internalisation: what is left of a model when its inner loop is cut short?

Attractor models (arXiv 2605.12466) answer nearly as well without their solver once training has put
the start of a solve near its fixed point. Here the latent state of any model with an inner loop is
written 0, 1, 2, ... times an H-cycle, in every H-cycle or in the last one only, and its distance to
the fixed point that a deep solve from there reaches is measured. With the checkpoints that training
kept: how this comes about.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from trm_interp.analysis.estimates import Median, Share
from trm_interp.analysis.outcomes import share_with_bounds
from trm_interp.analysis.resample import median_with_bounds
from trm_interp.core.clock import Schedule
from trm_interp.core.equilibrium import HowToSolve, relative_residual, solve
from trm_interp.core.losses import is_solved
from trm_interp.core.models.base import RecursiveModel, States
from trm_interp.core.training.exported import KEPT
from trm_interp.figures.internalisation import internalisation_figure
from trm_interp.runtime.arrays import Arrays, concatenated
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import counted
from trm_interp.runtime.records import Record
from trm_interp.runtime.runs import silent
from trm_interp.runtime.shards import is_shard, shard_ends
from trm_interp.studies.results import Figures, OnCheckpointResult, Progress, Tell, results_of
from trm_interp.studies.settings import InternalisationConfig
from trm_interp.studies.subject import Subject, finite, open_subject

Config = InternalisationConfig
WHERE = ("every", "last")  # H-cycles that are cut short
NAMES = ("internalisation", "puzzles")  # of its tables and figures
ALONE = -1  # `trained` of a checkpoint that is looked at by itself


@dataclass(frozen=True, kw_only=True)
class AtCap(Record):
    """All puzzles with `cap` writes of the latent state in an H-cycle.

    `residual`: |f(z) - z| / |f(z)| of the last H-cycle's latent state, over all puzzles;
    `distance`: |z - z*| / |z*| over the `converged`, from where a deep solve has reached a fixed
    point z*.
    """

    cap: int
    solved: Share
    residual: Median
    distance: Median
    converged: Share


@dataclass(frozen=True, kw_only=True)
class Snapshot(Record):
    """One checkpoint, after `trained` optimizer steps (None: alone). `kept_without_solver`: of the
    puzzles that it solves, those that it still solves without the last H-cycle's inner loop."""

    ckpt: str
    checkpoint_sha256: str
    trained: int | None
    every: list[AtCap]
    last: list[AtCap]
    kept_without_solver: Share


@dataclass(frozen=True, kw_only=True)
class InternalisationResult(OnCheckpointResult):
    """After `steps` supervision steps. `own_cap`: the model's own number of writes; `deep`: most
    evaluations of a deep solve, to a relative residual of `tolerance`."""

    steps: int
    latent: str
    own_cap: int
    deep: int
    tolerance: float
    snapshots: list[Snapshot]


Result = InternalisationResult


class Cut(NamedTuple):
    """Puzzles at the end of a run that was cut short; [puzzle] each."""

    solved: np.ndarray  # bool
    residual: np.ndarray
    distance: np.ndarray  # NaN where no fixed point was reached
    converged: np.ndarray  # bool, whether one was


def run(config: InternalisationConfig, tell: Tell, progress: Progress) -> InternalisationResult:
    """Every checkpoint with every cap."""
    subject = open_subject(config, tell)
    own = own_cap(subject.model)
    caps = sorted({*config.counts, own})
    with results_of("internalisation", config, NAMES, tell=tell, progress=progress) as results:
        looked_at = checkpoints_of(subject, config)
        n, snapshots, tables = len(subject.puzzles), [], []
        for i, (trained, ckpt) in enumerate(looked_at):
            one = subject if ckpt is None else open_subject(replace(config, ckpt=str(ckpt)), silent)
            if one.model.config != subject.model.config:
                raise UserError(f"{ckpt}: its settings are not those of {config.ckpt}")

            def count(done: int, i: int = i) -> None:
                progress(i * n + done, n * len(looked_at))

            cuts = measure(one, config, caps, count, f"checkpoint-{i}")
            if is_shard():
                continue
            tables.append(table_of(cuts, one.puzzles.lines).assign(trained=trained))
            snapshots.append(snapshot_of(one, trained, cuts, own, config.seed))
        shard_ends()
        result = InternalisationResult(
            **subject.provenance,
            steps=config.steps,
            latent=subject.model.latent,
            own_cap=own,
            deep=config.deep,
            tolerance=config.tolerance,
            snapshots=snapshots,
        )
        puzzles = pd.concat(tables, ignore_index=True)
        shown = summary_table(result)
        results.write(figures(result, shown), {"puzzles": puzzles})
        return results.finish(result)


def own_cap(model: RecursiveModel) -> int:
    """How often an H-cycle writes the latent state. UserError for a model without an inner loop."""
    cycle = model.config.schedule.cycle
    n = cycle.count(model.latent)
    if model.latent == model.answer or cycle != (model.latent,) * n + (model.answer,):
        written = ", ".join(cycle[:6]) + (", ..." if len(cycle) > 6 else "")
        raise UserError(
            f"internalisation needs H-cycles that write a latent state and then the answer; those "
            f"of {model.architecture} write {written}"
        )
    return n


def checkpoints_of(
    subject: Subject, config: InternalisationConfig
) -> list[tuple[int, Path | None]]:
    """Optimizer steps and folders of the checkpoints; None is the subject itself.

    UserError where training kept none.
    """
    if not config.kept:
        return [(ALONE, None)]
    folder = Path(subject.checkpoint.path) / KEPT
    found = sorted(folder.glob("step-*"))
    if not found:
        raise UserError(f"{folder}: no kept checkpoints here; train with --keep-every N")
    return [(int(one.name.removeprefix("step-")), one) for one in found]


@torch.no_grad()
def measure(
    subject: Subject,
    config: InternalisationConfig,
    caps: Sequence[int],
    count: Callable[[int], None] = lambda done: None,
    stage: str = "cuts",
) -> dict[tuple[str, int], Cut]:
    """All puzzles, by which H-cycles are cut short and by the cap; of a shard none. `count`:
    puzzles done; `stage`: name of the pieces."""
    count(0)

    def compute(rows: slice) -> Arrays:
        cuts = _of_batch(subject, rows, config, caps)
        count(rows.stop)
        return {
            f"{where} {cap} {name}": values
            for (where, cap), cut in cuts.items()
            for name, values in cut._asdict().items()
        }

    parts = list(subject.in_pieces(stage, compute))
    if is_shard():
        return {}
    joined = concatenated(parts)
    keys = dict.fromkeys(tuple(name.split(" ")[:2]) for name in joined)
    return {
        (where, int(cap)): Cut(**{name: joined[f"{where} {cap} {name}"] for name in Cut._fields})
        for where, cap in keys
    }


def _of_batch(
    subject: Subject, rows: slice, config: InternalisationConfig, caps: Sequence[int]
) -> dict[tuple[str, int], Cut]:
    model, own = subject.model, own_cap(subject.model)
    start, x = subject.begin(rows)
    labels = subject.labels[rows].to(subject.device)
    names = subject.puzzles.lines[rows]
    before = config.steps * model.config.h_cycles - 1  # H-cycles before the last one
    cuts, of_own = {}, _written(model, start, x, before, own)
    for cap in caps:
        state = of_own if cap == own else _written(model, start, x, before, cap)
        cuts["every", cap] = _last_cycle(model, state, x, labels, cap, config)
        cuts["last", cap] = _last_cycle(model, of_own, x, labels, cap, config)
        finite(cuts["every", cap].residual, f"the state with cap {cap}", names)
    return cuts


def _written(model: RecursiveModel, state: States, x: Tensor, cycles: int, cap: int) -> States:
    """After so many H-cycles with `cap` writes of the latent state each."""
    schedule = Schedule(1, (model.latent,) * cap + (model.answer,))
    for _ in range(cycles):
        state, _ = model.unroll(schedule, state, x)
    return state


def _last_cycle(
    model: RecursiveModel,
    state: States,
    x: Tensor,
    labels: Tensor,
    cap: int,
    config: InternalisationConfig,
) -> Cut:
    """One H-cycle with `cap` writes, and the fixed point near which they end."""
    if cap:
        state, _ = model.unroll(Schedule(1, (model.latent,) * cap), state, x)
    tick = Schedule(1, (model.latent,)).tick(0, 0, 0)

    def f(z: Tensor) -> Tensor:
        there = state._replace(**{model.latent: z})
        return model.evaluate(tick, *model.operands(tick, there, x))

    z = getattr(state, model.latent)
    once = f(z)
    deep = solve(f, z, HowToSolve(tolerance=config.tolerance), config.deep)
    distance = relative_residual(deep.value - z, deep.value)
    ended, _ = model.unroll(Schedule(1, (model.answer,)), state, x)
    tokens = model.readout(model.answer_of(ended)).logits.argmax(-1)
    values: list[Any] = [
        is_solved(tokens, labels),
        relative_residual(once - z, once),
        torch.where(deep.converged, distance, torch.nan),
        deep.converged,
    ]
    return Cut(*(value.cpu().numpy() for value in values))


def table_of(cuts: dict[tuple[str, int], Cut], lines: np.ndarray) -> pd.DataFrame:
    """A row a puzzle, cap and way of cutting short."""
    parts = [
        pd.DataFrame({"where": where, "cap": cap, "line": lines, **cut._asdict()})
        for (where, cap), cut in cuts.items()
    ]
    return pd.concat(parts, ignore_index=True)


def snapshot_of(
    subject: Subject, trained: int, cuts: dict[tuple[str, int], Cut], own: int, seed: int
) -> Snapshot:
    """The numbers of one checkpoint."""
    by_where: dict[str, list[AtCap]] = {where: [] for where in WHERE}
    for (where, cap), cut in cuts.items():
        by_where[where].append(
            AtCap(
                cap=cap,
                solved=Share.of(share_with_bounds(cut.solved)),
                residual=Median.of(median_with_bounds(cut.residual, seed)),
                distance=Median.of(median_with_bounds(cut.distance[cut.converged], seed)),
                converged=Share.of(share_with_bounds(cut.converged)),
            )
        )
    solved = cuts["last", own].solved
    without = cuts.get(("last", 0))
    still = np.zeros(0, bool) if without is None else without.solved[solved]
    return Snapshot(
        ckpt=str(subject.checkpoint.path),
        checkpoint_sha256=subject.checkpoint.sha256,
        trained=None if trained == ALONE else trained,
        **by_where,
        kept_without_solver=Share.of(share_with_bounds(still)),
    )


def summary_table(result: InternalisationResult) -> pd.DataFrame:
    """A row a checkpoint, way of cutting short and cap, with 95 % intervals over puzzles."""
    rows = []
    for snapshot in result.snapshots:
        trained = ALONE if snapshot.trained is None else snapshot.trained
        for where in WHERE:
            for at in getattr(snapshot, where):
                row: dict[str, Any] = {"trained": trained, "where": where, "cap": at.cap}
                for name, one in (("solved", at.solved), ("converged", at.converged)):
                    row |= {name: one.share, f"{name}_low": one.low, f"{name}_high": one.high}
                for name, one in (("residual", at.residual), ("distance", at.distance)):
                    row |= {name: one.median, f"{name}_low": one.low, f"{name}_high": one.high}
                rows.append(row | {"n": result.n})
    return pd.DataFrame(rows)


def figures(result: InternalisationResult, table: pd.DataFrame) -> Figures:
    """Solved puzzles and distances against the cap."""
    title = f"{result.model_name}: {counted(result.n, 'puzzle')}, step {result.steps}"
    figure = internalisation_figure(table, result.latent, result.own_cap, title)
    return {"internalisation": (figure, table)}


def lines(result: InternalisationResult) -> list[str]:
    """The result in words."""
    told = [
        f"{counted(result.n, 'puzzle')}, {result.steps} supervision steps, "
        f"{result.own_cap} writes of {result.latent} an H-cycle"
    ]
    for snapshot in result.snapshots:
        if snapshot.trained is not None:
            told.append(f"after {snapshot.trained} optimizer steps:")
        for where, words in (("every", "every H-cycle"), ("last", "the last H-cycle")):
            shares = ", ".join(
                f"{at.cap}: {at.solved.share:.1%} at {at.distance.text('.2g')}"
                for at in getattr(snapshot, where)
            )
            told.append(f"{words} cut to {shares}")
        ends = {at.cap: at.converged for at in snapshot.last}[result.own_cap]
        told.append(
            f"a fixed point is reached from {ends.hits} of {ends.n} ends (residual "
            f"{result.tolerance:g}, {result.deep} evaluations)"
        )
        kept = snapshot.kept_without_solver
        if kept.n:
            told.append(
                f"solved without the last inner loop: {kept.hits} of the {kept.n} that are solved"
            )
    return told
