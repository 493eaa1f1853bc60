"""TRM's relatives: their recursion and their gradient written out by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from trm_interp.core.models.base import Readout
from trm_interp.core.models.registry import build, config_class
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.core.models.trm_relatives_config import DirectConfig

SMALL: dict[str, Any] = {"cells": 16, "vocab": 6, "d_model": 8, "multiple": 8, "prefix": 1}
Calls = Callable[[Any, Tensor], list[tuple[str, Tensor]]]


def made(name: str, **settings: Any) -> Any:
    """A small model whose halting head is open."""
    config: Any = config_class(name)(**SMALL, **settings)
    generator = torch.Generator().manual_seed(0)
    model = build(config, generator)
    torch.nn.init.normal_(model.get_parameter("q_head.weight"), generator=generator)
    return model


def single_z(model: Any, x: Tensor) -> list[tuple[str, Tensor]]:
    z, zero, out = model.initial_state(x).z, torch.zeros_like(x), []
    for injection in (x, x, zero, x, x, zero):
        z = model.net(z, injection)
        out.append(("z", z))
    return out


def multi_scale(model: Any, x: Tensor) -> list[tuple[str, Tensor]]:
    z_H, *z_L = model.initial_state(x)
    out = []
    for _ in range(2):
        for i in range(6):
            z_L[i] = model.net(z_L[0] + z_L[1] + z_L[2] + z_L[3] + z_L[4] + z_L[5], z_H + x)
            out.append((f"z_L{i + 1}", z_L[i]))
        z_H = model.net(z_H, z_L[0] + z_L[1] + z_L[2] + z_L[3] + z_L[4] + z_L[5])
        out.append(("z_H", z_H))
    return out


def two_networks(model: Any, x: Tensor) -> list[tuple[str, Tensor]]:
    z_H, z_L = model.initial_state(x)
    out = []
    for _ in range(2):
        for _ in range(2):
            z_L = model.net(z_L, z_H + x)
            out.append(("z_L", z_L))
        z_H = model.net_H(z_H, z_L)
        out.append(("z_H", z_H))
    return out


def direct(model: Any, x: Tensor) -> list[tuple[str, Tensor]]:
    return [("z_H", model.net(model.initial_state(x).z_H, x))]


CASES: dict[str, tuple[str, dict[str, Any], Calls]] = {
    "single z": ("trm-single-z", {"h_cycles": 2, "l_cycles": 2}, single_z),
    "six z_L": ("trm-multi-z", {"h_cycles": 2}, multi_scale),
    "two networks": (
        "trm",
        {"h_cycles": 2, "l_cycles": 2, "separate_networks": True},
        two_networks,
    ),
    "direct": ("direct", {"n_layers": 3}, direct),
}


@pytest.mark.parametrize("case", CASES)
def test_the_recursion_by_hand(case: str, puzzles: tuple[Tensor, Tensor]):
    name, settings, by_hand = CASES[case]
    model = made(name, **settings)
    x = model.embed(puzzles[0])
    state, per_cycle = model.advance(model.initial_state(x), x)
    expected = by_hand(model, x)
    assert [tick.writes for tick in model.config.schedule.ticks()] == [name for name, _ in expected]
    for name, value in dict(expected).items():
        torch.testing.assert_close(getattr(state, name), value)
    answers = [value for name, value in expected if name == model.answer]
    if case == "single z":
        answers = answers[2::3]
    assert len(per_cycle) == len(answers)
    for one, other in zip(per_cycle, answers, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("one_step", [False, True])
def test_the_gradient_by_hand(separate: bool, one_step: bool, puzzles: tuple[Tensor, Tensor]):
    """Through the last H-cycle, or through the last z_L and the last z_H alone."""
    settings = {"separate_networks": separate, "one_step_gradient": one_step}
    model = made("trm", h_cycles=2, l_cycles=3, **settings)
    tokens = puzzles[0]
    _, read = model(model.initial_state(model.embed(tokens)), tokens)
    got = gradients(model, read)

    slow = model.net_H if separate else model.net
    x = model.embed(tokens)
    z_H, z_L = model.initial_state(x)
    with torch.no_grad():
        for _ in range(3):
            z_L = model.net(z_L, z_H + x)
        z_H = slow(z_H, z_L)
    for i in range(3):
        with torch.set_grad_enabled(i == 2 or not one_step):
            z_L = model.net(z_L, z_H + x)
    expected = gradients(model, model.readout(slow(z_H, z_L)))
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert model.evaluations_with_gradient(model.config) == (2 if one_step else 4)


def gradients(model: Any, read: Readout) -> list[Tensor]:
    total = read.logits.square().sum() + read.q_halt.sum()
    return list(torch.autograd.grad(total, list(model.parameters())))


def test_two_networks_are_twice_the_weights():
    one, two = TRMConfig(), TRMConfig(separate_networks=True)
    ends = 2 * 11 * 512 + 2 * 513 + 512  # embedding and read-out, halting head, prefix
    assert two.n_weights - ends == 2 * (one.n_weights - ends)
    assert made("trm").networks() != made("trm", separate_networks=True).networks()


def test_direct_prediction_at_the_cost_of_a_trm():
    """42 blocks once are 21 evaluations of 2 blocks."""
    trm, model = made("trm"), made("direct")
    wide = DirectConfig(**SMALL, n_layers=42)
    head = trm.readout_flops(trm.config)
    assert model.step_flops(wide) - head == trm.step_flops(trm.config) - head


def test_halting_with_continue_is_hrms(puzzles: tuple[Tensor, Tensor]):
    """With the same weights a TRM's answers; its halting compares both logits."""
    plain, model = made("trm"), made("trm-continue")
    model.load_state_dict(plain.state_dict())
    x = model.embed(puzzles[0])
    one, other = (m.readout(m.advance(m.initial_state(x), x)[0].z_H) for m in (plain, model))
    assert torch.equal(one.logits, other.logits) and torch.equal(one.q_halt, other.q_halt)
    assert one.q_continue is None and other.q_continue is not None
    assert torch.equal(model.halts(other), other.q_halt > other.q_continue)
    with pytest.raises(ValueError, match="one supervision step later"):
        model.losses(other, puzzles[1])


def test_settings_that_a_relative_does_not_have():
    with pytest.raises(TypeError):
        config_class("trm-multi-z")(l_cycles=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        config_class("trm-single-z")(separate_networks=True)  # type: ignore[call-arg]
