"""Training: deep supervision over slots that halt one by one (TRM, arXiv 2510.04871).

Every slot of the batch carries its puzzle, its states and its step count. One optimizer step is
one supervision step of every slot; a slot that halted is refilled first. All randomness (which
puzzle, which symmetry, exploration) is a hash of (seed, purpose, slot, draw or step), so a run is
a pure function of its settings, needs no generator state, and does not depend on how many
processes share the batch. Inside `step` the host never waits for the device.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trm_interp.core.checkpoint import save_checkpoint
from trm_interp.core.config import TrainConfig, TRMConfig
from trm_interp.core.counter import hash64, uniform
from trm_interp.core.infer import run
from trm_interp.core.loss import step_losses
from trm_interp.core.model import TRM, State
from trm_interp.core.optim import Average, depth, lr_factor, make_optimizers
from trm_interp.core.ranks import Ranks
from trm_interp.errors import UserError, first_line
from trm_interp.files import replacing

STATE_FILE = "train_state.pt"
# none of these changes the weights of a step that is done; `ema` changes the average only
MAY_CHANGE_ON_RESUME = (
    "steps",
    "budget",
    "target",
    "eval_every",
    "save_every",
    "log_every",
    "compile",
    "ema",
)
METRICS = ("answer", "halt", "solved", "halted", "halted_solved", "halted_steps", "grad_norm")
PICK, SYMMETRY, EXPLORE, EXPLORE_STEPS = range(4)  # purposes of a random number

Augment = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class TrainData:
    """Integer tokens [puzzle, cell].

    `augment(inputs, labels, keys)` gives every puzzle under the random symmetry its key names.
    """

    inputs: Tensor
    labels: Tensor
    val_inputs: Tensor
    val_labels: Tensor
    augment: Augment | None = None


def fingerprint(*tensors: Tensor) -> str:
    """sha256 of their values: a resumed run must read what the run it continues has read."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str(list(tensor.shape)).encode())
        digest.update(tensor.to("cpu", torch.int64).numpy().tobytes())
    return digest.hexdigest()


@dataclass
class Slots:
    """The batch in flight: this process's slots, `index` counting over all processes."""

    z_H: Tensor  # [slot, pos, d_model]
    z_L: Tensor
    inputs: Tensor  # [slot, cell]
    labels: Tensor
    steps: Tensor  # int64 [slot], supervision steps done
    halted: Tensor  # bool [slot], refill before the next step
    draws: Tensor  # int64 [slot], puzzles drawn so far
    index: Tensor  # int64 [slot]


