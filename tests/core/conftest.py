"""Fixtures for the tests of training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_training import FAST, SMALL
from torch import Tensor

from trm_interp.core.training.settings import TrainConfig
from trm_interp.core.training.slots import TrainData
from trm_interp.core.training.trainer import Trainer


@pytest.fixture
def data(puzzles: tuple[Tensor, Tensor]) -> TrainData:
    inputs, labels = puzzles
    return TrainData(inputs, labels, inputs[:3], labels[:3])


@pytest.fixture
def make(data: TrainData, tmp_path: Path) -> Callable[..., Trainer]:
    """make(name, **settings): a trainer of a small model in a folder of that name."""

    def made(name: str = "run", **settings: Any) -> Trainer:
        return Trainer(SMALL, TrainConfig(**{**FAST, **settings}), data, tmp_path / name)

    return made
