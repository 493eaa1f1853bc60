"""Training an SAE on a store: sae-lens' trainer on our stream, resumed exactly."""

import copy
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sae_lens import (
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAEConfig,
    StandardTrainingSAEConfig,
    TopKTrainingSAEConfig,
    TrainingSAE,
)
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from trm_interp.errors import UserError, first_line
from trm_interp.files import append_row, keep_rows, publish, replacing, write_json
from trm_interp.provenance import git_commit, versions
from trm_interp.sae.config import TrainSAEConfig
from trm_interp.sae.gated import GatedSAE
from trm_interp.sae.sites import (
    SiteReader,
    board_keys,
    final_solved,
    open_sites,
    split_puzzles,
)
from trm_interp.sae.stream import (
    ActivationStream,
    Position,
    Scaling,
    measure_scaling,
    puzzle_order,
    stream_state,
)
from trm_interp.settings import parse_indices
from trm_interp.shapes import Float
from trm_interp.sources import open_device
from trm_interp.store import Store

STATE, METRICS, CARD = "train_state.pt", "metrics.jsonl", "card.json"
SAE_FILES = ("sae_weights.safetensors", "cfg.json")
FREE = ("out", "resume", "overwrite", "save_every", "log_every", "device", "buffer_mb", "store")
HELD_OUT_PUZZLES = 16  # behind the held-out numbers of metrics.jsonl
SAVING = ".saving-"
SHARE_OF_DECAY = 0.2  # of the run, at its end, with a falling learning rate


