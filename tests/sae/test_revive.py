"""Dead features come back, as a function of the seed, and nothing happens unasked."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sae_lens import SAE
from sae_runs import quick, silent, weights
from sae_store import noise, write_store

from trm_interp.sae.revive import resample
from trm_interp.sae.settings import TrainSAEConfig
from trm_interp.sae.train import train_sae
from trm_interp.sae.trainer import Trainer, make_sae

ARCHS = ("standard", "gated", "topk", "batchtopk", "jumprelu")
DEAD = 2  # the planted one


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("revive") / "store", noise(8))


def planted(sae: Any) -> None:
    """Feature DEAD can never fire: its encoder is zero, its bias far below."""
    with torch.no_grad():
        sae.W_enc[:, DEAD] = 0
        (sae.b_gate if hasattr(sae, "b_gate") else sae.b_enc)[DEAD] = -100
        if hasattr(sae, "b_mag"):
            sae.b_mag[DEAD] = -100


def config(arch: str, **more: Any) -> TrainSAEConfig:
    return quick(Path("store"), Path("out"), arch=arch, **more)


@pytest.mark.parametrize(
    ("arch", "variant"), [*((arch, "saelens") for arch in ARCHS), ("gated", "paper")]
)
def test_a_planted_dead_feature_fires_afterwards(arch: str, variant: str):
    sae = make_sae(config(arch, gated_variant=variant, expansion=4), 4, torch.device("cpu"))
    planted(sae)
    rows = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(sae.parameters())
    sae.encode(rows).sum().backward()
    optimizer.step()
    planted(sae)
    with torch.no_grad():
        acts = sae.encode(rows)
        assert not acts[:, DEAD].any()
        before = {name: weight.clone() for name, weight in sae.named_parameters()}
        dead = torch.zeros(16, dtype=torch.bool)
        dead[DEAD] = True
        again = resample(sae, optimizer, rows, sae.decode(acts), dead, seed=0, step=25)
        assert torch.equal(again, dead)
        assert (sae.encode(rows)[:, DEAD] > 0).any()
    for name, weight in sae.named_parameters():  # the others are as they were
        kept = [weight, before[name]]
        if name == "W_enc":
            kept = [w.T for w in kept]
        if name != "b_dec":
            kept = [torch.cat([w[:DEAD], w[DEAD + 1 :]]) for w in kept]
        assert torch.equal(*kept), name
    moments = optimizer.state[sae.W_enc]["exp_avg"]
    assert not moments[:, DEAD].any() and moments.any()
    norm = sae.W_dec.detach().norm(dim=1)  # the mean of the others'
    torch.testing.assert_close(norm[DEAD], norm[~dead].mean())


def test_rows_are_drawn_by_the_square_of_their_loss():
    sae = make_sae(config("standard", expansion=4), 4, torch.device("cpu"))
    rows = torch.eye(4)
    reconstructed = rows.clone()
    reconstructed[2] = 0  # the only row with a loss
    dead = torch.ones(16, dtype=torch.bool)
    again = resample(sae, torch.optim.Adam(sae.parameters()), rows, reconstructed, dead, 0, 1)
    assert again.nonzero().flatten().tolist() == [0]  # one row, one feature
    torch.testing.assert_close(torch.nn.functional.normalize(sae.W_dec[0], dim=0), rows[2])
    perfect = resample(sae, torch.optim.Adam(sae.parameters()), rows, rows, dead, 0, 1)
    assert not perfect.any()


@pytest.fixture
def with_a_dead_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run starts with the planted feature."""
    plain = make_sae

    def make(*given: Any) -> Any:
        sae = plain(*given)
        planted(sae)
        return sae

    monkeypatch.setattr("trm_interp.sae.train.make_sae", make)


SOME = {"arch": "gated", "max_steps": 60, "revive": "resample", "revive_every": 25}


def test_in_a_run_the_dead_feature_comes_alive(with_a_dead_one: None, store: Path, tmp_path: Path):
    for revive in ("none", "resample"):
        train_sae(quick(store, tmp_path / revive, **SOME | {"revive": revive}), silent)
    rows = torch.from_numpy(noise(8)).float().flatten(0, -2)
    fires = {}
    for revive in ("none", "resample"):
        acts = SAE.load_from_disk(tmp_path / revive).encode(rows)
        fires[revive] = bool((acts[:, DEAD] > 0).any())
    assert fires == {"none": False, "resample": True}
    card = json.loads((tmp_path / "resample" / "card.json").read_text())
    assert card["revived"] >= 1 and card["settings"]["revive"] == "resample"
    assert card["settings"]["revive_every"] == 25
    row = json.loads((tmp_path / "resample" / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["revived"] == card["revived"]
    assert json.loads((tmp_path / "none" / "card.json").read_text())["revived"] == 0


def test_a_killed_run_revives_to_the_same_bits(
    with_a_dead_one: None, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    more = SOME | {"save_every": 7}
    train_sae(quick(store, tmp_path / "whole", **more), silent)
    for steps in (24, 8):  # of each life: killed after 24, which resumes at 21, and after 29
        child = os.fork()
        if child == 0:
            plain, left = Trainer.advance, [steps]

            def advance(self: Trainer, plain: Any = plain, left: list[int] = left) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return plain(self)

            Trainer.advance = advance  # type: ignore[method-assign]
            train_sae(quick(store, tmp_path / "killed", resume=True, **more), silent)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    lines: list[str] = []
    train_sae(quick(store, tmp_path / "killed", resume=True, **more), lines.append)
    assert lines == ["resuming at optimizer step 28 of 60"]  # after the first revival
    whole, killed = (weights(tmp_path / name) for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    rows = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "killed")]
    assert rows[0] == rows[1] and json.loads(rows[0].splitlines()[-1])["revived"] >= 1


def test_switched_off_or_without_the_dead_nothing_changes(store: Path, tmp_path: Path):
    for revive in ("none", "resample"):  # no feature dies in 30 steps: the window is 20
        more = {"arch": "topk", "k": 8, "revive": revive, "revive_every": 10}
        train_sae(quick(store, tmp_path / revive, **more), silent)
    none, some = (weights(tmp_path / name) for name in ("none", "resample"))
    assert all(torch.equal(none[name], some[name]) for name in none)
    rows = (tmp_path / "none" / "metrics.jsonl").read_text()
    assert "revived" not in rows


def test_nothing_is_revived_in_the_last_fifth(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    at: list[int] = []
    monkeypatch.setattr(Trainer, "_revive", lambda self, *_: at.append(self.n_training_steps))
    more = SOME | {"max_steps": 50, "revive_every": 10}
    train_sae(quick(store, tmp_path / "sae", **more), silent)
    assert at == [10, 20, 30, 40]
    train_sae(quick(store, tmp_path / "none", **more | {"revive": "none"}), silent)
    assert len(at) == 4


def test_a_state_from_before_features_were_revived_is_resumed(store: Path, tmp_path: Path):
    train_sae(quick(store, tmp_path / "sae"), silent)
    state = torch.load(tmp_path / "sae" / "train_state.pt", weights_only=True)
    del state["revived"], state["identity"]["revive"], state["identity"]["revive_every"]
    torch.save(state, tmp_path / "sae" / "train_state.pt")
    (tmp_path / "sae" / ".trm-interp.json").unlink()
    before = weights(tmp_path / "sae")
    lines: list[str] = []
    assert train_sae(quick(store, tmp_path / "sae", resume=True), lines.append)
    assert lines[0].endswith(" is complete") and len(lines) == 1
    assert np.all([torch.equal(before[n], w) for n, w in weights(tmp_path / "sae").items()])
