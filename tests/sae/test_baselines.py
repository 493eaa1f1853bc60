"""Baselines of an SAE: planted data on which it is known which code wins, and bits by hand."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sae_lens import SAE, TopKSAE, TopKSAEConfig
from sae_runs import quick, silent
from sae_store import CELLS, STEPS, H, L, write_store
from torch import Tensor

from trm_interp.runtime.errors import UserError
from trm_interp.sae.applied import applying
from trm_interp.sae.baselines import (
    BITS,
    Fitted,
    baselines_of,
    compared,
    description_bits,
    fit,
    k_means,
    pca,
    random_encoder,
    training_rows,
)
from trm_interp.sae.measures import measures
from trm_interp.sae.results import SAEMeasures
from trm_interp.sae.settings import BASELINES, EvalSAEConfig
from trm_interp.sae.train import train_sae

Cli = Callable[..., Any]


@torch.no_grad()
def fvu(code: Fitted, rows: Tensor) -> float:
    error = (code.reconstruct(rows) - rows).square().sum()
    return float(error / (rows - rows.mean(0)).square().sum())


def sparse_rows(n: int, d: int, features: int, active: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sums of a few of many unit directions, and the directions [feature, d]."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(features, d, generator=generator))
    at = torch.rand(n, features, generator=generator).argsort(1)[:, :active]
    values = 0.5 + torch.rand(n, active, generator=generator)
    return torch.zeros(n, features).scatter_(1, at, values) @ directions, directions


def test_bits_by_hand():
    # 4 features that fire on half of the rows: 4 x 1 bit for which, 2 x 8 bits for how much
    assert description_bits(np.full(4, 0.5)) == 4 + 2 * 8
    # on a quarter: -(1/4 log2 1/4 + 3/4 log2 3/4) = 0.5 + 0.3113 bits each
    which = 0.5 + 0.75 * math.log2(4 / 3)
    assert description_bits(np.full(8, 0.25), bits=4) == pytest.approx(8 * which + 2 * 4)
    assert description_bits(np.array([1.0, 0.0])) == BITS  # nothing to say about which


def test_the_numbers_of_components_match_what_the_sae_keeps():
    rows = torch.randn(200, 12, generator=torch.Generator().manual_seed(0))
    density = np.full(20, 0.25)  # L0 5; 20 x 0.8113 + 40 bits = 56.2: 7 numbers of 8 bits
    same, longer = (fit(name, rows, density, seed=0) for name in ("pca", "pca-bits"))
    assert (same.active, same.bits) == (5, 40) and (longer.active, longer.bits) == (7, 56)
    values = torch.linalg.svdvals((rows - rows.mean(0)).double()).square()
    assert fvu(same, rows) == pytest.approx(float(values[5:].sum() / values.sum()), rel=1e-4)
    assert pca(rows, 40).active == 12 and fvu(pca(rows, 40), rows) < 1e-10
    assert pca(rows, 0).active == 1


def test_pca_wins_on_rows_of_low_rank():
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(4000, 3, generator=generator) @ torch.randn(3, 16, generator=generator)
    fits = {name: fit(name, rows, np.full(64, 3 / 64), seed=0) for name in BASELINES}
    assert fvu(fits["pca"], rows) < 1e-6
    assert fvu(fits["k-means"], rows) > 0.05 and fvu(fits["random-encoder"], rows) > 0.01


def test_the_true_dictionary_beats_pca_on_sparse_rows():
    """A top-k SAE whose encoder and decoder are the planted directions, at the same L0."""
    rows, directions = sparse_rows(4000, d=64, features=256, active=2, seed=2)
    sae = TopKSAE(TopKSAEConfig(d_in=64, d_sae=256, k=2, apply_b_dec_to_input=False))
    with torch.no_grad():
        sae.W_enc.copy_(directions.T)
        sae.W_dec.copy_(directions)
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    own = Fitted(2, 0, sae)
    assert fvu(own, rows) < 0.25
    assert fvu(pca(rows, 2), rows) > 0.9  # all directions alike
    assert fvu(random_encoder(rows, 256, 2, seed=0), rows) > fvu(own, rows) + 0.2


def test_k_means_reconstructs_clusters():
    generator = torch.Generator().manual_seed(3)
    centres = 10 * torch.randn(12, 8, generator=generator)
    at = torch.randint(12, (3000,), generator=generator)
    rows = centres[at] + 0.01 * torch.randn(3000, 8, generator=generator)
    code = k_means(rows, 48, seed=0)
    assert (code.active, code.bits) == (1, math.log2(48)) and fvu(code, rows) < 1e-3
    assert fvu(pca(rows, 1), rows) > 0.3
    assert k_means(rows[:20], 48, seed=0).bits == math.log2(20)


def test_the_random_encoder_has_the_best_linear_decoder_of_its_codes():
    rows, _ = sparse_rows(600, d=6, features=12, active=2, seed=4)
    code = random_encoder(rows, 10, 3, seed=5)
    # the same directions again, and least squares with a constant by another routine
    generator = torch.Generator().manual_seed(5)
    directions = torch.randn(6, 10, generator=generator)
    directions = directions / directions.norm(dim=0)
    before = ((rows - rows.mean(0)) @ directions).relu()
    kept = before * (before >= before.topk(3, dim=1).values[:, -1:])
    design = torch.cat([kept, torch.ones(600, 1)], 1).double().numpy()
    best = design @ np.linalg.lstsq(design, rows.double().numpy(), rcond=None)[0]
    error = float(np.square(best - rows.numpy()).sum())
    ours = float((code.reconstruct(rows) - rows).square().sum())
    assert error <= ours * (1 + 1e-6) and ours == pytest.approx(error, rel=1e-3)


# of a command


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of rank 2 in 6 dimensions."""
    rng = np.random.default_rng(6)
    z_L = rng.standard_normal((16, STEPS, H, L, CELLS, 2)) @ rng.standard_normal((2, 6))
    return write_store(tmp_path_factory.mktemp("baselines") / "store", z_L)


