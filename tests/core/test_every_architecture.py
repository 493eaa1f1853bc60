"""What holds for every registered architecture; a new one needs a line in SMALL."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_architecture  # noqa: F401 (registers "toy")
import toy_two_networks  # noqa: F401 (registers "duo")
from torch import Tensor

from trm_interp.core.checkpoints.folder import load_checkpoint, save_checkpoint
from trm_interp.core.infer import run
from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.models.registry import (
    architecture,
    build,
    config_class,
    config_from,
    names,
    settings_of,
)
from trm_interp.recording.hooks import HookedModel

BLOCKS: dict[str, Any] = {"cells": 16, "vocab": 6, "d_model": 8, "multiple": 8, "n_layers": 2}
SMALL: dict[str, dict[str, Any]] = {  # settings for 4x4 grids of 6 tokens
    "trm": BLOCKS | {"h_cycles": 2, "l_cycles": 2, "n_identifiers": 3, "prefix": 2},
    "hrm": BLOCKS | {"n_heads": 2, "n_identifiers": 3},
    "trm-single-z": BLOCKS | {"h_cycles": 2, "l_cycles": 2, "one_step_gradient": True},
    "trm-multi-z": BLOCKS | {"h_cycles": 2, "separate_networks": True},
    "trm-continue": BLOCKS | {"h_cycles": 2, "l_cycles": 2},
    "direct": BLOCKS | {"mixer": "attention", "n_heads": 2},
    "equilibrium": BLOCKS | {"h_cycles": 2, "l_cycles": 3, "jacobian_weight": 0.1},
    "toy": {"cells": 16, "vocab": 6},
    "duo": {"cells": 16, "vocab": 6, "n_identifiers": 3},
}


@pytest.fixture(params=SMALL)
def model(request: pytest.FixtureRequest) -> RecursiveModel:
    config = config_class(request.param)(**SMALL[request.param])
    return build(config, torch.Generator().manual_seed(0)).eval()


@pytest.fixture
def rows() -> tuple[Tensor, Tensor]:
    """Inputs and labels of two puzzles."""
    return torch.tensor([[1, 2] * 8, [3, 1] * 8]), torch.tensor([[4, 2] * 8, [3, 5] * 8])


def test_every_architecture_is_tried():
    assert set(SMALL) == set(names())


def test_names_agree(model: RecursiveModel):
    name = model.architecture
    assert architecture(name) is type(model) and type(model.config) is type(model).Config
    assert model.config.architecture == name and type(model).Config is config_class(name)
    assert {model.answer, model.latent} <= set(model.state_names)


def test_settings_survive_a_file(model: RecursiveModel):
    assert config_from(json.loads(json.dumps(settings_of(model.config)))) == model.config


def test_the_schedule_writes_every_state_and_ends_with_the_answer(model: RecursiveModel):
    schedule = model.config.schedule
    assert set(schedule.states) == set(model.state_names)
    assert schedule.cycle[-1] == model.answer
    assert schedule.evaluations == len(schedule.ticks()) == schedule.h_cycles * len(schedule.cycle)
    assert model.config.schedule_at(model.config.depth) == schedule


def test_weights_are_counted_and_drawn_by_the_seed(model: RecursiveModel):
    assert sum(p.numel() for p in model.parameters()) == model.config.n_weights
    same = build(model.config, torch.Generator().manual_seed(0)).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in model.state_dict().items())
    other = build(model.config, torch.Generator().manual_seed(1)).state_dict()
    assert not all(torch.equal(value, other[name]) for name, value in model.state_dict().items())


def test_shapes_of_a_step(model: RecursiveModel, rows: tuple[Tensor, Tensor]):
    x = model.embed(rows[0])
    assert x.shape == (2, model.config.positions, model.config.d_model)
    start = model.initial_state(x)
    assert type(start) is model.State and all(z.shape == x.shape for z in start)
    state, per_cycle = model.advance(start, x)
    assert type(state) is model.State and len(per_cycle) == model.config.h_cycles
    readout = model.readout(model.answer_of(state))
    logits, q_halt = readout.logits, readout.q_halt
    assert logits.shape == (2, model.config.cells, model.config.vocab) and q_halt.shape == (2,)
    assert logits.dtype == q_halt.dtype == torch.float32
    assert all(not torch.equal(*pair) for pair in zip(start, state, strict=True))
    halts = model.halts(readout)
    assert halts.shape == (2,) and torch.equal(halts, model.halting_margin(readout) > 0)
    assert (readout.q_continue is not None) == model.has_q_continue


def test_losses_are_apart_and_a_puzzle_each(model: RecursiveModel, rows: tuple[Tensor, Tensor]):
    _, readout = model(model.initial_state(model.embed(rows[0])), rows[0])
    last = torch.tensor([False, True])
    losses = model.losses(readout, rows[1], last=last, following=readout)
    assert losses.answer.shape == losses.halt.shape == losses.solved.shape == (2,)
    assert losses.solved.dtype == torch.bool
    assert tuple(losses.further) == model.further_losses
    assert all(term.shape == (2,) for term in losses.further.values())


def test_identifiers_are_read_where_the_model_knows_some(
    model: RecursiveModel, rows: tuple[Tensor, Tensor]
):
    which = torch.tensor([0, 1])
    with torch.no_grad():  # embeddings that start at zero
        for parameter in model.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
    plain, own = model.embed(rows[0]), model.embed(rows[0], identifiers=which)
    assert torch.equal(plain[0], own[0])
    assert torch.equal(plain[1], own[1]) == (model.config.n_identifiers == 0)


def test_training_reaches_every_network(model: RecursiveModel, rows: tuple[Tensor, Tensor]):
    start = model.initial_state(model.embed(rows[0]))
    _, readout = model(start, rows[0])
    (readout.logits.square().sum() + readout.q_halt.sum()).backward()
    for network in model.networks():
        gradients = [p.grad for p in network.parameters() if p.requires_grad]
        assert gradients and all(grad is not None and grad.any() for grad in gradients)


def test_every_site_is_passed_once_a_tick(model: RecursiveModel, rows: tuple[Tensor, Tensor]):
    heard: list[str] = []
    expected = [
        f"{tick.name}.{place}"
        for tick in model.config.schedule.ticks()
        for place in (*model.site_names(model.config, tick.writes), f"hook_{tick.writes}")
    ]
    hooked = HookedModel.of(model, n_sup=1)
    with hooked.hooks([(name, lambda value, hook: heard.append(hook.name)) for name in expected]):
        hooked(rows[0])
    assert sorted(heard) == sorted(expected)


def test_a_checkpoint_gives_the_same_answers(
    model: RecursiveModel, rows: tuple[Tensor, Tensor], tmp_path: Path
):
    save_checkpoint(tmp_path / "saved", model, {"task": "sudoku4"})
    loaded = load_checkpoint(tmp_path / "saved").model
    one, other = (run(m, *rows, steps=2, keep_logits=True).logits for m in (model, loaded))
    assert one is not None and other is not None and torch.equal(one, other)


def test_operations_of_a_step_are_counted(model: RecursiveModel):
    config = model.config
    plain, training = (model.step_flops(config, training=training) for training in (False, True))
    schedule, head = config.schedule, model.readout_flops(config)
    costs = [model.evaluation_flops(config, tick.writes) for tick in schedule.ticks()]
    carries = [model.carries_gradient(config, tick, schedule, 1) for tick in schedule.ticks()]
    assert min(costs) > 0 and any(carries)
    assert plain == sum(costs) + head
    with_gradient = sum(cost for cost, carried in zip(costs, carries, strict=True) if carried)
    further = model.further_backward_flops(config, schedule)
    ahead = plain if model.reads_ahead else 0
    assert training == plain + 2 * (with_gradient + head) + further + ahead


def test_derivatives_are_those_of_finite_differences(
    model: RecursiveModel, rows: tuple[Tensor, Tensor]
):
    """Along two tangents of every state, at every tick; along none the image alone."""
    model = model.double()
    generator = torch.Generator().manual_seed(0)
    x = model.embed(rows[0], torch.float64)
    state = model.State(*(z.clone() for z in model.initial_state(x)))
    for tick in model.config.schedule.ticks():
        tangents = model.State(
            *(torch.randn(2, *z.shape, generator=generator, dtype=torch.float64) for z in state)
        )

        def written(*states: Tensor, tick: Any = tick) -> Tensor:
            with torch.no_grad():
                return model.evaluate(tick, *model.operands(tick, model.State(*states), x))

        image, moved = model.push(tick, state, tangents, x)
        torch.testing.assert_close(image, written(*state))
        for i in range(2):
            ahead, behind = (
                written(*(z + sign * 1e-6 * t[i] for z, t in zip(state, tangents, strict=True)))
                for sign in (1, -1)
            )
            torch.testing.assert_close(moved[i], (ahead - behind) / 2e-6, rtol=1e-4, atol=1e-6)
        none = model.push(tick, state, model.State(*(t[:0] for t in tangents)), x)
        torch.testing.assert_close(none[0], image)
        assert none[1].shape == (0, *image.shape)
        state = state._replace(**{tick.writes: image})
