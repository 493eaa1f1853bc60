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
from trm_interp.runtime.errors import UserError
from trm_interp.sae.train import train_sae

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
