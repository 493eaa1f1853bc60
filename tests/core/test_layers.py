"""The layers by hand, and the laws that they obey."""

import math
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trm_interp.core.infer import run_batch
from trm_interp.core.models.layers import (
    Linear,
    Network,
    SwiGLU,
    aligned_rows,
    attend,
    from_the_left,
    rms_norm,
    weights_held,
)
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig


def test_rms_norm_by_hand():
    # mean square of (3, 4) = (9 + 16) / 2 = 12.5
    x = torch.tensor([[3.0, 4.0]])
    expected = x / math.sqrt(12.5 + 1e-5)
    torch.testing.assert_close(rms_norm(x, -1, 1e-5), expected)
    torch.testing.assert_close(rms_norm(x.T, -2, 1e-5), expected.T)


def test_swiglu_by_hand():
    config = TRMConfig(d_model=1, expansion=1.5, multiple=1)
    mlp = SwiGLU(1, config, dim=-1)  # width 1.5 * 1 * 2 / 3 = 1
    with torch.no_grad():
        mlp.gate_up.weight.copy_(torch.tensor([[2.0], [3.0]]))
        mlp.down.weight.fill_(5.0)
    # x = 0.5: gate 1, value 1.5; silu(1) = 1 / (1 + e^-1); times 1.5 * 5
    expected = torch.tensor([[[7.5 / (1 + math.exp(-1))]]])
    torch.testing.assert_close(mlp(torch.tensor([[[0.5]]])), expected)


def test_normalised_swiglu_by_hand():
    config = TRMConfig(d_model=2, expansion=1.5, multiple=1, normalised_swiglu=True)
    mlp = SwiGLU(2, config, dim=-1)  # width 2
    with torch.no_grad():
        mlp.gate_up.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [3, 0], [0, 1]]))
        mlp.down.weight.copy_(torch.eye(2))
    # x = (1, 2): gate (1, 2), value (3, 2); products (3, 4) have mean square 12.5
    x = torch.tensor([[[1.0, 2.0]]])
    products = torch.tensor([[[3.0, 4.0]]]) / math.sqrt(12.5 + 1e-5)
    torch.testing.assert_close(mlp(x), x.sigmoid() * products)


