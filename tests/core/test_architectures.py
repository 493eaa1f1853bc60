"""A model that is no TRM goes through everything in the core: laws of the seam, on a toy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import FAST, assert_portable_files_go_on, assert_same_bits, rows
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from toy_architecture import Toy, ToyConfig

from trm_interp.core.checkpoints.folder import CheckpointError, load_checkpoint, save_checkpoint
from trm_interp.core.clock import Schedule, Tick
from trm_interp.core.infer import run, run_batch
from trm_interp.core.joint import CycleMap, joined
from trm_interp.core.models.registry import (
    architecture,
    build,
    config_from,
    model_class,
    names,
    settings_of,
)
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.core.tangent import push
from trm_interp.core.training.loop import train
from trm_interp.core.training.optimizers import make_optimizers
from trm_interp.core.training.portable import (
    average_of,
    read_portable,
)
from trm_interp.core.training.settings import TrainConfig
from trm_interp.core.training.slots import TrainData
from trm_interp.core.training.trainer import STATE_FILE, Trainer
from trm_interp.recording.hooks import HookedModel, recording
from trm_interp.runtime.errors import UserError

SHIPPED = Path(__file__).parents[2] / "artifacts"


@pytest.fixture
def toy() -> Toy:
    return Toy(ToyConfig(), torch.Generator().manual_seed(0)).eval()


@pytest.fixture
def trainer_of(data: TrainData, tmp_path: Path) -> Callable[..., Trainer]:
    def made(name: str = "run", **settings: Any) -> Trainer:
        return Trainer(ToyConfig(), TrainConfig(**{**FAST, **settings}), data, tmp_path / name)

    return made


# the recursion


@torch.no_grad()
def test_a_step_is_the_schedule_carried_out_by_hand(toy: Toy, puzzles: Any):
    x = toy.embed(puzzles[0])
    slow, fast = toy.initial_state(x)
    after_cycles = []
    for _ in range(2):
        fast = toy.quick(fast, slow + x)
        fast = toy.quick(fast, slow + x)
        slow = toy.calm(slow, fast)
        fast = toy.quick(fast, slow + x)
        slow = toy.calm(slow, fast)
        after_cycles.append(slow)
    state, per_cycle = toy.advance(toy.initial_state(x), x)
    assert torch.equal(state.slow, slow) and torch.equal(state.fast, fast)
    assert len(per_cycle) == 2
    assert all(torch.equal(*pair) for pair in zip(per_cycle, after_cycles, strict=True))


def test_names_of_the_evaluations_of_another_clock():
    hooks = [tick.hook for tick in ToyConfig(h_cycles=1).schedule.ticks()]
    assert hooks == [
        "step.0.h.0.l.0.hook_fast",
        "step.0.h.0.l.1.hook_fast",
        "step.0.h.0.l.2.hook_slow",
        "step.0.h.0.l.3.hook_fast",
        "step.0.h.0.hook_slow",
    ]


def test_the_ticks_passed_to_an_evaluation_are_the_schedule(
    toy: Toy, puzzles: Any, monkeypatch: pytest.MonkeyPatch
):
    seen: list[Tick] = []
    plain = toy.evaluate

    def noted(tick: Tick, *operands: Tensor) -> Tensor:
        seen.append(tick)
        return plain(tick, *operands)

    monkeypatch.setattr(toy, "evaluate", noted)
    run_batch(toy, *puzzles, steps=3)
    assert seen == toy.config.schedule.ticks(3)


def test_gradient_reaches_what_the_rule_of_the_model_says(toy: Toy, puzzles: Any):
    """The toy's: the last write of each state, the last two of ten evaluations."""
    x = toy.embed(puzzles[0])
    cycle = toy.config.schedule.cycle
    with torch.no_grad():
        state, _ = toy.unroll(Schedule(1, cycle), toy.initial_state(x), x)
        state, _ = toy.unroll(Schedule(1, cycle[:3]), state, x)

    def gradients(answer: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(answer.square().sum(), [*toy.quick.parameters()]))

    trained = gradients(toy(toy.initial_state(x), puzzles[0])[1].logits)
    last, _ = toy.unroll(Schedule(1, cycle[3:]), state, x)
    by_hand = gradients(toy.readout(last.slow).logits)
    for one, other in zip(trained, by_hand, strict=True):
        torch.testing.assert_close(one, other)
    whole, _ = toy.advance(toy.initial_state(x), x)
    assert not torch.allclose(trained[0], gradients(toy.readout(whole.slow).logits)[0], rtol=1e-3)


@torch.no_grad()
def test_depth_is_another_schedule_of_the_same_model(toy: Toy, puzzles: Any):
    x = toy.embed(puzzles[0])
    start = toy.initial_state(x)
    state, per_cycle = toy.advance(start, x, depth=(1, 1))
    by_hand, _ = toy.unroll(Schedule(1, ("fast", "slow", "fast", "slow")), start, x)
    assert len(per_cycle) == 1
    assert all(torch.equal(*pair) for pair in zip(state, by_hand, strict=True))


