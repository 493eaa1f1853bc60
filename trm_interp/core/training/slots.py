"""The batch in flight: every slot carries its puzzle and states, and is refilled when it halts.

All randomness is a hash of (seed, purpose, slot, draw or step): which puzzle, which symmetry,
exploration. Nothing here makes the host wait for the device.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from trm_interp.core.counter import hash64, uniform
from trm_interp.core.models.base import RecursiveModel, States
from trm_interp.core.training.settings import TrainConfig

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

    def to(self, device: torch.device) -> "TrainData":
        """The same with all tokens on a device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "augment"}
        return replace(self, **{name: tokens.to(device) for name, tokens in moved.items()})


def fingerprint(*tensors: Tensor) -> str:
    """sha256 of their values: a resumed run must read what the run it continues has read."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str(list(tensor.shape)).encode())
        digest.update(tensor.to("cpu", torch.int64).numpy().tobytes())
    return digest.hexdigest()


@dataclass
class Slots:
    """One process's slots, `index` counting over all processes."""

    states: States  # the model's, [slot, pos, d_model] each
    inputs: Tensor  # [slot, cell]
    labels: Tensor
    steps: Tensor  # int64 [slot], supervision steps done
    halted: Tensor  # bool [slot], refill before the next step
    draws: Tensor  # int64 [slot], puzzles drawn so far
    index: Tensor  # int64 [slot]

    def tensors(self) -> dict[str, Tensor]:
        """All of them by name, the states by theirs."""
        others = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "states"}
        return {**self.states._asdict(), **others}

    def read(self, saved: dict[str, Tensor], rank: int) -> "Slots":
        """Those of this process among the saved ones of all; ValueError for other shapes."""
        n = len(self.index)
        read: dict[str, Tensor] = {}
        for name, mine in self.tensors().items():
            read[name] = saved[name][n * rank : n * (rank + 1)].clone().to(mine.device)
            if read[name].shape != mine.shape:
                raise ValueError(f"{name} is {list(read[name].shape)}, not {list(mine.shape)}")
        states = type(self.states)(**{name: read.pop(name) for name in self.states._fields})
        return Slots(states=states, **read)

    @staticmethod
    def empty(model: RecursiveModel, tokens: Tensor, index: Tensor, dtype: torch.dtype) -> "Slots":
        """All halted, so that the first step fills them. `tokens` tells dtype and device."""
        config, device, n = model.config, tokens.device, len(index)
        state = torch.zeros(n, config.positions, config.d_model, dtype=dtype, device=device)
        zeros = torch.zeros(n, dtype=torch.int64, device=device)
        return Slots(
            states=model.State(*(torch.zeros_like(state) for _ in model.state_names)),
            inputs=torch.zeros(n, config.cells, dtype=tokens.dtype, device=device),
            labels=torch.zeros(n, config.cells, dtype=tokens.dtype, device=device),
            steps=zeros,
            halted=torch.ones(n, dtype=torch.bool, device=device),
            draws=zeros.clone(),
            index=index,
        )

    @torch.no_grad()
    def refilled(
        self,
        model: RecursiveModel,
        inputs: Tensor,
        labels: Tensor,
        augment: Augment | None,
        seed: int,
    ) -> "Slots":
        """New puzzles, drawn with replacement, and fresh states for the slots that halted."""
        new = self.halted
        bits = hash64(seed, PICK, self.index, self.draws)
        pick = (bits & 0x7FFF_FFFF_FFFF_FFFF) % len(inputs)
        inputs, labels = inputs[pick], labels[pick]
        if augment is not None:
            inputs, labels = augment(inputs, labels, hash64(seed, SYMMETRY, self.index, self.draws))
        fresh = model.initial_state(self.states[0])
        return replace(
            self,
            inputs=torch.where(new[:, None], inputs, self.inputs),
            labels=torch.where(new[:, None], labels, self.labels),
            states=type(fresh)(
                *(
                    torch.where(new[:, None, None], start, z)
                    for start, z in zip(fresh, self.states, strict=True)
                )
            ),
            steps=torch.where(new, 0, self.steps),
            draws=self.draws + new,
        )

    @torch.no_grad()
    def advanced(
        self, states: States, q_halt: Tensor, step: Tensor | int, config: TrainConfig, last: int
    ) -> "Slots":
        """After optimizer step `step`: halt at q_halt > 0 or after `last` supervision steps.

        Some slots, by chance `config.explore`, must run to a random supervision step first.
        """
        seed = config.seed
        steps = self.steps + 1
        explores = uniform(seed, EXPLORE, self.index, step) < config.explore
        share = uniform(seed, EXPLORE_STEPS, self.index, step)
        at_least = torch.where(explores, (2 + (share * (last - 1)).long()).clamp(max=last), 0)
        return replace(
            self,
            states=type(states)(*(z.detach() for z in states)),
            steps=steps,
            halted=((steps >= last) | (q_halt > 0)) & (steps >= at_least),
        )

    def restarted(self) -> "Slots":
        """All halted: the puzzles in flight are given up, and new ones drawn at the next step."""
        return replace(
            self,
            states=type(self.states)(*(torch.zeros_like(z) for z in self.states)),
            inputs=torch.zeros_like(self.inputs),
            labels=torch.zeros_like(self.labels),
            steps=torch.zeros_like(self.steps),
            halted=torch.ones_like(self.halted),
        )