def test_mixing_positions_from_the_left_is_mixing_channels_of_the_transpose(tiny_mlp: TRM):
    along = tiny_mlp.net.blocks[0].mixer
    assert isinstance(along, SwiGLU)
    x = torch.randn(3, tiny_mlp.config.positions, 8, generator=torch.Generator().manual_seed(1))
    gate, value = (x.mT @ along.gate_up.weight.T).chunk(2, dim=-1)
    transposed = (torch.nn.functional.silu(gate) * value) @ along.down.weight.T
    torch.testing.assert_close(along(x), transposed.mT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("n_in", [16, 81, 82, 1])
def test_aligned_rows_change_no_bit_of_a_product_or_its_gradients(n_in: int, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(n_in)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(dtype).requires_grad_()

    weight, x, upstream = random(24, n_in), random(3, 2, n_in, 16), random(3, 2, 24, 16).detach()
    aligned = aligned_rows(weight)
    assert torch.equal(aligned, weight)
    assert aligned.stride(0) % 8 == 0 and aligned.stride(1) == 1
    plain, product = from_the_left(weight, x), from_the_left(aligned, x)
    assert torch.equal(product, plain)
    for one, other in zip(
        torch.autograd.grad(product, (weight, x), upstream),
        torch.autograd.grad(plain, (weight, x), upstream),
        strict=True,
    ):
        assert torch.equal(one, other)


class Allocations(TorchDispatchMode):
    """Counts the bytes that operations allocate: of storages that they did not get."""

    def __init__(self, *given: torch.Tensor) -> None:
        super().__init__()
        self.held = [tensor.untyped_storage() for tensor in given]  # else addresses come again
        self.n_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in {kept.data_ptr() for kept in self.held}:
                    self.held.append(storage)
                    self.n_bytes += storage.nbytes()
        return out


def test_mixing_positions_copies_nothing_under_a_gradient():
    """Not the weight for every sample, not transposes of input and output."""
    linear = Linear(12, 20)
    torch.nn.init.normal_(linear.weight)
    x, gradient = torch.randn(3, 12, 5, requires_grad=True), torch.randn(3, 20, 5)
    with Allocations(linear.weight, x) as forward:
        out = linear.over_positions(x)
    assert forward.n_bytes == out.nbytes
    with Allocations(linear.weight, x, out, gradient) as backward:
        out.backward(gradient)
    # the gradients, that of the weight for every sample first
    assert backward.n_bytes <= x.nbytes + 3 * linear.weight.nbytes + linear.weight.nbytes
    assert linear.weight.grad is not None
    assert x.grad is not None
    torch.testing.assert_close(linear.weight.grad, torch.einsum("boc,bic->oi", gradient, x))
    torch.testing.assert_close(x.grad, torch.einsum("oi,boc->bic", linear.weight, gradient))


class Casts(TorchDispatchMode):
    """Counts casts of tensors of these shapes."""

    def __init__(self, shapes: set[torch.Size]) -> None:
        super().__init__()
        self.shapes, self.n = shapes, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
        if func is torch.ops.aten._to_copy.default and args[0].shape in self.shapes:
            self.n += 1
        return func(*args, **(kwargs or {}))


def weights_of(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [layer.weight for layer in model.modules() if isinstance(layer, Linear)]


def test_weights_are_cast_once_a_run_to_the_same_bits(tiny_trm: TRM, puzzles: Any):
    inputs, labels = puzzles
    shapes = {weight.shape for weight in weights_of(tiny_trm)}
    with Casts(shapes) as casts:
        read = run_batch(tiny_trm, inputs, labels, 3, keep_logits=True, dtype=torch.bfloat16)
    assert casts.n == len(weights_of(tiny_trm))  # 6 evaluations a step would cast each 18 times
    with torch.no_grad(), Casts(shapes) as casts:
        x = tiny_trm.embed(inputs, torch.bfloat16)
        state = tiny_trm.initial_state(x)
        for step in range(3):
            state, _ = tiny_trm.advance(state, x)
            assert read.logits is not None
            assert torch.equal(read.logits[:, step], tiny_trm.readout(state.z_H).logits)
    assert casts.n > 10 * len(weights_of(tiny_trm))


@torch.no_grad()
def test_held_weights_are_of_one_dtype_and_of_one_block(tiny_mlp: TRM):
    linear = tiny_mlp.lm_head
    with pytest.raises(KeyError), weights_held(tiny_mlp, torch.bfloat16):
        assert torch.equal(linear.weight_in(torch.bfloat16), linear.weight.bfloat16())
        assert linear.weight_in(torch.bfloat16) is linear.held
        assert linear.weight_in(torch.float64).dtype == torch.float64
        assert linear.weight_in(torch.float32) is linear.weight
        assert set(tiny_mlp.state_dict()) == set(TRM(tiny_mlp.config).state_dict())
        raise KeyError
    linear.weight.add_(1)
    assert linear.held is None
    assert torch.equal(linear.weight_in(torch.bfloat16), linear.weight.bfloat16())
    with weights_held(tiny_mlp, torch.float32):
        assert linear.held is None  # no copy of what has the dtype already


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("normalised", [False, True])
def test_what_is_overwritten_without_a_gradient_is_nobody_elses(
    normalised: bool, dtype: torch.dtype
):
    """The same bits as with a gradient, and nothing that was given has changed."""
    config = TRMConfig(cells=9, d_model=8, prefix=0, multiple=8, normalised_swiglu=normalised)
    net = Network(config)
    generator = torch.Generator().manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, Linear):
            layer.reset_parameters(generator)
    given = [torch.randn(2, 9, 8, generator=generator).to(dtype) for _ in range(2)]
    before = [one.clone() for one in given]
    passed: list[tuple[Any, Any]] = []

    def keep(module: Any, given: Any, out: Any) -> None:
        passed.append((out, out.clone()))

    for module in net.modules():
        if isinstance(module, torch.nn.Identity):
            module.register_forward_hook(keep)
    with torch.no_grad():
        out = net(*given)
        norm = rms_norm(given[0], -1, 1e-5)
    assert len(passed) == 10  # five sites in each of two blocks
    assert all(torch.equal(one, then) for one, then in [*passed, *zip(given, before, strict=True)])
    passed.clear()
    assert torch.equal(net(*given), out)
    assert torch.equal(rms_norm(given[0], -1, 1e-5), norm)


def test_the_gradient_of_attention_in_bfloat16_is_that_of_float32():
    """Through float32 on a CPU: nothing but the rounding of inputs and results is lost."""
    wide = [torch.randn(2, 3, 7, 4).bfloat16().float().requires_grad_() for _ in range(3)]
    narrow = [of.detach().bfloat16().requires_grad_() for of in wide]
    weights = torch.randn(2, 3, 7, 4).bfloat16()
    expected = torch.autograd.grad((attend(*wide) * weights.float()).sum(), wide)
    found = attend(*narrow)
    assert found.dtype == torch.bfloat16
    for ours, exact in zip(
        torch.autograd.grad((found * weights).sum(), narrow), expected, strict=True
    ):
        assert torch.equal(ours, exact.bfloat16())


def test_attention_without_rotation_commutes_with_permutations():
    """With a rotary base so large that no pair but the first turns, and that one unused."""
    config = TRMConfig(cells=5, d_model=8, mixer="attention", n_heads=2, prefix=0, multiple=8)
    model = TRM(config, torch.Generator().manual_seed(0))
    attention: Any = model.net.blocks[0].mixer
    attention.cos.fill_(1.0)
    attention.sin.fill_(0.0)
    x = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(1))
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order])


def test_rotary_scores_depend_on_the_distance_only():
    config = TRMConfig(cells=6, d_model=8, mixer="attention", n_heads=1, prefix=0, multiple=8)
    attention: Any = TRM(config).net.blocks[0].mixer
    q, k = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    turned_q, turned_k = (attention._rotate(v.expand(1, 1, 6, 8)) for v in (q, k))
    scores = (turned_q @ turned_k.mT)[0, 0]
    for offset in range(-5, 6):
        diagonal = scores.diagonal(offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    torch.testing.assert_close(scores[0, 0], q @ k)