@torch.no_grad()
def test_listening_inside_changes_no_bit(toy: Toy, puzzles: Any):
    """`points` of an evaluation are called once each; what they return is what goes on."""
    x, tick = toy.embed(puzzles[0]), toy.config.schedule.tick(0, 0, 2)
    operands = toy.operands(tick, toy.initial_state(x), x)
    points, heard = toy.evaluation_points(toy.config, tick.writes), []
    place = points.get_submodule(*toy.site_names(toy.config, tick.writes))
    place.register_forward_hook(lambda module, args, out: heard.append(out))
    listened = toy.network(tick)(*operands, points)
    assert torch.equal(listened, toy.evaluate(tick, *operands)) and len(heard) == 1
    place.register_forward_hook(lambda module, args, out: 2 * out)
    assert not torch.equal(toy.network(tick)(*operands, points), listened)


@torch.no_grad()
def test_a_hooked_model_equals_the_plain_one_step_by_step(toy: Toy, puzzles: Any):
    hooked = HookedModel.of(toy, n_sup=3)
    x, heard = toy.embed(puzzles[0]), []
    state = toy.initial_state(x)
    names = [tick.hook for tick in toy.config.schedule.ticks(3)]
    with recording(hooked, names, sink=lambda name, z: heard.append(name)):
        for step in range(3):
            listened, _ = hooked.advance(state, x, step)
            state, _ = toy.advance(state, x, step)
            assert all(torch.equal(*pair) for pair in zip(listened, state, strict=True))
            heard_of, plain = hooked.readout(state.slow, step), toy.readout(state.slow)
            assert all(torch.equal(*pair) for pair in zip(heard_of[:2], plain[:2], strict=True))
    assert heard == names


# the registry


def test_the_registry_gives_classes_and_settings_back():
    assert {"trm", "toy"} <= set(names())
    assert architecture("toy") is Toy and model_class(TRMConfig()) is TRM
    for config in (ToyConfig(keep=0.25), TRMConfig(d_model=32, multiple=16)):
        assert config_from(json.loads(json.dumps(settings_of(config)))) == config
        model = build(config, torch.Generator().manual_seed(0))
        assert model.config is config and model.architecture == config.architecture
        assert sum(p.numel() for p in model.parameters()) == config.n_weights
    assert "architecture" not in settings_of(TRMConfig())


@pytest.mark.parametrize("name", ["hrm9", "", 3, None, ["trm"]])
def test_an_unknown_architecture_is_named_with_those_that_are_known(name: Any):
    with pytest.raises(UserError, match="unknown architecture .* this version has trm"):
        config_from({"architecture": name})


# checkpoints


def test_a_checkpoint_is_read_back(toy: Toy, puzzles: Any, tmp_path: Path):
    save_checkpoint(tmp_path / "toy", toy, {"task": "latin3"})
    loaded = load_checkpoint(tmp_path / "toy")
    assert type(loaded.model) is Toy and loaded.model.config == toy.config
    assert loaded.task == "latin3"
    one, other = (run(m, *puzzles, steps=2, keep_logits=True) for m in (toy, loaded.model))
    assert one.logits is not None and torch.equal(one.logits, other.logits)
    settings = json.loads((tmp_path / "toy" / "config.json").read_text())
    assert settings["architecture"] == "toy"


def test_the_file_of_a_trm_names_no_architecture(tmp_path: Path):
    """What older versions wrote, byte for byte."""
    shipped = SHIPPED / "trm-sudoku6"
    save_checkpoint(tmp_path, load_checkpoint(shipped).model, {})
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (shipped / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architecture": "hrm9"}, "unknown architecture 'hrm9': this version has trm"),
        ({"architecture": 5}, "unknown architecture '5'"),
        ({"mixer": "mlp"}, "unknown setting 'mixer'"),
        ({"keep": "much"}, "keep is 'much', not a float"),
        ({"d_model": 4}, "the configuration gives"),
        ({"d_model": 0}, "d_model must be at least 1"),
    ],
)
def test_damage_in_the_config_of_another_architecture_is_one_line(
    toy: Toy, tmp_path: Path, change: dict[str, Any], says: str
):
    save_checkpoint(tmp_path, toy, {})
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(tmp_path)
    assert says in str(raised.value) and "\n" not in str(raised.value)
    assert str(raised.value).startswith(str(tmp_path))


def test_weights_without_their_config_are_ours_by_the_card(toy: Toy, tmp_path: Path):
    save_checkpoint(tmp_path, toy, {})
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match="config.json: missing"):
        load_checkpoint(tmp_path)


# training


def test_training_lowers_the_loss_and_leaves_a_checkpoint(
    trainer_of: Callable[..., Trainer], puzzles: Any
):
    trainer = trainer_of(steps=90, lr=3e-3, eval_every=45, log_every=15, weight_decay=0.0)
    train(trainer)
    losses = [row["loss"] for row in rows(trainer) if "loss" in row]
    assert losses[-1] < 0.5 * losses[0]
    loaded = load_checkpoint(trainer.out)
    assert type(loaded.model) is Toy
    inputs, labels = (tokens[:3] for tokens in puzzles)
    read = run(loaded.model, inputs, labels, steps=3)
    assert read.loss[:, -1].mean().item() == pytest.approx(loaded.card["validation"]["loss"])


