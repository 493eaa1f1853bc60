"""A store, an SAE and a checkpoint go to a repository and are read from there."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from option_world import SMALL_SAE, World, make_world

from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.recording.store import Store, StoreError
from trm_interp.report.push import card_of, pushable
from trm_interp.runtime.errors import UserError
from trm_interp.sae.saved import load_sae


@pytest.fixture(scope="module")
def world(copier: Path, grids: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(copier, grids, tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pushed(cli: Any, what: Path, folder: Path) -> str:
    url = f"file://{folder}"
    answer = cli("push", what, url, "--licence", "cc-by-4.0", "--json")
    assert answer.code == 0, answer.err
    assert "README.md" in json.loads(answer.out)["files"]
    return url


def test_a_store_is_read_shard_by_shard(world: World, tmp_path: Path, cache: Path, cli: Any):
    three = tmp_path / "three"
    model = ["--ckpt", world.ckpt, "--puzzles", world.puzzles, "--steps", 1]
    assert cli("collect", *model, "--out", three, "--batch-size", 4).code == 0
    manifest = json.loads((three / "manifest.json").read_text())
    url = pushed(cli, three, tmp_path / "repo")
    with Store(url) as there, Store(three) as here:
        assert there.n_puzzles == 13 and there.task == here.task
        assert [file.name for file in cache.rglob("*.h5")] == []
        np.testing.assert_array_equal(there["z_L"][0], here["z_L"][0])
        fetched = sorted(file.name for file in cache.rglob("*.h5"))
        assert fetched == [manifest["shards"][0]["file"]]
        assert there.frame().equals(here.frame())
        assert there.sha256 == here.sha256
    card = (tmp_path / "repo" / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\n") and "| puzzles | 13 |" in card
    assert here.checkpoint_sha256 in card and url in card

    # a shard that was cut short in the mirror is fetched again; one that is not there is told
    (file,) = {f for f in cache.rglob("*.h5") if f.name == fetched[0]}
    file.write_bytes(file.read_bytes()[:100])
    with Store(url) as again:
        assert again["z_L"][0].shape == there["z_L"].shape[1:]
    (tmp_path / "repo" / fetched[0]).unlink()
    with Store(url) as broken, pytest.raises(StoreError, match="push the store again"):
        broken["z_L"][0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="no store was pushed there"):
        Store(f"file://{tmp_path / 'empty'}")


def test_commands_take_what_was_pushed(world: World, tmp_path: Path, cli: Any):
    store, sae = (pushed(cli, getattr(world, n), tmp_path / n) for n in ("store", "sae"))
    ckpt = pushed(cli, world.ckpt, tmp_path / "ckpt")
    ours, theirs = load_sae(world.sae), load_sae(sae)
    assert torch.equal(ours.W_dec, theirs.W_dec)
    assert load_checkpoint(ckpt).sha256 == load_checkpoint(world.ckpt).sha256
    for words in (
        ["sae-eval", sae, store, "--ckpt", ckpt, "--limit", 1, "--out", tmp_path / "m.json"],
        ["info", store, "--validate"],
        ["info", sae],
        ["info", ckpt],
        ["lens", store, "--ckpt", ckpt, "--out", tmp_path / "lens"],
        ["train-sae", store, "--site", "z_L", "--out", tmp_path / "again", *SMALL_SAE],
    ):
        answer = cli(*words)
        assert answer.code == 0, answer.err


def test_what_a_command_wrote_is_pushed_at_its_end(world: World, tmp_path: Path, cli: Any):
    words = ["collect", "--ckpt", world.ckpt, "--puzzles", world.puzzles, "--steps", 1]
    out, repo = tmp_path / "out", tmp_path / "repo"
    without = cli(*words, "--out", out, "--push", f"file://{repo}")
    assert without.code == 2 and "--licence must be given" in without.err
    nowhere = cli(*words, "--out", out, "--push", "elsewhere", "--licence", "mit")
    assert nowhere.code == 2 and "expected hf://" in nowhere.err and not out.exists()
    done = cli(*words, "--out", out, "--push", f"file://{repo}", "--licence", "mit")
    assert done.code == 0 and f"to file://{repo}" in done.err
    assert Store(f"file://{repo}").n_puzzles == 13


def test_what_cannot_be_pushed(world: World, tmp_path: Path, cli: Any):
    for words, problem in (
        ([tmp_path, "file:///x", "--licence", "mit"], "no store, SAE or checkpoint"),
        (["file:///x", "file:///y", "--licence", "mit"], "in a repository already"),
        ([world.ckpt, "hf://me/mine/inner", "--licence", "mit"], "a folder inside a repository"),
        ([world.ckpt, "hf://me/mine", "--licence", "Mine: all"], "licence must be a name"),
    ):
        answer = cli("push", *words)
        assert answer.code == 2 and problem in answer.err, answer.err
        assert answer.err.count("\n") == 1


def test_a_damaged_card_is_one_line(world: World, tmp_path: Path, cli: Any):
    folder = tmp_path / "sae"
    shutil.copytree(world.sae, folder)
    (folder / "card.json").write_text("{")
    answer = cli("push", folder, f"file://{tmp_path / 'repo'}", "--licence", "mit")
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert "card.json is damaged" in answer.err and not (tmp_path / "repo").exists()


def test_a_card_keeps_to_its_table(world: World):
    what = pushable(world.ckpt, "hf://me/mine")
    what.facts["note"] = "a | b\nc"
    card = card_of(what, "mit")
    assert "| note | a \\| b c |" in card and "None" not in card
    with pytest.raises(UserError, match="no store, SAE or checkpoint"):
        pushable(world.puzzles.parent, "hf://me/mine")
