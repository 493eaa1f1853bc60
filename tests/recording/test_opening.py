"""A store is opened as far as it is finished; its checkpoint is known by its weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_store import noise, write_store

from trm_interp.core.checkpoints.folder import load_checkpoint, save_checkpoint
from trm_interp.recording.opening import finished_puzzles, recorded_checkpoint
from trm_interp.recording.store import Store
from trm_interp.runtime.errors import UserError

Cli = Callable[..., Any]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def recorded(cli: Cli, copier: Path, grids: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("recorded") / "store"
    words = ["--ckpt", copier, "--puzzles", grids, "--out", out, "--steps", 1, "--limit", 2]
    assert cli("collect", *words).code == 0
    return out


def test_an_unfinished_store_shows_its_finished_puzzles(tmp_path: Path):
    lines: list[str] = []
    with finished_puzzles(write_store(tmp_path / "whole", noise(6)), lines.append) as store:
        assert store.n_puzzles == 6 and lines == []
    with finished_puzzles(write_store(tmp_path / "part", noise(6), done=4), lines.append) as store:
        assert store.n_puzzles == 4
    assert len(lines) == 1 and "is unfinished: using its 4 complete puzzles" in lines[0]
    with (
        pytest.raises(UserError, match="holds no complete puzzle yet"),
        finished_puzzles(write_store(tmp_path / "none", noise(6), done=2), lines.append),
    ):
        pass


def test_the_checkpoint_of_a_store(recorded: Path, copier: Path, tmp_path: Path):
    with Store(recorded) as store:
        checkpoint, mismatch = recorded_checkpoint(store, None, CPU)
        assert checkpoint.path == copier and mismatch is None
        copy = shutil.copytree(copier, tmp_path / "copy")
        assert recorded_checkpoint(store, str(copy), CPU)[1] is None
        other = load_checkpoint(copier).model
        with torch.no_grad():
            other.lm_head.weight.mul_(2)
        save_checkpoint(tmp_path / "other", other, {})
        _, mismatch = recorded_checkpoint(store, str(tmp_path / "other"), CPU)
        assert mismatch and store.checkpoint_sha256[:12] in mismatch


def test_a_store_that_does_not_name_its_checkpoint(recorded: Path, tmp_path: Path):
    copy = shutil.copytree(recorded, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["meta"]["checkpoint"].pop("path")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with Store(copy) as store, pytest.raises(UserError, match="where its checkpoint is: give --ck"):
        recorded_checkpoint(store, None, CPU)
