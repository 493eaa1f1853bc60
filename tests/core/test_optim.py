import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from toy_architecture import Toy

from trm_interp.core.models.trm import TRM
from trm_interp.core.training.optimizers import (
    WeightAverage,
    depth,
    hold_rates_in_tensors,
    load_optimizer,
    lr_factor,
    make_optimizers,
    set_rates,
)
from trm_interp.core.training.settings import TrainConfig


def levelled(matrix: Tensor) -> Tensor:
    """Five steps of the quintic Newton-Schulz iteration (Jordan et al., Muon, 2024), restated."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16() if matrix.shape[0] <= matrix.shape[1] else matrix.bfloat16().T
    x = x / x.norm()
    for _ in range(5):  # a x + (b g + c g g) x with g = x x^T; where sums are rounded matters
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


class Matrices(Toy):
    """A model whose network is these matrices."""

    def __init__(self, matrices: list[nn.Parameter]) -> None:
        nn.Module.__init__(self)
        self.net, self.rest = nn.ParameterList(matrices), nn.Parameter(torch.zeros(1))

    def networks(self) -> list[nn.Module]:
        return [self.net]


def muons(weights: list[nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
    """The optimizer of these matrices, as training makes it."""
    _, muon = make_optimizers(Matrices(weights), TrainConfig(optimizer="muon", **settings))
    return muon


def test_the_restated_iteration_keeps_directions_and_levels_singular_values():
    generator = torch.Generator().manual_seed(0)
    # a square random matrix has singular values near 0, which five steps cannot lift
    for shape in ((8, 24), (24, 8), (16, 40)):
        matrix = torch.randn(shape, generator=generator)
        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        assert s.max() / s.min() > 1.8  # there is something to level
        inner = u.T @ levelled(matrix).float() @ vt.T  # diagonal for U f(S) V^T
        values = inner.diagonal()
        assert values.min() > 0.6 and values.max() < 1.3
        assert (inner - values.diag()).abs().max() < 0.1  # bfloat16


def test_muon_first_step_by_hand():
    """The momentum starts at zero: the step has the direction of the gradient, made orthogonal."""
    weight = nn.Parameter(torch.zeros(8, 2))
    weight.data[0, 0] = 1.0
    weight.grad = torch.zeros(8, 2)
    weight.grad[0, 0] = weight.grad[1, 1] = 3.0  # orthogonal already
    muons([weight], muon_lr=0.1, muon_decay=0.5).step()
    # weight (1 - 0.1 * 0.5) - 0.1 * sqrt(8 / 2) * about 0.7 to 1.2
    assert 0.95 - 0.2 * 1.3 < weight[0, 0].item() < 0.95 - 0.2 * 0.6
    assert weight[1, 1].item() == pytest.approx(weight[0, 0].item() - 0.95, abs=1e-6)
    assert weight[2:].abs().max() == 0


def test_six_muon_steps_equal_the_restated_rule():
    """Momentum as an average, Nesterov, decay before the step, sqrt(max(1, rows / columns))."""
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((8, 24), (24, 8), (6, 6))]
    weights = [nn.Parameter(w.clone()) for w in start]
    optimizer = muons(weights, muon_lr=0.05, muon_decay=0.1)
    moments = [torch.zeros_like(w) for w in start]
    for _ in range(6):
        for i, weight in enumerate(weights):
            grad = torch.randn(weight.shape, generator=generator)
            weight.grad = grad.clone()
            moments[i].lerp_(grad, 1 - 0.95)
            update = levelled(grad.lerp(moments[i], 0.95)).float()
            rows, columns = weight.shape
            scale = 0.05 * max(1.0, rows / columns) ** 0.5
            start[i] = start[i] * (1 - 0.05 * 0.1) - scale * update
        optimizer.step()
        for weight, expected in zip(weights, start, strict=True):
            torch.testing.assert_close(weight.data, expected)


def test_a_muon_state_without_newer_settings_resumes():
    """torch < 2.9 had no Muon: our own copy kept lr, decay and momentum alone in its groups."""
    grads = torch.randn(4, 6, 4, generator=torch.Generator().manual_seed(1))

    def stepped(optimizer: torch.optim.Optimizer, weight: nn.Parameter, these: Tensor) -> None:
        for grad in these:
            weight.grad = grad.clone()
            optimizer.step()

    whole, half = (nn.Parameter(torch.ones(6, 4)) for _ in range(2))
    optimizer = muons([whole], muon_lr=0.05)
    stepped(optimizer, whole, grads)
    optimizer = muons([half], muon_lr=0.05)
    stepped(optimizer, half, grads[:2])
    saved = optimizer.state_dict()
    kept = ("lr", "weight_decay", "momentum", "peak_lr", "params")
    saved["param_groups"] = [{k: group[k] for k in kept} for group in saved["param_groups"]]
    again = muons([half], muon_lr=0.05)
    load_optimizer(again, saved)
    stepped(again, half, grads[2:])
    assert torch.equal(half, whole)


class NothingReadByTheHost(TorchDispatchMode):
    """Refuses what copies a value from the device, which ends the capture of a CUDA graph."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "a value is read"
        return func(*args, **(kwargs or {}))


