"""What is kept of a run: everything that can be read from it, at every moment, and few states."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trm_interp.core.clock import Tick
from trm_interp.core.infer import read_answer
from trm_interp.core.losses import PAD
from trm_interp.core.models.base import RecursiveModel, States
from trm_interp.explore.edits import Node
from trm_interp.explore.evaluating import few_threads
from trm_interp.patch.view import Span
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.shapes import Float
from trm_interp.tasks.base import Bools, Task, Tokens

GIVEN, WRONG, CONFLICT, CHANGED = 1, 2, 4, 8  # flags of a cell, which are added
AT_ONCE = 64  # read-outs that are taken together
PLACES = 3  # principal axes of a path


class Moment(NamedTuple):
    """After `at` spans of evaluations, the last of which was `tick`; None at the start."""

    at: int
    tick: Tick | None

    @property
    def label(self) -> str:
        """For people, counted from 1.

        >>> Moment(24, Tick(1, 0, 2, "z_L")).label
        'step 2, H-cycle 1, evaluation 3 (z_L)'
        """
        if self.tick is None:
            return "start"
        step, h, l, state, _ = self.tick
        return f"step {step + 1}, H-cycle {h + 1}, evaluation {l + 1} ({state})"


def moments_of(spans: Sequence[Span]) -> list[Moment]:
    """The start, and the moment after each span."""
    return [Moment(0, None), *(Moment(i + 1, span.ticks[-1]) for i, span in enumerate(spans))]


@dataclass(frozen=True, eq=False)
class Reading:
    """One state of a run, read by the output head at every moment.

    tokens: uint8 [moment, cell], the guess. probability: float16 [moment, cell, vocab], softmax.
    loss: float32 [moment], stablemax nats per cell. change: float32 [moment, cell], RMS change of
    the state by its last evaluation or edit; speed: float32 [moment], the same over all positions.
    place: float32 [moment, pc], relative to the start of the plain run.
    """

    tokens: Tokens
    probability: NDArray[np.float16]
    loss: NDArray[np.float32]
    change: NDArray[np.float32]
    speed: NDArray[np.float32]
    place: NDArray[np.float32]

    @property
    def certainty(self) -> NDArray[np.float32]:
        """[moment, cell] in [0, 1]: probability of the guess."""
        return self.probability.max(-1).astype(np.float32)

    @property
    def entropy(self) -> NDArray[np.float32]:
        """[moment, cell] in nats, at most log(vocab)."""
        p = self.probability.astype(np.float32)
        return -(p * np.log(np.maximum(p, 1e-12))).sum(-1)

    def _names(self) -> list[str]:
        return [f.name for f in fields(self)]

    def after(self, earlier: "Reading", moment: int) -> "Reading":
        """`earlier` before a moment, and this from then on."""
        both = {n: [getattr(earlier, n)[:moment], getattr(self, n)] for n in self._names()}
        return Reading(**{name: np.concatenate(pair) for name, pair in both.items()})

    @property
    def nbytes(self) -> int:
        return sum(getattr(self, name).nbytes for name in self._names())


@dataclass(frozen=True)
class Axes:
    """Where paths of one state are drawn: `origin` [coordinate], orthonormal `axes` [pc,
    coordinate], and the share of the plain run's variance along each."""

    origin: Float[np.ndarray, " coordinate"]
    axes: Float[np.ndarray, "pc coordinate"]
    explained: Float[np.ndarray, " pc"]

    def place(self, states: Float[np.ndarray, "state coordinate"]) -> NDArray[np.float32]:
        """[state, pc], 0 at the origin."""
        return ((states - self.origin) @ self.axes.T).astype(np.float32)


def axes_of(states: Float[np.ndarray, "state coordinate"]) -> Axes:
    """Principal axes of a run's states, with the first of them as origin.

    An axis along which nothing moves is zero.
    """
    moved = states - states[0]
    centred = (moved - moved.mean(0)).astype(np.float64)
    with few_threads(1):  # in torch, because NumPy's take long where other programs use a core
        rows = torch.from_numpy(centred)
        found = torch.linalg.eigh(rows @ rows.T)  # far fewer states than coordinates
    size, left = found.eigenvalues.numpy(), found.eigenvectors.numpy()
    size, left = size[::-1][:PLACES].clip(0), left[:, ::-1][:, :PLACES]
    total = max(float(np.square(centred).sum()), 1e-30)
    real = size > 1e-10 * total
    axes = np.where(real[:, None], left.T @ centred / np.sqrt(np.maximum(size, 1e-30))[:, None], 0)
    strongest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1)
    axes = axes * np.where(strongest < 0, -1, 1)
    missing = PLACES - len(axes)
    axes = np.pad(axes, ((0, missing), (0, 0))).astype(np.float32)
    return Axes(states[0], axes, np.pad(size * real / total, (0, missing)))


class Written(NamedTuple):
    """Values of one state [time, pos, d_model], and the moments from which on it had them."""

    moments: NDArray[np.int64]
    values: Tensor

    def index(self, last: int) -> NDArray[np.int64]:
        """[moment]: place of the value at every moment from the first one to `last`."""
        every = np.arange(self.moments[0], last + 1)
        return np.searchsorted(self.moments, every, side="right") - 1


