"""Two processes train one SAE as one process does: the same rows, losses, counts and revivals."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sae_runs import quick, silent, weights
from sae_store import noise, write_store
from team import in_two

import trm_interp.sae.train as train_module
from trm_interp.runtime.errors import UserError
from trm_interp.sae.pool import open_pool
from trm_interp.sae.stream import ActivationStream
from trm_interp.sae.train import Trainer, train_sae

VARIANTS: dict[str, dict[str, Any]] = {
    "standard": {"arch": "standard"},
    "gated": {"arch": "gated"},
    "gated-paper": {"arch": "gated", "gated_variant": "paper"},
    "topk": {"arch": "topk"},
    "batchtopk": {"arch": "batchtopk"},
    "jumprelu": {"arch": "jumprelu"},
}
# groups of 5 and 1 of the 6 training puzzles: in the last one a process has no row
SETTINGS: dict[str, Any] = {"max_steps": 40, "batch_size": 512, "buffer_mb": 1}
SETTINGS |= {"revive": "resample", "revive_every": 28}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    z_L = 3 + 2 * noise(8, d_model=16, pos=256)  # 98 kB a puzzle
    return write_store(tmp_path_factory.mktemp("together") / "store", z_L)


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def with_dead_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three features cannot fire until they are revived."""
    plain = train_module.make_sae

    def planted(*args: Any) -> Any:
        sae = plain(*args)
        with torch.no_grad():
            for name in ("b_enc", "b_gate", "b_mag"):
                if hasattr(sae, name):
                    getattr(sae, name)[:3] = -100
        return sae

    monkeypatch.setattr(train_module, "make_sae", planted)


@pytest.mark.parametrize("name", VARIANTS)
def test_two_processes_equal_one(
    name: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with_dead_features(monkeypatch)
    more = SETTINGS | VARIANTS[name]
    assert train_sae(quick(store, tmp_path / "one", **more), silent)
    two = tmp_path / "two"
    assert in_two(lambda: train_sae(quick(store, two, **more), silent)) == [0, 0]
    ones, twos = rows(tmp_path / "one"), rows(two)
    assert [row["step"] for row in twos] == [10, 20, 30, 40]
    assert ones[-1]["revived"] == 3 and ones[1]["dead_features"] == 0
    for one, other in zip(ones, twos, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert other[key] == pytest.approx(value, rel=1e-4, abs=1e-5), key
    for key, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(two)[key], value, atol=1e-4, rtol=1e-4, msg=key)
    one, other = (json.loads((at / "card.json").read_text()) for at in (tmp_path / "one", two))
    assert other["sae"]["rows"] == one["sae"]["rows"] == 40 * 512
    assert other["sae"]["stores"] == one["sae"]["stores"]
    assert other["times"]["processes"] == 2


def test_processes_read_puzzles_of_their_own_and_the_batch_stays(store: Path):
    def streams(**more: Any) -> ActivationStream:
        pool = open_pool([store], ["z_L"])
        settings: dict[str, Any] = {"batch_size": 500, "buffer_bytes": 10**6, "seed": 3}
        return ActivationStream(pool, np.arange(6), **settings, **more)

    with streams() as whole, streams(rank=0, size=2) as a, streams(rank=1, size=2) as b:
        assert whole.group == a.group == 5
        held = [sum(buffer.nbytes for buffer in one._buffers) for one in (whole, a, b)]
        assert held[1] == held[2] == held[0] * 3 / 5  # 3 puzzles of 5
        fewest = 500
        for _ in range(40):  # across the end of the epoch of 36.9 batches
            batch = next(whole)
            parts = [next(a), next(b)]
            places = torch.cat([a.places, b.places])
            assert sorted(places.tolist()) == list(range(500))
            assert torch.equal(torch.cat(parts)[places.argsort()], batch)
            fewest = min(fewest, len(parts[1]))
            assert a.position == b.position == whole.position
        assert fewest == 0
    with pytest.raises(UserError, match="7 processes have 5 puzzles to read at a time"):
        streams(rank=0, size=7)


def test_a_process_that_dies_ends_the_others_and_resumes_to_the_same_bits(
    store: Path, tmp_path: Path
):
    more = SETTINGS | {"arch": "batchtopk", "save_every": 7, "log_every": 3, "max_steps": 24}
    killed = tmp_path / "killed"

    def dies_at(step: int) -> None:
        plain = Trainer.advance

        def advance(self: Trainer):
            if self.n_training_steps == step and os.environ["RANK"] == "1":
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(self)

        Trainer.advance = advance  # type: ignore[method-assign]
        train_sae(quick(store, killed, resume=True, **more), silent)

    assert in_two(lambda: dies_at(16)) == [1, -signal.SIGKILL]
    lines: list[str] = []

    def goes_on() -> None:
        train_sae(quick(store, killed, resume=True, **more), lines.append)
        assert lines == ([] if int(os.environ["RANK"]) else ["resuming at optimizer step 14 of 24"])

    assert in_two(goes_on) == [0, 0]
    whole = tmp_path / "whole"
    assert in_two(lambda: train_sae(quick(store, whole, **more), silent)) == [0, 0]
    assert rows(killed) == rows(whole) and len(rows(whole)) == 8
    assert all(torch.equal(weights(killed)[k], v) for k, v in weights(whole).items())
    assert not list(killed.glob(".s*"))
