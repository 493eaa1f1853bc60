"""Training that goes wrong, or does not fit, or runs as a CUDA graph."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tiny_training import SMALL, assert_same_bits, rows

from trm_interp.core.models.trm import TRM, State
from trm_interp.core.training.graphs import GraphedStep, Phase
from trm_interp.core.training.guards import FirstBad
from trm_interp.core.training.loop import train
from trm_interp.core.training.optimizers import (
    clip_gradients,
    hold_rates_in_tensors,
    load_optimizer,
    set_rates,
)
from trm_interp.core.training.slots import Slots, TrainData
from trm_interp.core.training.trainer import STATE_FILE, Trainer
from trm_interp.runtime.errors import UserError

# what goes wrong


def test_a_gradient_that_is_not_finite_names_step_and_tensor(
    make: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
):
    trainer = make(steps=9, save_every=2, log_every=3, eval_every=100)
    gradients = trainer._gradients

    def spoiled(slots: Any, cycles: tuple[int, int]) -> Any:
        result = gradients(slots, cycles)
        if trainer.step_count >= 4:  # the fifth step
            grad = trainer.model.get_parameter("lm_head.weight").grad
            assert grad is not None
            grad[2, 1] = float("inf")
        return result

    monkeypatch.setattr(trainer, "_gradients", spoiled)
    with pytest.raises(UserError, match=r"gradient of lm_head.weight not finite at step 5"):
        train(trainer)
    resumed = make(steps=9)
    resumed.resume()  # saved after steps 2 and 4, and not after 6
    assert resumed.step_count == 4 and resumed.model.lm_head.weight.isfinite().all()


def test_a_gradient_is_named_where_other_parameters_have_none():
    model = torch.nn.ModuleDict({name: torch.nn.Linear(1, 1, False) for name in ("a", "b", "c")})
    first_bad = FirstBad(model, torch.device("cpu"))
    b, c = (model.get_parameter(f"{name}.weight") for name in "bc")
    (b + float("inf") * c).sum().backward()  # none for a
    norms = clip_gradients(model.parameters(), float("inf"))
    first_bad.note(torch.tensor(7), norms, torch.zeros(2))
    with pytest.raises(UserError, match=r"run: the gradient of c.weight not finite at step 7"):
        first_bad.check(Path("run"))


def test_a_state_cannot_have_the_name_of_what_else_a_slot_holds(data: TrainData):
    class Counted(NamedTuple):
        z_H: torch.Tensor
        steps: torch.Tensor

    class Counting(TRM):
        State = Counted

    with pytest.raises(ValueError, match="trm: a state cannot be called 'steps'"):
        Slots.empty(Counting(SMALL), data, torch.arange(2), torch.float32)


def test_micro_batches_give_the_gradient_of_the_batch(make: Callable[..., Trainer]):
    whole, parts = make("a", batch_size=7), make("b", batch_size=7, micro_batches=3)
    for _ in range(3):
        one, other = whole.step(), parts.step()
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-6)
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(parts.slots.states.z_H, whole.slots.states.z_H, rtol=1e-3, atol=1e-4)


def test_out_of_memory_names_the_batch_or_halves_it(make: Callable[..., Trainer]):
    def limit(trainer: Trainer) -> list[int]:
        """A device that holds three puzzles: what was tried on it."""
        forward, tried = trainer.forward, []

        def small(state: State, *rest: Any) -> Any:
            tried.append(len(state.z_H))
            if len(state.z_H) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(state, *rest)

        trainer.forward = small  # type: ignore[assignment]
        return tried

    stopped = make("stopped", batch_size=8)
    limit(stopped)
    with pytest.raises(UserError, match="no memory for 8 puzzles at once: try --auto-batch"):
        train(stopped)

    halved, plain = make("halved", batch_size=8, auto_batch=True), make("plain", batch_size=8)
    tried = limit(halved)
    train(halved)
    assert tried[:6] == [8, 4, 2, 2, 2, 2] and set(tried[6:]) == {2}
    train(plain)
    assert halved.slots.draws.tolist() == plain.slots.draws.tolist()  # no puzzle was drawn twice
    state = torch.load(halved.out / STATE_FILE, weights_only=True)
    assert state["micro_batches"] == 4


# one graph of a step


class Replay:
    """Stands for a CUDA graph: calls what was captured, which a real one does not do at first.

    As there, numbers in the optimizers' groups stay what they were at the capture, and tensors are
    read anew.
    """

    def __init__(self, run: Callable[[], Any], trainer: Trainer) -> None:
        self.run = run
        self.groups = [group for of in trainer.optimizers for group in of.param_groups]
        self.captured = [dict(group) for group in self.groups]

    def replay(self) -> None:
        before = [dict(group) for group in self.groups]
        for group, captured in zip(self.groups, self.captured, strict=True):
            group.update(captured)
        self.run()
        for group, own in zip(self.groups, before, strict=True):
            group.update(own)


@pytest.mark.parametrize(
    ("schedule", "phases"),
    [
        # depths are at most the model's own
        ({}, [((1, 2), 3), ((2, 2), 3)]),
        ({"n_sup_warm": 1, "n_sup_warm_until": 0.5}, [((1, 2), 1), ((2, 2), 1), ((2, 2), 3)]),
    ],
    ids=["depth", "depth and n_sup"],
)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_graphed_step_is_the_step(
    make: Callable[..., Trainer], schedule: dict[str, Any], phases: list[Any], optimizer: str
):
    """The same bits where everything a step needs is found in place, also over a new phase."""
    settings: dict[str, Any] = {"steps": 20, "curriculum": True, "explore": 0.5, "log_every": 1}
    settings |= schedule | {"optimizer": optimizer, "decay": "cosine"}
    plain, graphed = make("plain", **settings), make("graphed", **settings)
    for trainer in (plain, graphed):  # as on a GPU
        hold_rates_in_tensors(trainer.optimizers)
    captured: list[Phase] = []

    def capture(run: Callable[[], Any]) -> Replay:
        captured.append(graphed.graphed.phase)  # type: ignore[union-attr, arg-type]
        return Replay(run, graphed)

    graphed.graphed = GraphedStep(graphed._device_step, graphed.places, graphed.tell, capture)
    train(plain)
    train(graphed)
    assert captured == phases
    graphed.graphed = None
    assert_same_bits(graphed.state() | {"settings": 0}, plain.state() | {"settings": 0})
    assert rows(graphed) == rows(plain)


def test_everything_a_step_changes_stays_in_its_place(make: Callable[..., Trainer]):
    """A real graph writes where it found things: nothing else may be new after a step."""
    trainer = make(explore=0.5)
    trainer.graphed = GraphedStep(trainer._device_step, trainer.places, trainer.tell)
    trainer.step()  # makes the moments
    places, before = trainer.places(), [place.clone() for place in trainer.places()]
    n_weights = sum(1 for _ in trainer.model.parameters())
    # weights, averages, two moments and a step count each; nine of the slots; clock and first bad
    assert len(places) == n_weights * (1 + 1 + 3) + 9 + 2
    trainer.step()
    assert [p.data_ptr() for p in trainer.places()] == [p.data_ptr() for p in places]
    same = [torch.equal(a, b) for a, b in zip(before, trainer.places(), strict=True)]
    assert sum(same) == 7  # index, inputs, labels, draws, halted, cut: none has halted; first bad


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_rates_in_tensors_stay_in_their_place(make: Callable[..., Trainer], optimizer: str):
    trainer = make(optimizer=optimizer)
    hold_rates_in_tensors(trainer.optimizers)  # as on a GPU
    groups = [group for of in trainer.optimizers for group in of.param_groups]
    rates = [group["lr"] for group in groups]
    set_rates(trainer.optimizers, 0.25)
    assert all(group["lr"] is rate for group, rate in zip(groups, rates, strict=True))
    peaks = [trainer.config.lr, trainer.config.muon_lr][: len(groups)]
    assert [float(rate) for rate in rates] == pytest.approx([0.25 * peak for peak in peaks])
    saved = make("other", optimizer=optimizer).optimizers[-1].state_dict()  # with numbers
    load_optimizer(trainer.optimizers[-1], saved)
    assert trainer.optimizers[-1].param_groups[0]["lr"] is rates[-1]


def test_a_rate_that_is_a_number_is_frozen_by_a_capture(make: Callable[..., Trainer]):
    """What the stand-in for a graph is for: without tensors the run would differ."""
    settings: dict[str, Any] = {"steps": 12, "optimizer": "muon", "decay": "cosine"}
    plain, graphed = make("plain", **settings), make("graphed", **settings)
    capture = lambda run: Replay(run, graphed)  # noqa: E731
    graphed.graphed = GraphedStep(graphed._device_step, graphed.places, graphed.tell, capture)
    train(plain)
    train(graphed)
    matrix = "net.blocks.0.mixer.down.weight"
    assert not torch.equal(graphed.model.get_parameter(matrix), plain.model.get_parameter(matrix))


@pytest.mark.parametrize("kind", ["refused", "half-way", "wrong"])
def test_a_graph_that_cannot_be_had_is_told_and_gone_without(
    make: Callable[..., Trainer], kind: str
):
    """The run is the plain one, whatever the capture did before it failed."""
    plain, trainer = make("plain", steps=8), make("graphed", steps=8)
    lines: list[str] = []

    def capture(run: Callable[[], Any]) -> Replay:
        if kind != "refused":
            run()
        if kind == "wrong":  # does the step twice
            return Replay(run, trainer)
        raise RuntimeError("operation not permitted when stream is capturing")

    trainer.graphed = GraphedStep(trainer._device_step, trainer.places, lines.append, capture)
    train(plain)
    train(trainer)
    assert len(lines) == 1 and "going on without" in lines[0]
    assert ("operation not permitted" in lines[0]) == (kind != "wrong")
    assert_same_bits(trainer.state(), plain.state())