class Trainer:
    """One training run in `out`: step, validate, save, resume.

    `out` is, from the first save after a validation on, a checkpoint folder of the best average.
    """

    def __init__(
        self,
        model_config: TRMConfig,
        config: TrainConfig,
        data: TrainData,
        out: Path,
        device: torch.device | str = "cpu",
        provenance: dict[str, Any] | None = None,
    ) -> None:
        self.config, self.out, self.provenance = config, Path(out), provenance or {}
        self.device = torch.device(device)
        self.ranks = Ranks(self.device)
        if config.batch_size % self.ranks.size:
            raise ValueError(
                f"batch_size {config.batch_size} does not divide over {self.ranks.size} processes"
            )
        if len(data.val_inputs) < self.ranks.size:
            raise ValueError(f"{len(data.val_inputs)} validation puzzles, need one a process")
        generator = torch.Generator().manual_seed(config.seed)
        self.model = TRM(model_config, generator).to(self.device)
        self.data = replace(
            data,
            **{
                name: getattr(data, name).to(self.device)
                for name in ("inputs", "labels", "val_inputs", "val_labels")
            },
        )
        if config.compile:
            # one graph for each batch size: a graph for any size would give other bits, so that a
            # run that has validated (its last batch is smaller) and a resumed one would differ
            self.model.net.compile(dynamic=False)
        self.forward: nn.Module = self.model
        if self.ranks.size > 1:
            self.forward = DistributedDataParallel(self.model)
        self.optimizers = make_optimizers(self.model, config)
        self.average = Average(self.model, config.ema)
        self.dtype = getattr(torch, config.dtype)
        self.trained_on = fingerprint(data.inputs, data.labels)
        self.validated_on = fingerprint(data.val_inputs, data.val_labels)
        self.step_count = 0
        self.seconds = 0.0
        self.rows = 0  # of metrics.jsonl
        self.sums = torch.zeros(len(METRICS), dtype=torch.float64, device=self.device)
        self.summed_steps = 0  # in `sums`, since the last row
        self.validated_at = -1
        self.best: dict[str, Any] = {"exact": -1.0, "loss": float("inf")}
        self.best_weights: list[Tensor] = []
        self.changes: list[dict[str, Any]] = []
        self.slots = self._empty_slots()

    # one optimizer step

    def _empty_slots(self) -> Slots:
        """All halted, so that the first step fills them."""
        n = self.config.batch_size // self.ranks.size
        config = self.model.config
        state = (n, config.positions, config.d_model)
        cells = torch.zeros(n, config.cells, dtype=self.data.inputs.dtype, device=self.device)
        zeros = torch.zeros(n, dtype=torch.int64, device=self.device)
        return Slots(
            z_H=torch.zeros(state, dtype=self.dtype, device=self.device),
            z_L=torch.zeros(state, dtype=self.dtype, device=self.device),
            inputs=cells,
            labels=cells.clone(),
            steps=zeros,
            halted=torch.ones(n, dtype=torch.bool, device=self.device),
            draws=zeros.clone(),
            index=torch.arange(n, device=self.device) + n * self.ranks.rank,
        )

    @torch.no_grad()
    def _refill(self) -> None:
        """New puzzles, drawn with replacement, and fresh states for the slots that halted."""
        slots, seed, new = self.slots, self.config.seed, self.slots.halted
        bits = hash64(seed, PICK, slots.index, slots.draws)
        pick = (bits & 0x7FFF_FFFF_FFFF_FFFF) % len(self.data.inputs)
        inputs, labels = self.data.inputs[pick], self.data.labels[pick]
        if self.data.augment is not None and self.config.augment:
            keys = hash64(seed, SYMMETRY, slots.index, slots.draws)
            inputs, labels = self.data.augment(inputs, labels, keys)
        slots.inputs = torch.where(new[:, None], inputs, slots.inputs)
        slots.labels = torch.where(new[:, None], labels, slots.labels)
        start_H, start_L = self.model.z_H_init.to(self.dtype), self.model.z_L_init.to(self.dtype)
        slots.z_H = torch.where(new[:, None, None], start_H, slots.z_H)
        slots.z_L = torch.where(new[:, None, None], start_L, slots.z_L)
        slots.steps = torch.where(new, 0, slots.steps)
        slots.draws = slots.draws + new

    @torch.no_grad()
    def _halt(self, q_halt: Tensor) -> None:
        """Halt at q_halt > 0 or the last step; some slots must run to a random step first."""
        slots, seed, last = self.slots, self.config.seed, self.config.n_sup
        slots.steps = slots.steps + 1
        explores = uniform(seed, EXPLORE, slots.index, self.step_count) < self.config.explore
        share = uniform(seed, EXPLORE_STEPS, slots.index, self.step_count)
        at_least = torch.where(explores, (2 + (share * (last - 1)).long()).clamp(max=last), 0)
        slots.halted = ((slots.steps >= last) | (q_halt > 0)) & (slots.steps >= at_least)

    def fraction(self) -> float:
        """Share of the run that is used, by steps or by wall clock."""
        if self.config.budget is not None:
            return self.seconds / (60 * self.config.budget)
        return self.step_count / self.config.steps

    def finished(self) -> bool:
        """The steps or the wall clock are used up, or the target is reached."""
        reached = self.config.target > 0 and self.best["exact"] >= self.config.target
        return reached or self.fraction() >= 1

    def step(self) -> dict[str, Tensor]:
        """One supervision step of every slot and one update. Metrics stay on the device."""
        used = self.fraction()
        self._refill()
        slots = self.slots
        cycles = depth(self.config, used, (self.model.config.h_cycles, self.model.config.l_cycles))
        state, logits, q_halt = self.forward(
            State(slots.z_H, slots.z_L), slots.inputs, self.dtype, cycles
        )
        losses = step_losses(logits, q_halt, slots.labels, self.config.loss, self.config.smoothing)
        total = (losses.answer + self.config.halt_weight * losses.halt).sum()
        # DDP averages over processes: the sum over the global batch, divided by its size
        (total * self.ranks.size / self.config.batch_size).backward()
        limit = self.config.clip or float("inf")
        grad_norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        factor = lr_factor(self.config, used)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.average.update()
        slots.z_H, slots.z_L = state.z_H.detach(), state.z_L.detach()
        self._halt(q_halt.detach())
        self.step_count += 1
        with torch.no_grad():
            done = slots.halted.float()
            return {
                "answer": losses.answer.detach().sum(),
                "halt": losses.halt.detach().sum(),
                "solved": losses.solved.sum(),
                "halted": done.sum(),
                "halted_solved": (losses.solved * done).sum(),
                "halted_steps": (slots.steps * done).sum(),
                "grad_norm": grad_norm.detach() / self.ranks.size,
            }

    # validation

    def validate(self) -> dict[str, Any]:
        """Average weights on the held-out puzzles; keeps them when they are the best so far.

        Best: most puzzles solved after the last step, then the lowest loss.
        """
        mine = slice(self.ranks.rank, None, self.ranks.size)
        with self.average:
            read = run(
                self.model,
                self.data.val_inputs[mine],
                self.data.val_labels[mine],
                self.config.n_sup,
                batch_size=max(1, self.config.batch_size // self.ranks.size),
                dtype=self.dtype,
            )
        sums = torch.cat([read.solved.double().sum(0), read.loss.double().sum(0)]).to(self.device)
        means = (self.ranks.total(sums) / len(self.data.val_inputs)).tolist()
        exact, loss = means[: self.config.n_sup], means[self.config.n_sup :]
        self.validated_at = self.step_count
        row = {"step": self.step_count, "val_exact": exact, "val_loss": loss[-1]}
        if (exact[-1], -loss[-1]) > (self.best["exact"], -self.best["loss"]):
            self.best = {
                "exact": exact[-1],
                "loss": loss[-1],
                "step": self.step_count,
                "exact_at_step": exact,
                "n": len(self.data.val_inputs),
            }
            self.best_weights = [mean.clone() for mean in self.average.mean]
        return row

    # state

    def state(self) -> dict[str, Any]:
        slots = {k: self.ranks.gather(v) for k, v in vars(self.slots).items()}
        return {
            "identity": self.identity(),
            "settings": asdict(self.config),
            "changes": self.changes,
            "step": self.step_count,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "average": self.average.mean,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "slots": slots,
            "rows": self.rows,
            "sums": self.ranks.total(self.sums.clone()),
            "summed_steps": self.summed_steps,
            "validated_on": self.validated_on,
            "validated_at": self.validated_at,
            "best": self.best,
            "best_weights": self.best_weights,
        }

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with the one that wrote the state."""
        settings = asdict(self.config)
        for name in MAY_CHANGE_ON_RESUME:
            del settings[name]
        model = asdict(self.model.config)
        return {
            "data": self.trained_on,
            **model,
            **{f"train.{k}": v for k, v in settings.items()},
        }

    def save(self) -> None:
        """Write the resumable state, then the checkpoint of the best average. Atomic, rank 0."""
        state = self.state()
        if self.ranks.rank == 0:
            self.out.mkdir(parents=True, exist_ok=True)
            with replacing(self.out / STATE_FILE) as to:
                torch.save(state, to)
            if self.best_weights:
                self.export()

    def export(self) -> None:
        kept = self.average.mean
        self.average.mean = self.best_weights
        with self.average:
            card = {
                "validation": self.best,
                "train": {
                    **asdict(self.config),
                    "steps_done": self.step_count,
                    "changes_on_resume": self.changes,
                    "seconds": round(self.seconds, 1),
                    "puzzles": len(self.data.inputs),
                    "data_sha256": self.trained_on,
                    "processes": self.ranks.size,
                },
                **self.provenance,
            }
            save_checkpoint(self.out, self.model, card)
        self.average.mean = kept

    def resume(self) -> None:
        """Go on from the saved state. UserError names the settings that differ."""
        file = self.out / STATE_FILE
        try:
            state = torch.load(file, map_location=self.device, weights_only=True)
        except Exception as error:  # a truncated file makes torch raise many kinds
            raise UserError(f"{file}: truncated or damaged ({first_line(error)})") from None
        old, new = state["identity"], self.identity()
        if differ := [k for k in {**old, **new} if old.get(k) != new.get(k)]:
            what = ", ".join(f"{k} {old.get(k)!r} -> {new.get(k)!r}" for k in differ)
            raise UserError(f"{file} is of another run ({what})")
        self.step_count, self.seconds = state["step"], state["seconds"]
        before, now = asdict(TrainConfig()) | state["settings"], asdict(self.config)
        changed = {k: [before[k], now[k]] for k in MAY_CHANGE_ON_RESUME if before[k] != now[k]}
        self.changes = state["changes"]
        if changed:
            self.changes.append({"after_step": self.step_count, **changed})
        self.model.load_state_dict(state["model"])
        self.average.mean = state["average"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        n = len(self.slots.index)
        mine = slice(n * self.ranks.rank, n * (self.ranks.rank + 1))
        self.slots = Slots(**{k: v[mine].clone() for k, v in state["slots"].items()})
        self.rows, self.validated_at = state["rows"], state["validated_at"]
        self.sums = state["sums"] if self.ranks.rank == 0 else torch.zeros_like(self.sums)
        self.summed_steps = state["summed_steps"]
        if state["validated_on"] == self.validated_on:
            self.best, self.best_weights = state["best"], state["best_weights"]
        else:  # measured on other puzzles: does not compare
            self.validated_at = -1
