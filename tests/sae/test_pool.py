"""SAEs of several stores: their rows, the split over boards, what does not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
from sae_runs import quick, silent
from sae_store import CELLS, noise, numbered, write_store

from trm_interp.recording.info_sae import describe_sae
from trm_interp.recording.site_reader import board_keys
from trm_interp.recording.store import Store
from trm_interp.runtime.errors import UserError
from trm_interp.sae.applied import applying
from trm_interp.sae.pool import open_pool
from trm_interp.sae.saved import provenance_of
from trm_interp.sae.settings import OnSAE
from trm_interp.sae.train import train_sae

ROWS = 3 * 2 * 2 * CELLS  # of a puzzle


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """8 and 5 puzzles; the boards of the second are the first five of the first."""
    folder = tmp_path_factory.mktemp("pool")
    return [write_store(folder / "a", noise(8)), write_store(folder / "b", noise(5, seed=1))]


def test_puzzles_are_numbered_over_the_stores(tmp_path: Path):
    paths = [write_store(tmp_path / "a", numbered(3)), write_store(tmp_path / "b", -numbered(5))]
    with open_pool(paths, ["z_L"]) as pool:
        first = [float(next(pool.read(puzzle))[0, 0]) for puzzle in range(8)]
        assert first == [0, 1, 2, 0, -1, -2, -3, -4]
        assert pool.rows_per_puzzle == ROWS and len(pool.inputs) == len(pool.solved) == 8
        assert pool.shares(np.array([0, 2, 3, 4, 7])) == [2, 3]


def test_a_board_of_two_stores_is_trained_on_or_held_out(stores: list[Path], tmp_path: Path):
    config = quick(stores[0], tmp_path / "sae", stores=stores, held_out=0.5)
    assert train_sae(config, silent)
    sae = json.loads((tmp_path / "sae" / "card.json").read_text())["sae"]
    trained = set(sae["train_boards"])
    assert len(trained) == 4 and sae["n_train"] + sae["n_held_out"] == 13  # 4 of 8 held out
    for path, told in zip(stores, sae["stores"], strict=True):
        with Store(path) as store:
            n = len([key for key in board_keys(store["inputs"][:]) if key in trained])
            assert told == {
                "name": path.name,
                "store_sha256": store.sha256,
                "checkpoint_sha256": "c0ffee",
                "n_train": n,
                "n_held_out": store.n_puzzles - n,
                "training_rows": n * ROWS,
            }
    for path in stores:
        with applying(OnSAE(sae=tmp_path / "sae", store=path, device="cpu")) as applied:
            held_out = board_keys(applied.store["inputs"][applied.puzzles])
            assert not trained & set(held_out) and len(held_out) > 0
    with pytest.raises(UserError, match="store_sha256"):  # another order is another run
        train_sae(
            quick(stores[0], config.out, stores=stores[::-1], held_out=0.5, resume=True), silent
        )


def test_stores_that_do_not_fit_are_named(stores: list[Path], tmp_path: Path):
    a, b = stores
    wide = write_store(tmp_path / "wide", noise(4, d_model=6))
    large = write_store(tmp_path / "large", noise(4, pos=20))
    short = write_store(tmp_path / "short", noise(4)[:, :2])
    other = write_store(tmp_path / "other", noise(4, seed=2), checkpoint="beef")
    cases = [
        ([a, b, wide], f"{b} and {wide} cannot be pooled: width 4 and 6"),
        ([a, large], f"{a} and {large} cannot be pooled: cells 16 and 20"),
        ([a, short], "ticks .* of z_L and .* of z_L; give --ticks that both hold"),
        ([a, other], f"{a} and {other} .*: checkpoint c0ffee and beef; --mixed-checkpoints"),
        ([a, b, a], f"{a} and {a} are the same store"),
    ]
    for paths, message in cases:
        with pytest.raises(UserError, match=message):
            open_pool(paths, ["z_L"])
    with pytest.raises(UserError, match=f"{a} holds no 'z_H'"):
        open_pool([a, b], ["z_H"])
    open_pool([a, short], ["z_L"], ticks=[0, 1, 3]).close()


def test_several_checkpoints_by_request(stores: list[Path], tmp_path: Path):
    other = write_store(tmp_path / "other", noise(8, seed=2), checkpoint="beef")
    third = write_store(tmp_path / "third", noise(8, seed=3), checkpoint="f00d")
    config = quick(
        other, tmp_path / "sae", stores=[stores[0], other], mixed_checkpoints=True, held_out=0.5
    )
    assert train_sae(config, silent)
    sae = json.loads((tmp_path / "sae" / "card.json").read_text())["sae"]
    assert sae["checkpoint_sha256"] is None and sae["mixed_checkpoints"] == ["c0ffee", "beef"]
    for path in (stores[0], other):
        with applying(OnSAE(sae=tmp_path / "sae", store=path, device="cpu")) as applied:
            assert applied.mismatch is None
    on = OnSAE(sae=tmp_path / "sae", store=third, device="cpu")
    wrong = "checkpoint c0ffee, beef, the store's is f00d"
    with pytest.raises(UserError, match=wrong), applying(on):
        pass


def test_checkpoints_that_stores_do_not_name_are_not_taken_for_one(
    stores: list[Path], tmp_path: Path
):
    some = [write_store(tmp_path / at, noise(8, seed=ord(at)), checkpoint=None) for at in "cd"]
    with pytest.raises(UserError, match="checkpoint None and None; --mixed-checkpoints"):
        open_pool(some, ["z_L"])
    out, pooled = tmp_path / "sae", [stores[0], *some]
    assert train_sae(quick(some[0], out, stores=pooled, mixed_checkpoints=True), silent)
    trained = provenance_of(out)
    assert trained is not None and trained.checkpoints == "c0ffee, None"
    assert describe_sae(out)["mixed_checkpoints"] == ["c0ffee", None]
    assert trained.is_of("c0ffee") and trained.is_of(None) and not trained.is_of("beef")
