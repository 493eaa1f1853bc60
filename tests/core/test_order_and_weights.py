"""Easy puzzles first, slots out of step, and weights of the supervision steps' losses."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import FAST, SMALL, assert_same_bits, rows

from trm_interp.core.training.gradients import step_weights
from trm_interp.core.training.loop import train
from trm_interp.core.training.optimizers import easiest
from trm_interp.core.training.settings import TrainConfig
from trm_interp.core.training.slots import TrainData
from trm_interp.core.training.trainer import STATE_FILE, Trainer


@pytest.fixture
def rated(data: TrainData, tmp_path: Path) -> Callable[..., Trainer]:
    """make(name, **settings) on puzzles of which the last is the easiest, without symmetries."""
    order = torch.arange(len(data.inputs)).flip(0)
    ordered = replace(data, easy_first=order, augment=None)

    def made(name: str = "run", **settings: Any) -> Trainer:
        return Trainer(SMALL, TrainConfig(**{**FAST, **settings}), ordered, tmp_path / name)

    return made


def test_half_of_the_draws_are_of_the_easiest_and_the_rest_of_all(
    rated: Callable[..., Trainer],
):
    """Puzzles are drawn by chance: 4 000 slots, so that a share is known within 0.03."""
    trainer = rated(batch_size=4000, easy_until=1.0)
    n = len(trainer.data.inputs)
    rank = {tuple(row): n - 1 - i for i, row in enumerate(trainer.data.inputs.tolist())}
    assert len(rank) == n  # all of them differ

    def share_below(few: int) -> float:
        drawn = trainer.slots.refilled(trainer.model, trainer.data, 0, easiest=torch.tensor(few))
        ranks = [rank[tuple(row)] for row in drawn.inputs.tolist()]
        assert max(ranks) == n - 1  # always mixed
        return sum(r < few for r in ranks) / len(ranks)

    for few in (max(1, n // 4), n // 2):
        assert share_below(few) == pytest.approx(0.5 + 0.5 * few / n, abs=0.03)


def test_the_easy_part_grows_to_all_and_then_changes_nothing(rated: Callable[..., Trainer]):
    half = TrainConfig(easy_until=0.5)
    assert [easiest(half, f, 40) for f in (0.0, 0.25, 0.5, 0.9)] == [4, 22, 40, 40]
    assert easiest(half, 0.0, 3) == 1
    trainer = rated(easy_until=0.5)
    n = len(trainer.data.inputs)
    seen = []
    for _ in range(12):
        trainer.step()
        seen.append(int(trainer.easiest))  # type: ignore[arg-type]
    assert seen[0] == max(1, round(0.1 * n)) and seen[6:] == [n] * 6
    assert seen == sorted(seen) and len(set(seen[:7])) > 2


@pytest.mark.parametrize(
    "settings", [{"easy_until": 0.75}, {"early_weight": 3.0}, {"stagger": True}]
)
def test_resumed_equals_uninterrupted(rated: Callable[..., Trainer], settings: dict[str, Any]):
    whole = rated("whole", **settings)
    train(whole)
    part = rated("part", **settings)
    train(part, should_stop=lambda: part.step_count >= 5)
    again = rated("part", **settings)
    again.resume()
    train(again)
    assert_same_bits(again.state(), whole.state())
    assert rows(again) == rows(whole)
    plain = rated("plain")
    train(plain)
    assert not torch.equal(plain.average.mean[0], whole.average.mean[0])


def test_puzzles_without_ratings_are_refused(make: Callable[..., Trainer]):
    with pytest.raises(ValueError, match="easy_until needs puzzles that their task can rate"):
        make(easy_until=0.5)


def never_halts(trainer: Trainer) -> None:
    with torch.no_grad():
        trainer.model.get_parameter("q_head.weight").zero_()
        trainer.model.get_parameter("q_head.bias").fill_(-5.0)


def test_slots_that_begin_together_end_one_after_another(make: Callable[..., Trainer]):
    """Five slots, three steps a puzzle: slots 0 and 3 are cut to one step, 1 and 4 to two; from
    then on every puzzle has three."""
    trainer, steps, draws = make(stagger=True), [], []
    for _ in range(7):
        never_halts(trainer)
        trainer.step()
        steps.append(trainer.slots.steps.tolist())
        draws.append(trainer.slots.draws.tolist())
    assert [row[:3] for row in steps] == [
        *([1, 1, 1], [1, 2, 2], [2, 1, 3], [3, 2, 1], [1, 3, 2], [2, 1, 3], [3, 2, 1])
    ]
    assert all(row[0] == row[3] and row[1] == row[4] for row in steps)
    assert draws[-1] == [3, 3, 3, 3, 3]
    in_step = make("plain")
    never_halts(in_step)
    in_step.step()
    assert in_step.slots.cut.tolist() == [0] * 5


def test_slots_part_where_a_part_of_the_run_ends(make: Callable[..., Trainer]):
    trainer = make(stagger=True, n_sup_warm=1, n_sup_warm_until=0.5)
    steps = []
    for _ in range(9):
        never_halts(trainer)
        trainer.step()
        steps.append(trainer.slots.steps.tolist()[:3])
    assert steps == [[1, 1, 1]] * 6 + [[1, 1, 1], [1, 2, 2], [2, 1, 3]]


def test_a_state_from_before_slots_could_be_cut_goes_on(make: Callable[..., Trainer]):
    whole, old = make("whole"), make("old")
    train(whole)
    train(old, should_stop=lambda: old.step_count >= 5)
    file = old.out / STATE_FILE
    state = torch.load(file, weights_only=True)
    del state["slots"]["cut"], state["identity"]["train.stagger"], state["settings"]["stagger"]
    torch.save(state, file)
    again = make("old")
    again.resume()
    train(again)
    assert_same_bits(again.model.state_dict(), whole.model.state_dict())


def test_weights_are_geometric_from_the_first_step_to_the_last():
    assert step_weights(torch.arange(5), 5, 16.0).tolist() == [16.0, 8.0, 4.0, 2.0, 1.0]
    assert step_weights(torch.tensor([0, 0]), 1, 2.0).tolist() == [2.0, 2.0]
    assert step_weights(torch.tensor([7]), 5, 2.0).tolist() == [1.0]  # n_sup got smaller


def test_a_weight_scales_the_gradient_of_its_slots(make: Callable[..., Trainer]):
    """All slots of a first step are fresh: the gradient is `early_weight` times the plain one."""

    def norm(name: str, **settings: Any) -> float:
        return float(make(name, clip=0.0, **settings).step()["grad_norm"])

    plain = norm("plain")
    assert norm("first", early_weight=4.0) == pytest.approx(4 * plain, rel=1e-5)
    assert norm("half", early_weight=0.5) == pytest.approx(0.5 * plain, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"easy_until": 1.5}, "easy_until must be between 0 and 1, got 1.5"),
        ({"early_weight": 0.0}, "early_weight must be above 0, got 0.0"),
    ],
)
def test_values_out_of_range_are_refused(settings: dict[str, Any], says: str):
    with pytest.raises(ValueError, match=says):
        TrainConfig(**settings)
