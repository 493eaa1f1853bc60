"""How well an SAE reconstructs held-out activations, and how its features are used."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trm_interp.analysis.estimates import Estimate
from trm_interp.analysis.resample import ratio_with_bounds
from trm_interp.core.devices import widest
from trm_interp.runtime.runs import quiet
from trm_interp.runtime.shapes import Float
from trm_interp.sae.applied import AppliedSAE, Progress
from trm_interp.sae.results import DecoderCosines, OutcomeFit, SAEMeasures, TickFit

DENSE = 0.1  # a feature that fires on more than this share of the rows
ALIKE = 0.9  # cosine of two decoder rows above which they count as twins


class Usage(NamedTuple):
    """Sums over held-out rows. Per puzzle and tick: squared error, squared distance of the row
    from the mean row, active features. Per feature: share of the rows it fires on, mean and
    largest activation."""

    error: np.ndarray  # [puzzle, tick]
    spread: np.ndarray  # [puzzle, tick]
    l0: np.ndarray  # [puzzle, tick], mean over positions
    density: np.ndarray  # [feature]
    mean_activation: np.ndarray  # [feature]
    largest: np.ndarray  # [feature]
    mean_row: np.ndarray  # [d_model]


def feature_usage(applied: AppliedSAE, progress: Progress = quiet) -> Usage:
    """One reading for the mean row, and one that encodes and decodes."""
    n, ticks = len(applied.puzzles), len(applied.reader.indices)
    total = np.zeros(applied.reader.d_model)
    for puzzle in applied.puzzles:
        total += applied.reader.read(int(puzzle)).sum(axis=(0, 1), dtype=np.float64)
    rows = n * applied.reader.rows
    mean_row = torch.from_numpy(total / rows).to(applied.device)
    error, spread, l0 = (np.zeros((n, ticks)) for _ in range(3))
    wide = widest(applied.device)
    fired = torch.zeros(applied.d_sae, dtype=wide, device=applied.device)
    summed, largest = fired.clone(), torch.zeros_like(fired, dtype=torch.float32)
    with torch.no_grad():
        for i, (_, x, acts) in enumerate(applied.encode(progress)):
            out = decode(applied, acts)
            error[i] = (out - x).square().sum((1, 2), dtype=wide).cpu()
            spread[i] = (x - mean_row.float()).square().sum((1, 2), dtype=wide).cpu()
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
        mean_row.cpu().numpy(),
    )


def decode(applied: AppliedSAE, acts: Tensor) -> Tensor:
    """Reconstructed rows [tick, pos, d_model], one tick's positions at a time or more."""
    return torch.cat([applied.sae.decode(part) for part in acts.split(32)])


def measures(
    applied: AppliedSAE, seed: int, progress: Progress = quiet
) -> tuple[SAEMeasures, Float[np.ndarray, " d_model"]]:
    """FVU with intervals over puzzles, L0, dead and dense shares, decoder cosines; the mean row.

    Also for solved and failed puzzles separately; `by_tick` has FVU and L0 at every tick. Dead:
    fires on no held-out row. Dense: on more than 10 % of them.
    """
    usage = feature_usage(applied, progress)
    everything = np.ones_like(applied.solved)
    by_outcome = {
        name: OutcomeFit(
            n=int(chosen.sum()),
            fvu=Estimate.of(
                ratio_with_bounds(usage.error[chosen].sum(1), usage.spread[chosen].sum(1), seed)
            ),
            l0=float(usage.l0[chosen].mean()),
        )
        for name, chosen in {"all": everything, **applied.by_outcome}.items()
        if chosen.any()
    }
    result = SAEMeasures(
        **applied.measured_on,
        rows=len(applied.puzzles) * applied.reader.rows,
        fvu=by_outcome["all"].fvu,
        l0=by_outcome["all"].l0,
        dead=float((usage.density == 0).mean()),
        dense=float((usage.density > DENSE).mean()),
        decoder=decoder_cosines(applied.sae.W_dec.detach()),
        by_outcome=by_outcome,
        by_tick=TickFit(
            tick=list(map(int, applied.reader.indices)),
            fvu=(usage.error.sum(0) / usage.spread.sum(0)).tolist(),
            l0=usage.l0.mean(0).tolist(),
        ),
    )
    return result, usage.mean_row


def decoder_cosines(rows: Float[Tensor, "feature d_model"]) -> DecoderCosines:
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
    return DecoderCosines(
        nearest_mean=float(nearest.mean()),
        nearest_median=middle,
        nearest_99=high,
        twins=float((nearest > ALIKE).float().mean()),
        norm_spread=float(norms.std() / norms.mean()),
    )
