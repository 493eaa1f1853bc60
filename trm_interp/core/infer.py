"""Batched inference: what a model answers after every supervision step.

Evaluation never halts early: all steps run, and where the model would halt is recorded, not
obeyed. Memory is bounded by the batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor

from trm_interp.core.losses import is_solved, mean_over_cells, stablemax_cross_entropy
from trm_interp.core.models.base import Readout, RecursiveModel, States
from trm_interp.core.models.config import ModelConfig
from trm_interp.core.models.layers import weights_held


@dataclass(frozen=True)
class Readouts:
    """Read-outs on the CPU. `*moment` is `step`, or `step h_cycle` when taken every H-cycle."""

    tokens: Tensor  # uint8 [puzzle, *moment, cell], the decoded grid
    q_halt: Tensor  # float32 [puzzle, *moment], halting logit
    solved: Tensor  # bool [puzzle, *moment], every cell right
    loss: Tensor  # float32 [puzzle, *moment], stablemax nats per cell, givens included
    halts: Tensor  # bool [puzzle, *moment], whether the model would stop there
    q_continue: Tensor | None = None  # float32 [puzzle, *moment], of models that have it
    logits: Tensor | None = None  # float32 [puzzle, *moment, cell, vocab], where asked for
    residual: Tensor | None = None
    """float32 [puzzle, step, h_cycle] of models that solve for fixed points: how far they are from
    them, relative; a residual above the model's `tolerance`, or NaN, has not converged."""

    def __len__(self) -> int:
        return len(self.q_halt)

    @property
    def halt_step(self) -> Tensor:
        """int16 [puzzle]: first supervision step at which the model halts, -1 for none."""
        wants = self.halts.flatten(2)[..., -1] if self.halts.ndim > 2 else self.halts
        first = wants.int().argmax(1)
        return torch.where(wants.any(1), first, -1).to(torch.int16)

    @staticmethod
    def cat(parts: list["Readouts"]) -> "Readouts":
        def join(name: str) -> Tensor | None:
            pieces = [getattr(part, name) for part in parts]
            return None if pieces[0] is None else torch.cat(pieces)

        return Readouts(**{f.name: join(f.name) for f in fields(Readouts)})  # type: ignore

    @staticmethod
    def stack(rows: Sequence["Readouts"], steps: int | None = None) -> "Readouts":
        """Read-outs of one moment each, [puzzle], as [puzzle, moment].

        As [puzzle, step, h_cycle] where they are of so many `steps`.
        """

        def stacked(name: str) -> Tensor | None:
            pieces = [getattr(row, name) for row in rows]
            if pieces[0] is None:
                return None
            joined = torch.stack(pieces, dim=1)
            return joined if steps is None else joined.unflatten(1, (steps, -1))

        return Readouts(**{f.name: stacked(f.name) for f in fields(Readouts)})  # type: ignore


def iter_run(
    model: RecursiveModel,
    inputs: Tensor,
    labels: Tensor,
    steps: int = 16,
    batch_size: int = 64,
    every: Literal["step", "h_cycle"] = "step",
    keep_logits: bool = False,
    dtype: torch.dtype = torch.float32,
    identifiers: Tensor | None = None,
) -> Iterator[Readouts]:
    """Read-outs of one batch after another, in file order.

    `inputs`, `labels`: integer tokens [puzzle, cell] on any device; labels of pad are ignored.
    `identifiers`: int64 [puzzle], as in `RecursiveModel.embed`. ValueError where there are no
    puzzles, they do not have the model's number of cells, hold tokens that are not in its
    vocabulary or identifiers that it does not know, or `steps` is below 1.
    """
    if inputs.shape != labels.shape or not len(inputs):
        shapes = f"{list(inputs.shape)} and {list(labels.shape)}"
        raise ValueError(f"inputs and labels must be alike and hold a puzzle, got {shapes}")
    for tokens in (inputs, labels):
        require_tokens(model.config, tokens)
    identifiers = identifiers_for(model.config, identifiers, len(inputs))
    if steps < 1 or batch_size < 1:
        raise ValueError(f"steps and batch_size must be at least 1, got {steps}, {batch_size}")
    for start in range(0, len(inputs), batch_size):
        at = slice(start, start + batch_size)
        own = None if identifiers is None else identifiers[at]
        yield run_batch(
            model, inputs[at], labels[at], steps, every, keep_logits, dtype, identifiers=own
        )


