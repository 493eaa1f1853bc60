"""Record a checkpoint's activations into a store: size told first, streamed, resumable."""

import re
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.core.clock import Tick, schedule
from trm_interp.core.config import TRMConfig
from trm_interp.core.infer import Readouts, run_batch
from trm_interp.core.ranks import Ranks
from trm_interp.recording.hooks import HookedTRM, recording
from trm_interp.recording.schema import MOST_PUZZLES, MOST_TICKS
from trm_interp.recording.store import Site, StoreWriter, estimate_bytes, plan_shards
from trm_interp.recording.writer import Team
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import at_most, parse_indices, require_memory, shown
from trm_interp.runtime.provenance import git_commit, versions
from trm_interp.subjects.opening import open_both, open_device
from trm_interp.subjects.settings import CollectConfig
from trm_interp.tasks.base import PuzzleSet

UNBOUNDED = ("embed", "logits")
BLOCK_SITE = re.compile(r"blocks\.(\d+)\.(hook_\w+)")


def collect(
    config: CollectConfig,
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Path:
    """Run `collect` as the command does: the store's folder, complete, or an error.

    `tell` gets lines for the user, `progress` the puzzles done of how many. The processes of a
    torchrun share the work, and the first one tells.
    """
    device = open_device(config.device)
    ranks = Ranks(device)
    if ranks.rank:
        tell, progress = (lambda line: None), (lambda done, of: None)
    checkpoint, puzzles = open_both(
        config.ckpt, config.puzzles, device, config.limit, config.skip_bad, tell
    )
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
    model = checkpoint.model
    kept = config.kept_steps
    n_steps = kept[-1] + 1
    positions = parse_indices(config.positions, "positions")
    try:
        sites = [
            site.select(kept, positions) for site in sites_of(model.config, config.sites, n_steps)
        ]
    except ValueError as error:
        raise UserError(str(error)) from None
    _require_room(config, model.config, sites, min(config.batch_size, len(puzzles)))
    per_puzzle = estimate_bytes(sites, 1)
    shard_puzzles = plan_shards(max(per_puzzle, 1), config.batch_size, len(puzzles))
    meta = {
        # the checkpoint's sha256 is of its weights: cycles, heads and prefix stand beside them
        "identity": {**identity, "model": asdict(model.config)},
        "model": asdict(model.config),
        "checkpoint": {"path": str(checkpoint.path), "format": checkpoint.format},
        "puzzles": puzzles.source,
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()},
        "versions": versions(),
        "git_commit": git_commit(),
    }
    with StoreWriter.create(
        config.out,
        meta,
        sites,
        n_puzzles=len(puzzles),
        n_steps=n_steps,
        n_cells=model.config.cells,
        shard_puzzles=shard_puzzles,
        resume=config.resume,
        overwrite=config.overwrite,
        team=team,
        tell=tell,
    ) as writer:
        tell(
            f"{len(puzzles)} puzzles x {per_puzzle / 1e6:.2f} MB = "
            f"{per_puzzle * len(puzzles) / 1e9:.3f} GB in {config.out} "
            f"({', '.join(site.name for site in sites)})"
        )
        if writer.done:
            tell(f"resuming at puzzle {writer.done} of {len(puzzles)}")
        progress(writer.done, len(puzzles))
        hooked = HookedTRM.of(model, n_steps)
        began, told = time.monotonic(), False
        while writer.done < len(puzzles):
            batch = puzzles.subset(slice(writer.done, writer.done + config.batch_size))
            read = record_batch(hooked, batch, writer, sites, getattr(torch, config.dtype))
            writer.end_batch(
                inputs=batch.inputs,
                labels=batch.labels,
                predictions=read.tokens.numpy(),
                solved=read.solved.numpy(),
                loss=read.loss.numpy(),
                q_halt=read.q_halt.numpy(),
                puzzle_id=batch.lines,
            )
            if not told and writer.done < len(puzzles):
                each = (time.monotonic() - began) / len(batch) / writer.team.size
                seconds = each * (len(puzzles) - writer.done)
                tell(f"about {seconds:.0f} s at the speed of the first batch")
            told = True
            progress(writer.done, len(puzzles))
        writer.finish()
        if writer.team.size > 1:
            progress(len(puzzles), len(puzzles))
    return config.out


def _require_room(
    config: CollectConfig, model: TRMConfig, sites: list[Site], batch_size: int
) -> None:
    """UserError where there are more network evaluations than a store describes, or where the
    states of a batch, one supervision step of them at a time, cannot be in memory."""
    at_most("batch_size", config.batch_size, MOST_PUZZLES)
    n_steps, per_step = config.kept_steps[-1] + 1, model.h_cycles * (model.l_cycles + 1)
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


