"""Training finds a planted dictionary, resumes to the same bits, saves what sae-lens opens."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from sae_lens import SAE
from sae_runs import quick, weights
from sae_store import noise, write_store

from trm_interp.recording.store import Store
from trm_interp.runtime.errors import UserError
from trm_interp.sae.applied import encode
from trm_interp.sae.train import Trainer, train_sae

ARCHS = ("standard", "gated", "topk", "batchtopk", "jumprelu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    z_L = 3 + 2 * noise(8)  # centre and scale must do something
    return write_store(tmp_path_factory.mktemp("train") / "store", z_L)


@pytest.mark.parametrize("arch", ARCHS)
def test_plain_sae_lens_opens_what_is_saved(arch: str, store: Path, tmp_path: Path):
    assert train_sae(quick(store, tmp_path / "sae", arch=arch), lambda line: None)
    sae = SAE.load_from_disk(tmp_path / "sae")
    with Store(store) as opened:
        x = torch.from_numpy(opened["z_L"][:]).float().flatten(0, -2)
        metadata = sae.cfg.metadata.trm_interp
        assert metadata["store_sha256"] == opened.sha256
    assert sae.cfg.d_in == 4 and sae.cfg.d_sae == 8
    assert metadata["arch"] == arch and metadata["sites"] == ["z_L"]
    assert metadata["checkpoint_sha256"] == "c0ffee" and metadata["rows"] == 30 * 32
    assert metadata["ticks"][:4] == [0, 1, 3, 4] and len(metadata["ticks"]) == 12
    assert (metadata["gated_variant"] == "saelens") is (arch == "gated")
    assert {"torch", "sae_lens"} <= metadata["versions"].keys()
    assert metadata["n_train"] == 6 and metadata["n_held_out"] == 2
    # it takes raw activations: mean 3, spread 2
    torch.testing.assert_close(
        torch.tensor(metadata["scaling"]["mean"]), x.mean(0), atol=0.1, rtol=0
    )
    assert metadata["scaling"]["scale"] == pytest.approx(2, abs=0.1)
    error = (sae(x) - x).square().mean() / x.var(0).mean()
    assert error < 1.2 and torch.isfinite(encode(sae, x)).all()
    assert len((tmp_path / "sae" / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("arch", ["gated", "topk", "jumprelu", "standard"])
def test_folding_centre_and_scale_changes_nothing(arch: str, store: Path, tmp_path: Path):
    from trm_interp.sae.stream import Scaling
    from trm_interp.sae.train import make_sae, save_inference

    config = quick(store, tmp_path, arch=arch)
    sae = make_sae(config, 4, torch.device("cpu"))
    with torch.no_grad():
        for weight in sae.parameters():
            weight.add_(
                0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
            )
        if arch == "jumprelu":
            sae.threshold.abs_()
    scaling = Scaling(torch.tensor([3.0, 1, 0, -2]), 2.0)
    save_inference(sae, scaling, {"sites": ["z_L"]}, tmp_path / "sae")
    raw = 3 + 2 * torch.randn(50, 4, generator=torch.Generator().manual_seed(4))
    scaled = (raw - scaling.mean) / scaling.scale
    with torch.no_grad():
        expected = sae.decode(sae.encode(scaled)) * scaling.scale + scaling.mean
        loaded = SAE.load_from_disk(tmp_path / "sae")
        torch.testing.assert_close(loaded(raw), expected, rtol=1e-4, atol=1e-4)
        assert ((loaded.encode(raw) > 0) == (sae.encode(scaled) > 0)).float().mean() > 0.99


@pytest.mark.parametrize("variant", ["saelens", "paper"])
def test_a_planted_dictionary_is_recovered(variant: str, tmp_path: Path):
    """16 directions in 12 dimensions, 1.5 of them active in a row: every one has its feature."""
    rng = np.random.default_rng(0)
    planted = rng.standard_normal((16, 12))
    planted /= np.linalg.norm(planted, axis=1, keepdims=True)
    active = rng.random((6, 3, 2, 2, 64, 16)) < 1.5 / 16
    z_L = (active * (1 + rng.random(active.shape))) @ planted
    path = write_store(tmp_path / "store", z_L)
    settings = {"max_steps": 800, "batch_size": 128, "lr": 1e-2, "l1": 4.0, "log_every": 100}
    config = quick(path, tmp_path / "sae", gated_variant=variant, save_every=1000, **settings)
    assert train_sae(config, lambda line: None)
    sae = SAE.load_from_disk(tmp_path / "sae")
    rows = torch.nn.functional.normalize(sae.W_dec.detach(), dim=1)
    nearest = (torch.tensor(planted, dtype=torch.float32) @ rows.T).amax(1)
    assert (nearest > 0.95).float().mean() >= 0.9, nearest
    last = json.loads((tmp_path / "sae" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["explained_variance"] > 0.85 and last["l0"] < 4


def test_same_command_same_bits_and_another_seed_differs(store: Path, tmp_path: Path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_sae(quick(store, tmp_path / name, seed=seed), lambda line: None)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["W_enc"], c["W_enc"])
    assert (tmp_path / "a/metrics.jsonl").read_text() == (tmp_path / "b/metrics.jsonl").read_text()


@pytest.mark.parametrize("arch", ["gated", "batchtopk"])
def test_killed_anywhere_it_resumes_to_the_same_bits(arch: str, store: Path, tmp_path: Path):
    more = {"arch": arch, "gated_variant": "paper", "log_every": 3, "save_every": 7}
    train_sae(quick(store, tmp_path / "whole", **more), lambda line: None)
    for steps in (5, 16, 2, 4):  # of each life; states are saved at 7, 14, 21 and 28
        child = os.fork()
        if child == 0:
            kill_after(steps)
            train_sae(quick(store, tmp_path / "killed", resume=True, **more), lambda line: None)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    lines: list[str] = []
    train_sae(quick(store, tmp_path / "killed", resume=True, **more), lines.append)
    assert lines == ["resuming at optimizer step 14 of 30"]
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    rows = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "killed")]
    assert rows[0] == rows[1] and len(rows[0].splitlines()) == 10
    assert not list((tmp_path / "killed").glob(".s*"))  # nothing half-written is left


def kill_after(steps: int) -> None:
    """This process sends itself SIGKILL when it would take one more optimizer step."""
    plain, left = Trainer.advance, steps

    def advance(self: Trainer):
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self)

    Trainer.advance = advance  # type: ignore[method-assign]


def test_another_run_is_not_resumed_and_a_finished_one_stays(store: Path, tmp_path: Path):
    out = tmp_path / "sae"
    train_sae(quick(store, out), lambda line: None)
    before = weights(out)
    with pytest.raises(UserError, match="use --resume to continue or --overwrite"):
        train_sae(quick(store, out))
    with pytest.raises(UserError, match=r"another run: batch_size \(32 there, 16 now\)"):
        train_sae(quick(store, out, resume=True, batch_size=16))
    assert train_sae(quick(store, out, resume=True), lambda line: None)
    after = weights(out)
    assert all(torch.equal(before[name], after[name]) for name in before)
    (out / "train_state.pt").write_bytes(b"half")
    with pytest.raises(UserError, match="truncated or damaged"):
        train_sae(quick(store, out, resume=True))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="is not empty and has no marker"):
        train_sae(quick(store, tmp_path / "other", overwrite=True))


def test_an_unfinished_store_is_used_and_said_so(tmp_path: Path):
    path = write_store(tmp_path / "store", noise(12), done=8)
    lines: list[str] = []
    train_sae(quick(path, tmp_path / "sae"), lines.append)
    assert lines == [f"{path} is unfinished: using its 8 complete puzzles"]
    assert json.loads((tmp_path / "sae" / "card.json").read_text())["sae"]["n_train"] == 6
