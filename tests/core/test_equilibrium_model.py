"""Equilibrium models: their solves, what is told of them, and the gradients of training."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchdeq.solver import get_solver

from trm_interp.core.clock import Schedule
from trm_interp.core.infer import run, run_batch
from trm_interp.core.joint import CycleMap, joined
from trm_interp.core.models.equilibrium import Equilibrium
from trm_interp.core.models.equilibrium_config import EquilibriumConfig
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.core.training.loop import train
from trm_interp.core.training.settings import TrainConfig
from trm_interp.core.training.slots import TrainData
from trm_interp.core.training.trainer import Trainer
from trm_interp.recording.hooks import HookedModel
from trm_interp.runtime.errors import UserError

SHAPE: dict[str, Any] = {"cells": 16, "vocab": 6, "d_model": 8, "n_layers": 1, "multiple": 8}
SHAPE |= {"prefix": 0, "h_cycles": 2}
DEEP = EquilibriumConfig(**SHAPE, l_cycles=60, tolerance=1e-12, backward_cycles=60)


def model_of(config: EquilibriumConfig, gain: float = 0.4, seed: int = 0) -> Equilibrium:
    """A model whose networks contract, as untrained ones need not."""
    model = Equilibrium(config, torch.Generator().manual_seed(seed)).eval()
    with torch.no_grad():
        for parameter in model.net.parameters():
            parameter.mul_(gain)
        model.q_head.weight.normal_(generator=torch.Generator().manual_seed(1))
    return model


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(1, 6, (4, 16), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def data(tokens: Tensor) -> TrainData:
    labels = torch.randint(2, 6, (4, 16), generator=torch.Generator().manual_seed(1))
    return TrainData(tokens, labels, tokens, labels)


def test_an_h_cycle_ends_where_torchdeq_ends(tokens: Tensor):
    model = model_of(replace(DEEP, h_cycles=1)).double()
    x = model.embed(tokens, torch.float64)
    start = model.initial_state(x)
    state, _, residuals = model.advance_measured(start, x)
    with torch.no_grad():
        oracle, _, _ = get_solver("broyden")(
            lambda z: model.net(z, start.z_H + x), start.z_L, max_iter=80, tol=1e-10
        )
    assert residuals[0].max() <= 1e-12
    torch.testing.assert_close(state.z_L, oracle.view_as(x), rtol=0, atol=1e-8)
    torch.testing.assert_close(state.z_H, model.net(start.z_H, oracle.view_as(x)))


def test_plain_iteration_to_no_tolerance_is_a_trm(tokens: Tensor):
    settings: dict[str, Any] = SHAPE | {"l_cycles": 4}
    trm = TRM(TRMConfig(**settings), torch.Generator().manual_seed(0))
    config = EquilibriumConfig(**settings, solver="iterate", tolerance=1e-30)
    model = Equilibrium(config, torch.Generator().manual_seed(0))
    x = trm.embed(tokens)
    one, other = (of.advance(of.initial_state(x), x)[0] for of in (trm, model))
    for name in one._fields:
        torch.testing.assert_close(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("solver", ["anderson", "iterate"])
def test_answers_do_not_depend_on_the_batch(tokens: Tensor, solver: Any):
    config = EquilibriumConfig(**SHAPE, l_cycles=15, tolerance=1e-3, solver=solver)
    model = model_of(config).double()
    labels = torch.full_like(tokens, 2)
    how: dict[str, Any] = {"steps": 3, "keep_logits": True, "dtype": torch.float64}
    together = run_batch(model, tokens, labels, **how)
    assert together.residual is not None and together.logits is not None
    for i in range(4):
        alone = run_batch(model, tokens[i : i + 1], labels[i : i + 1], **how)
        assert alone.residual is not None and alone.logits is not None
        torch.testing.assert_close(alone.logits[0], together.logits[i], rtol=0, atol=1e-6)
        torch.testing.assert_close(alone.residual[0], together.residual[i], rtol=0, atol=1e-6)


def test_a_converged_puzzle_repeats_its_state_in_the_record(tokens: Tensor):
    config = EquilibriumConfig(**SHAPE, l_cycles=20, tolerance=1e-3)
    model = model_of(config)
    hooked = HookedModel.of(model, 1)
    with torch.no_grad():
        _, cache = hooked.run_with_cache(tokens)
        state, _, residuals = model.advance_measured(
            model.initial_state(model.embed(tokens)), model.embed(tokens)
        )
    assert (residuals[1] <= 1e-3).all()
    ticks = [tick for tick in config.schedule.ticks() if tick.h_cycle == 1 and not tick.ends_cycle]
    heard = torch.stack([cache[tick.hook] for tick in ticks], 1)  # [batch, tick, pos, d_model]
    assert torch.equal(heard[:, -1], state.z_L)
    changes = (heard[:, 1:] != heard[:, :-1]).flatten(2).any(2)  # [batch, tick]
    assert not changes[:, -1].any()
    for row in changes:  # once it repeats, it repeats to the end
        assert row.tolist() == sorted(row.tolist(), reverse=True)


def test_what_does_not_converge_is_told_puzzle_by_puzzle(tokens: Tensor):
    labels = torch.full_like(tokens, 2)
    capped = model_of(EquilibriumConfig(**SHAPE, l_cycles=2, tolerance=1e-9))
    read = run(capped, tokens, labels, steps=3, batch_size=3)
    assert read.residual is not None and read.residual.shape == (4, 3, 2)
    assert (read.residual > 1e-9).all()
    deep = model_of(EquilibriumConfig(**SHAPE, l_cycles=40, tolerance=1e-4))
    converged = run(deep, tokens, labels, steps=3).residual
    assert converged is not None and (converged <= 1e-4).all()
    assert run(TRM(TRMConfig(**SHAPE)), tokens, labels, steps=1).residual is None


def test_no_evaluation_of_z_L_has_no_residual(tokens: Tensor):
    model = model_of(DEEP)
    x = model.embed(tokens)
    start = model.initial_state(x)
    state, _ = model.advance(start, x, depth=(1, 0))
    assert torch.equal(state.z_L, start.z_L)


@pytest.mark.parametrize("solver", ["anderson", "iterate"])
def test_the_cycle_map_pushes_tangents_through_the_solver(tokens: Tensor, solver: Any):
    config = EquilibriumConfig(**SHAPE, l_cycles=8, tolerance=1e-3, solver=solver)
    model = model_of(config).double()
    x = model.embed(tokens, torch.float64)
    cycle, z = CycleMap(model, x), joined(model.initial_state(x)).clone()
    generator = torch.Generator().manual_seed(0)
    tangents = torch.randn(2, *z.shape, generator=generator, dtype=torch.float64)
    image, moved = cycle.push(z, tangents)
    torch.testing.assert_close(image, cycle(z))
    for i in range(2):
        ahead, behind = (cycle(z + sign * 1e-7 * tangents[i]) for sign in (1, -1))
        torch.testing.assert_close(moved[i], (ahead - behind) / 2e-7, rtol=1e-4, atol=1e-5)


# gradients


def loss_of(model: Equilibrium, tokens: Tensor, probe: Tensor) -> Tensor:
    """A number of one supervision step, whose gradient is that of training."""
    x = model.embed(tokens, torch.float64)
    start = model.initial_state(x.detach())
    _, readout = model(start, tokens, torch.float64)
    return (readout.logits * probe).sum() + readout.q_halt.sum()


@pytest.fixture
def probe() -> Tensor:
    return torch.randn(4, 16, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def test_the_implicit_gradient_is_that_of_finite_differences(tokens: Tensor, probe: Tensor):
    """With one H-cycle, of which all that depends on the weights carries gradient."""
    model = model_of(replace(DEEP, h_cycles=1)).double()
    loss_of(model, tokens, probe).backward()
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(direction, alpha=sign * 1e-6)
                values.append(loss_of(model, tokens, probe))
                parameter.add_(direction, alpha=-sign * 1e-6)
        expected = (values[0] - values[1]) / 2e-6
        torch.testing.assert_close(
            (parameter.grad * direction).sum(), expected, rtol=1e-5, atol=1e-6
        )


def test_k_reapplied_evaluations_are_autograd_through_k_steps(tokens: Tensor, probe: Tensor):
    config = EquilibriumConfig(**SHAPE, l_cycles=7, gradient="unrolled", reapplied=3)
    model = model_of(config).double()
    loss_of(model, tokens, probe).backward()
    got = {name: of.grad.clone() for name, of in model.named_parameters() if of.grad is not None}
    model.zero_grad()
    x = model.embed(tokens, torch.float64)
    state = model.initial_state(x.detach())
    with torch.no_grad():
        state, _ = model.advance(state, x, depth=(1, 7))
        # the first 4 of the 7 search, and the fifth is evaluated where the search has come to
        trail: list[Tensor] = []
        hooked = HookedModel.of(model, 1)
        evaluate = type(hooked).evaluate

        def listening(self: Any, tick: Any, h: Tensor, injection: Tensor) -> Tensor:
            trail.append(h)
            return evaluate(self, tick, h, injection)

        hooked.evaluate = listening.__get__(hooked)
        hooked.advance(state, x, depth=(1, 7))
    z, injection = trail[4].detach(), state.z_H.detach() + x
    for _ in range(3):
        z = model.net(z, injection)
    z_H = model.net(state.z_H.detach(), z)
    readout = model.readout(z_H)
    ((readout.logits * probe).sum() + readout.q_halt.sum()).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(got[name], parameter.grad, msg=name)


def test_the_phantom_gradient_is_two_steps_from_the_fixed_point(tokens: Tensor, probe: Tensor):
    config = replace(DEEP, gradient="phantom", h_cycles=1)
    model = model_of(config).double()
    loss_of(model, tokens, probe).backward()
    got = {name: of.grad.clone() for name, of in model.named_parameters() if of.grad is not None}
    model.zero_grad()
    x = model.embed(tokens, torch.float64)
    start = model.initial_state(x.detach())
    with torch.no_grad():
        fixed = model.advance(start, x)[0].z_L
    z = fixed
    for _ in range(2):
        z = model.net(z, start.z_H + x)
    readout = model.readout(model.net(start.z_H, z))
    ((readout.logits * probe).sum() + readout.q_halt.sum()).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(got[name], parameter.grad, msg=name, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("gradient", ["implicit", "phantom", "unrolled"])
def test_a_trained_step_comes_to_what_a_run_comes_to(tokens: Tensor, gradient: Any):
    config = EquilibriumConfig(**SHAPE, l_cycles=6, gradient=gradient, jacobian_weight=0.5)
    model = model_of(config)
    start = model.initial_state(model.embed(tokens))
    trained, _ = model(start, tokens)
    with torch.no_grad():
        plain, _ = model.advance(start, model.embed(tokens))
    for name in plain._fields:
        torch.testing.assert_close(getattr(trained, name), getattr(plain, name))


def test_first_cycles_get_no_gradient_and_all_of_them_without_a_number(tokens: Tensor):
    config = EquilibriumConfig(**SHAPE, l_cycles=6)
    assert Equilibrium.evaluations_with_gradient(config) == 2  # the last z_L and the last z_H
    unrolled = replace(config, gradient="unrolled", reapplied=3)
    assert Equilibrium.evaluations_with_gradient(unrolled) == 4
    assert Equilibrium.evaluations_with_gradient(unrolled, Schedule(2, ("z_L", "z_H"))) == 2
    model = model_of(config).double()
    x = model.embed(tokens, torch.float64).detach()
    z_L = model.initial_state(x).z_L.clone().requires_grad_()
    start = model.initial_state(x)._replace(z_L=z_L)
    (whole,) = torch.autograd.grad(model.advance(start, x)[0].z_H.sum(), z_L)
    assert whole.any()
    last = model.advance(start, x, grad_cycles=1)[0].z_H.sum()
    assert torch.autograd.grad(last, z_L, allow_unused=True) == (None,)


def test_the_penalty_is_a_loss_of_its_own(tokens: Tensor):
    config = EquilibriumConfig(**SHAPE, l_cycles=30, jacobian_weight=0.5, tolerance=1e-10)
    model = model_of(config).double()
    x = model.embed(tokens, torch.float64)
    start, n = model.initial_state(x.detach()), x[0].numel()
    state, readout = model(start, tokens, torch.float64, keys=torch.arange(4))
    losses = model.losses(readout, torch.full_like(tokens, 2))
    torch.testing.assert_close(losses.further["jacobian"], 0.5 * readout.further["jacobian"])
    losses.further["jacobian"].sum().backward()
    assert all(of.grad is not None and of.grad.any() for of in model.net.parameters())
    # in expectation |J|^2 / n of the exact Jacobian at the last solve, one puzzle
    before = model.advance(start, x, depth=(1, 30))[0]
    injection = (before.z_H + x)[:1].detach()
    point = state.z_L[:1].detach()
    jacobian = torch.autograd.functional.jacobian(lambda z: model.net(z, injection), point)
    exact = jacobian.reshape(n, n).square().sum() / n
    one = tokens[:1].expand(400, -1)
    begun = model.initial_state(model.embed(one, torch.float64).detach())
    _, many = model(begun, one, torch.float64, keys=torch.arange(400))
    torch.testing.assert_close(many.further["jacobian"].mean().double(), exact, rtol=0.05, atol=0)


def test_attention_has_a_penalty_too(tokens: Tensor):
    settings = SHAPE | {"mixer": "attention", "n_heads": 2, "l_cycles": 4}
    model = Equilibrium(EquilibriumConfig(**settings, jacobian_weight=0.5))
    start = model.initial_state(model.embed(tokens).detach())
    _, readout = model(start, tokens)
    readout.further["jacobian"].sum().backward()
    assert all(of.grad is not None and of.grad.any() for of in model.net.parameters())


# noise


def test_noise_is_named_by_keys_and_is_of_training_alone(tokens: Tensor):
    config = EquilibriumConfig(
        **SHAPE, l_cycles=5, solver="iterate", damping=0.95, noise=0.01, random_starts=True
    )
    model = model_of(config)
    keys = torch.arange(4)
    like = torch.zeros(4, 16, 8)
    start = model.random_start(like, keys)
    assert torch.equal(start.z_L, model.random_start(like, keys).z_L)
    assert len({z.sum().item() for z in (*start.z_L, *start.z_H)}) == 8
    assert abs(start.z_L.std() - 1) < 0.1
    one, again, other, none = (
        model(start, tokens, keys=k)[0].z_L for k in (keys, keys, keys + 4, None)
    )
    assert torch.equal(one, again) and not torch.equal(one, other)
    size = (one - none).square().mean().sqrt()
    assert 0.001 < size < 0.1  # of the order of sigma
    alone = model(type(start)(*(z[2:3] for z in start)), tokens[2:3], keys=keys[2:3])[0].z_L
    torch.testing.assert_close(alone[0], one[2], rtol=0, atol=1e-5)
    first, second = model.initial_state(model.embed(tokens)).z_L[:2]
    assert torch.equal(first, second) and not torch.equal(first[0], first[1])
    with torch.no_grad():
        runs = [model.advance(start, model.embed(tokens))[0].z_L for _ in range(2)]
    assert torch.equal(*runs)


def trained(data: TrainData, out: Path, seed: int, **settings: Any) -> Trainer:
    model = EquilibriumConfig(**SHAPE, l_cycles=4, **settings)
    config = TrainConfig(
        steps=4, batch_size=4, n_sup=2, lr=1e-2, warmup=0.0, seed=seed, eval_every=4, log_every=2
    )
    trainer = Trainer(model, config, data, out)
    train(trainer)
    return trainer


NOISY = {"solver": "iterate", "damping": 0.95, "noise": 0.01, "random_starts": True}


@pytest.mark.parametrize("settings", [{}, NOISY, NOISY | {"jacobian_weight": 0.1}])
def test_the_same_seed_trains_the_same_numbers(
    data: TrainData, tmp_path: Path, settings: dict[str, Any]
):
    runs = [trained(data, tmp_path / name, seed, **settings) for name, seed in
            (("a", 0), ("b", 0), ("c", 1))]  # fmt: skip
    weights = [torch.cat([p.flatten() for p in of.model.parameters()]) for of in runs]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_training_says_how_much_converged(data: TrainData, tmp_path: Path):
    trained(data, tmp_path / "a", 0, tolerance=1.0, jacobian_weight=0.1)
    rows = [json.loads(row) for row in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    row = rows[0]
    assert row["converged"] == 1 and 0 < row["residual"] <= 1 and row["backward_converged"] == 1
    assert row["jacobian_loss"] > 0
    trained(data, tmp_path / "b", 0, tolerance=1e-9, gradient="phantom")
    rows = [json.loads(row) for row in (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["converged"] == 0 and "backward_converged" not in rows[0]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tolerance": 0.0}, "tolerance must be above 0"),
        ({"damping": 0.0}, "damping must be above 0"),
        ({"memory": 0}, "memory must be at least 1"),
        ({"noise": -1.0}, "noise must be at least 0"),
        ({"solver": "newton"}, "solver must be one of"),
        ({"gradient": "none"}, "gradient must be one of"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], says: str):
    with pytest.raises((ValueError, UserError), match=says):
        EquilibriumConfig(**settings)
