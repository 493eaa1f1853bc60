"""Tiny models and puzzles, and shape annotations that are checked while the tests run."""

from typing import Any

import jaxtyping
import pytest
import torch

with jaxtyping.install_import_hook(["trm_interp.core", "trm_interp.record"], "beartype.beartype"):
    import trm_interp.core.checkpoint
    import trm_interp.core.infer
    import trm_interp.core.train
    import trm_interp.record  # noqa: F401

from trm_interp.core.config import TRMConfig
from trm_interp.core.model import TRM

torch.set_num_threads(1)

TINY: dict[str, Any] = {"cells": 16, "vocab": 6, "d_model": 8, "h_cycles": 2, "l_cycles": 2, "multiple": 8}
VARIANTS = {
    "mlp": TRMConfig(**TINY, prefix=2),
    "mlp_normalised": TRMConfig(**TINY, prefix=0, normalised_swiglu=True),
    "attention": TRMConfig(**TINY, prefix=1, mixer="attention", n_heads=2),
}


def lively(config: TRMConfig, seed: int = 0) -> TRM:
    """A tiny TRM whose zeros at the start (halting head, prefix) are filled, so mistakes show."""
    generator = torch.Generator().manual_seed(seed)
    model = TRM(config, generator)
    with torch.no_grad():
        model.q_head.weight.normal_(generator=generator)
        model.q_head.bias.zero_()
        if model.prefix_embedding is not None:
            model.prefix_embedding.normal_(generator=generator)
    return model.eval()


@pytest.fixture(params=VARIANTS)
def tiny_trm(request: pytest.FixtureRequest) -> TRM:
    """A model of 16 cells, width 8, 2 H-cycles of 2 L-cycles: every variant in turn."""
    return lively(VARIANTS[request.param])


@pytest.fixture
def tiny_mlp() -> TRM:
    return lively(VARIANTS["mlp"])


@pytest.fixture
def puzzles() -> tuple[torch.Tensor, torch.Tensor]:
    """Five 4x4 Sudokus as tokens (0 pad, 1 blank, 2..5 the digits): inputs and labels [5, 16]."""
    grid = torch.tensor([[1, 2, 3, 4], [3, 4, 1, 2], [2, 1, 4, 3], [4, 3, 2, 1]]).flatten()
    digits = torch.tensor(
        [[1, 2, 3, 4], [2, 1, 4, 3], [4, 3, 1, 2], [3, 1, 2, 4], [2, 4, 3, 1]]
    )
    labels = digits[:, grid - 1] + 1
    blank = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    return labels.masked_fill(blank, 1), labels
