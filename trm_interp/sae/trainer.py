"""sae-lens' trainer on our stream: steps, metrics, dead features, states that resume exactly."""

import time
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAEConfig,
    StandardTrainingSAEConfig,
    TopKTrainingSAEConfig,
    TrainingSAE,
)
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.sae import TrainStepOutput
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from trm_interp.core.checkpoints.headers import check_archive, check_calls, is_archive, require_file
from trm_interp.core.ranks import Ranks
from trm_interp.runtime.errors import UserError, first_line, is_out_of_memory
from trm_interp.runtime.files import DiskError, replacing
from trm_interp.runtime.identity import require_same
from trm_interp.runtime.outputs import holds_only
from trm_interp.runtime.schema import convert
from trm_interp.runtime.shapes import Float
from trm_interp.sae.gated import GatedSAE
from trm_interp.sae.revive import resample
from trm_interp.sae.saved import METRICS, STATE, saving
from trm_interp.sae.settings import TrainSAEConfig
from trm_interp.sae.stream import ActivationStream, Position, stream_state
from trm_interp.sae.together import SharedBatchTopKSAE, Together

FIXED = {"max_steps": "a run cannot be extended, since its schedules depend on its length"}
SHARE_OF_DECAY = 0.2  # of the run, at its end, with a falling learning rate; nothing is revived
Count = Annotated[int, Meta(ge=0)]


@dataclass(frozen=True)
class _Place:
    epoch: Count
    offset: Count


@dataclass(frozen=True)
class _SAELensState:
    """The part of sae-lens' own state that is validated before it is loaded."""

    n_training_steps: Count
    n_training_samples: Count
    n_frac_active_samples: int
    act_freq_scores: Any
    n_forward_passes_since_fired: Any


@dataclass(frozen=True)
class _State:
    """`train_state.pt`. States from before features could be revived have no `revived`."""

    identity: dict[str, Any]
    sae: dict[str, Any]
    trainer: dict[str, Any]
    stream: _Place
    rng: Any
    cuda_rng: Any
    seconds: Annotated[float, Meta(ge=0)]
    revived: Count = 0


def make_sae(
    config: TrainSAEConfig, d_model: int, device: torch.device, ranks: Ranks | None = None
) -> TrainingSAE[Any]:
    """Fresh weights of the architecture asked for, a function of the seed alone. `ranks`: several
    processes that will train it together."""
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
        if ranks and config.arch == "batchtopk":
            return SharedBatchTopKSAE(made, ranks, config.batch_size)
        kind: Any = TrainingSAE.get_sae_class_for_architecture(config.arch)
        return kind(made)