def sites_of(config: TRMConfig, names: str, n_steps: int) -> list[Site]:
    """Store arrays for comma-separated site names. ValueError names those that exist.

    >>> [site.name for site in sites_of(TRMConfig(), "z_H,blocks.1.hook_resid_post", 16)]
    ['z_H', 'blocks.1.hook_resid_post']
    """
    cycles = (n_steps, config.h_cycles)
    state = (config.positions, config.d_model)
    known = {
        "z_L": Site(
            "z_L",
            ("step", "h_cycle", "l_cycle", "pos", "d_model"),
            (*cycles, config.l_cycles, *state),
        ),
        "z_H": Site("z_H", ("step", "h_cycle", "pos", "d_model"), (*cycles, *state)),
        "embed": Site("embed", ("pos", "d_model"), state),
        "logits": Site("logits", ("step", "cell", "vocab"), (n_steps, config.cells, config.vocab)),
    }
    for block in range(config.n_layers):
        for point in ("resid_pre", config.mixer_site[5:], "resid_mid", "mlp_out", "resid_post"):
            name = f"blocks.{block}.hook_{point}"
            # the last index of l_cycle is the evaluation that writes z_H
            dims = ("step", "h_cycle", "l_cycle", "pos", "d_model")
            known[name] = Site(name, dims, (*cycles, config.l_cycles + 1, *state))
    wanted: list[str] = []
    for name in (part.strip() for part in names.split(",")):
        resid = [k for k in known if k.endswith(("resid_mid", "resid_post"))]
        wanted += resid if name == "resid" else [name]
    if unknown := [name for name in wanted if name not in known]:
        last = f"blocks.{config.n_layers - 1}."
        of_block = [name.removeprefix(last) for name in known if name.startswith(last)]
        others = [name for name in known if not name.startswith("blocks.")]
        raise ValueError(
            f"no site {shown(unknown[0])!r}; there are resid, {', '.join(others)} and, of every "
            f"block, such as {last}: {', '.join(of_block)}"
        )
    return [known[name] for name in dict.fromkeys(wanted)]


def record_batch(
    model: HookedTRM,
    batch: PuzzleSet,
    writer: StoreWriter,
    sites: list[Site],
    dtype: torch.dtype,
) -> Readouts:
    """Run one batch and write its sites, one supervision step at a time."""
    n_steps = writer.manifest.n_steps
    wanted = {site.name: site for site in sites}
    targets = _targets(model.config, wanted, n_steps)
    writer.start_batch(len(batch))
    buffers = {
        name: np.empty((len(batch), *site.stored_shape["step" in site.dims :]), dtype=site.dtype)
        for name, site in wanted.items()
    }
    last = {(name, step): hook for hook, (name, step, _) in targets.items()}
    positions = writer.manifest.kept("pos")

    def sink(hook: str, value: Tensor) -> None:
        name, step, place = targets[hook]
        if "pos" in wanted[name].kept:
            value = value[:, positions]
        target = torch.from_numpy(buffers[name][(slice(None), *place)])
        target.copy_(value)  # rounds to float16, on whatever device it comes from
        if last[name, step] == hook:
            if name in UNBOUNDED or BLOCK_SITE.fullmatch(name):
                _check_range(name, buffers[name], step)
            writer.write(name, buffers[name], step)

    with recording(model, list(targets), sink):
        inputs = torch.from_numpy(batch.inputs)
        return run_batch(model, inputs, torch.from_numpy(batch.labels), n_steps, dtype=dtype)


def _check_range(name: str, values: np.ndarray, step: int | None) -> None:
    """States have RMS 1; branches and logits have no bound, and float16 ends at 65 504."""
    if not np.isfinite(values).all():
        raise UserError(f"{name}: a value of step {step} does not fit float16; leave the site out")


def _targets(
    config: TRMConfig, sites: dict[str, Site], n_steps: int
) -> dict[str, tuple[str, int | None, tuple[int, ...]]]:
    """Hook point -> (site, step, index inside the step's buffer), in the order they fire."""
    targets: dict[str, tuple[str, int | None, tuple[int, ...]]] = {}

    def add(hook: str, name: str, step: int | None, place: tuple[int, ...] = ()) -> None:
        if name in sites and (step is None or step in sites[name].indices("step")):
            targets[hook] = (name, step, place)

    add("hook_embed", "embed", None)
    for tick in schedule(n_steps, config.h_cycles, config.l_cycles):
        for name in sites:
            if BLOCK_SITE.fullmatch(name):
                add(f"{tick.name}.{name}", name, tick.step, (tick.h_cycle, tick.l_cycle))
        place = (tick.h_cycle, tick.l_cycle) if tick.writes == "z_L" else (tick.h_cycle,)
        add(tick.hook, tick.writes, tick.step, place)
        if _ends_step(tick, config):
            add(f"step.{tick.step}.hook_logits", "logits", tick.step)
    return targets


def _ends_step(tick: Tick, config: TRMConfig) -> bool:
    return tick.writes == "z_H" and tick.h_cycle == config.h_cycles - 1
