"""Training: deep supervision over slots that halt one by one (TRM, arXiv 2510.04871).

Every slot of the batch carries its puzzle, its states and its step count. One optimizer step is
one supervision step of every slot; a slot that halted is refilled first. All randomness (which
puzzle, which symmetry, exploration) is a hash of (seed, purpose, slot, draw or step), so a run is
a pure function of its settings, needs no generator state, and does not depend on how many
processes share the batch. Inside `step` the host never waits for the device.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trm_interp.core.checkpoints.folder import STATE as STATE_FILE
from trm_interp.core.compiling import Mender, compile_networks
from trm_interp.core.devices import has_float64, widest
from trm_interp.core.infer import run
from trm_interp.core.models.config import ModelConfig
from trm_interp.core.models.registry import build, settings_of
from trm_interp.core.ranks import Ranks, with_mean_gradients
from trm_interp.core.training.exported import export
from trm_interp.core.training.fusing import Fusing
from trm_interp.core.training.gradients import Stepped, backward_in_parts
from trm_interp.core.training.graphs import GraphedStep, Metrics, Phase
from trm_interp.core.training.guards import FirstBad, no_memory
from trm_interp.core.training.optimizers import (
    WeightAverage,
    clip_gradients,
    depth,
    easiest,
    load_optimizer,
    lr_factor,
    make_optimizers,
    set_rates,
    supervision_steps,
)
from trm_interp.core.training.settings import TrainConfig
from trm_interp.core.training.slots import Slots, TrainData, fingerprint
from trm_interp.core.training.states import (
    MAY_CHANGE_ON_RESUME,
    changed_settings,
    read_state,
    require_shapes,
    restoring,
)
from trm_interp.runtime.errors import UserError, is_out_of_memory
from trm_interp.runtime.files import replacing

METRICS = ("answer", "halt", "solved", "halted", "halted_solved", "halted_steps", "grad_norm")


class Trainer:
    """One training run in `out`: step, validate, save, resume.

    `out` is, from the first save after a validation on, a checkpoint folder of the best average.
    """

    def __init__(
        self,
        model_config: ModelConfig,
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
        self.model = build(model_config, generator).to(self.device)
        data = data.read_by(model_config)
        self.data = data.to(self.device)
        if config.easy_until and data.easy_first is None:
            raise ValueError("easy_until needs puzzles that their task can rate")
        # a tensor, so that a CUDA graph sees it change
        self.easiest = torch.tensor(1, device=self.device) if config.easy_until else None
        self.tell: Callable[[str], None] = lambda line: None
        tell = lambda line: self.tell(line)  # noqa: E731 (replaced later)
        # one graph for each batch size: a graph for any size would give other bits, so that a run
        # that has validated (its last batch is smaller) and a resumed one would differ
        self.mender: Mender | None = None
        if config.compile:
            # of several processes each would wait for the others in another step
            gave_up = self._compiles_no_more if self.ranks.size == 1 else None
            self.mender = compile_networks(self.model.networks(), False, tell, gave_up)
        self.forward: nn.Module = self.model
        if self.ranks.size > 1:
            # the buffers are the start vectors, which never change
            self.forward = with_mean_gradients(self.model)
        self.optimizers = make_optimizers(self.model, config)
        self.average = WeightAverage(self.model, config.ema)
        self.dtype = getattr(torch, config.dtype)
        self.trained_on = fingerprint(data.inputs, data.labels, data.identifiers)
        self.validated_on = fingerprint(data.val_inputs, data.val_labels, data.val_identifiers)
        self._set_counters()
        n = config.batch_size // self.ranks.size
        index = torch.arange(n, device=self.device) + n * self.ranks.rank
        self.slots = Slots.empty(self.model, self.data, index, self.dtype)
        self.fusing = Fusing(self) if config.fused_mixer else None
        self.graphed: GraphedStep | None = None
        alone_on_gpu = self.ranks.size == 1 and self.device.type == "cuda"
        if config.graphs and config.compile and alone_on_gpu:
            self.graphed = GraphedStep(self._device_step, self.places, tell)

    def _set_counters(self) -> None:
        """Where a run stands that has not begun."""
        self.step_count = 0
        self.phase = Phase(self.model.config.depth, self.config.n_sup)  # of the last step
        self.clock = torch.zeros((), dtype=torch.int64, device=self.device)  # the same, there
        self.seconds = 0.0
        self.rows = 0  # of metrics.jsonl
        # what a step gives, in this order
        self.metrics = (*METRICS, *self.model.further_losses, *self.model.measures)
        self.sums = torch.zeros(len(self.metrics), dtype=widest(self.device), device=self.device)
        self.summed_steps = 0  # in `sums`, since the last row
        self.validated_at = -1
        self.best: dict[str, Any] = {"exact": -1.0, "loss": float("inf")}
        self.best_weights: list[Tensor] = []
        self.changes: list[dict[str, Any]] = []
        self.micro_batches = self.config.micro_batches
        self.first_bad = FirstBad(self.model, self.device)

    # one optimizer step

    def fraction(self) -> float:
        """Share of the run that is used, by steps or by wall clock."""
        if self.config.budget is not None:
            return self.seconds / (60 * self.config.budget)
        return self.step_count / self.config.steps

    def finished(self) -> bool:
        """The steps or the wall clock are used up, or the target is reached."""
        reached = self.config.target > 0 and self.best["exact"] >= self.config.target
        return reached or self.fraction() >= 1

    def step(self) -> Metrics:
        """One supervision step of every slot and one update. Metrics stay on the device."""
        used = self.fraction()
        cycles = depth(self.config, used, self.model.config.depth)
        self.phase = Phase(cycles, supervision_steps(self.config, used))
        set_rates(self.optimizers, lr_factor(self.config, used))
        if self.fusing is not None:
            self.fusing.before_step()
        if self.easiest is not None:
            self.easiest.fill_(easiest(self.config, used, len(self.data.inputs)))
        metrics = (self.graphed or self._device_step)(self.phase)
        self.step_count += 1
        return metrics

    def _device_step(self, phase: Phase) -> Metrics:
        """What a step does on the device: no host value in it changes from step to step."""
        config = self.config
        apart = phase.n_sup if config.stagger else None
        slots = self.slots.refilled(
            self.model, self.data, config.seed, config.augment, self.easiest, apart
        )
        states, halts, losses, measures = self._gradients(slots, phase)
        norms = clip_gradients(self.model.parameters(), config.clip or float("inf"))
        every = sum(losses.further.values(), losses.answer + losses.halt)
        self.first_bad.note(self.clock + 1, norms, every)
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update()
        slots = slots.advanced(states, halts, self.clock, config, phase.n_sup)
        self.clock += 1
        self.put(slots)
        done = slots.halted.float()
        return {
            "answer": losses.answer.sum(),
            "halt": losses.halt.sum(),
            "solved": losses.solved.sum(),
            "halted": done.sum(),
            "halted_solved": (losses.solved * done).sum(),
            "halted_steps": (slots.steps * done).sum(),
            "grad_norm": norms.norm() / self.ranks.size,
            **{name: term.sum() for name, term in {**losses.further, **measures}.items()},
        }

    def places(self) -> list[Tensor]:
        """Everything that a step changes."""
        moments = [
            value
            for optimizer in self.optimizers
            for kept in optimizer.state.values()
            for value in kept.values()
            if torch.is_tensor(value)
        ]
        weights = [p.detach() for p in self.model.parameters()]
        slots = list(self.slots.tensors().values())
        return [*weights, *self.average.mean, *moments, *slots, self.clock, self.first_bad.noted]

    def put(self, slots: Slots) -> None:
        """These are the slots from now on; in place, where a graph will look for them."""
        if self.graphed is None:
            self.slots = slots
            return
        new = slots.tensors()
        for name, kept in self.slots.tensors().items():
            kept.copy_(new[name])

    def _gradients(self, slots: Slots, phase: Phase) -> Stepped:
        """Leave the batch's gradient in the weights; what the step came to."""
        while True:
            for parameter in self.model.parameters():
                parameter.grad = None
            try:
                parts, processes = self.micro_batches, self.ranks.size
                how = (slots, phase, self.config, parts, processes)
                done = backward_in_parts(self.model, self.forward, *how)
                if self.mender:
                    self.mender.is_proven = True
                return done
            except Exception as error:
                if not is_out_of_memory(error):
                    # a backward pass is compiled here; several processes would lose their step
                    if self.ranks.size == 1 and self.mender and self.mender.mend(error):
                        continue
                    raise
                if self.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
                    raise
            self._take_less_memory(len(slots.index))

    def _compiles_no_more(self) -> None:
        """The card tells from which step on the networks ran as they are."""
        self.changes.append({"after_step": self.step_count, "compile": [True, False]})

    def _take_less_memory(self, slots: int) -> None:
        """Twice the micro-batches. UserError where that is not allowed or does not help."""
        problem = no_memory(self.device, slots, self.micro_batches)
        one_by_one = self.micro_batches >= slots
        if not self.config.auto_batch or one_by_one or self.ranks.size > 1:
            auto = "--auto-batch (one process), " if self.ranks.size == 1 else ""
            raise UserError(
                f"{problem}: try {auto}--micro-batches {2 * self.micro_batches} or a smaller "
                "--batch-size"
            )
        self.micro_batches *= 2
        self.tell(f"{problem}: going on with {self.micro_batches} micro-batches")
        torch._dynamo.reset()  # another size, another graph; there is a limit to their number

    def check(self) -> None:
        """UserError where loss or gradient have not been finite. Waits for the device."""
        self.first_bad.check(self.out)

    # validation

    def validate(self) -> dict[str, Any]:
        """Average weights on the held-out puzzles; keeps them when they are the best so far.

        Best: most puzzles solved after the last step, then the lowest loss.
        """
        self.check()
        mine = slice(self.ranks.rank, None, self.ranks.size)
        identifiers = self.data.val_identifiers
        with self.average:
            read = run(
                self.model,
                self.data.val_inputs[mine],
                self.data.val_labels[mine],
                self.config.n_sup,
                batch_size=max(1, self.config.batch_size // self.ranks.size),
                dtype=self.dtype,
                identifiers=None if identifiers is None else identifiers[mine],
            )
        sums = torch.cat([read.solved.double().sum(0), read.loss.double().sum(0)])
        sums = sums.to(self.device, widest(self.device))
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
        slots = {k: self.ranks.gather(v) for k, v in self.slots.tensors().items()}
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
            "micro_batches": self.micro_batches,
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
        model = settings_of(self.model.config)
        return {
            "data": self.trained_on,
            **model,
            **{f"train.{k}": v for k, v in settings.items()},
        }

    def save(self) -> None:
        """Write the resumable state, then the checkpoint of the best average. Atomic, rank 0."""
        self.check()
        state = self.state()
        if self.ranks.rank == 0:
            self.out.mkdir(parents=True, exist_ok=True)
            with replacing(self.out / STATE_FILE) as to:
                torch.save(state, to)
            if self.best_weights:
                self.export()

    def export(self) -> None:
        """Write the checkpoint of the best average."""
        export(self, self.out, self.best_weights, {"validation": self.best})

    def training_card(self) -> dict[str, Any]:
        """How the model was trained up to this step, for the card of a checkpoint."""
        return {
            "train": {
                **asdict(self.config),
                "steps_done": self.step_count,
                "changes_on_resume": self.changes,
                "puzzles": len(self.data.inputs),
                "data_sha256": self.trained_on,
                "processes": self.ranks.size,
            },
            **self.provenance,
            "times": {"training_s": round(self.seconds, 1)},
        }

    def resume(self) -> None:
        """Go on from the saved state. UserError names the settings that differ."""
        file = self.out / STATE_FILE
        # a state of another device may hold float64, which this one may not have
        state = read_state(file, self.device if has_float64(self.device) else "cpu")
        self.restore(state, file)
        with restoring(file):
            best = state["best_weights"] if self.best["exact"] >= 0 else []
            if best:
                require_shapes(best, self.average.mean, "best_weights", file)
            self.best_weights = [weights.to(self.device) for weights in best]
            self.slots = self.slots.read(state["slots"], self.ranks.rank)

    def restore(self, state: dict[str, Any], file: Path) -> None:
        """All of a state but the slots and the best weights. UserError if it is another run's."""
        with restoring(file):
            self._restore(state, file)

    def _restore(self, state: dict[str, Any], file: Path) -> None:
        changed = changed_settings(state, self.identity(), self.config, file, self.tell)
        self.step_count, self.seconds = state["step"], state["seconds"]
        self.clock.fill_(self.step_count)
        self.changes = state["changes"]
        if changed:
            self.changes.append({"after_step": self.step_count, **changed})
        if "micro_batches" not in changed:  # what --auto-batch found
            self.micro_batches = state.get("micro_batches", 1)
        self.model.load_state_dict(state["model"])
        require_shapes(state["average"], self.average.mean, "average", file)
        self.average.mean = [mean.to(self.device) for mean in state["average"]]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            load_optimizer(optimizer, saved)
        self.rows, self.validated_at = state["rows"], state["validated_at"]
        if self.ranks.rank == 0:
            self.sums = state["sums"].to(self.device, self.sums.dtype)
        self.summed_steps = state["summed_steps"]
        if state["validated_on"] == self.validated_on:
            self.best = state["best"]
        else:  # measured on other puzzles: does not compare
            self.validated_at = -1
