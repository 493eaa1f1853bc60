"""Other codes of the rows that an SAE reconstructs: what its quality is to be compared with.

Each is fitted to rows of the puzzles that the SAE was trained on, and measured on the same held-out
rows as the SAE:

- pca: as many principal components as the SAE has active features;
- pca-bits: as many as its code is long, by `description_bits`;
- k-means: as many centroids as the SAE has features, of which one is active;
- random-encoder: as many random unit directions as features, of which those with the largest
  positive products are active, as many as in the SAE; its decoder is fitted by least squares, which
  no training can beat on the rows that it is fitted to.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse
import torch
from torch import Tensor

from trm_interp.analysis.estimates import Estimate
from trm_interp.analysis.resample import ratio_with_bounds
from trm_interp.core.devices import widest
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import require_memory
from trm_interp.runtime.runs import quiet
from trm_interp.runtime.shapes import Float
from trm_interp.sae.applied import ROWS_AT_ONCE, AppliedSAE, Progress, trained_on
from trm_interp.sae.measures import Usage
from trm_interp.sae.results import Baseline
from trm_interp.sae.settings import EvalSAEConfig

BITS = 8  # of a coefficient, in every code
FITTED_ROWS = 2**18  # at most, from all training puzzles alike
EPOCHS = 3  # of k-means over these rows
RIDGE = 1e-4  # of the random encoder's least squares, of the mean diagonal
GRAM_ROWS = 2**13  # whose codes are multiplied at once
SPARSE = 16  # a sparse product of codes pays where one feature in so many is active, or fewer

Rows = Float[Tensor, "row d_model"]


class Fitted(NamedTuple):
    """A code: how many numbers it keeps of a row, their bits, and rows [..., d_model] as it gives
    them back."""

    active: float
    bits: float
    reconstruct: Callable[[Tensor], Tensor]


def description_bits(density: Float[np.ndarray, " feature"], bits: int = BITS) -> float:
    """Bits a row of a sparse code, of features that fire on these shares of the rows.

    Features are coded one by one: whether one fires by the entropy of that, and if so its value in
    `bits`. This is the entropy code of MDL-SAEs (Ayonrinde, Pearce & Sharkey, arXiv 2410.11179),
    with a fixed length in place of the entropy of the values. A dense code of n numbers takes
    n * bits. The dictionary is not counted, in no code.

    >>> description_bits(np.array([0.5, 0.5, 1.0, 0.0]))  # 1 + 1 + 0 + 0 bits; 2 values of 8
    18.0
    """
    p = density.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        which = -np.nan_to_num(p * np.log2(p)) - np.nan_to_num((1 - p) * np.log2(1 - p))
    return float(which.sum() + bits * p.sum())


def baselines_of(
    config: EvalSAEConfig,
    applied: AppliedSAE,
    usage: Usage,
    tell: Callable[[str], None],
    progress: Progress = quiet,
) -> dict[str, Fitted]:
    """Those that are asked for, fitted. Where none were named and the store has no puzzle that the
    SAE was trained on there are none, and `tell` says so; UserError where some were named."""
    names = config.named_baselines
    if not names:
        return {}
    training = np.flatnonzero(trained_on(applied.provenance, applied.store))
    if not len(training):
        why = f"{applied.store.path} holds no puzzle that {applied.path} was trained on"
        if config.baselines is not None:
            raise UserError(f"{why}, to fit --baselines to: give the store of its training")
        tell(f"{why}: no baselines")
        return {}
    rows = training_rows(applied, training, config.seed, progress).to(applied.device)
    fitted = {}
    for name in names:
        fitted[name] = fit(name, rows, usage.density, config.seed)
    return fitted


def training_rows(
    applied: AppliedSAE, training: np.ndarray, seed: int, progress: Progress = quiet
) -> Rows:
    """FITTED_ROWS random rows, equally many of each of these puzzles and sites; all if there are
    fewer."""
    readers, d_model = applied.readers, applied.reader.d_model
    require_memory(4 * FITTED_ROWS * d_model, "rows to fit baselines to", "give --baselines none")
    rng = np.random.default_rng([seed, 0xBA5E])
    each = -(-FITTED_ROWS // (len(training) * len(readers)))
    parts = []
    for done, puzzle in enumerate(training):
        progress(done, len(training))
        for reader in readers:
            values = reader.read(int(puzzle)).reshape(-1, d_model)
            picked = rng.permutation(len(values))[:each]
            parts.append(values[picked].astype(np.float32))
    progress(len(training), len(training))
    rows = np.concatenate(parts)
    return torch.from_numpy(rows[rng.permutation(len(rows))[:FITTED_ROWS]])


def fit(name: str, rows: Rows, density: Float[np.ndarray, " feature"], seed: int) -> Fitted:
    """The baseline of this name beside an SAE whose features fire on these shares of the rows."""
    d_sae, l0 = len(density), float(density.sum())
    if name == "pca":
        return pca(rows, round(l0))
    if name == "pca-bits":
        return pca(rows, round(description_bits(density) / BITS))
    if name == "k-means":
        return k_means(rows, d_sae, seed)
    if name == "random-encoder":
        return random_encoder(rows, d_sae, round(l0), seed)
    raise ValueError(f"no baseline {name!r}")


def pca(rows: Rows, n: int) -> Fitted:
    """The `n` leading principal components, at least one and at most all of them."""
    n = min(max(n, 1), rows.shape[1])
    mean = rows.mean(0)
    wide = widest(rows.device)
    squares = torch.zeros(rows.shape[1], rows.shape[1], dtype=wide, device=rows.device)
    for part in rows.split(GRAM_ROWS):
        centred = (part - mean).to(wide)
        squares += centred.T @ centred
    _, axes = torch.linalg.eigh(squares)  # ascending
    leading = axes[:, -n:].float()

    def reconstruct(x: Tensor) -> Tensor:
        return (x - mean) @ leading @ leading.T + mean

    return Fitted(n, float(n * BITS), reconstruct)


def k_means(rows: Rows, n: int, seed: int) -> Fitted:
    """The nearest of `n` centroids, at most as many as rows, by mini-batches from k-means++."""
    from sklearn.cluster import MiniBatchKMeans

    n = min(n, len(rows))
    sizes: dict[str, Any] = {"batch_size": 4096, "max_iter": EPOCHS, "n_init": 1}
    model = MiniBatchKMeans(n, random_state=seed, **sizes)
    model.fit(rows.cpu().numpy())
    centroids = torch.from_numpy(model.cluster_centers_).to(rows)
    lengths = centroids.square().sum(1)

    def nearest(part: Tensor) -> Tensor:
        return centroids[(lengths - 2 * part @ centroids.T).argmin(1)]

    return Fitted(1, float(np.log2(n)), lambda x: by_parts(nearest, x))


def random_encoder(rows: Rows, n: int, active: int, seed: int) -> Fitted:
    """Top `active` of ReLU(rows @ random unit directions), and the best linear decoder."""
    active = min(max(active, 1), n)
    require_memory(
        8 * n * (4 * n + GRAM_ROWS), f"least squares of {n} features", "leave out random-encoder"
    )
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(rows.shape[1], n, generator=generator)
    directions = (directions / directions.norm(dim=0)).to(rows)
    mean = rows.mean(0)

    def encode(part: Tensor) -> Tensor:
        values, at = ((part - mean) @ directions).relu().topk(active, dim=1)
        return torch.zeros(len(part), n, device=part.device).scatter_(1, at, values)

    gram, cross, summed = np.zeros((n, n)), np.zeros((n, rows.shape[1])), np.zeros(n)
    fires = np.zeros(n)
    for part in rows.split(GRAM_ROWS):
        codes = torch.cat([encode(some) for some in part.split(ROWS_AT_ONCE)])
        gram += _gram(codes, active)
        cross += (codes.T @ (part - mean)).cpu().numpy()
        summed += codes.sum(0, dtype=widest(rows.device)).cpu().numpy()
        fires += (codes > 0).sum(0).cpu().numpy()
    gram -= np.outer(summed, summed) / len(rows)  # about the mean code; rows have mean 0
    gram[np.diag_indices(n)] += RIDGE * max(float(gram.diagonal().mean()), 1e-12)
    solved = scipy.linalg.solve(gram, cross, assume_a="pos", overwrite_a=True)
    decoder = torch.from_numpy(solved).to(rows)
    offset = mean - torch.from_numpy(summed / len(rows)).to(rows) @ decoder
    bits = description_bits(fires / len(rows))
    return Fitted(active, bits, lambda x: by_parts(lambda part: encode(part) @ decoder + offset, x))


def _gram(codes: Float[Tensor, "row feature"], active: int) -> np.ndarray:
    """Products of the columns, [feature, feature]; sparse ones where that takes fewer steps."""
    if active * SPARSE > codes.shape[1]:
        return (codes.T @ codes).cpu().numpy()
    parts = [scipy.sparse.csr_matrix(part.cpu().numpy()) for part in codes.split(512)]
    sparse = scipy.sparse.csr_matrix(scipy.sparse.vstack(parts))
    return (sparse.T @ sparse).toarray()


@torch.no_grad()
def by_parts(of_rows: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A function of rows on x [..., d_model], some rows at a time."""
    parts = x.flatten(0, -2).split(ROWS_AT_ONCE)
    return torch.cat([of_rows(part) for part in parts]).view(x.shape)


def compared(
    applied: AppliedSAE,
    fitted: dict[str, Fitted],
    usage: Usage,
    seed: int,
    progress: Progress = quiet,
) -> dict[str, Baseline]:
    """FVU of each on the held-out rows, and that of the SAE less it; 95 % over puzzles."""
    n = len(applied.puzzles)
    errors = {name: np.zeros(n) for name in fitted}
    for i, puzzle in enumerate(applied.puzzles):
        progress(i, n)
        for reader in applied.readers:
            x = applied.rows(reader, int(puzzle))
            for name, code in fitted.items():
                lost = (code.reconstruct(x) - x).square().sum(dtype=widest(applied.device))
                errors[name][i] += float(lost)
    progress(n, n)
    spread, own = usage.spread.sum(1), usage.error.sum(1)
    return {
        name: Baseline(
            active=code.active,
            bits=code.bits,
            fvu=Estimate.of(ratio_with_bounds(errors[name], spread, seed)),
            sae_less=Estimate.of(ratio_with_bounds(own - errors[name], spread, seed)),
        )
        for name, code in fitted.items()
    }