def require_tokens(config: ModelConfig, tokens: Tensor) -> None:
    """ValueError unless these are integer tokens [puzzle, cell] that the model reads."""
    if tokens.ndim != 2 or tokens.is_floating_point() or tokens.is_complex():
        raise ValueError(
            f"tokens are integers [puzzle, cell], got {tokens.dtype} {list(tokens.shape)}"
        )
    if tokens.shape[1] != config.cells:
        cells = tokens.shape[1]
        raise ValueError(f"the model reads {config.cells} cells, the puzzles have {cells}")
    if tokens.numel():
        low, high = (int(edge) for edge in tokens.long().aminmax())
        if low < 0 or high >= config.vocab:
            raise ValueError(
                f"the model reads tokens 0 to {config.vocab - 1}, the puzzles have {low} to {high}"
            )


def identifiers_for(
    config: ModelConfig, identifiers: Tensor | None, n_puzzles: int
) -> Tensor | None:
    """The identifiers as a model reads them; None for one that knows none, which ignores them.

    ValueError unless they are int64 [puzzle], below `config.n_identifiers`.
    """
    if identifiers is None or not config.n_identifiers:
        return None
    if identifiers.dtype != torch.int64 or identifiers.shape != (n_puzzles,):
        raise ValueError(
            f"identifiers are int64 [{n_puzzles}], got {identifiers.dtype} "
            f"{list(identifiers.shape)}"
        )
    if identifiers.numel():
        low, high = (int(edge) for edge in identifiers.aminmax())
        if low < 0 or high >= config.n_identifiers:
            raise ValueError(
                f"the model knows puzzle identifiers 0 to {config.n_identifiers - 1}, "
                f"the puzzles have {low} to {high}"
            )
    return identifiers


@torch.no_grad()
def run_batch(
    model: RecursiveModel,
    inputs: Tensor,
    labels: Tensor,
    steps: int,
    every: Literal["step", "h_cycle"] = "step",
    keep_logits: bool = False,
    dtype: torch.dtype = torch.float32,
    start: States | None = None,
    before_step: Callable[[int, States], States] | None = None,
    identifiers: Tensor | None = None,
) -> Readouts:
    """One batch through `steps` supervision steps.

    From `start`, default the model's own vectors. `before_step(step, state)` may change the
    states before each step, for noise or a patch. `identifiers`: as in `RecursiveModel.embed`.
    """
    labels = labels.to(model.device)
    x = embedded(model, inputs, dtype, identifiers)
    state = start or model.initial_state(x)
    rows: list[Readouts] = []
    residuals: list[Tensor] = []  # [batch, h_cycle], a step each
    with weights_held(model, dtype):
        for step in range(steps):
            if before_step is not None:
                state = before_step(step, state)
            state, per_cycle, remain = model.advance_measured(state, x, step)
            if remain is not None:
                residuals.append(torch.stack(remain, 1).float().cpu())
            moments = per_cycle if every == "h_cycle" else per_cycle[-1:]
            rows += [read_answer(model, answer, step, labels, keep_logits) for answer in moments]

    read = Readouts.stack(rows, steps if every == "h_cycle" else None)
    return replace(read, residual=torch.stack(residuals, 1)) if residuals else read


def embedded(
    model: RecursiveModel,
    inputs: Tensor,
    dtype: torch.dtype = torch.float32,
    identifiers: Tensor | None = None,
) -> Tensor:
    """`model.embed` of puzzles on any device, with identifiers that were checked."""
    own = identifiers_for(model.config, identifiers, len(inputs))
    on_device = None if own is None else own.to(model.device)
    return model.embed(inputs.to(model.device), dtype, on_device)


def read_answer(
    model: RecursiveModel, answer: Tensor, step: int, labels: Tensor, keep_logits: bool = False
) -> Readouts:
    """What is read from an answer state [batch, pos, d_model], without axes of time.

    `step` only names the moment. `labels` [batch, cell], on the model's device.
    """
    readout: Readout = model.readout(answer, step)
    logits, q_continue = readout.logits, readout.q_continue
    tokens = logits.argmax(-1)
    loss = mean_over_cells(stablemax_cross_entropy(logits, labels), labels)
    return Readouts(
        tokens.to(torch.uint8).cpu(),
        readout.q_halt.float().cpu(),
        is_solved(tokens, labels).cpu(),
        loss.float().cpu(),
        model.halts(readout).cpu(),
        None if q_continue is None else q_continue.float().cpu(),
        logits.float().cpu() if keep_logits else None,
    )


def run(
    model: RecursiveModel,
    inputs: Tensor,
    labels: Tensor,
    steps: int = 16,
    batch_size: int = 64,
    every: Literal["step", "h_cycle"] = "step",
    keep_logits: bool = False,
    dtype: torch.dtype = torch.float32,
    identifiers: Tensor | None = None,
) -> Readouts:
    """All of `iter_run` at once; logits only where asked, so that results stay small."""
    asked = (steps, batch_size, every, keep_logits, dtype, identifiers)
    return Readouts.cat(list(iter_run(model, inputs, labels, *asked)))