@pytest.mark.parametrize(
    "settings",
    [
        {"explore": 0.5, "micro_batches": 2},
        {"optimizer": "muon", "curriculum": True, "dtype": "bfloat16"},
    ],
    ids=["adamw", "muon"],
)
def test_resumed_equals_uninterrupted(trainer_of: Callable[..., Trainer], settings: dict[str, Any]):
    whole = trainer_of("whole", **settings)
    train(whole)
    for stop in (2, 5, 12):
        part = trainer_of("parts", **settings)
        if (part.out / STATE_FILE).exists():
            part.resume()
        train(part, should_stop=lambda part=part, stop=stop: part.step_count >= stop)
        assert part.step_count == stop
    assert_same_bits(part.state(), whole.state())
    assert rows(part) == rows(whole)
    assert load_checkpoint(part.out).sha256 == load_checkpoint(whole.out).sha256


def test_a_saved_state_holds_the_states_under_their_names(trainer_of: Callable[..., Trainer]):
    trainer = trainer_of(steps=2)
    train(trainer)
    saved = torch.load(trainer.out / STATE_FILE, weights_only=True)
    assert list(saved["slots"])[:2] == ["slow", "fast"]
    assert torch.equal(saved["slots"]["fast"], trainer.slots.states.fast)
    assert saved["identity"]["architecture"] == "toy"


def test_the_run_of_another_architecture_is_refused(
    trainer_of: Callable[..., Trainer], data: TrainData
):
    trainer = trainer_of(steps=2)
    train(trainer)
    trm = TRMConfig(cells=16, vocab=6, d_model=8, multiple=8, h_cycles=2, l_cycles=2)
    with pytest.raises(UserError, match=r"another run: architecture \('toy' there, None now\)"):
        Trainer(trm, trainer.config, data, trainer.out).resume()


def test_going_on_from_portable_files_equals_going_on(
    trainer_of: Callable[..., Trainer], tmp_path: Path
):
    whole = assert_portable_files_go_on(trainer_of, tmp_path / "state")
    model = average_of(*read_portable(tmp_path / "state"))
    assert type(model) is Toy and model.config == whole.model.config


def test_muon_takes_the_matrices_of_all_networks(toy: Toy):
    _, muon = make_optimizers(toy, TrainConfig(optimizer="muon"))
    taken = {id(weight) for group in muon.param_groups for weight in group["params"]}
    assert taken == {id(weight) for net in (toy.quick, toy.calm) for weight in net.parameters()}


# the joint map, and its cost


def test_the_joint_map_of_other_states(toy: Toy, puzzles: Any):
    toy = toy.double()
    cycle = CycleMap(toy, toy.embed(puzzles[0], torch.float64))
    state = toy.initial_state(cycle.x)
    z = joined(state)
    assert z.shape == (5, cycle.dim) and cycle.evaluations == 5
    assert torch.equal(cycle.answer(z), state.slow)
    assert torch.equal(cycle.split(z).fast, state.fast)
    with torch.no_grad():
        stepped, per_cycle = toy.advance(state, cycle.x)
    assert torch.equal(cycle(cycle(z)), joined(stepped))
    assert torch.equal(cycle.answer(cycle(z)), per_cycle[0])

    tangents = torch.randn(3, *z.shape, dtype=torch.float64)
    image, moved = cycle.push(z, tangents)
    torch.testing.assert_close(image, cycle(z))
    _, by_forward_mode = push(cycle, z, tangents)
    torch.testing.assert_close(moved, by_forward_mode)
    # the toy is linear: the derivative is the difference, for displacements of any size
    torch.testing.assert_close(moved[0], cycle(z + tangents[0]) - cycle(z))


def test_operations_are_what_pytorch_counts(toy: Toy, puzzles: Any):
    x = toy.embed(puzzles[0][:1])
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        state, _ = toy.advance(toy.initial_state(x), x)
    assert counted.get_total_flops() == 10 * Toy.evaluation_flops(toy.config, "fast")
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        toy.readout(state.slow)
    halting = 2 * toy.config.d_model  # not counted by ours
    assert 0 <= counted.get_total_flops() - Toy.readout_flops(toy.config) <= halting


def test_training_costs_twice_the_forward_of_the_last_cycle_more():
    config = ToyConfig()
    one, head = Toy.evaluation_flops(config, "slow"), Toy.readout_flops(config)
    assert Toy.step_flops(config) == 10 * one + head
    assert (
        Toy.step_flops(config, training=True) == (10 + 2 * 2) * one + 3 * head
    )  # last fast, last slow
    assert Toy.step_flops(config, depth=(1, 1)) == 4 * one + head
