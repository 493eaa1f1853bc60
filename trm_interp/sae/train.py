"""Training an SAE on a store: sae-lens' trainer on our stream, resumed exactly."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trm_interp.core.ranks import Ranks
from trm_interp.recording.site_reader import View, board_keys, split_puzzles
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import append_row, disk_errors, keep_rows, plain
from trm_interp.runtime.limits import gigabytes, parse_indices, require_memory
from trm_interp.runtime.provenance import git_commit, versions
from trm_interp.runtime.runs import Run, quiet, silent
from trm_interp.runtime.shapes import Float
from trm_interp.sae.applied import encode
from trm_interp.sae.pool import Pool, open_pool
from trm_interp.sae.saved import (
    CARD,
    CONFIG,
    MEASURES,
    METRICS,
    STATE,
    WEIGHTS,
    load_sae,
    remove_half_saved,
    save_inference,
)
from trm_interp.sae.settings import TrainSAEConfig
from trm_interp.sae.stream import ActivationStream, Scaling, measure_scaling, puzzle_order
from trm_interp.sae.trainer import Trainer, fit_to, is_run, make_sae
from trm_interp.subjects.opening import open_device

COMMAND = "train-sae"
# of sae-eval, the measures: they are of the SAE that goes with them
NAMES = (STATE, METRICS, CARD, WEIGHTS, CONFIG, MEASURES)
FREE = ("out", "resume", "overwrite", "save_every", "log_every", "device", "buffer_mb", "stores")
HELD_OUT_PUZZLES = 16  # behind the held-out numbers of metrics and card
TRAINING_COPIES = 4  # weights, gradients and two moments; as many of a batch's activations


@dataclass(frozen=True)
class TrainedSAE:
    """What `train-sae` came to. `note`: the last held-out FVU and L0, in words, if any step of this
    process logged them."""

    out: Path
    finished: bool
    note: str


def run(
    config: TrainSAEConfig,
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = quiet,
) -> TrainedSAE:
    """What the command `train-sae` does."""
    finished = train_sae(config, tell, progress)
    return TrainedSAE(config.out, finished, getattr(progress, "note", ""))


def lines(trained: TrainedSAE) -> list[str]:
    """Where the SAE is and what to do next; nothing of a run that was stopped."""
    if not trained.finished:
        return []
    facts = [*filter(None, [trained.note]), f"measure it: trm-interp sae-eval {trained.out} STORE"]
    return [f"wrote {trained.out} ({'; '.join(facts)})"]


def held_out_rows(
    pool: Pool, puzzles: np.ndarray, config: TrainSAEConfig
) -> Float[Tensor, "row d_model"]:
    """At most a batch of rows of the first held-out puzzles, as they are stored."""
    rows = np.concatenate(
        [values for puzzle in puzzles[:HELD_OUT_PUZZLES] for values in pool.read(int(puzzle))]
    )
    picked = np.random.default_rng([config.seed, 0x4E1D]).permutation(len(rows))[
        : config.batch_size
    ]
    return torch.from_numpy(rows[picked]).float()


class _Prepared(NamedTuple):
    """What a run starts from. `identity`: what must be the same for it to be resumed; `provenance`:
    the SAE's record of its training; `held_out`: rows of held-out puzzles, as stored, which only
    the first process has.
    """

    stream: ActivationStream
    held_out: Tensor | None
    identity: dict[str, Any]
    provenance: dict[str, Any]


def _prepare(config: TrainSAEConfig, ranks: Ranks, tell: Callable[[str], None]) -> _Prepared:
    """Everything that is read before the first step; writes nothing."""
    view, ticks = view_of(config), parse_indices(config.ticks, "ticks")
    pool = open_pool(config.stores, config.sites, ticks, view, config.mixed_checkpoints, tell)
    try:
        require_fit(config, pool.d_model, ranks)
        training, held_out = split_puzzles(pool.inputs, config.held_out, config.seed)
        solved = pool.solved[training] if config.balance else None
        first = puzzle_order(training, solved, config.seed, 0)
        is_first = ranks.rank == 0
        mine = None
        if is_first:  # measured once, so that all processes agree to the last bit
            mine = measure_scaling(pool, first[: config.stats_puzzles].tolist())
        stream = ActivationStream(
            pool,
            training,
            batch_size=config.batch_size,
            buffer_bytes=config.buffer_mb * 10**6,
            seed=config.seed,
            solved=solved,
            device=ranks.device,
            rank=ranks.rank,
            size=ranks.size,
        )
        stream.scaling = ranks.objects(mine)[0]
        identity = {k: v for k, v in _settings(config).items() if k not in FREE}
        identity |= {"store_sha256": pool.sha256, "device": ranks.device.type}
        return _Prepared(
            stream,
            held_out_rows(pool, held_out, config) if is_first else None,
            identity,
            _provenance(config, pool, training, held_out),
        )
    except BaseException:
        pool.close()
        raise


def view_of(config: TrainSAEConfig) -> View:
    """How the rows are read on which an SAE is trained."""
    return View(config.centre, config.seed if config.shuffle_ticks else None)


def _provenance(
    config: TrainSAEConfig, pool: Pool, training: np.ndarray, held_out: np.ndarray
) -> dict[str, Any]:
    """The SAE's record of its training; `saved.Provenance` has the part that readers need."""
    checkpoints = pool.checkpoints
    return {
        "sites": list(pool.sites),
        "ticks": pool.ticks,
        "arch": config.arch,
        "gated_variant": config.gated_variant if config.arch == "gated" else None,
        "centre": config.centre,
        "shuffle": view_of(config).shuffle,
        "seed": config.seed,
        "held_out": config.held_out,
        "n_train": len(training),
        "n_held_out": len(held_out),
        "train_boards": sorted(set(board_keys(pool.inputs[training]))),
        "solved_share_of_training": float(pool.solved[training].mean()),
        "store_sha256": pool.sha256,
        "store_puzzles": sum(store.n_puzzles for store in pool.stores),
        "stores": _stores(pool, training, held_out),
        "checkpoint_sha256": checkpoints[0] if len(checkpoints) == 1 else None,
        "mixed_checkpoints": checkpoints if len(checkpoints) > 1 else [],
        "architecture": pool.stores[0].recursion.architecture,
        "versions": {**versions(), "sae_lens": version("sae-lens")},
        "git_commit": git_commit(),
    }