def make_sae(config: TrainSAEConfig, d_model: int, device: torch.device) -> TrainingSAE[Any]:
    """Fresh weights of the architecture asked for, a function of the seed alone."""
    rise = round(config.warmup * config.max_steps)
    shape = {"d_in": d_model, "d_sae": config.expansion * d_model, "device": str(device)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.arch == "gated":
            cfg = GatedTrainingSAEConfig(**shape, l1_coefficient=config.l1, l1_warm_up_steps=rise)
            return GatedSAE(cfg, config.gated_variant)
        made = {
            "standard": lambda: StandardTrainingSAEConfig(
                **shape, l1_coefficient=config.l1, l1_warm_up_steps=rise
            ),
            "topk": lambda: TopKTrainingSAEConfig(**shape, k=config.k),
            "batchtopk": lambda: BatchTopKTrainingSAEConfig(**shape, k=config.k),
            "jumprelu": lambda: JumpReLUTrainingSAEConfig(
                **shape, l0_coefficient=config.l0, l0_warm_up_steps=rise
            ),
        }[config.arch]()
        kind: Any = TrainingSAE.get_sae_class_for_architecture(config.arch)
        return kind(made)


class Trainer(SAETrainer[Any, Any]):
    """sae-lens' trainer without wandb and its bar, with a state that resumes to the same bits."""

    def __init__(
        self,
        config: TrainSAEConfig,
        sae: TrainingSAE[Any],
        stream: ActivationStream,
        held_out: Tensor | None = None,
    ) -> None:
        steps = config.max_steps
        decay = round(SHARE_OF_DECAY * steps)
        super().__init__(
            SAETrainerConfig(
                total_training_samples=steps * config.batch_size,
                train_batch_size_samples=config.batch_size,
                lr=config.lr,
                lr_end=config.lr / 10,
                lr_warm_up_steps=min(round(config.warmup * steps), steps - decay),
                lr_decay_steps=decay,
                device=str(stream.device),
                autocast=config.autocast,
                dead_feature_window=max(20, steps // 20),
            ),
            sae,
            stream,
        )
        self.config, self.stream, self.held_out = config, stream, held_out
        self.seconds = 0.0

    def advance(self) -> dict[str, Any] | None:
        """One optimizer step; a row of metrics where one is due."""
        began = time.monotonic()
        output = self.step(next(self.stream))
        if isinstance(self.sae, GatedSAE):
            self.sae.keep_unit_norm()
        self.n_training_steps += 1
        self.seconds += time.monotonic() - began
        step = self.n_training_steps
        if not torch.isfinite(output.loss):
            raise UserError(f"the loss is not finite at optimizer step {step}: lower --lr")
        if step % self.config.log_every and step != self.config.max_steps:
            return None
        named = self.build_train_step_log_dict(output, self.n_training_samples)
        kept = {name.split("/")[1]: value for name, value in named.items() if "legacy" not in name}
        return {"step": step, "epoch": self.stream.position.epoch, **kept, **self.unseen()}

    @torch.no_grad()
    def unseen(self) -> dict[str, float]:
        """FVU and L0 on rows of held-out puzzles (centred, so their size is their variance)."""
        if self.held_out is None:
            return {}
        acts = self.sae.encode(self.held_out)
        error = (self.sae.decode(acts) - self.held_out).square().sum()
        spread = (self.held_out - self.held_out.mean(0)).square().sum()
        l0 = (acts > 0).sum(-1).cpu().double().mean()
        return {"held_out_fvu": float(error / spread), "held_out_l0": float(l0)}

    @property
    def finished(self) -> bool:
        return self.n_training_steps >= self.config.max_steps

    def save(self, path: Path, identity: dict[str, Any]) -> None:
        """Weights, optimizer, schedules, counters, stream position and RNG: whole or absent."""
        path.parent.mkdir(parents=True, exist_ok=True)
        device = self.stream.device
        with tempfile.TemporaryDirectory() as folder:
            self.save_trainer_state(Path(folder))
            lens = torch.load(Path(folder) / "trainer_state.pt", weights_only=True)
        state = {
            "identity": identity,
            "sae": self.sae.state_dict(),
            "trainer": lens,
            "stream": stream_state(self.stream),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "seconds": self.seconds,
        }
        with replacing(path) as to:
            torch.save(state, to)

    def resume(self, path: Path, identity: dict[str, Any]) -> None:
        """Go on from a saved state. UserError names the settings that differ."""
        try:
            state = torch.load(path, map_location=self.stream.device, weights_only=True)
        except Exception as error:  # a truncated file makes torch raise many kinds
            raise UserError(f"{path}: truncated or damaged ({first_line(error)})") from None
        old = state["identity"]
        if differ := [k for k in {**old, **identity} if old.get(k) != identity.get(k)]:
            what = ", ".join(f"{k} {old.get(k)!r} there, {identity.get(k)!r} now" for k in differ)
            raise UserError(f"{path} is of another run ({what})")
        self.sae.load_state_dict(state["sae"])
        with tempfile.TemporaryDirectory() as folder:
            torch.save(state["trainer"], Path(folder) / "trainer_state.pt")
            self.activation_scaler.save(str(Path(folder) / "activation_scaler.json"))
            self.load_trainer_state(folder)
        self.stream.seek(Position(state["stream"]["epoch"], state["stream"]["offset"]))
        torch.set_rng_state(state["rng"].cpu())
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.stream.device)
        self.seconds = state["seconds"]


def held_out_rows(
    readers: Sequence[SiteReader], puzzles: np.ndarray, scaling: Scaling, config: TrainSAEConfig
) -> Float[Tensor, "row d_model"]:
    """At most a batch of rows of the first held-out puzzles, scaled as in training."""
    chosen = puzzles[:HELD_OUT_PUZZLES]
    rows = np.concatenate(
        [r.read(int(puzzle)).reshape(-1, r.d_model) for puzzle in chosen for r in readers]
    )
    picked = np.random.default_rng([config.seed, 0x4E1D]).permutation(len(rows))[
        : config.batch_size
    ]
    return (torch.from_numpy(rows[picked]).float() - scaling.mean) / scaling.scale


def save_inference(
    sae: TrainingSAE[Any], scaling: Scaling, known: dict[str, Any], out: Path
) -> None:
    """Write the files that `sae_lens.SAE.load_from_disk` opens; it then takes raw activations.

    Centre and scale are folded into the weights (x -> (x - mean) / scale in front of the encoder,
    and back behind the decoder), and kept in the metadata under `trm_interp`.
    """
    with torch.random.fork_rng(devices=[]):
        folded = copy.deepcopy(sae)
    folded.fold_activation_norm_scaling_factor(1 / scaling.scale)
    with torch.no_grad():
        folded.b_dec.add_(scaling.mean.to(folded.b_dec))
    kept = {"mean": scaling.mean.tolist(), "scale": scaling.scale}
    folded.cfg.metadata = SAEMetadata(
        model_name="TRM", hook_name=known["sites"][0], trm_interp={**known, "scaling": kept}
    )
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=SAVING) as folder:
        folded.cpu().save_inference_model(folder)
        config = json.loads((Path(folder) / "cfg.json").read_text())
        write_json(Path(folder) / "cfg.json", {**config, "device": "cpu"})
        for name in SAE_FILES:
            publish(Path(folder) / name, out / name)


