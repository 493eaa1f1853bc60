"""How well an SAE reconstructs held-out activations, and how its features are used."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trm_interp.analysis.estimates import Estimate
from trm_interp.analysis.resample import ratio_with_bounds
from trm_interp.core.devices import widest
from trm_interp.runtime.runs import quiet
from trm_interp.runtime.shapes import Float
from trm_interp.sae.applied import AppliedSAE, Progress, encode
from trm_interp.sae.results import DecoderCosines, OutcomeFit, SAEMeasures, SiteFit, TickFit

DENSE = 0.1  # a feature that fires on more than this share of the rows
ALIKE = 0.9  # cosine of two decoder rows above which they count as twins


class Usage(NamedTuple):
    """Sums over held-out rows. Per puzzle and tick: squared error, squared distance of the row
    from the mean row, active features. Per feature: share of the rows it fires on, mean and
    largest activation. Of several sites the ticks follow one another, site after site."""

    error: np.ndarray  # [puzzle, tick]
    spread: np.ndarray  # [puzzle, tick]
    own_spread: np.ndarray  # [puzzle, tick], from the mean row of the site
    l0: np.ndarray  # [puzzle, tick], mean over positions
    density: np.ndarray  # [feature]
    mean_activation: np.ndarray  # [feature]
    largest: np.ndarray  # [feature]
    mean_row: np.ndarray  # [d_model]
    site_means: np.ndarray  # [site, d_model]


def feature_usage(applied: AppliedSAE, progress: Progress = quiet) -> Usage:
    """One reading for the mean rows, and one that encodes and decodes."""
    n, device = len(applied.puzzles), applied.device
    site_means, mean_row = mean_rows(applied)
    whole = torch.from_numpy(mean_row).to(device).float()
    own = torch.from_numpy(site_means).to(device).float()
    parts = columns_of(applied)
    error, spread, own_spread, l0 = (np.zeros((n, parts[-1].stop)) for _ in range(4))
    wide = widest(device)
    fired = torch.zeros(applied.d_sae, dtype=wide, device=device)
    summed, largest = fired.clone(), torch.zeros_like(fired, dtype=torch.float32)
    for i, puzzle in enumerate(applied.puzzles):
        progress(i, n)
        for reader, part, mean in zip(applied.readers, parts, own, strict=True):
            x = applied.rows(reader, int(puzzle))
            acts = encode(applied.sae, x)
            error[i, part] = (decode(applied, acts) - x).square().sum((1, 2), dtype=wide).cpu()
            spread[i, part] = (x - whole).square().sum((1, 2), dtype=wide).cpu()
            own_spread[i, part] = (x - mean).square().sum((1, 2), dtype=wide).cpu()
            on = acts > 0
            l0[i, part] = on.sum((1, 2)).cpu().double() / x.shape[1]
            fired += on.sum((0, 1))
            summed += acts.sum((0, 1), dtype=wide)
            largest = torch.maximum(largest, acts.amax((0, 1)))
    progress(n, n)
    rows = n * applied.rows_per_puzzle
    return Usage(
        error,
        spread,
        own_spread,
        l0,
        (fired / rows).cpu().numpy(),
        (summed / rows).cpu().numpy(),
        largest.cpu().numpy(),
        mean_row,
        site_means,
    )


def mean_rows(applied: AppliedSAE) -> tuple[np.ndarray, np.ndarray]:
    """The mean row of every site [site, d_model], and that of all rows [d_model]."""
    total = np.zeros((len(applied.readers), applied.reader.d_model))
    for puzzle in applied.puzzles:
        for i, reader in enumerate(applied.readers):
            total[i] += reader.read(int(puzzle)).sum(axis=(0, 1), dtype=np.float64)
    n = len(applied.puzzles)
    rows = np.array([[n * reader.rows] for reader in applied.readers])
    return total / rows, total.sum(0) / rows.sum()


def columns_of(applied: AppliedSAE) -> list[slice]:
    """Where the ticks of each site are in the arrays of `Usage`."""
    ends = np.cumsum([0, *(len(reader.indices) for reader in applied.readers)])
    return [slice(int(a), int(b)) for a, b in pairwise(ends)]


@torch.no_grad()
def decode(applied: AppliedSAE, acts: Tensor) -> Tensor:
    """Reconstructed rows [tick, pos, d_model], one tick's positions at a time or more."""
    return torch.cat([applied.sae.decode(part) for part in acts.split(32)])


def measures(
    applied: AppliedSAE, seed: int, progress: Progress = quiet
) -> tuple[SAEMeasures, Usage]:
    """FVU with intervals over puzzles, L0, dead and dense shares, decoder cosines; and the sums
    behind them.

    Also for solved and failed puzzles separately; `by_tick` has FVU and L0 at every tick, `by_site`
    at each of several sites, which are else taken together. Dead: fires on no held-out row. Dense:
    on more than 10 % of them.
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
        rows=len(applied.puzzles) * applied.rows_per_puzzle,
        fvu=by_outcome["all"].fvu,
        l0=by_outcome["all"].l0,
        dead=float((usage.density == 0).mean()),
        dense=float((usage.density > DENSE).mean()),
        decoder=decoder_cosines(applied.sae.W_dec.detach()),
        by_outcome=by_outcome,
        by_tick=_by_tick(applied, usage),
        by_site=_by_site(applied, usage, seed) if len(applied.readers) > 1 else None,
    )
    return result, usage


def _by_tick(applied: AppliedSAE, usage: Usage) -> TickFit:
    """At every tick of the run, over the sites that are written there."""
    indices = [i for reader in applied.readers for i in reader.indices]
    ticks, at = np.unique(indices, return_inverse=True)

    def summed(values: np.ndarray) -> np.ndarray:
        return np.bincount(at, weights=values)

    return TickFit(
        tick=ticks.tolist(),
        fvu=(summed(usage.error.sum(0)) / summed(usage.spread.sum(0))).tolist(),
        l0=(summed(usage.l0.mean(0)) / np.bincount(at)).tolist(),
    )


def _by_site(applied: AppliedSAE, usage: Usage, seed: int) -> dict[str, SiteFit]:
    fits = {}
    for reader, part in zip(applied.readers, columns_of(applied), strict=True):
        error, spread = usage.error[:, part].sum(1), usage.own_spread[:, part].sum(1)
        fvu = Estimate.of(ratio_with_bounds(error, spread, seed))
        fits[reader.site] = SiteFit(fvu=fvu, l0=float(usage.l0[:, part].mean()))
    return fits


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
