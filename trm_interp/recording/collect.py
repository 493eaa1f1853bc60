"""Record a checkpoint's activations into a store: size announced first, streamed, resumable."""

import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.core.infer import Readouts, run_batch
from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.models.config import ModelConfig
from trm_interp.core.models.registry import settings_of
from trm_interp.core.ranks import Ranks
from trm_interp.recording import joining
from trm_interp.recording.hooks import HookedModel, recording
from trm_interp.recording.manifest import ModelShape
from trm_interp.recording.positions import kept_positions
from trm_interp.recording.schema import MORE_READOUTS, MOST_PUZZLES, MOST_TICKS, all_finite
from trm_interp.recording.sites import hook_targets, recursion_of, sites_of, with_names_of_states
from trm_interp.recording.store import Site, StoreWriter, estimate_bytes, plan_shards
from trm_interp.recording.writer import Team
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import at_most, counted, require_memory
from trm_interp.runtime.provenance import git_commit, versions
from trm_interp.runtime.shards import Merging, division
from trm_interp.subjects import equilibria
from trm_interp.subjects.opening import open_both, open_device, untrained
from trm_interp.subjects.settings import CollectConfig
from trm_interp.tasks.base import PuzzleSet

__all__ = ["collect", "record_batch", "record_puzzles", "sites_of"]