def test_muon_with_rates_in_tensors_has_the_bits_of_torchs():
    """Also over a changing rate and for tall, wide, square and odd shapes; nothing waits."""
    generator = torch.Generator().manual_seed(2)
    shapes = ((8, 24), (24, 8), (6, 6), (33, 65), (1, 5))
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    ours, theirs = ([nn.Parameter(w.clone()) for w in start] for _ in range(2))
    on_gpu = muons(ours, muon_lr=0.05, muon_decay=0.1)
    hold_rates_in_tensors([on_gpu])
    reference = torch.optim.Muon(
        theirs, lr=0.05, weight_decay=0.1, momentum=0.95, adjust_lr_fn="original"
    )
    for factor in (0.0, 1 / 3, 1.0, 0.7, 0.1):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        set_rates([on_gpu], factor)
        reference.param_groups[0]["lr"] = 0.05 * factor
        with NothingReadByTheHost():
            on_gpu.step()
        reference.step()
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other)
            moments = [
                o.state[w]["momentum_buffer"] for o, w in ((on_gpu, one), (reference, other))
            ]
            assert torch.equal(*moments)
    assert not torch.equal(ours[0], start[0])


def test_torchs_own_muon_reads_such_a_rate_on_the_host():
    weight = nn.Parameter(torch.ones(4, 2))
    weight.grad = torch.ones(4, 2)
    plain = torch.optim.Muon([weight], lr=0.05)
    plain.param_groups[0]["lr"] = torch.tensor(0.05, dtype=torch.float64)
    with pytest.raises(AssertionError, match="a value is read"), NothingReadByTheHost():
        plain.step()


@pytest.mark.parametrize("to_tensors", [False, True], ids=["number", "tensor"])
@pytest.mark.parametrize("from_tensors", [False, True], ids=["from number", "from tensor"])
def test_a_state_goes_on_with_the_rates_of_its_new_device(from_tensors: bool, to_tensors: bool):
    """A run of a GPU has tensors for rates, one of a CPU has numbers: each goes on from each."""
    grads = torch.randn(4, 6, 4, generator=torch.Generator().manual_seed(1))

    def stepped(weight: nn.Parameter, these: Tensor, tensors: bool, saved: Any = None) -> Any:
        optimizer = muons([weight], muon_lr=0.05)
        if tensors:
            hold_rates_in_tensors([optimizer])
        if saved is not None:
            load_optimizer(optimizer, saved)
        for grad in these:
            set_rates([optimizer], 0.5)
            weight.grad = grad.clone()
            optimizer.step()
        rate = optimizer.param_groups[0]["lr"]
        assert torch.is_tensor(rate) == tensors and float(rate) == 0.025
        return optimizer.state_dict()

    whole, half = (nn.Parameter(torch.ones(6, 4)) for _ in range(2))
    stepped(whole, grads, False)
    saved = stepped(half, grads[:2], from_tensors)
    stepped(half, grads[2:], to_tensors, saved)
    assert torch.equal(half, whole)


def test_a_muon_step_with_rates_in_tensors_refuses_what_it_would_ignore():
    weight = nn.Parameter(torch.ones(4, 2))
    weight.grad = torch.ones(4, 2)
    optimizer = muons([weight])
    hold_rates_in_tensors([optimizer])
    with pytest.raises(ValueError, match="takes no closure"):
        optimizer.step(lambda: 0.0)
    optimizer.param_groups[0]["adjust_lr_fn"] = "match_rms_adamw"
    with pytest.raises(ValueError, match="must be 'original', got 'match_rms_adamw'"):
        optimizer.step()


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
    average, d, n = WeightAverage(model, decay=0.8), 0.8, 12
    for k in range(1, n + 1):
        nn.init.constant_(model.weight, k)
        average.update()
    closed = sum((1 - d) * d ** (n - k) * k for k in range(1, n + 1))
    assert average.mean[0].item() == pytest.approx(closed, rel=1e-5)
    # = n - d (1 - d^n) / (1 - d), the lag behind a ramp
    assert closed == pytest.approx(n - d * (1 - d**n) / (1 - d))


def test_average_is_put_in_and_taken_out_bit_for_bit():
    model = nn.Linear(3, 3)
    average = WeightAverage(model, decay=0.5)
    with torch.no_grad():
        model.weight.add_(1.0)
    average.update()
    live = model.weight.detach().clone()
    with pytest.raises(KeyError), average:
        assert torch.equal(model.weight, average.mean[0])
        raise KeyError
    assert torch.equal(model.weight, live)
    assert average.live[0] is model.weight  # the optimizer's tensor, not a copy
