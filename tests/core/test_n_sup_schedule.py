"""Fewer supervision steps per puzzle in the first part of a run."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_training import FAST, assert_same_bits, rows

from trm_interp.core.training.loop import train
from trm_interp.core.training.optimizers import supervision_steps
from trm_interp.core.training.portable import load_portable, save_portable
from trm_interp.core.training.settings import TrainConfig
from trm_interp.core.training.trainer import STATE_FILE, Trainer
from trm_interp.runtime.errors import UserError

HALF: dict[str, Any] = {"n_sup_warm": 1, "n_sup_warm_until": 0.5}  # of 12 steps: the first six


def halts_late(trainer: Trainer) -> None:
    """The halting head says no, so that slots run to their last supervision step."""
    with torch.no_grad():
        trainer.model.get_parameter("q_head.weight").zero_()
        trainer.model.get_parameter("q_head.bias").fill_(-5.0)


def test_every_slot_is_refilled_at_each_step_of_the_first_part(make: Callable[..., Trainer]):
    trainer = make(**HALF)
    draws, done = [], []
    for _ in range(12):
        halts_late(trainer)
        trainer.step()
        draws.append(trainer.slots.draws.tolist()[0])
        done.append(trainer.slots.steps.tolist()[0])
    # six puzzles of one step each, then two of n_sup = 3
    assert draws == [1, 2, 3, 4, 5, 6, 7, 7, 7, 8, 8, 8]
    assert done == [1] * 6 + [1, 2, 3] * 2
    assert (trainer.slots.draws == 8).all()


def test_a_first_part_that_lasts_throughout_is_a_run_of_so_many_steps(make: Callable[..., Trainer]):
    plain = make("plain", n_sup=2, explore=0.5)
    warm = make("warm", n_sup=3, n_sup_warm=2, n_sup_warm_until=1.0, explore=0.5)
    for _ in range(12):
        one, other = plain.step(), warm.step()
        assert_same_bits(one, other)
    assert_same_bits(plain.slots.tensors(), warm.slots.tensors())
    assert_same_bits(plain.model.state_dict(), warm.model.state_dict())


def test_rows_tell_the_part_and_validations_run_all_steps(make: Callable[..., Trainer]):
    trainer = make(**HALF)
    train(trainer)
    assert [row["n_sup"] for row in rows(trainer) if "loss" in row] == [1, 1, 3, 3]
    assert all(len(row["val_exact"]) == 3 for row in rows(trainer) if "val_exact" in row)
    train(make("plain"))
    assert not any("n_sup" in row for row in rows(make("plain")))


def test_the_share_of_a_budget_is_of_its_wall_clock(make: Callable[..., Trainer]):
    trainer = make(budget=1.0, **HALF, log_every=1, eval_every=100)
    looks = iter(range(100))
    train(trainer, clock=lambda: 6.0 * next(looks))  # 6 s a step, 10 steps
    assert [row["n_sup"] for row in rows(trainer) if "loss" in row] == [1] * 5 + [3] * 5


@pytest.mark.parametrize(
    "settings",
    [
        {"explore": 0.5},
        {"optimizer": "muon", "curriculum": True, "decay": "cosine", "dtype": "bfloat16"},
    ],
    ids=["adamw", "muon"],
)
def test_resumed_in_either_part_and_at_the_change_equals_uninterrupted(
    make: Callable[..., Trainer], settings: dict[str, Any]
):
    settings = {**settings, **HALF}
    whole = make("whole", **settings)
    train(whole)
    for stop in (3, 5, 6, 7, 10):
        part = make("parts", **settings)
        if (part.out / STATE_FILE).exists():
            part.resume()
        train(part, should_stop=lambda part=part, stop=stop: part.step_count >= stop)
    last = make("parts", **settings)
    last.resume()
    train(last)
    assert_same_bits(last.state(), whole.state())
    assert rows(last) == rows(whole)


@pytest.mark.parametrize("at", [3, 6, 9])
def test_a_carried_state_goes_on_in_its_part(make: Callable[..., Trainer], tmp_path: Any, at: int):
    whole, resumed = make(**HALF), make(**HALF)
    for _ in range(at):
        whole.step()
    save_portable(whole, tmp_path / "state")
    load_portable(resumed, tmp_path / "state")
    for _ in range(3):
        assert_same_bits(whole.step(), resumed.step())
        assert whole.phase == resumed.phase
    assert_same_bits(whole.model.state_dict(), resumed.model.state_dict())


def from_before(trainer: Trainer) -> None:
    """Make its saved state one of a version that had no schedule."""
    file = trainer.out / STATE_FILE
    state = torch.load(file, weights_only=True)
    for name in ("n_sup_warm", "n_sup_warm_until"):
        state["identity"].pop(f"train.{name}", None)
        del state["settings"][name]
    torch.save(state, file)


def stopped_at(trainer: Trainer, step: int) -> None:
    train(trainer, should_stop=lambda: trainer.step_count >= step)


def test_a_state_from_before_the_schedule_goes_on_and_says_so(make: Callable[..., Trainer]):
    whole = make("whole")
    train(whole)
    old = make("old")
    stopped_at(old, 4)
    from_before(old)
    again = make("old")
    lines: list[str] = []
    again.tell = lines.append
    again.resume()
    assert len(lines) == 1 and "going on with n_sup_warm 0" in lines[0] and STATE_FILE in lines[0]
    train(again)
    assert_same_bits(again.state(), whole.state())
    assert again.changes == []

    stopped_at(make("scheduled"), 4)
    from_before(make("scheduled"))
    scheduled = make("scheduled", n_sup_warm=2, n_sup_warm_until=0.75)
    scheduled.resume()
    scheduled.step()
    assert scheduled.phase.n_sup == 2
    change = {"n_sup_warm": [0, 2], "n_sup_warm_until": [0.25, 0.75]}
    assert scheduled.changes == [{"after_step": 4, **change}]


def test_another_schedule_is_another_run(make: Callable[..., Trainer]):
    stopped_at(make(**HALF), 4)
    with pytest.raises(UserError, match=r"train.n_sup_warm \(1 there, 0 now\)"):
        make().resume()


def test_the_end_of_the_first_part_may_be_moved(make: Callable[..., Trainer]):
    """Sooner and later, before it is reached; the card tells when that was."""
    stopped_at(make(**HALF), 4)
    sooner = make(n_sup_warm=1, n_sup_warm_until=0.25)
    sooner.resume()
    sooner.step()
    assert sooner.phase.n_sup == FAST["n_sup"]
    assert sooner.changes == [{"after_step": 4, "n_sup_warm_until": [0.5, 0.25]}]

    stopped_at(make("before", **HALF), 4)  # earlier versions: a part of the run's identity
    file = make("before").out / STATE_FILE
    state = torch.load(file, weights_only=True)
    state["identity"]["train.n_sup_warm_until"] = 0.5
    torch.save(state, file)
    make("before", **HALF).resume()


def test_a_schedule_that_contradicts_n_sup_is_refused():
    with pytest.raises(ValueError, match="n_sup_warm must be from 0 to n_sup, which is 4, got 5"):
        TrainConfig(n_sup=4, n_sup_warm=5)
    with pytest.raises(ValueError, match="n_sup_warm must be from 0 to n_sup"):
        TrainConfig(n_sup_warm=-1)
    with pytest.raises(ValueError, match="n_sup_warm_until must be between 0 and 1, got 1.5"):
        TrainConfig(n_sup_warm=1, n_sup_warm_until=1.5)
    same = TrainConfig(n_sup=4, n_sup_warm=4)
    assert supervision_steps(same, 0.0) == supervision_steps(same, 1.0) == 4
