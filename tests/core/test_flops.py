"""The arithmetic that is estimated is what PyTorch counts, and what networks of two sizes cost."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from toy_two_networks import Duo, DuoConfig

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


def test_networks_of_unequal_cost_by_hand():
    """16 cells of width 8, two H-cycles of two writes of `work` and one of `plan`.

    `work` is 2 x 16 x 8 x (16 + 8) = 6144, `plan` 2 x 16 x 8 x (8 + 8) = 4096, a read-out 2 x 16 x
    8 x 6 = 1536. A step: 4 x 6144 + 2 x 4096 + 1536 = 34 304. Its backward pass, of the last
    H-cycle: 2 x (2 x 6144 + 4096 + 1536) = 35 840. The losses read one step ahead: 34 304.
    """
    config = DuoConfig()
    assert [evaluation_flops(config, state) for state in ("work", "plan")] == [6144, 4096]
    assert evaluation_flops(config) == pytest.approx((2 * 6144 + 4096) / 3)
    assert step_flops(config) == 34_304
    assert step_flops(config, training=True) == 34_304 + 35_840 + 34_304
    assert step_flops(config, depth=(1, 1)) == 6144 + 4096 + 1536


def test_two_networks_of_unequal_cost_are_what_pytorch_counts():
    model = Duo(DuoConfig(), torch.Generator().manual_seed(0)).eval()
    x = model.embed(torch.ones(1, 16, dtype=torch.long))
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        model.advance(model.initial_state(x), x)
    assert counted.get_total_flops() == 34_304 - 1536
