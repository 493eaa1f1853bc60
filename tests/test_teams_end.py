"""Processes of one training part in order: DDP is freed first.

Freed while Python ends, it can wait for ever for a group that is gone, so a real torchrun hangs.
"""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from sae_runs import quick, silent
from sae_store import noise, write_store
from team import in_two

import trm_interp.core.training.trainer as trainer_module
import trm_interp.sae.together as together_module
from trm_interp.core.training.settings import TrainConfig
from trm_interp.sae.train import train_sae
from trm_interp.subjects.settings import RunConfig
from trm_interp.subjects.training import fit
from trm_interp.tasks.sudoku.forge.presets import make_preset


@pytest.fixture
def freed_first(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """DDP of a module is watched, and has to be gone when the group is left."""

    def watch(module: Any) -> None:
        made: list[Any] = []
        ddp, leave = module.DistributedDataParallel, dist.destroy_process_group

        def watched(*args: Any, **more: Any) -> Any:
            one = ddp(*args, **more)
            made.append(weakref.ref(one))
            return one

        def left() -> None:
            assert made and all(one() is None for one in made)
            leave()

        monkeypatch.setattr(module, "DistributedDataParallel", watched)
        monkeypatch.setattr(dist, "destroy_process_group", left)

    return watch


def test_of_an_sae(freed_first: Callable[[Any], None], tmp_path: Path):
    store = write_store(tmp_path / "store", noise(8, d_model=16, pos=64))
    freed_first(together_module)
    out = tmp_path / "sae"
    assert in_two(lambda: train_sae(quick(store, out, max_steps=2), silent)) == [0, 0]


def test_of_a_training(freed_first: Callable[[Any], None], tmp_path: Path):
    make_preset("sudoku4", tmp_path / "data")
    train, val = (tmp_path / "data" / f"{name}.txt" for name in ("train", "val"))
    config = TrainConfig(steps=2, batch_size=4, n_sup=1, eval_every=9)
    model = {"d_model": 8, "multiple": 8, "prefix": 0, "h_cycles": 1, "l_cycles": 1}
    run = RunConfig(train=train, val=val, out=tmp_path / "run", val_limit=2, device="cpu")
    freed_first(trainer_module)
    assert in_two(lambda: fit(run, model, config, tell=silent)) == [0, 0]