def _stores(pool: Pool, training: np.ndarray, held_out: np.ndarray) -> list[dict[str, Any]]:
    """Each with its hash and its part of the rows, of which there are so many in an epoch."""
    parts = zip(pool.stores, pool.shares(training), pool.shares(held_out), strict=True)
    return [
        {
            "name": store.path.name,
            "store_sha256": store.sha256,
            "checkpoint_sha256": store.identity.checkpoint_sha256,
            "n_train": n_train,
            "n_held_out": n_held_out,
            "training_rows": n_train * pool.rows_per_puzzle,
        }
        for store, n_train, n_held_out in parts
    ]


def train_sae(
    config: TrainSAEConfig,
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = quiet,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train the SAE and save it in `config.out`; False if stopped early. The processes of a
    torchrun train it together, and the first one writes and speaks."""
    ranks = Ranks(open_device(config.device))
    try:
        return _train(config, ranks, tell, progress, should_stop)
    finally:
        ranks.close()


def _train(
    config: TrainSAEConfig,
    ranks: Ranks,
    tell: Callable[[str], None],
    progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> bool:
    prepared = _prepare(config, ranks, tell if ranks.rank == 0 else silent)
    with (
        prepared.stream,
        Run(
            config.out,
            COMMAND,
            NAMES,
            unmarked=is_run,
            tell=tell,
            progress=progress,
            stops_at_steps=True,
            resume=config.resume,
            overwrite=config.overwrite,
            team=ranks,
        ) as run,
    ):
        if run.is_first:
            remove_half_saved(config.out)
        trainer = _trainer(config, prepared, ranks)

        def stop() -> bool:
            return bool(ranks.most(float(run.should_stop() or should_stop()))[0])

        try:
            _take_over(trainer, prepared.identity, run, ranks)
            _loop(trainer, prepared.identity, run, stop)
        finally:
            trainer.together = None  # before the processes part, or its end may wait for ever
        if trainer.finished:
            _save(trainer, prepared, run, ranks.size)
        ranks.objects(None)  # no process leaves before the SAE is written
    return trainer.finished


def _trainer(config: TrainSAEConfig, prepared: _Prepared, ranks: Ranks) -> Trainer:
    """A trainer at the start."""
    stream = prepared.stream
    assert stream.scaling is not None
    several = ranks if ranks.size > 1 else None
    sae = make_sae(config, stream.d_model, stream.device, several)
    held_out = prepared.held_out
    if held_out is not None:
        held_out = scaled(held_out, stream.scaling).to(stream.device)
    return Trainer(config, sae, stream, held_out, several)


def _take_over(trainer: Trainer, identity: dict[str, Any], run: Run, ranks: Ranks) -> None:
    """Go on where an earlier run was saved, if there is one."""
    out = run.out
    if ranks.all_see(out / STATE):
        trainer.resume(out / STATE, identity)
        if trainer.finished:
            run.tell_complete()
        else:
            at = trainer.n_training_steps
            run.tell(f"resuming at optimizer step {at} of {trainer.config.max_steps}")
    elif any((out / name).exists() for name in (CARD, WEIGHTS, CONFIG)):
        raise UserError(f"{out / STATE} is missing: nothing to resume from")
    else:  # also after a run that was killed before its first save
        run.clear()


def _save(trainer: Trainer, prepared: _Prepared, run: Run, processes: int) -> None:
    """The SAE as sae-lens opens it, and its card."""
    config, stream, out, held_out = trainer.config, prepared.stream, run.out, prepared.held_out
    if held_out is None:  # not the first process
        return
    assert stream.scaling is not None
    provenance = {
        **prepared.provenance,
        "rows": trainer.n_training_samples,
        "d_sae": trainer.sae.cfg.d_sae,
        "d_in": trainer.sae.cfg.d_in,
    }
    save_inference(trainer.sae, stream.scaling, provenance, out)
    card = {
        "sae": provenance,
        "settings": _settings(config),
        "revived": trainer.revived,
        "held_out": {**of_saved(out, held_out.to(stream.device)), "rows": len(held_out)},
        "command": " ".join(["trm-interp", *sys.argv[1:]]),
        "times": {"training_s": round(trainer.seconds, 1), "processes": processes},
    }
    run.write_json(CARD, card)


def scaled(rows: Float[Tensor, "row d_model"], scaling: Scaling) -> Float[Tensor, "row d_model"]:
    """As in training."""
    return (rows - scaling.mean) / scaling.scale


@torch.no_grad()
def of_saved(folder: Path, rows: Float[Tensor, "row d_model"]) -> dict[str, float]:
    """FVU and L0 of the saved SAE on raw rows, as anyone who opens the folder will measure them."""
    sae = load_sae(folder, rows.device)
    acts = encode(sae, rows)
    return fit_to(rows, acts, sae.decode(acts))


def _settings(config: TrainSAEConfig) -> dict[str, Any]:
    return plain(asdict(config))


def require_fit(config: TrainSAEConfig, d_model: int, ranks: Ranks) -> None:
    """UserError where the SAE cannot be what was asked, or is too large to be trained here."""
    d_sae, device = config.expansion * d_model, ranks.device
    if config.arch in ("topk", "batchtopk") and config.k > d_sae:
        raise UserError(
            f"--active {config.k}: there are {d_sae} features ({config.expansion} x {d_model})"
        )
    rows = -(-config.batch_size // ranks.size)
    need = TRAINING_COPIES * 4 * (2 * d_sae * d_model + rows * d_sae)
    what, advice = f"training {d_sae} features", "lower --expansion or --batch-size"
    if device.type != "cuda":
        return require_memory(need, what, advice)
    total = torch.cuda.get_device_properties(device).total_memory
    if need > total:
        has = f"{device} has {gigabytes(total)}"
        raise UserError(f"{what} would need {gigabytes(need)} of memory, {has}: {advice}")


def _loop(
    trainer: Trainer,
    identity: dict[str, Any],
    run: Run,
    should_stop: Callable[[], bool],
) -> None:
    """Optimizer steps to the end, or until asked to stop; rows and states as they fall due."""
    config = trainer.config
    metrics, state = config.out / METRICS, config.out / STATE
    saved = trainer.n_training_steps
    odd_end = trainer.finished and saved % config.log_every > 0  # the last step has a row anyway
    if run.is_first:
        keep_whole_rows(metrics, saved // config.log_every + odd_end)
    run.advance(saved, config.max_steps)
    while not trainer.finished and not should_stop():
        row = trainer.advance()
        step = trainer.n_training_steps
        if row is not None and run.is_first:
            with disk_errors(metrics):
                append_row(metrics, row)
            run.note(f"held-out FVU {row['held_out_fvu']:.3f}, L0 {row['held_out_l0']:.1f}")
        if step % config.save_every == 0:
            _save_state(trainer, state, identity, run)
            saved = step
        run.advance(step, config.max_steps)
    if saved != trainer.n_training_steps:
        _save_state(trainer, state, identity, run)


def _save_state(trainer: Trainer, state: Path, identity: dict[str, Any], run: Run) -> None:
    if run.is_first:
        trainer.save(state, identity)


def keep_whole_rows(path: Path, n: int) -> None:
    """Keep the first n rows of the metrics. UserError where one of them is no row."""
    keep_rows(path, n)
    if not path.exists():
        return
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise UserError(
                f"{path}: line {number} is damaged: restore the file, or delete it to go on "
                "without its rows"
            )