@pytest.fixture(scope="module")
def sae(store: Path) -> Path:
    out = store.parent / "sae"
    assert train_sae(quick(store, out, arch="topk", k=2, max_steps=60), silent)
    return out


def test_baselines_of_a_trained_sae_are_fitted_to_its_training_puzzles_alone(
    store: Path, sae: Path
):
    config = EvalSAEConfig(sae=sae, store=store, device="cpu", baselines="all", loop=False)
    with applying(config, silent) as applied:
        result, usage = measures(applied, seed=0)
        fitted = baselines_of(config, applied, usage, silent)
        others = compared(applied, fitted, usage, seed=0)
        training = np.setdiff1d(np.arange(16), applied.puzzles)
        seen = np.concatenate([applied.reader.read(int(p)) for p in training]).reshape(-1, 6)
        rows = training_rows(applied, training, seed=0).numpy()
    assert list(others) == list(BASELINES) and len(applied.puzzles) == 4
    pca_fvu = others["pca"].fvu.value
    assert pca_fvu is not None and pca_fvu < 1e-5 < 0.05 < (result.fvu.value or 0)
    less = others["pca"].sae_less  # the SAE loses: above 0, clear of it
    assert less.value == pytest.approx((result.fvu.value or 0) - pca_fvu)
    assert less.low is not None and less.low > 0
    key = {row.tobytes() for row in seen.astype(np.float32)}
    assert len(rows) == len(seen) and all(row.tobytes() in key for row in rows)


def test_without_training_puzzles_there_are_no_baselines(store: Path, sae: Path, tmp_path: Path):
    z_L = np.random.default_rng(7).standard_normal((3, STEPS, H, L, CELLS, 6))
    boards = 5 - (np.arange(3)[:, None] // 5 ** np.arange(CELLS)) % 5
    other = write_store(tmp_path / "other", z_L, inputs=boards)
    lines: list[str] = []
    for named, expected in ((None, "no baselines"), ("none", "")):
        config = EvalSAEConfig(sae=sae, store=other, device="cpu", baselines=named, loop=False)
        with applying(config, silent) as applied:
            usage = measures(applied, seed=0)[1]
            assert baselines_of(config, applied, usage, lines.append) == {}
        assert "".join(lines).endswith(expected)
        lines.clear()
    config = EvalSAEConfig(sae=sae, store=other, device="cpu", baselines="pca", loop=False)
    with applying(config, silent) as applied, pytest.raises(UserError, match="store of its train"):
        baselines_of(config, applied, measures(applied, seed=0)[1], silent)
    with pytest.raises(ValueError, match="baselines: 'ica' is none of pca, pca-bits, k-means, ran"):
        EvalSAEConfig(sae=sae, store=other, baselines="pca,ica")


def test_the_command_measures_and_splices_baselines_at_all_sites_together(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path
):
    store, sae = tmp_path / "store", tmp_path / "sae"
    words = ["--ckpt", copier, "--puzzles", grids, "--out", store, "--steps", 2]
    assert cli("collect", *words, "--sites", "resid").code == 0
    small = ["--train-steps", 20, "--expansion", 2, "--batch-size", 32, "--buffer-mb", 8]
    words = ["--site", "resid", "--arch", "topk", "--active", 4, "--out", sae, *small]
    assert cli("train-sae", store, *words, "--device", "cpu").code == 0
    answer = cli("sae-eval", sae, store, "--baselines", "all", "--json", "--device", "cpu")
    assert answer.code == 0, answer.err
    result = SAEMeasures.read(sae / "measures.json")
    sites = result.site.split(",")
    assert len(sites) == 4 and result.by_site is not None and list(result.by_site) == sites
    alone = cli("sae-eval", sae, store, "--site", sites[2], "--no-loop", "--json", "--overwrite")
    one = json.loads(alone.out)
    assert one["fvu"]["value"] == pytest.approx(result.by_site[sites[2]].fvu.value)
    assert result.baselines is not None and list(result.baselines) == list(BASELINES)
    spliced = result.spliced_everywhere
    assert spliced is not None and set(spliced.runs) == {"clean", "sae", "zero", "mean", *BASELINES}
    assert spliced.recovered_by is not None and set(spliced.recovered_by) == set(BASELINES)
    printed = cli("sae-eval", sae, store, "--overwrite", "--device", "cpu").out
    assert "SAE less code" in printed and f"at {sites[0]}" in printed
    assert isinstance(SAE.load_from_disk(sae), SAE)
