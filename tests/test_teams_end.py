"""Processes of one training begin and part in order.

DDP is freed before they part: freed while Python ends, it can wait for ever for a group that is
gone, so a real torchrun hangs.
"""

import os
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from sae_runs import quick, silent
from sae_store import noise, write_store
from team import in_two

import trm_interp.core.ranks as ranks_module
from trm_interp.core.training.settings import TrainConfig
from trm_interp.runtime.errors import UserError
from trm_interp.sae.train import train_sae
from trm_interp.subjects.settings import RunConfig
from trm_interp.subjects.training import fit
from trm_interp.tasks.sudoku.forge.presets import make_preset

UNSHARED = "process 1 of 2 does not see train_state.pt, which process 0 has: --out must be one"


@pytest.fixture
def freed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """DDP is made without a warning, watched, and has to be gone when the group is left."""
    made: list[Any] = []
    ddp, leave = ranks_module.DistributedDataParallel, dist.destroy_process_group

    def watched(*args: Any, **more: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            one = ddp(*args, **more)
        made.append(weakref.ref(one))
        return one

    def left() -> None:
        assert made and all(one() is None for one in made)
        leave()

    monkeypatch.setattr(ranks_module, "DistributedDataParallel", watched)
    monkeypatch.setattr(dist, "destroy_process_group", left)


@pytest.fixture
def own(tmp_path: Path) -> Any:
    """A folder for each process, which the other one does not see."""
    return lambda: tmp_path / f"out-{os.environ['RANK']}"


def test_of_an_sae(freed_first: None, own: Any, tmp_path: Path):
    store = write_store(tmp_path / "store", noise(8, d_model=16, pos=64))
    assert in_two(lambda: train_sae(quick(store, own(), max_steps=2), silent)) == [0, 0]

    def goes_on() -> None:
        with pytest.raises(UserError, match=UNSHARED):
            train_sae(quick(store, own(), max_steps=2, resume=True), silent)

    assert in_two(goes_on) == [0, 0]


def test_of_a_training(freed_first: None, own: Any, tmp_path: Path):
    make_preset("sudoku4", tmp_path / "data")
    train, val = (tmp_path / "data" / f"{name}.txt" for name in ("train", "val"))
    config = TrainConfig(steps=2, batch_size=4, n_sup=1, eval_every=9)
    model = {"d_model": 8, "multiple": 8, "prefix": 0, "h_cycles": 1, "l_cycles": 1}

    def run(resume: bool) -> RunConfig:
        return RunConfig(train=train, val=val, out=own(), val_limit=2, device="cpu", resume=resume)

    assert in_two(lambda: fit(run(False), model, config, tell=silent)) == [0, 0]

    def goes_on() -> None:
        with pytest.raises(UserError, match=UNSHARED):
            fit(run(True), model, config, tell=silent)

    assert in_two(goes_on) == [0, 0]