def train_sae(
    config: TrainSAEConfig,
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, of: None,
    note: Callable[[str], None] = lambda text: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Everything that `trm-interp train-sae` does, into `config.out`; False if stopped early."""
    device = open_device(config.device)
    _check_output(config)
    with Store(config.store, allow_incomplete=True) as store:
        if not store.complete:
            tell(f"{store.path} is unfinished: using its {store.n_puzzles} complete puzzles")
        if not store.n_puzzles:
            raise UserError(f"{store.path} holds no complete puzzle yet")
        ticks = parse_indices(config.ticks, "ticks")
        readers = open_sites(store, config.sites, ticks)
        training, held_out = split_puzzles(store["inputs"][:], config.held_out, config.seed)
        solved = final_solved(store)[training] if config.balance else None
        first = puzzle_order(training, solved, config.seed, 0)
        stream = ActivationStream(
            config.store,
            config.sites,
            training,
            batch_size=config.batch_size,
            buffer_bytes=config.buffer_mb * 10**6,
            seed=config.seed,
            ticks=ticks,
            solved=solved,
            device=device,
        )
        stream.scaling = measure_scaling(readers, first[: config.stats_puzzles].tolist())
        unseen = held_out_rows(readers, held_out, stream.scaling, config).to(device)
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
        identity = {k: v for k, v in settings.items() if k not in FREE}
        identity |= {"store_sha256": store.sha256, "device": device.type}
        known = {
            "sites": config.sites,
            "ticks": sorted({i for reader in readers for i in reader.indices}),
            "arch": config.arch,
            "gated_variant": config.gated_variant if config.arch == "gated" else None,
            "seed": config.seed,
            "held_out": config.held_out,
            "n_train": len(training),
            "n_held_out": len(held_out),
            "train_boards": sorted(set(board_keys(store["inputs"][training]))),
            "solved_share_of_training": float(final_solved(store)[training].mean()),
            "store_sha256": store.sha256,
            "store_puzzles": store.n_puzzles,
            "checkpoint_sha256": store.checkpoint_sha256,
            "versions": {**versions(), "sae_lens": version("sae-lens")},
            "git_commit": git_commit(),
        }
    with stream:
        sae = make_sae(config, stream.d_model, device)
        trainer = Trainer(config, sae, stream, unseen)
        if config.resume and (config.out / STATE).exists():
            trainer.resume(config.out / STATE, identity)
            tell(f"resuming at optimizer step {trainer.n_training_steps} of {config.max_steps}")
        else:
            for left in config.out.glob(f"{SAVING}*"):  # of a run that was killed while it saved
                shutil.rmtree(left)
            for name in (STATE, METRICS, CARD, *SAE_FILES):
                (config.out / name).unlink(missing_ok=True)
        _loop(trainer, identity, progress, note, should_stop)
        if not trainer.finished:
            return False
        known["rows"] = trainer.n_training_samples
        known["d_sae"], known["d_in"] = sae.cfg.d_sae, sae.cfg.d_in
        scaling = stream.scaling
        save_inference(sae, scaling, known, config.out)
    card = {
        "sae": known,
        "settings": settings,
        "held_out": {**trainer.unseen(), "rows": len(unseen)},
        "command": " ".join(["trm-interp", *sys.argv[1:]]),
        "seconds": round(trainer.seconds, 1),
    }
    write_json(config.out / CARD, card)
    return True


def _loop(
    trainer: Trainer,
    identity: dict[str, Any],
    progress: Callable[[int, int], None],
    note: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> None:
    """Optimizer steps to the end, or until asked to stop; rows and states as they fall due."""
    config = trainer.config
    metrics, state = config.out / METRICS, config.out / STATE
    saved = trainer.n_training_steps
    odd_end = trainer.finished and saved % config.log_every > 0  # the last step has a row anyway
    keep_rows(metrics, saved // config.log_every + odd_end)
    progress(saved, config.max_steps)
    while not trainer.finished and not should_stop():
        row = trainer.advance()
        step = trainer.n_training_steps
        if row is not None:
            config.out.mkdir(parents=True, exist_ok=True)
            append_row(metrics, row)
            note(f"held-out FVU {row['held_out_fvu']:.3f}, L0 {row['held_out_l0']:.1f}")
        if step % config.save_every == 0:
            trainer.save(state, identity)
            saved = step
        progress(step, config.max_steps)
    if saved != trainer.n_training_steps:
        trainer.save(state, identity)


def _check_output(config: TrainSAEConfig) -> None:
    """UserError where `out` holds something else, or a run and neither flag is given."""
    out = config.out
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: choose another output")
    held = {file.name for file in out.iterdir()} if out.exists() else set()
    ours = held & {STATE, METRICS, CARD}
    if held and not ours:
        raise UserError(f"{out} is not empty and holds no SAE: choose another output")
    if ours and not (config.resume or config.overwrite):
        raise UserError(f"{out} exists: use --resume to go on or --overwrite to start anew")
    if config.resume and CARD in held and STATE not in held:
        raise UserError(f"{out / STATE} is missing: nothing to go on from")
