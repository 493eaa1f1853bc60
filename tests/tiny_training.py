"""A small model's training, for the tests of the trainer: settings, rows, equality."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.core.training.loop import METRICS_FILE
from trm_interp.core.training.portable import load_portable, save_portable
from trm_interp.core.training.trainer import Trainer

SMALL = TRMConfig(cells=16, vocab=6, d_model=16, h_cycles=2, l_cycles=2, multiple=8, prefix=1)
FAST: dict[str, Any] = {"steps": 12, "batch_size": 5, "n_sup": 3, "lr": 1e-3, "muon_lr": 1e-2}
FAST |= {"ema": 0.9, "explore": 0.0, "eval_every": 4, "save_every": 5, "log_every": 3}
FAST |= {"warmup": 0.1, "weight_decay": 0.1}


ROOT = Path(__file__).parents[1]
CHILD = ROOT / "tests" / "core" / "train_child.py"


def start(*command: str | Path) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=env, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def rows(trainer: Trainer) -> list[dict[str, Any]]:
    lines = (trainer.out / METRICS_FILE).read_text().splitlines()
    dropped = ("seconds", "steps_per_s")  # of the wall clock
    return [{k: v for k, v in json.loads(x).items() if k not in dropped} for x in lines]


def assert_same_bits(one: Any, other: Any, where: str = "") -> None:
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one.keys() - {"seconds"}:
            assert_same_bits(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same_bits(a, b, f"{where}[{i}]")
    else:
        assert one == other, where


def assert_portable_files_go_on(trainer_of: Callable[..., Trainer], folder: Path) -> Trainer:
    """Steps after a state was read from its files are those without a stop; the first trainer."""
    whole = trainer_of()
    for _ in range(5):
        whole.step()
    save_portable(whole, folder)
    resumed = trainer_of()
    load_portable(resumed, folder)
    for _ in range(3):
        one, other = whole.step(), resumed.step()
        assert all(torch.equal(one[name], other[name]) for name in one)
    return whole
