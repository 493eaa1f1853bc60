"""The arithmetic that is estimated is what PyTorch counts, for either mixer."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from trm_interp.core.flops import evaluation_flops, step_flops
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig

SMALL = {"cells": 16, "vocab": 6, "d_model": 16, "multiple": 8, "h_cycles": 2, "l_cycles": 3}
MIXERS = {
    "mlp": TRMConfig(**SMALL, prefix=2),
    "attention": TRMConfig(**SMALL, prefix=1, mixer="attention", n_heads=2),
}


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_step_is_what_pytorch_counts(mixer: str):
    config = MIXERS[mixer]
    model = TRM(config, torch.Generator().manual_seed(0)).eval()
    x = model.embed(torch.ones(1, config.cells, dtype=torch.long))
    plain = sdpa_kernel(SDPBackend.MATH)  # products that can be counted
    with torch.no_grad(), plain, FlopCounterMode(display=False) as counted:
        state, _ = model.advance(model.initial_state(x), x)
    evaluations = config.h_cycles * (config.l_cycles + 1)
    assert counted.get_total_flops() == evaluations * evaluation_flops(config)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        model.readout(state.z_H)
    halting = 2 * 2 * config.d_model  # two logits of the first position, not counted by ours
    head = step_flops(config) - evaluations * evaluation_flops(config)
    assert counted.get_total_flops() == pytest.approx(head, abs=halting + prefix_of(config))


def prefix_of(config: TRMConfig) -> int:
    """The output head may read the prefix as well, and drop what it says."""
    return 2 * config.prefix * config.d_model * config.vocab