class Trainer(SAETrainer[Any, Any]):
    """sae-lens' trainer without wandb and its bar, with a state that resumes to the same bits.

    `ranks`: several processes, each with its own stream, that train one SAE; None for one process.
    """

    sae: Any  # a TrainingSAE but in `_train_step`

    def __init__(
        self,
        config: TrainSAEConfig,
        sae: TrainingSAE[Any],
        stream: ActivationStream,
        held_out: Tensor | None = None,
        ranks: Ranks | None = None,
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
        self.together = Together(sae, ranks, config.batch_size) if ranks else None
        self.last_revival = steps - decay
        self.revived = 0  # features, each as often as it was
        self.fired = 0.0  # activations of the last batch, where several processes count them
        self.seconds = 0.0

    def advance(self) -> dict[str, Any] | None:
        """One optimizer step; a row of metrics where one is due."""
        began = time.monotonic()
        output = self.step(next(self.stream))
        if isinstance(self.sae, GatedSAE):
            self.sae.keep_unit_norm()
        self.n_training_steps += 1
        step = self.n_training_steps
        self.n_training_samples = step * self.config.batch_size  # of all processes
        if not torch.isfinite(output.loss):
            raise UserError(f"the loss is not finite at optimizer step {step}: lower --lr")
        revives = step <= self.last_revival and self.config.revives_at(step)
        has_row = step % self.config.log_every == 0 or step == self.config.max_steps
        if self.together and (revives or has_row):
            rows, places = (output.sae_in, output.sae_out), self.stream.places
            sae_in, sae_out = (self.together.whole(own, places) for own in rows)
            output = replace(output, sae_in=sae_in, sae_out=sae_out)
        if revives:
            self._revive(output.sae_in, output.sae_out)
        self.seconds += time.monotonic() - began
        return self._row(output) if has_row else None

    def _row(self, output: TrainStepOutput) -> dict[str, Any]:
        named = self.build_train_step_log_dict(output, self.n_training_samples)
        kept = {name.split("/")[1]: value for name, value in named.items() if "legacy" not in name}
        if self.together:
            kept["l0"] = self.fired / self.config.batch_size
        if self.config.revive != "none":
            kept["revived"] = self.revived
        own = {"step": self.n_training_steps, "epoch": self.stream.position.epoch}
        return {**own, **kept, **self.unseen()}

    def _train_step(self, sae: Any, sae_in: Tensor) -> TrainStepOutput:
        """sae-lens' own; of several processes, with the gradient and the counts of the batch."""
        if self.together is None:
            return super()._train_step(sae=sae, sae_in=sae_in)
        scores, since = self.act_freq_scores, self.n_forward_passes_since_fired.clone()
        self.act_freq_scores = torch.zeros_like(scores)
        self.sae = self.together  # which sends the forward pass through DDP
        try:
            output = super()._train_step(sae=sae, sae_in=sae_in)
        finally:
            self.sae = sae
        fired, output = self.together.totals(self.act_freq_scores, output)
        self.act_freq_scores = scores + fired
        self.n_forward_passes_since_fired = torch.where(fired > 0, 0, since + 1)
        self.fired = float(fired.sum())
        return output

    def _revive(self, rows: Tensor, reconstructed: Tensor) -> None:
        seed, step = self.config.seed, self.n_training_steps
        again = resample(
            self.sae, self.optimizer, rows, reconstructed, self.dead_neurons, seed, step
        )
        self.n_forward_passes_since_fired[again] = 0
        self.revived += int(again.sum())

    @torch.no_grad()
    def unseen(self) -> dict[str, float]:
        """FVU and L0 on rows of held-out puzzles of what would be saved now."""
        if self.held_out is None:
            return {}
        acts, before = self.sae.encode_with_hidden_pre(self.held_out)
        if isinstance(self.sae, BatchTopKTrainingSAE):  # k a row on average, only in training
            acts = before * ((before > 0) & (before > self.sae.topk_threshold))
        return fit_to(self.held_out, acts, self.sae.decode(acts))

    @property
    def finished(self) -> bool:
        return self.n_training_steps >= self.config.max_steps

    def save(self, path: Path, identity: dict[str, Any]) -> None:
        """Weights, optimizer, schedules, counters, stream position and RNG: whole or absent."""
        device = self.stream.device
        with saving(path.parent) as folder:
            self.save_trainer_state(folder)
            theirs = torch.load(folder / "trainer_state.pt", weights_only=True)
        state = {
            "identity": identity,
            "sae": self.sae.state_dict(),
            "trainer": theirs,
            "stream": stream_state(self.stream),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "seconds": self.seconds,
            "revived": self.revived,
        }
        with replacing(path) as to:
            torch.save(state, to)

    def resume(self, path: Path, identity: dict[str, Any]) -> None:
        """Go on from a saved state. UserError names the settings that differ."""
        state = _read_state(path)
        defaults = {
            f.name: f.default
            for f in fields(TrainSAEConfig)
            if f.name in identity and f.default is not MISSING
        }  # what a setting that came later would have been
        require_same(path, {**defaults, **state.identity}, identity, fixed=FIXED)
        try:
            self._take(state, path.parent)
        except DiskError:
            raise
        except Exception as error:  # wrong shapes, kinds and keys make torch raise many kinds
            if is_out_of_memory(error):
                raise
            why = first_line(error)[:120]
            raise UserError(f"{path}: damaged ({why}): start over with --overwrite") from None

    def _take(self, state: _State, out: Path) -> None:
        theirs = convert(state.trainer, _SAELensState, "trainer")
        if theirs.n_training_steps > self.config.max_steps:
            raise ValueError(f"step {theirs.n_training_steps} of {self.config.max_steps}")
        if theirs.n_training_samples != theirs.n_training_steps * self.config.batch_size:
            raise ValueError(f"{theirs.n_training_samples} rows in {theirs.n_training_steps} steps")
        for values in (theirs.act_freq_scores, theirs.n_forward_passes_since_fired):
            if values.shape != (self.sae.cfg.d_sae,):
                raise ValueError(f"counts of {len(values)} features")
        self.sae.load_state_dict(state.sae)
        with saving(out) as folder:  # of this process alone
            torch.save(state.trainer, folder / "trainer_state.pt")
            self.activation_scaler.save(str(folder / "activation_scaler.json"))
            self.load_trainer_state(folder)
        for weight, moments in self.optimizer.state.items():
            if any(moments[name].shape != weight.shape for name in ("exp_avg", "exp_avg_sq")):
                raise ValueError("the optimizer's moments have other shapes than the weights")
        self.stream.seek(Position(state.stream.epoch, state.stream.offset))
        torch.set_rng_state(state.rng.cpu())
        if state.cuda_rng is not None:
            torch.cuda.set_rng_state(state.cuda_rng.cpu(), self.stream.device)
        self.seconds, self.revived = state.seconds, state.revived


def fit_to(
    x: Float[Tensor, "row d_model"], acts: Float[Tensor, "row feature"], out: Tensor
) -> dict[str, float]:
    """Held-out FVU (of the rows' variance) and L0 of one reconstruction."""
    error = (out - x).square().sum()
    spread = (x - x.mean(0)).square().sum()
    l0 = (acts > 0).sum(-1).cpu().double().mean()
    return {"held_out_fvu": float(error / spread), "held_out_l0": float(l0)}


def is_run(folder: Path) -> bool:
    """Whether a folder without a marker holds a run of `train-sae`: by its state, safely read.

    One that was killed before its first save holds nothing but metrics.
    """
    if holds_only(folder, METRICS):
        return True
    try:
        _read_state(folder / STATE)
    except (UserError, OSError):
        return False
    return True


def _read_state(path: Path) -> _State:
    """A saved state, whose tensors stay in the file until they are used."""
    require_file(path)
    if not is_archive(path):
        raise UserError(f"{path}: truncated or damaged: start over with --overwrite")
    check_archive(path)
    check_calls(path)
    try:
        raw = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a truncated file makes torch raise many kinds
        if is_out_of_memory(error):
            raise
        raise UserError(f"{path}: truncated or damaged ({first_line(error)[:100]})") from None
    advice = "it is no state of `trm-interp train-sae`, or damaged: choose another output"
    return convert(raw, _State, str(path), advice=advice)
