"""The loss after every H-cycle, in each convention that a paper may have meant."""

import numpy as np
import pandas as pd
from torch import Tensor

from trm_interp.analysis.resample import mean_with_bounds
from trm_interp.core.devices import widened
from trm_interp.core.losses import PAD, softmax_cross_entropy, stablemax_cross_entropy
from trm_interp.runtime.shapes import Bool, Float, Int

KINDS = {"stablemax": stablemax_cross_entropy, "softmax": softmax_cross_entropy}
OVER = ("cells", "blanks", "sum")
CONVENTIONS = [f"{kind}, {over}" for kind in KINDS for over in OVER]
UNITS = {"cells": "nats per cell", "blanks": "nats per blank cell", "sum": "nats per puzzle"}


def losses_in_all_conventions(
    logits: Float[Tensor, "puzzle cycle cell vocab"],
    asked: Bool[Tensor, "puzzle cell"],
    labels: Int[Tensor, "puzzle cell"],
) -> dict[str, Float[np.ndarray, "puzzle cycle"]]:
    """Cross-entropy by convention: stablemax or softmax; mean over cells, over blanks, or the sum.

    `cells` are all that have a label, givens included; `blanks` those that are asked; `sum` adds up
    all cells. Nats.
    """
    spread = labels[:, None].expand(logits.shape[:-1])
    labelled = (labels != PAD)[:, None]
    blank = labelled & asked[:, None]
    losses = {}
    for kind, loss in KINDS.items():
        per_cell = widened(loss(logits, spread))
        total = per_cell.sum(-1)
        over = {
            "cells": total / labelled.sum(-1).clamp(min=1),
            "blanks": (per_cell * blank).sum(-1) / blank.sum(-1).clamp(min=1),
            "sum": total,
        }
        losses |= {f"{kind}, {name}": over[name].cpu().numpy() for name in OVER}
    return losses


def by_solve_step(
    values: Float[np.ndarray, "puzzle cycle"], first: Int[np.ndarray, " puzzle"], seed: int
) -> pd.DataFrame:
    """Mean loss by when a puzzle is first solved, in octaves: 1, 2, 3-4, 5-8, ... or never.

    Columns group, n, h_cycles_done, mean, low, high (95 % bootstrap over puzzles).
    """
    octave = np.where(first < 0, -1, np.ceil(np.log2(np.maximum(first, 0) + 1)).astype(int))
    parts = []
    for value in [*sorted(set(octave) - {-1}), *({-1} & set(octave))]:
        inside = octave == value
        mean, low, high = mean_with_bounds(values[inside], seed)
        columns = {"h_cycles_done": np.arange(1, values.shape[1] + 1), "mean": mean}
        named = _octave_name(int(value))
        part = pd.DataFrame(columns | {"low": low, "high": high})
        parts.append(part.assign(group=named, n=int(inside.sum())))
    return pd.concat(parts, ignore_index=True)


def _octave_name(value: int) -> str:
    """Steps from 1: 0 is step 1, 1 step 2, 2 steps 3 and 4, ...

    >>> [_octave_name(v) for v in (0, 1, 2, 3, -1)]
    ['step 1', 'step 2', 'steps 3-4', 'steps 5-8', 'never']
    """
    if value < 0:
        return "never"
    return f"step {value + 1}" if value < 2 else f"steps {2 ** (value - 1) + 1}-{2**value}"
