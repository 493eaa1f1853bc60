"""`collect --random-weights`: the states of a model that was never trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.core.infer import run_batch
from trm_interp.core.models.registry import build
from trm_interp.recording.opening import recorded_checkpoint
from trm_interp.recording.store import Store
from trm_interp.sae.results import SAEMeasures

Cli = Callable[..., Any]
CPU = torch.device("cpu")


def test_a_store_of_random_weights_and_the_model_behind_it(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path
):
    words = ["collect", "--ckpt", copier, "--puzzles", grids, "--steps", 2, "--device", "cpu"]
    for seed in (4, 5):
        out = tmp_path / f"store-{seed}"
        answer = cli(*words, "--random-weights", seed, "--out", out)
        assert answer.code == 0 and f"fresh weights of seed {seed}" in answer.err
        assert f"with fresh weights of seed {seed} on" in cli("info", out).out
    config = load_checkpoint(copier).model.config
    fresh = build(config, torch.Generator().manual_seed(4)).eval()
    with Store(tmp_path / "store-4") as store, Store(tmp_path / "store-5") as other:
        inputs, labels, own = store.tensors()
        read = run_batch(fresh, inputs, labels, 2, identifiers=own)
        np.testing.assert_array_equal(store["predictions"][:], read.tokens.numpy())
        assert (store["z_L"][:] != other["z_L"][:]).mean() > 0.9
        again, wrong = recorded_checkpoint(store, None, CPU)
        assert wrong is None and again.weights == "random, seed 4"
        for name, tensor in fresh.state_dict().items():
            torch.testing.assert_close(again.model.state_dict()[name], tensor, rtol=0, atol=0)
        assert store.checkpoint_sha256 != other.checkpoint_sha256
    refused = cli(*words, "--random-weights", 5, "--out", tmp_path / "store-4", "--resume")
    assert refused.code == 2 and "checkpoint_sha256" in refused.err
    refused = cli(*words, "--random-weights", -1, "--out", tmp_path / "store-6")
    assert refused.code == 2 and "--random-weights must be from 0" in refused.err


def test_an_sae_of_random_weights_is_spliced_into_them(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path
):
    store, sae = tmp_path / "store", tmp_path / "sae"
    words = ["--ckpt", copier, "--puzzles", grids, "--steps", 2, "--device", "cpu"]
    assert cli("collect", *words, "--random-weights", 4, "--out", store).code == 0
    small = ["--train-steps", 5, "--expansion", 2, "--batch-size", 16, "--buffer-mb", 1]
    assert cli("train-sae", store, "--site", "z_L", "--out", sae, *small).code == 0
    answer = cli("sae-eval", sae, store, "--all-puzzles", "--json")
    assert answer.code == 0, answer.err
    spliced = SAEMeasures.from_json(json.loads(answer.out)).spliced_everywhere
    with Store(store) as opened:
        loss = float(opened["loss"][:, -1].mean())
    assert spliced and abs((spliced.runs["clean"].loss.value or 0) - loss) < 1e-4
