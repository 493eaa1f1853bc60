"""What training does to its slots, that it learns, and that a resumed run is the plain one."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_training import SMALL, assert_same_bits, rows
from torch import Tensor

from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.core.counter import hash64
from trm_interp.core.infer import run
from trm_interp.core.losses import step_losses
from trm_interp.core.models.base import Readout
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.core.training.loop import train
from trm_interp.core.training.settings import TrainConfig
from trm_interp.core.training.slots import PICK, TrainData
from trm_interp.core.training.trainer import STATE_FILE, Trainer

# learning


def test_overfits_five_puzzles(make: Callable[..., Trainer], puzzles: Any):
    trainer = make(steps=150, lr=1e-2, eval_every=150, save_every=150, log_every=10)
    train(trainer)
    losses = [row["loss"] for row in rows(trainer) if "loss" in row]
    assert losses[0] == pytest.approx(math.log(6), abs=0.4)  # six tokens, nothing learnt
    assert losses[-1] < 0.25 * losses[0]
    with trainer.average:
        read = run(trainer.model, *puzzles, steps=3)
    before = run(make("fresh").model, *puzzles, steps=3)
    right, guessed = ((r.tokens[:, -1] == puzzles[1]).float().mean() for r in (read, before))
    assert right > 0.9 > 0.5 > guessed


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_stays_finite_with_nothing_solved(make: Callable[..., Trainer], optimizer: str):
    """Labels that change with every draw cannot be learned: q_halt only ever hears no."""
    trainer = make(steps=40, lr=1e-2, optimizer=optimizer)
    noise = torch.Generator().manual_seed(0)

    def augment(inputs: Tensor, labels: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        return inputs, torch.randint(2, 6, labels.shape, generator=noise)

    trainer.data = replace(trainer.data, augment=augment)
    for _ in range(40):
        metrics = trainer.step()
        assert metrics["solved"] == 0
        assert all(value.isfinite() for value in metrics.values()), metrics
    assert all(p.isfinite().all() for p in trainer.model.parameters())


# slots


def head(trainer: Trainer, bias: float) -> None:
    """Fix q_halt to `bias` for one step."""
    with torch.no_grad():
        trainer.model.q_head.weight.zero_()
        trainer.model.get_parameter("q_head.bias").fill_(bias)


def refill(trainer: Trainer) -> None:
    data = trainer.data
    trainer.put(trainer.slots.refilled(trainer.model, data, trainer.config.seed))


def test_slots_run_to_the_last_step_and_are_refilled(make: Callable[..., Trainer]):
    trainer = make(n_sup=3)
    start = trainer.model.z_H_init
    steps, draws = [], []
    for _ in range(7):
        head(trainer, -5.0)
        trainer.step()
        steps.append(trainer.slots.steps.tolist()[0])
        draws.append(trainer.slots.draws.tolist()[0])
        assert trainer.slots.halted.all() == (steps[-1] == 3)
    assert steps == [1, 2, 3, 1, 2, 3, 1]
    assert draws == [1, 1, 1, 2, 2, 2, 3]
    trainer.slots.halted[:] = torch.tensor([True, False, True, False, False])
    before = trainer.slots.states.z_H.clone()
    refill(trainer)
    halted = torch.tensor([True, False, True, False, False])
    assert (trainer.slots.states.z_H[halted] == start).all()
    assert (trainer.slots.states.z_L[halted] == trainer.model.z_L_init).all()
    assert torch.equal(trainer.slots.states.z_H[~halted], before[~halted])
    assert trainer.slots.steps.tolist() == [0, 1, 0, 1, 1]
    assert trainer.slots.draws.tolist() == [4, 3, 4, 3, 3]


def test_a_slot_halts_where_q_halt_is_above_zero(make: Callable[..., Trainer]):
    trainer = make(n_sup=16)
    refill(trainer)
    slots, q_halt = trainer.slots, torch.tensor([-1.0, 0.0, 1e-6, 3.0, -9.0])
    halts = trainer.model.halts(Readout(torch.zeros(5, 16, 6), q_halt))
    slots = slots.advanced(slots.states, halts, 0, trainer.config, 16)
    assert slots.halted.tolist() == [False, False, True, True, False]


def test_exploring_slots_run_at_least_a_random_number_of_steps(make: Callable[..., Trainer]):
    """With q_halt > 0 always, a slot ends at its first step unless it explores."""

    def lengths(explore: float, n_sup: int) -> Tensor:
        trainer = make(explore=explore, n_sup=n_sup, batch_size=5)
        n, halted = 4000, []
        slots = trainer.slots
        slots.index = torch.arange(n)
        slots.steps = torch.zeros(n, dtype=torch.int64)
        slots.cut = torch.zeros(n, dtype=torch.int64)
        slots.halted = torch.zeros(n, dtype=torch.bool)
        for step in range(n_sup):
            state = slots.states
            halts = torch.ones(n, dtype=torch.bool)
            slots = slots.advanced(state, halts, step, trainer.config, n_sup)
            halted.append(slots.halted)
        return torch.stack(halted)  # [step, slot], where it would halt

    assert lengths(explore=0.0, n_sup=5).all()
    allowed = lengths(explore=1.0, n_sup=5).float().mean(1)
    # the least number of steps is 2, 3, 4 or 5, each with chance 1/4, drawn anew at every step
    expected = torch.tensor([0, 1 / 4, 2 / 4, 3 / 4, 1])
    # 4 deviations of a mean of 4000: 4 * sqrt(1/4 / 4000) = 0.032
    torch.testing.assert_close(allowed, expected, atol=0.032, rtol=0)
    some = lengths(explore=0.1, n_sup=5).float().mean(1)
    torch.testing.assert_close(some, 0.9 + 0.1 * expected, atol=0.032, rtol=0)
    assert lengths(explore=1.0, n_sup=1).all()  # a single step cannot be exceeded


def test_puzzles_are_a_function_of_seed_slot_and_draw(make: Callable[..., Trainer]):
    trainer = make(seed=7, n_sup=2)
    for _ in range(5):  # draws at steps 0, 2 and 4
        head(trainer, -5.0)
        trainer.step()
    for slot in range(5):
        pick = int(hash64(7, PICK, slot, 2)) % 2**63 % 5  # the third draw
        assert torch.equal(trainer.slots.inputs[slot], trainer.data.inputs[pick])
        assert torch.equal(trainer.slots.labels[slot], trainer.data.labels[pick])
    # another seed, other puzzles (equal by chance with probability 5^-5)
    other = make("other", seed=8)
    refill(other)
    trainer.slots.draws[:], trainer.slots.halted[:] = 0, True
    refill(trainer)
    assert not torch.equal(other.slots.inputs, trainer.slots.inputs)


def test_the_gradient_is_the_summed_loss_over_the_batch_size(make: Callable[..., Trainer]):
    """answer + halt_weight * halt, summed and divided by 5, by a separate backward pass."""
    trainer = make(clip=0.0, halt_weight=0.7, warmup=0.0)
    refill(trainer)
    slots = trainer.slots
    _, readout = trainer.model(slots.states, slots.inputs)
    losses = step_losses(readout.logits, readout.q_halt, slots.labels)
    mean = (losses.answer + 0.7 * losses.halt).mean()
    grads = torch.autograd.grad(mean, list(trainer.model.parameters()))
    norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt()

    fresh = make("fresh", clip=0.0, halt_weight=0.7, warmup=0.0)
    metrics = fresh.step()
    torch.testing.assert_close(metrics["grad_norm"], norm)
    torch.testing.assert_close(metrics["answer"], losses.answer.sum())


# resuming


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw", "explore": 0.5},
        {"optimizer": "muon", "decay": "cosine", "curriculum": True, "dtype": "bfloat16"},
    ],
    ids=["adamw", "muon"],
)
def test_resumed_equals_uninterrupted_bit_for_bit(
    make: Callable[..., Trainer], settings: dict[str, Any]
):
    whole = make("whole", **settings)
    train(whole)
    for stop in (1, 2, 5, 7, 11):  # not only where rows, validations or states are written
        part = make("parts", **settings)
        if (part.out / STATE_FILE).exists():
            part.resume()
            saved = torch.load(part.out / STATE_FILE, weights_only=True)
            assert_same_bits(part.state(), saved)
        train(part, should_stop=lambda part=part, stop=stop: part.step_count >= stop)
        assert part.step_count == stop
    last = make("parts", **settings)
    last.resume()
    train(last)
    assert last.step_count == 12
    assert_same_bits(last.state(), whole.state())
    saved = [torch.load(t.out / STATE_FILE, weights_only=True) for t in (last, whole)]
    assert_same_bits(*saved)
    assert rows(last) == rows(whole)
    assert load_checkpoint(last.out).sha256 == load_checkpoint(whole.out).sha256


def test_a_saved_state_has_the_names_that_older_versions_read(make: Callable[..., Trainer]):
    trainer = make(steps=2)
    train(trainer)
    slots = torch.load(trainer.out / STATE_FILE, weights_only=True)["slots"]
    names = ["z_H", "z_L", "inputs", "labels", "steps", "halted", "draws", "index"]
    assert list(slots) == [*names, "cut"]
    assert torch.equal(slots["z_H"], trainer.slots.states.z_H)
    assert torch.equal(slots["z_L"], trainer.slots.states.z_L)


def test_a_finished_run_is_left_as_it_is(make: Callable[..., Trainer]):
    trainer = make(steps=5)  # neither a validation step nor a row
    train(trainer)
    before = rows(trainer)
    assert [row["step"] for row in before] == [3, 4, 5]  # row, validation, last validation
    again = make(steps=5)
    again.resume()
    train(again)
    assert rows(again) == before


def test_steps_may_be_extended(make: Callable[..., Trainer]):
    train(make(steps=5))
    longer = make(steps=9)
    longer.resume()
    train(longer)
    assert longer.step_count == 9
    assert [row["step"] for row in rows(longer) if "loss" in row] == [3, 6, 9]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": 2e-3}, r"train.lr \(0.001 there, 0.002 now\)"),
        ({"seed": 1}, r"train.seed \(0 there, 1 now\)"),
    ],
)
def test_resuming_with_other_settings_names_them(
    make: Callable[..., Trainer], change: dict[str, Any], named: str
):
    train(make(steps=2))
    with pytest.raises(ValueError, match=named):
        make(**{"steps": 2, **change}).resume()


def test_resuming_with_other_data_or_another_model_is_refused(
    make: Callable[..., Trainer], data: TrainData
):
    trainer = make(steps=2)
    train(trainer)
    other = replace(data, inputs=data.inputs.flip(0), labels=data.labels.flip(0))
    with pytest.raises(ValueError, match=r"data \('[0-9a-f]{10,}.* there, '[0-9a-f]{10,}.* now\)"):
        Trainer(SMALL, trainer.config, other, trainer.out).resume()
    wider = replace(SMALL, d_model=32)
    with pytest.raises(ValueError, match=r"d_model \(16 there, 32 now\)"):
        Trainer(wider, trainer.config, data, trainer.out).resume()


def test_the_folder_is_a_checkpoint_of_the_best_average(make: Callable[..., Trainer], puzzles: Any):
    trainer = make(steps=8)
    train(trainer)
    loaded = load_checkpoint(trainer.out)
    assert loaded.card["validation"]["step"] == trainer.best["step"]
    assert loaded.card["validation"]["n"] == 3 and loaded.card["train"]["puzzles"] == 5
    for weights, best in zip(loaded.model.parameters(), trainer.best_weights, strict=True):
        assert torch.equal(weights, best)
    inputs, labels = (tensor[:3] for tensor in puzzles)
    read = run(loaded.model, inputs, labels, steps=3)
    assert read.loss[:, -1].mean().item() == pytest.approx(loaded.card["validation"]["loss"])


def test_cards_of_the_same_run_differ_in_their_times_alone(make: Callable[..., Trainer]):
    cards = []
    for seconds in (1.0, 2.0):
        trainer = make(steps=2)
        train(trainer)
        trainer.seconds = seconds
        trainer.export()
        cards.append(load_checkpoint(trainer.out).card)
    assert [card.pop("times") for card in cards] == [{"training_s": 1.0}, {"training_s": 2.0}]
    assert cards[0] == cards[1]


def test_at_equal_accuracy_the_lower_loss_is_best(make: Callable[..., Trainer]):
    trainer = make(steps=40, lr=1e-2, ema=0.5, eval_every=10, log_every=40)
    train(trainer)
    validations = [row for row in rows(trainer) if "val_loss" in row]
    best = max(validations, key=lambda row: (row["val_exact"][-1], -row["val_loss"]))
    assert trainer.best["step"] == best["step"] > 10


def test_a_target_ends_the_run_and_a_higher_one_goes_on(make: Callable[..., Trainer]):
    kinds: dict[str, Any] = {"lr": 1e-2, "ema": 0.5, "eval_every": 10, "log_every": 1000}
    whole = make("whole", steps=200, target=1.0, **kinds)
    train(whole)
    curve = {row["step"]: row["val_exact"][-1] for row in rows(whole)}
    first, second = (min(at for at, share in curve.items() if share >= t) for t in (0.3, 1.0))
    assert first < second == whole.step_count < 200

    stopped = make("stopped", steps=200, target=0.3, **kinds)
    train(stopped)
    assert stopped.step_count == first and stopped.finished()
    on = make("stopped", steps=200, target=1.0, **kinds)
    on.resume()
    train(on)
    assert on.step_count == second and on.best["exact"] == 1.0
    assert on.changes == [{"after_step": first, "target": [0.3, 1.0]}]


def test_other_validation_puzzles_start_a_new_best(make: Callable[..., Trainer], data: TrainData):
    trainer = make(steps=8)
    train(trainer)
    other = replace(data, val_inputs=data.inputs[3:], val_labels=data.labels[3:])
    resumed = Trainer(SMALL, trainer.config, other, trainer.out)
    resumed.resume()
    assert resumed.best["exact"] == -1.0 and resumed.step_count == 8
    train(resumed)
    assert resumed.best["n"] == 2 and resumed.best["step"] == 8


# wall clock


class Clock:
    """Seconds that pass only between looks: `tick` at each."""

    def __init__(self, tick: float) -> None:
        self.now, self.tick = 100.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def test_a_budget_sets_the_end_the_rate_and_the_depth(make: Callable[..., Trainer]):
    """One minute and 3 s a step: 20 steps, the fraction before step k is k / 20."""
    trainer = make(budget=1.0, steps=3, warmup=0.2, decay="cosine", curriculum=True, log_every=1)
    evaluations = []
    inner = trainer.model.evaluate

    def counted(tick: Any, h: Tensor, injection: Tensor) -> Tensor:
        evaluations.append(trainer.step_count)
        return inner(tick, h, injection)

    trainer.model.evaluate = counted  # type: ignore[method-assign]
    trainer.validate = lambda: {"step": trainer.step_count}  # type: ignore[method-assign]
    train(trainer, clock=Clock(3.0))
    assert trainer.step_count == 20
    assert trainer.seconds == pytest.approx(60.0)
    rates = [row["lr"] for row in rows(trainer) if "lr" in row]
    # warm-up over the first 4 steps, then 0.5 (1 + cos(pi (k / 20 - 0.2) / 0.8))
    rising = [k / 20 / 0.2 for k in range(4)]
    falling = [0.5 * (1 + math.cos(math.pi * (k / 20 - 0.2) / 0.8)) for k in range(4, 20)]
    assert rates == pytest.approx([1e-3 * f for f in rising + falling])
    # depth (1, 2) before 30 %: 3 evaluations; then (2, 4) cut to the model's (2, 2): 6
    counts = [evaluations.count(k) for k in range(20)]
    assert counts == [3] * 6 + [6] * 14


def test_a_resumed_budget_goes_on_from_the_seconds_used(make: Callable[..., Trainer]):
    first = make(budget=1.0)
    train(first, should_stop=lambda: first.step_count >= 8, clock=Clock(3.0))
    assert first.seconds == pytest.approx(24)
    second = make(budget=1.0)
    second.resume()
    assert second.fraction() == pytest.approx(0.4)
    train(second, clock=Clock(3.0))
    assert second.step_count == 20


def test_settings_are_checked():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        TrainConfig(batch_size=0)
    with pytest.raises(ValueError, match="budget must be above 0 minutes"):
        TrainConfig(budget=0.0)
    with pytest.raises(ValueError, match="ema must be between 0 and 1, got 2.0"):
        TrainConfig(ema=2.0)
    with pytest.raises(ValueError, match="smoothing 0.1 needs loss 'softmax'"):
        TrainConfig(smoothing=0.1)
    with pytest.raises(ValueError, match="optimizer must be one of"):
        TrainConfig(optimizer="sgd")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mixer must be"):
        TRMConfig(mixer="conv")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be a multiple of 2 x 3 heads"):
        TRMConfig(mixer="attention", n_heads=3)
