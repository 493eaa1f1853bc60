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
from trm_interp.core.infer import identifiers_for
from trm_interp.core.models.base import RecursiveModel, States
from trm_interp.core.models.config import ModelConfig
from trm_interp.core.training.settings import TrainConfig

PICK, SYMMETRY, EXPLORE, EXPLORE_STEPS, EASY, START, NOISE = range(7)  # purposes of a random number

Augment = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class TrainData:
    """Integer tokens [puzzle, cell]; identifiers int64 [puzzle], where puzzles have them.

    `augment(inputs, labels, keys)` gives every puzzle under the random symmetry its key names; its
    identifier stays. `easy_first` is int64 [puzzle]: their order from the easiest to the hardest.
    """

    inputs: Tensor
    labels: Tensor
    val_inputs: Tensor
    val_labels: Tensor
    augment: Augment | None = None
    identifiers: Tensor | None = None
    val_identifiers: Tensor | None = None
    easy_first: Tensor | None = None

    def to(self, device: torch.device) -> "TrainData":
        """The same with all tensors on a device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {name: of.to(device) for name, of in values.items() if isinstance(of, Tensor)}
        return replace(self, **moved)

    def read_by(self, config: ModelConfig) -> "TrainData":
        """The same with identifiers only where models of this configuration read them.

        ValueError for an identifier that they do not know.
        """
        own = identifiers_for(config, self.identifiers, len(self.inputs))
        val = identifiers_for(config, self.val_identifiers, len(self.val_inputs))
        return replace(self, identifiers=own, val_identifiers=val)


def fingerprint(*tensors: Tensor | None) -> str:
    """sha256 of their values: a resumed run must read what the run it continues has read.

    What is None counts for nothing.
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        if tensor is None:
            continue
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
    cut: Tensor  # int64 [slot], supervision steps that its puzzle is stopped early
    identifiers: Tensor | None = None  # int64 [slot], where the model reads them

    def tensors(self) -> dict[str, Tensor]:
        """All that are there by name, the states by theirs."""
        others = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "states"}
        there = {name: value for name, value in others.items() if value is not None}
        return {**self.states._asdict(), **there}

    def keys(self, seed: int) -> Tensor:
        """int64 [slot]: names of the random numbers of the next supervision step."""
        return hash64(seed, NOISE, self.index, self.draws, self.steps)

    def rows(self, at: Tensor) -> "Slots":
        """Some of the slots."""
        return self._with({name: value[at] for name, value in self.tensors().items()})

    def _with(self, tensors: dict[str, Tensor]) -> "Slots":
        """The same with other values for all `tensors`."""
        names = self.states._fields
        states = type(self.states)(*(tensors[name] for name in names))
        others = {name: value for name, value in tensors.items() if name not in names}
        return replace(self, states=states, **others)

    def read(self, saved: dict[str, Tensor], rank: int) -> "Slots":
        """Those of this process among the saved ones of all; ValueError for other shapes."""
        n = len(self.index)
        read: dict[str, Tensor] = {}
        for name, mine in self.tensors().items():
            if name == "cut" and name not in saved:  # of an earlier version
                saved = {**saved, name: torch.zeros_like(saved["steps"])}
            read[name] = saved[name][n * rank : n * (rank + 1)].clone().to(mine.device)
            if read[name].shape != mine.shape:
                raise ValueError(f"{name} is {list(read[name].shape)}, not {list(mine.shape)}")
        return self._with(read)

    @staticmethod
    def empty(model: RecursiveModel, data: TrainData, index: Tensor, dtype: torch.dtype) -> "Slots":
        """All halted, so that the first step fills them from `data`, on its device.

        ValueError where a state of the model has the name of what else a slot holds.
        """
        if taken := {f.name for f in fields(Slots)} & set(model.state_names):
            raise ValueError(f"{model.architecture}: a state cannot be called {min(taken)!r}")
        tokens = data.inputs
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
            cut=zeros.clone(),
            identifiers=None if data.identifiers is None else zeros.clone(),
        )

    @torch.no_grad()
    def refilled(
        self,
        model: RecursiveModel,
        data: TrainData,
        seed: int,
        augment: bool = False,
        easiest: Tensor | None = None,
        apart: int | None = None,
    ) -> "Slots":
        """New puzzles, drawn with replacement, and fresh states for the slots that halted.

        With `augment` each under a random symmetry, where the data has them. With `easiest` (int64
        scalar) half of the draws are of that many of the easiest puzzles. With `apart`, the steps
        of a puzzle, slots that all begin together stop after 1, 2, ..., `apart` steps in turn, so
        that from then on they do not go in step.
        """
        new = self.halted
        bits = hash64(seed, PICK, self.index, self.draws) & 0x7FFF_FFFF_FFFF_FFFF
        pick = bits % len(data.inputs)
        if easiest is not None and data.easy_first is not None:
            is_easy = uniform(seed, EASY, self.index, self.draws) < 0.5
            pick = torch.where(is_easy, data.easy_first[bits % easiest], pick)
        inputs, labels, identifiers = data.inputs[pick], data.labels[pick], self.identifiers
        if identifiers is not None and data.identifiers is not None:
            identifiers = torch.where(new, data.identifiers[pick], identifiers)
        if augment and data.augment is not None:
            keys = hash64(seed, SYMMETRY, self.index, self.draws)
            inputs, labels = data.augment(inputs, labels, keys)
        cut = torch.zeros_like(self.cut)
        if apart is not None:
            cut = torch.where(new.all(), apart - 1 - self.index % apart, cut)
        like = self.states[0]
        if model.draws_noise:
            fresh = model.random_start(like, hash64(seed, START, self.index, self.draws))
        else:
            fresh = model.initial_state(like)
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
            cut=torch.where(new, cut, self.cut),
            identifiers=identifiers,
        )

    @torch.no_grad()
    def advanced(
        self, states: States, halts: Tensor, step: Tensor | int, config: TrainConfig, last: int
    ) -> "Slots":
        """After optimizer step `step`: stop where the model `halts` (bool [slot]) or after `last`
        supervision steps.

        Some slots, by chance `config.explore`, must run to a random supervision step first.
        """
        seed = config.seed
        steps = self.steps + 1
        explores = uniform(seed, EXPLORE, self.index, step) < config.explore
        share = uniform(seed, EXPLORE_STEPS, self.index, step)
        ends = last - self.cut
        at_least = torch.where(explores, (2 + (share * (last - 1)).long()).minimum(ends), 0)
        return replace(
            self,
            states=type(states)(*(z.detach() for z in states)),
            steps=steps,
            halted=((steps >= ends) | halts) & (steps >= at_least),
        )

    def restarted(self) -> "Slots":
        """All halted: the puzzles in flight are given up, and new ones drawn at the next step."""
        emptied = {name: torch.zeros_like(value) for name, value in self.tensors().items()}
        halted = torch.ones_like(self.halted)
        return self._with(emptied | {"halted": halted, "draws": self.draws, "index": self.index})