@dataclass(frozen=True, eq=False)
class Run:
    """A computed run. `readings`: by name of the state, the answer state first.

    q_halt: float32 [moment], halts: bool [moment], read from the answer state. inputs, labels:
    uint8 [moment, cell], the puzzle as it stands then and its solution. kept: states at some
    moments, from which others are had again. axes: by name of the state. written: by name of the
    state, its values and when it got them, from the moment of the edit on.
    """

    node: Node
    moments: list[Moment]
    readings: dict[str, Reading]
    q_halt: NDArray[np.float32]
    halts: Bools
    inputs: Tokens
    labels: Tokens
    kept: dict[int, States] = field(repr=False)
    axes: dict[str, Axes] = field(repr=False)
    written: dict[str, "Written"] = field(repr=False, default_factory=dict)

    @property
    def answer(self) -> Reading:
        """What is read from the answer state, which is the model's answer."""
        return next(iter(self.readings.values()))

    def right(self, state: str) -> NDArray[np.int64]:
        """[moment]: cells that are answered as in the solution."""
        asked = self.labels != PAD
        return ((self.readings[state].tokens == self.labels) & asked).sum(1)

    def solved(self, state: str) -> Bools:
        """[moment]: whether all cells are right."""
        return self.right(state) == (self.labels != PAD).sum(1)

    def flags(self, state: str, task: Task) -> Tokens:
        """uint8 [moment, cell]: the sum of GIVEN, WRONG, CONFLICT and CHANGED, where they hold.

        CHANGED: guessed otherwise than at the moment before.
        """
        tokens = self.readings[state].tokens
        boards, at = np.unique(tokens, axis=0, return_inverse=True)  # most moments are like others
        conflicts = task.conflicts(boards)[at.reshape(-1)]
        changed = np.zeros(tokens.shape, bool)
        changed[1:] = tokens[1:] != tokens[:-1]
        wrong = (tokens != self.labels) & (self.labels != PAD)
        flags = (~task.asked(self.inputs)).astype(np.uint8) * GIVEN
        return (
            flags
            + wrong * np.uint8(WRONG)
            + conflicts * np.uint8(CONFLICT)
            + changed * np.uint8(CHANGED)
        )

    @cached_property
    def nbytes(self) -> int:
        """Bytes of memory, about."""
        kept = sum(z.nbytes for state in self.kept.values() for z in state)
        axes = sum(of.axes.nbytes + of.origin.nbytes for of in self.axes.values())
        arrays = self.q_halt.nbytes + self.halts.nbytes + self.inputs.nbytes + self.labels.nbytes
        written = sum(of.values.nbytes for of in self.written.values())
        return arrays + kept + axes + written + sum(of.nbytes for of in self.readings.values())


class Series:
    """One state of a run as it is computed: its value whenever it is written or edited."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.moments: list[int] = []
        self.values: list[Tensor] = []  # [pos, d_model]
        self.change: list[Tensor] = []  # [pos], RMS

    def add(self, moment: int, value: Tensor, before: Tensor) -> None:
        """[1, pos, d_model] of the state and of what it was before."""
        self.moments.append(moment)
        self.values.append(value[0])
        self.change.append((value[0].float() - before[0].float()).square().mean(-1).sqrt())

    def written(self) -> Written:
        """Everything that it was."""
        return Written(np.array(self.moments), torch.stack(self.values))

    def flat(self) -> Float[np.ndarray, "state coordinate"]:
        """All values. UserError where one is not finite."""
        flat = torch.stack(self.values).flatten(1).float().cpu().numpy()
        bad = ~np.isfinite(flat).all(1)
        if bad.any():
            moment = self.moments[int(bad.argmax())]
            raise UserError(f"{self.name} is not finite at moment {moment}: try smaller noise")
        return flat

    def read(
        self, model: RecursiveModel, labels: Tokens, axes: Axes, last: int
    ) -> tuple[Reading, NDArray[np.float32], Bools]:
        """What is read at every moment from the first one to `last`; q_halt, whether it halts."""
        first, prefix = self.moments[0], model.config.prefix
        own = torch.from_numpy(labels.copy()).to(model.device)
        parts = []
        for at in range(0, len(self.values), AT_ONCE):
            values = torch.stack(self.values[at : at + AT_ONCE])
            target = own.expand(len(values), -1)
            parts.append(read_answer(model, values, 0, target, keep_logits=True))
        change = torch.stack(self.change).cpu()
        probability = np.concatenate([_softmax(part.logits) for part in parts])
        rows = {
            "tokens": np.concatenate([part.tokens.numpy() for part in parts]),
            "probability": probability,
            "loss": np.concatenate([part.loss.numpy() for part in parts]),
            "change": change[:, prefix:].numpy(),
            "speed": change.square().mean(1).sqrt().numpy(),
            "place": axes.place(self.flat()),
        }
        every = np.arange(first, last + 1)
        index = np.searchsorted(self.moments, every, side="right") - 1
        q_halt = np.concatenate([part.q_halt.numpy() for part in parts])
        halts = np.concatenate([part.halts.numpy() for part in parts])
        return Reading(**{n: of[index] for n, of in rows.items()}), q_halt[index], halts[index]


def _softmax(logits: Tensor | None) -> NDArray[np.float16]:
    assert logits is not None
    return logits.float().softmax(-1).half().numpy()
