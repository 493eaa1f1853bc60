import math
from typing import Any

import pytest
import torch
from torch import nn

from trm_interp.core.models.trm import TRM
from trm_interp.core.training.config import TrainConfig
from trm_interp.core.training.optimizers import (
    NEWTON_SCHULZ,
    Average,
    SmallMuon,
    depth,
    lr_factor,
    make_optimizers,
    orthogonalise,
)


def test_orthogonalise_keeps_the_directions_and_levels_the_singular_values():
    generator = torch.Generator().manual_seed(0)
    # a square random matrix has singular values near 0, which five steps cannot lift
    for shape in ((8, 24), (24, 8), (16, 40)):
        matrix = torch.randn(shape, generator=generator)
        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        assert s.max() / s.min() > 1.8  # there is something to level
        inner = u.T @ orthogonalise(matrix).float() @ vt.T  # diagonal for U f(S) V^T
        levelled = inner.diagonal()
        assert levelled.min() > 0.6 and levelled.max() < 1.3
        assert (inner - levelled.diag()).abs().max() < 0.1  # bfloat16


def test_one_newton_schulz_step_is_the_quintic():
    # a 1 x 1 matrix divided by its norm is 1: p(1) = a + b + c = 0.701
    a, b, c = NEWTON_SCHULZ
    one = orthogonalise(torch.tensor([[5.0]]), steps=1)
    torch.testing.assert_close(one.float(), torch.tensor([[a + b + c]]), atol=1e-2, rtol=0)


def test_small_muon_first_step_by_hand():
    """The momentum starts at zero: the step has the direction of the gradient, made orthogonal."""
    weight = nn.Parameter(torch.zeros(8, 2))
    weight.data[0, 0] = 1.0
    weight.grad = torch.zeros(8, 2)
    weight.grad[0, 0] = weight.grad[1, 1] = 3.0  # orthogonal already
    SmallMuon([weight], lr=0.1, weight_decay=0.5).step()
    # weight (1 - 0.1 * 0.5) - 0.1 * sqrt(8 / 2) * about 0.7 to 1.2
    assert 0.95 - 0.2 * 1.3 < weight[0, 0].item() < 0.95 - 0.2 * 0.6
    assert weight[1, 1].item() == pytest.approx(weight[0, 0].item() - 0.95, abs=1e-6)
    assert weight[2:].abs().max() == 0


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon needs torch 2.9")
def test_small_muon_equals_torch_muon():
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((8, 24), (24, 8), (6, 6))]
    ours, theirs = ([nn.Parameter(w.clone()) for w in start] for _ in range(2))
    optimizers = [
        SmallMuon(ours, lr=0.05, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.05, weight_decay=0.1),
    ]
    for _ in range(6):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)


def test_adamw_first_step_by_hand(tiny_mlp: TRM):
    """w (1 - lr * decay) - lr * sign(g): both moments are g and g^2 after their correction."""
    (optimizer,) = make_optimizers(tiny_mlp, TrainConfig(lr=0.01, weight_decay=0.5))
    weight = tiny_mlp.lm_head.weight
    before = weight.detach().clone()
    grad = torch.linspace(-1, 1, weight.numel()).reshape(weight.shape)
    weight.grad = grad
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before * (1 - 0.005) - 0.01 * grad.sign())


def test_adamw_second_step_by_hand(tiny_mlp: TRM):
    """Betas 0.9 and 0.95 as published, g = 1 and then g = 3."""
    (optimizer,) = make_optimizers(tiny_mlp, TrainConfig(lr=0.01, weight_decay=0.0))
    weight = tiny_mlp.lm_head.weight
    weight.data.zero_()
    for g in (1.0, 3.0):
        weight.grad = torch.full_like(weight, g)
        optimizer.step()
    # m = 0.9 * 0.1 + 0.1 * 3 = 0.39, over 1 - 0.81; v = 0.95 * 0.05 + 0.05 * 9 = 0.4975,
    # over 1 - 0.9025
    second = 0.01 * (0.39 / 0.19) / math.sqrt(0.4975 / 0.0975)
    torch.testing.assert_close(weight.detach(), torch.full_like(weight, -0.01 - second))


def test_muon_has_the_matrices_of_the_network_and_adamw_the_rest(tiny_trm: TRM):
    adamw, muon = make_optimizers(tiny_trm, TrainConfig(optimizer="muon", lr=0.1, muon_lr=0.2))
    taken = [{id(p) for g in o.param_groups for p in g["params"]} for o in (adamw, muon)]
    assert taken[1] == {id(p) for p in tiny_trm.net.parameters()}
    assert taken[0] | taken[1] == {id(p) for p in tiny_trm.parameters()}
    assert not taken[0] & taken[1]
    assert [o.param_groups[0]["peak_lr"] for o in (adamw, muon)] == [0.1, 0.2]


@pytest.mark.parametrize(
    ("settings", "fraction", "expected"),
    [
        ({"warmup": 0.1}, 0.0, 0.0),
        ({"warmup": 0.1}, 0.025, 0.25),
        ({"warmup": 0.1}, 0.1, 1.0),
        ({"warmup": 0.1}, 0.9, 1.0),
        ({"warmup": 0.0}, 0.0, 1.0),
        # 0.2 + 0.8 / 4: a quarter of the cosine, (1 + cos 45 degrees) / 2
        ({"warmup": 0.2, "decay": "cosine"}, 0.4, (1 + math.sqrt(0.5)) / 2),
        ({"warmup": 0.2, "decay": "cosine"}, 0.6, 0.5),
        ({"warmup": 0.2, "decay": "cosine"}, 1.0, 0.0),
        ({"warmup": 0.2, "decay": "cosine"}, 1.3, 0.0),  # the last step of a budget may overrun
        ({"warmup": 1.0, "decay": "cosine"}, 1.0, 1.0),
    ],
)
def test_learning_rate_factor(settings: dict[str, Any], fraction: float, expected: float):
    assert lr_factor(TrainConfig(**settings), fraction) == pytest.approx(expected, abs=1e-12)


def test_depth_curriculum():
    config = TrainConfig(curriculum=True)
    at = (0.0, 0.29, 0.3, 0.59, 0.6, 1.0)
    depths = [depth(config, f, (3, 6)) for f in at]
    assert depths == [(1, 2), (1, 2), (2, 4), (2, 4), (3, 6), (3, 6)]
    assert depth(config, 0.4, (1, 3)) == (1, 3)  # never deeper than the model
    assert depth(TrainConfig(), 0.0, (3, 6)) == (3, 6)


def test_average_closed_form():
    """Weights k at update k from a start of 0: mean = sum_k (1 - d) d^(n - k) k."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average, d, n = Average(model, decay=0.8), 0.8, 12
    for k in range(1, n + 1):
        nn.init.constant_(model.weight, k)
        average.update()
    closed = sum((1 - d) * d ** (n - k) * k for k in range(1, n + 1))
    assert average.mean[0].item() == pytest.approx(closed, rel=1e-5)
    # = n - d (1 - d^n) / (1 - d), the lag behind a ramp
    assert closed == pytest.approx(n - d * (1 - d**n) / (1 - d))


def test_average_is_put_in_and_taken_out_bit_for_bit():
    model = nn.Linear(3, 3)
    average = Average(model, decay=0.5)
    with torch.no_grad():
        model.weight.add_(1.0)
    average.update()
    live = model.weight.detach().clone()
    with pytest.raises(KeyError), average:
        assert torch.equal(model.weight, average.mean[0])
        raise KeyError
    assert torch.equal(model.weight, live)
    assert average.live[0] is model.weight  # the optimizer's tensor, not a copy