def collect(
    config: CollectConfig,
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Path:
    """Run `collect` as the command does: the store's folder, complete, or an error.

    `tell` gets lines for the user, `progress` how many puzzles are done, of how many. The processes
    of a torchrun share the work, and the first one reports.
    """
    device = open_device(config.device)
    ranks = Ranks(device)
    if ranks.rank:
        tell, progress = (lambda line: None), (lambda done, of: None)
    checkpoint, puzzles = open_both(
        config.ckpt, config.puzzles, device, config.limit, config.skip_bad, tell
    )
    if config.random_weights is not None:
        checkpoint = untrained(checkpoint, config.random_weights)
        tell(f"a control: fresh weights of seed {config.random_weights} instead of its own")
    identity = {
        "checkpoint_sha256": checkpoint.sha256,
        "data_sha256": dict(puzzles.sha256),
        "batch_size": config.batch_size,
        "device": device.type,
        "dtype": config.dtype,
        "limit": config.limit,
        "skip_bad": config.skip_bad,
    }
    try:
        return record_puzzles(checkpoint, puzzles, config, identity, tell, progress, ranks)
    finally:
        ranks.close()


def record_puzzles(
    checkpoint: Checkpoint,
    puzzles: PuzzleSet,
    config: CollectConfig,
    identity: dict[str, Any],
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, of: None,
    team: Team | None = None,
) -> Path:
    """Record these puzzles as `config` says; `identity` is what a resumed run must share."""
    model, n_steps = checkpoint.model, config.kept_steps[-1] + 1
    try:
        positions = kept_positions(config.positions, puzzles, model.config.prefix)
        sites = [
            site.select(config.kept_steps, positions)
            for site in sites_of(model.config, config.sites, n_steps)
        ]
    except ValueError as error:
        raise UserError(str(error)) from None
    _require_room(config, model.config, sites, min(config.batch_size, len(puzzles)))
    per_puzzle, now = estimate_bytes(sites, 1), division()
    with StoreWriter.create(
        config.out,
        _meta(checkpoint, puzzles, config, identity),
        sites,
        n_puzzles=len(puzzles),
        n_steps=n_steps,
        n_cells=model.config.cells,
        shard_puzzles=plan_shards(max(per_puzzle, 1), config.batch_size, len(puzzles)),
        resume=config.resume,
        overwrite=config.overwrite,
        team=team,
        is_own=joining.own_shards(),
        adopts=isinstance(now, Merging),
        tell=tell,
        progress=progress,
    ) as writer:
        tell(
            f"{counted(len(puzzles), 'puzzle')} x {per_puzzle / 1e6:.2f} MB = "
            f"{per_puzzle * len(puzzles) / 1e9:.3f} GB in {config.out} "
            f"({', '.join(site.name for site in sites)})"
        )
        if longer := _longer_than_trained(checkpoint, n_steps):
            tell(longer)
        if writer.manifest.complete:
            writer.claim.tell_complete()
        elif writer.manifest.shards:
            tell(f"resuming at puzzle {writer.done} (from 0) of {len(puzzles)}")
        if isinstance(now, Merging):
            joining.join(writer, now)
        _record_all(HookedModel.of(model, n_steps), puzzles, config, writer, tell)
    return config.out


def _longer_than_trained(checkpoint: Checkpoint, n_steps: int) -> str | None:
    """In words, where runs go further than those of training, if the card says how far those went.

    `--steps 0-99`, which reads as a choice of moments, makes runs of 100 steps.
    """
    train = checkpoint.card.get("train")
    trained = train.get("n_sup") if isinstance(train, dict) else None
    if not isinstance(trained, int) or n_steps <= trained:
        return None
    return f"runs of {n_steps} supervision steps; in training they had at most {trained}"


def _meta(
    checkpoint: Checkpoint, puzzles: PuzzleSet, config: CollectConfig, identity: dict[str, Any]
) -> dict[str, Any]:
    """What the manifest keeps of where the activations come from."""
    model = checkpoint.model.config
    settings = settings_of(model)
    recursion = recursion_of(model).to_json()
    if more := more_readouts(checkpoint.model, puzzles):
        recursion["more_readouts"] = more
    if config.random_weights is not None:
        identity = identity | {"random_weights": config.random_weights}
    options = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    return {
        # the checkpoint's sha256 covers its weights alone: the settings of the model are here too
        "identity": {**identity, "task": puzzles.task.name, **recursion, "model": settings},
        "model": settings | {f.name: getattr(model, f.name) for f in fields(ModelShape)},
        "checkpoint": {"path": str(checkpoint.path), "format": checkpoint.format},
        "puzzles": puzzles.source,
        "settings": options | {"sites": with_names_of_states(model, config.sites)},
        "versions": versions(),
        "git_commit": git_commit(),
    }


def _record_all(
    model: HookedModel,
    puzzles: PuzzleSet,
    config: CollectConfig,
    writer: StoreWriter,
    tell: Callable[[str], None],
) -> None:
    """What the writer lacks, batch after batch."""
    began, announced, first = time.monotonic(), False, writer.done
    residuals: list[Tensor] = []
    writer.claim.advance(writer.done, len(puzzles))
    while writer.done < len(puzzles):
        batch = puzzles.subset(slice(writer.done, writer.done + config.batch_size))
        read = record_batch(model, batch, writer, getattr(torch, config.dtype))
        writer.end_batch(
            inputs=batch.inputs,
            labels=batch.labels,
            predictions=read.tokens.numpy(),
            solved=read.solved.numpy(),
            loss=read.loss.numpy(),
            q_halt=read.q_halt.numpy(),
            halt_step=read.halt_step.numpy(),
            puzzle_id=batch.lines,
            **_more_readouts(writer, batch, read),
        )
        if read.residual is not None:
            residuals.append(read.residual)
        if not announced and writer.done < len(puzzles):
            seconds = (time.monotonic() - began) / len(batch) * writer.left
            tell(f"about {seconds:.0f} s at the speed of the first batch")
        announced = True
        writer.claim.advance(min(writer.done, len(puzzles)), len(puzzles))
    writer.finish()
    joining.shard_ends(writer)
    if residuals and writer.team.size == 1:
        recorded = puzzles.lines[first:]
        if found := equilibria.convergence(model, torch.cat(residuals), recorded):
            tell(equilibria.line(found, len(recorded)))
    if writer.team.size > 1:
        writer.claim.advance(len(puzzles), len(puzzles))


def more_readouts(model: RecursiveModel, puzzles: PuzzleSet) -> list[str]:
    """Of `schema.MORE_READOUTS` those that the model and the puzzles have."""
    reads_identifiers = model.config.n_identifiers and puzzles.identifiers is not None
    there = {"q_continue": model.has_q_continue, "identifier": reads_identifiers}
    there["residual"] = model.tolerance is not None
    return [name for name in MORE_READOUTS if there[name]]


def _more_readouts(writer: StoreWriter, batch: PuzzleSet, read: Readouts) -> dict[str, np.ndarray]:
    own = batch.given_identifiers  # the checkpoint's; the model may have been read in part
    values = {
        "q_continue": None if read.q_continue is None else read.q_continue.numpy(),
        "identifier": batch.identifiers if own is None else own,
        "residual": None if read.residual is None else read.residual.numpy(),
    }
    held = writer.manifest.recorded.more_readouts
    return {name: of for name, of in values.items() if name in held and of is not None}


def _require_room(
    config: CollectConfig, model: ModelConfig, sites: list[Site], batch_size: int
) -> None:
    """UserError where there are more network evaluations than a store describes, or where the
    states of a batch, one supervision step of them at a time, cannot be in memory."""
    at_most("batch_size", config.batch_size, MOST_PUZZLES)
    n_steps, per_step = config.kept_steps[-1] + 1, model.schedule.evaluations
    if n_steps * per_step > MOST_TICKS:
        raise UserError(
            f"--steps: {n_steps} steps of {per_step} network evaluations are more than a store "
            f"describes ({MOST_TICKS})"
        )
    held = sum(
        estimate_bytes([site], 1) // (len(site.indices("step")) if "step" in site.dims else 1)
        for site in sites
    )
    require_memory(
        held * batch_size,
        f"one step of {batch_size} puzzles at these sites",
        "lower --batch-size, or keep fewer --sites or --positions",
    )


def record_batch(
    model: HookedModel, batch: PuzzleSet, writer: StoreWriter, dtype: torch.dtype
) -> Readouts:
    """Run one batch and write the writer's sites, one supervision step at a time."""
    n_steps = writer.manifest.n_steps
    sites = {site.name: site for site in writer.manifest.sites}
    targets = hook_targets(model.config, sites, n_steps)
    writer.start_batch(len(batch))
    buffers = {
        name: np.empty((len(batch), *site.stored_shape["step" in site.dims :]), dtype=site.dtype)
        for name, site in sites.items()
    }
    last = {(name, step): hook for hook, (name, step, _) in targets.items()}
    positions = writer.manifest.kept("pos")

    def sink(hook: str, value: Tensor) -> None:
        name, step, place = targets[hook]
        if "pos" in sites[name].kept:
            value = value[:, positions]
        target = torch.from_numpy(buffers[name][(slice(None), *place)])
        target.copy_(value)  # rounds to float16, on whatever device it comes from
        if last[name, step] == hook:
            _check_range(name, buffers[name], step)
            writer.write(name, buffers[name], step)

    with recording(model, list(targets), sink):
        inputs, labels, own = batch.tensors
        return run_batch(model, inputs, labels, n_steps, dtype=dtype, identifiers=own)


def _check_range(name: str, values: np.ndarray, step: int | None) -> None:
    """UserError where a value is not finite: float16 ends at 65 504, states need not."""
    if not all_finite(values):
        raise UserError(f"{name}: a value of step {step} does not fit float16; leave the site out")


def lines(out: Path) -> list[str]:
    """What `trm-interp collect` prints."""
    return [f"wrote {out} (look at it: trm-interp info {out})"]
