"""How well an SAE reconstructs held-out activations, and how its features are used."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trm_interp.analysis.resample import ratio_with_bounds
from trm_interp.core.devices import widest
from trm_interp.runtime.shapes import Float
from trm_interp.sae.opened import Opened, Progress, quiet

DENSE = 0.1  # a feature that fires on more than this share of the rows
ALIKE = 0.9  # cosine of two decoder rows above which they count as twins


class Usage(NamedTuple):
    """Sums over held-out rows. Per puzzle and tick: squared error, squared distance of the row
    from the mean row, active features. Per feature: share of the rows it fires on, mean and
    largest activation. `mean`: the mean row."""

    error: np.ndarray  # [puzzle, tick]
    spread: np.ndarray  # [puzzle, tick]
    l0: np.ndarray  # [puzzle, tick], mean over positions
    density: np.ndarray  # [feature]
    average: np.ndarray  # [feature]
    largest: np.ndarray  # [feature]
    mean: np.ndarray  # [d_model]


def usage(opened: Opened, progress: Progress = quiet) -> Usage:
    """One reading for the mean row, and one that encodes and decodes."""
    n, ticks = len(opened.puzzles), len(opened.reader.indices)
    total = np.zeros(opened.reader.d_model)
    for puzzle in opened.puzzles:
        total += opened.reader.read(int(puzzle)).sum(axis=(0, 1), dtype=np.float64)
    rows = n * opened.reader.rows
    mean = torch.from_numpy(total / rows).to(opened.device)
    error, spread, l0 = (np.zeros((n, ticks)) for _ in range(3))
    wide = widest(opened.device)
    fired = torch.zeros(opened.d_sae, dtype=wide, device=opened.device)
    summed, largest = fired.clone(), torch.zeros_like(fired, dtype=torch.float32)
    with torch.no_grad():
        for i, (_, x, acts) in enumerate(opened.encode(progress)):
            out = decode(opened, acts)
            error[i] = (out - x).square().sum((1, 2), dtype=wide).cpu()
            spread[i] = (x - mean.float()).square().sum((1, 2), dtype=wide).cpu()
            on = acts > 0
            l0[i] = on.sum((1, 2)).cpu().double() / x.shape[1]
            fired += on.sum((0, 1))
            summed += acts.sum((0, 1), dtype=wide)
            largest = torch.maximum(largest, acts.amax((0, 1)))
    return Usage(
        error,
        spread,
        l0,
        (fired / rows).cpu().numpy(),
        (summed / rows).cpu().numpy(),
        largest.cpu().numpy(),
        mean.cpu().numpy(),
    )


def decode(opened: Opened, acts: Tensor) -> Tensor:
    """Reconstructed rows [tick, pos, d_model], one tick's positions at a time or more."""
    return torch.cat([opened.sae.decode(part) for part in acts.split(32)])


def fvu(error: Float[np.ndarray, "*rest"], spread: Float[np.ndarray, "*rest"]) -> float:
    """Fraction of variance unexplained: squared error over squared distance from the mean row."""
    return float(error.sum() / spread.sum())


def measures(opened: Opened, seed: int, progress: Progress = quiet) -> dict[str, Any]:
    """FVU with intervals over puzzles, L0, dead and dense shares, decoder cosines.

    Solved and failed puzzles apart as well; `by_tick` has FVU and L0 at every tick. Dead: fires on
    no held-out row. Dense: on more than 10 % of them.
    """
    found = usage(opened, progress)
    solved = opened.solved
    groups = {"all": np.ones_like(solved), "solved": solved, "failed": ~solved}
    by_outcome = {
        name: {
            "n": int(chosen.sum()),
            "fvu": ratio_with_bounds(found.error[chosen].sum(1), found.spread[chosen].sum(1), seed),
            "l0": float(found.l0[chosen].mean()),
        }
        for name, chosen in groups.items()
        if chosen.any()
    }
    return {
        **opened.said,
        "rows": len(opened.puzzles) * opened.reader.rows,
        **{name: by_outcome["all"][name] for name in ("fvu", "l0")},
        "dead": float((found.density == 0).mean()),
        "dense": float((found.density > DENSE).mean()),
        "decoder": decoder_cosines(opened.sae.W_dec.detach()),
        "by_outcome": by_outcome,
        "by_tick": {
            "tick": list(map(int, opened.reader.indices)),
            "fvu": (found.error.sum(0) / found.spread.sum(0)).tolist(),
            "l0": found.l0.mean(0).tolist(),
        },
        "mean_row": found.mean.tolist(),
    }


def decoder_cosines(rows: Float[Tensor, "feature d_model"]) -> dict[str, float]:
    """Each decoder row against its nearest other one: cosine, mean and quantiles; share of twins.

    `norm_spread`: standard deviation of the row norms over their mean.
    """
    norms = rows.float().norm(dim=1)
    unit = rows.float() / norms.clamp(min=1e-12)[:, None]
    nearest = torch.empty(len(unit), device=rows.device)
    for first in range(0, len(unit), 1024):
        cosines = unit[first : first + 1024] @ unit.T
        own = torch.arange(len(cosines), device=rows.device)
        cosines[own, own + first] = -1.0
        nearest[first : first + 1024] = cosines.amax(1)
    middle, high = torch.quantile(nearest.cpu(), torch.tensor([0.5, 0.99])).tolist()
    return {
        "nearest_mean": float(nearest.mean()),
        "nearest_median": middle,
        "nearest_99": high,
        "twins": float((nearest > ALIKE).float().mean()),
        "norm_spread": float(norms.std() / norms.mean()),
    }
