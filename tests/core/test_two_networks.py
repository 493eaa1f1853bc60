"""What an architecture may have of its own: halting, losses that read ahead, identifiers, sites."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import FAST, assert_portable_files_go_on, assert_same_bits, rows
from torch import Tensor
from toy_two_networks import Duo, DuoConfig, DuoState

from trm_interp.core.infer import run
from trm_interp.core.models.base import Readout, RecursiveModel
from trm_interp.core.models.trm import TRM
from trm_interp.core.training.loop import train
from trm_interp.core.training.settings import TrainConfig
from trm_interp.core.training.slots import TrainData
from trm_interp.core.training.trainer import STATE_FILE, Trainer
from trm_interp.recording.hooks import HookedModel, hook_names
from trm_interp.runtime.errors import UserError

KNOWN = 3  # identifiers
OWN = DuoConfig(n_identifiers=KNOWN, size_weight=0.1)


@pytest.fixture
def duo() -> Duo:
    return Duo(OWN, torch.Generator().manual_seed(0)).eval()


@pytest.fixture
def numbered(data: TrainData) -> TrainData:
    """Five puzzles with identifiers 0, 1, 2, 0, 1."""
    which = torch.arange(5) % KNOWN
    return replace(data, identifiers=which, val_identifiers=which[:3])


@pytest.fixture
def trainer_of(numbered: TrainData, tmp_path: Path) -> Callable[..., Trainer]:
    def made(name: str = "run", **settings: Any) -> Trainer:
        return Trainer(OWN, TrainConfig(**{**FAST, **settings}), numbered, tmp_path / name)

    return made


def logits_of(*probabilities: float) -> Tensor:
    return torch.tensor(probabilities).logit()


# halting and losses


def test_without_a_rule_of_its_own_a_model_halts_above_zero(tiny_trm: TRM):
    readout = Readout(torch.zeros(3, 16, 6), torch.tensor([-1.0, 0.0, 1e-6]))
    assert tiny_trm.halts(readout).tolist() == [False, False, True]
    assert torch.equal(tiny_trm.halting_margin(readout), readout.q_halt)


def test_of_two_halting_logits_the_larger_decides(duo: Duo):
    q_halt, q_continue = torch.tensor([1.0, -1.0, 2.0, 2.0]), torch.tensor([0.5, -2.0, 3.0, 2.0])
    readout = Readout(torch.zeros(4, 16, 6), q_halt, q_continue)
    assert duo.halts(readout).tolist() == [True, True, False, False]
    assert duo.halting_margin(readout).tolist() == [0.5, 1.0, -1.0, 0.0]


def test_the_losses_of_a_trm_by_hand(tiny_trm: TRM):
    """One cell, two puzzles: p(label) 4/5 by stablemax and 1/2 by softmax; the second is wrong."""
    logits = torch.tensor([[[-9.0, 1.0, -1.0]], [[-9.0, 1.0, -1.0]]])
    labels = torch.tensor([[1], [2]])
    readout = Readout(logits, logits_of(0.9, 0.9))
    losses = tiny_trm.losses(readout, labels)
    # s(1) = 2, s(-1) = 1/2, s(-9) = 1/10: together 2.6
    expected = torch.tensor([math.log(2.6 / 2), math.log(2.6 / 0.5)], dtype=torch.float64)
    torch.testing.assert_close(losses.answer, expected)
    torch.testing.assert_close(losses.halt, torch.tensor([-math.log(0.9), -math.log(0.1)]))
    assert losses.solved.tolist() == [True, False] and not losses.further
    soft = tiny_trm.losses(readout, labels, kind="softmax", smoothing=0.0)
    total = math.exp(1) + math.exp(-1) + math.exp(-9)
    expected = torch.tensor([math.log(total) - 1, math.log(total) + 1])
    torch.testing.assert_close(soft.answer, expected)


def test_the_loss_that_reads_ahead_by_hand(duo: Duo):
    """Going on is worth 0.8, the better of 0.6 and 0.8 a step later; at the last step 0.6."""
    labels = torch.ones(2, 1, dtype=torch.int64)
    logits = torch.tensor([[[0.0, 5.0, 0.0]], [[0.0, 5.0, 0.0]]])
    sizes = {"size": torch.tensor([2.0, 3.0])}
    readout = Readout(logits, logits_of(0.9, 0.9), logits_of(0.7, 0.7), sizes)
    following = Readout(logits, logits_of(0.6, 0.6), logits_of(0.8, 0.8))
    last = torch.tensor([False, True])
    losses = duo.losses(readout, labels, last=last, following=following)
    halt = -math.log(0.9)
    go_on = [-(worth * math.log(0.7) + (1 - worth) * math.log(0.3)) for worth in (0.8, 0.6)]
    torch.testing.assert_close(losses.halt, torch.tensor([halt + of for of in go_on]))
    torch.testing.assert_close(losses.further["size"], torch.tensor([0.2, 0.3]))


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_training_reads_ahead_from_the_new_states(
    trainer_of: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch, micro_batches: int
):
    """What comes as `following` is one more supervision step by hand; `last` counts the steps."""
    trainer = trainer_of(micro_batches=micro_batches, explore=0.0)
    seen: list[tuple[Tensor, Readout]] = []
    plain = Duo.losses

    def noted(self: Duo, *args: Any, **kwargs: Any) -> Any:
        seen.append((kwargs["last"], kwargs["following"]))
        return plain(self, *args, **kwargs)

    for _ in range(2):
        trainer.step()
    monkeypatch.setattr(Duo, "losses", noted)
    weights = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    slots = trainer.slots.refilled(
        trainer.model, trainer.data, trainer.config.seed, trainer.config.augment
    )
    trainer.step()
    assert len(seen) == micro_batches
    copy = Duo(OWN)
    copy.load_state_dict(weights)
    with torch.no_grad():
        x = copy.embed(slots.inputs, identifiers=slots.identifiers)
        once, _ = copy.advance(slots.states, x)
        twice, _ = copy.advance(once, x)
        expected = copy.readout(twice.plan)
    last = torch.cat([of for of, _ in seen])
    assert torch.equal(last, slots.steps + 1 >= trainer.config.n_sup)
    for name in ("logits", "q_halt", "q_continue"):
        read = torch.cat([getattr(following, name) for _, following in seen])
        torch.testing.assert_close(read, getattr(expected, name))
        assert not read.requires_grad


def test_the_gradient_is_that_of_all_terms(trainer_of: Callable[..., Trainer]):
    """answer + halt_weight halt + size, by a separate backward pass; nothing flows through what is
    read ahead."""
    trainer = trainer_of(clip=0.0, halt_weight=0.7, warmup=0.0)
    model, data, config = trainer.model, trainer.data, trainer.config
    slots = trainer.slots.refilled(model, data, config.seed, config.augment)
    state, readout = model(slots.states, slots.inputs, identifiers=slots.identifiers)
    with torch.no_grad():
        detached = DuoState(*(z.detach() for z in state))
        _, following = model(detached, slots.inputs, identifiers=slots.identifiers)
    last = slots.steps + 1 >= config.n_sup
    losses = model.losses(readout, slots.labels, last=last, following=following)
    mean = (losses.answer + 0.7 * losses.halt + losses.further["size"]).mean()
    grads = torch.autograd.grad(mean, list(model.parameters()))
    norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt()
    metrics = trainer_of("fresh", clip=0.0, halt_weight=0.7, warmup=0.0).step()
    torch.testing.assert_close(metrics["grad_norm"], norm)
    torch.testing.assert_close(metrics["size"], losses.further["size"].detach().sum())


def test_slots_halt_by_the_rule_of_the_model(trainer_of: Callable[..., Trainer]):
    trainer = trainer_of(explore=0.0, n_sup=16, lr=0.0)
    head = trainer.model.get_parameter("q_head")
    torch.nn.init.zeros_(head)
    trainer.step()
    assert not trainer.slots.halted.any()  # equal: goes on
    slots = trainer.slots
    leads = torch.tensor([-1.0, 1.0, -2.0])[slots.identifiers]
    with torch.no_grad():  # q_halt and q_continue that differ by these after the next step
        state, _ = trainer.model(slots.states, slots.inputs, identifiers=slots.identifiers)
        halting = torch.linalg.pinv(state.plan.mean(1)) @ (leads - 5)
        going_on = torch.linalg.pinv(state.plan.mean(1)) @ torch.full((5,), -5.0)
        head.copy_(torch.stack([halting, going_on]))
    trainer.step()
    assert torch.equal(trainer.slots.halted, leads > 0) and len(leads.unique()) > 1


def test_a_further_term_is_a_column_of_its_own(trainer_of: Callable[..., Trainer]):
    trainer = trainer_of(steps=6, log_every=3)
    train(trainer)
    logged = [row for row in rows(trainer) if "loss" in row]
    assert logged and all(row["size_loss"] > 0 for row in logged)


# identifiers


def test_puzzles_equal_but_for_their_identifier_are_told_apart(duo: Duo, puzzles: Any):
    inputs, labels = (tokens[:1].expand(4, -1) for tokens in puzzles)
    which = torch.tensor([0, 1, 2, 1])
    read = run(duo, inputs, labels, steps=2, keep_logits=True, identifiers=which, batch_size=3)
    assert read.logits is not None
    torch.testing.assert_close(read.logits[1], read.logits[3])
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(read.logits[one], read.logits[other], atol=1e-3)
    shared = run(duo, inputs, labels, steps=2, keep_logits=True)  # none given: identifier 0
    assert shared.logits is not None
    torch.testing.assert_close(shared.logits[3], read.logits[0])


@pytest.mark.parametrize(
    ("identifiers", "says"),
    [
        (torch.tensor([0, 3, 0, 0, 0]), "knows puzzle identifiers 0 to 2, the puzzles have 0 to 3"),
        (torch.tensor([0, -1, 0, 0, 0]), "the puzzles have -1 to 0"),
        (torch.zeros(4, dtype=torch.int64), r"identifiers are int64 \[5\], got torch.int64 \[4\]"),
        (torch.zeros(5), r"identifiers are int64 \[5\], got torch.float32"),
    ],
)
def test_identifiers_that_the_model_does_not_know(
    duo: Duo, puzzles: Any, data: TrainData, tmp_path: Path, identifiers: Tensor, says: str
):
    with pytest.raises(ValueError, match=says):
        run(duo, *puzzles, steps=1, identifiers=identifiers)
    with pytest.raises(ValueError, match=says):
        Trainer(OWN, TrainConfig(**FAST), replace(data, identifiers=identifiers), tmp_path)


def test_a_model_without_a_table_ignores_identifiers(
    tiny_trm: TRM, puzzles: Any, data: TrainData, numbered: TrainData, tmp_path: Path
):
    which = torch.tensor([7, 8, 9, 10, 11])
    one, other = (
        run(tiny_trm, *puzzles, steps=2, keep_logits=True, identifiers=given)
        for given in (None, which)
    )
    assert torch.equal(one.logits, other.logits)  # type: ignore[arg-type]
    config = TrainConfig(**FAST)
    plain, given = (
        Trainer(DuoConfig(), config, of, tmp_path / name)
        for name, of in (("plain", data), ("given", numbered))
    )
    assert given.slots.identifiers is None and "identifiers" not in given.slots.tensors()
    assert given.trained_on == plain.trained_on


def test_slots_carry_the_identifier_of_their_puzzle(trainer_of: Callable[..., Trainer]):
    trainer = trainer_of(explore=0.5, augment=False)
    own = {tuple(row): i for i, row in enumerate(trainer.data.inputs.tolist())}
    for _ in range(6):
        trainer.step()
        at = torch.tensor([own[tuple(row)] for row in trainer.slots.inputs.tolist()])
        assert torch.equal(trainer.slots.identifiers, trainer.data.identifiers[at])  # type: ignore


@pytest.mark.parametrize(
    "settings",
    [{"explore": 0.5, "micro_batches": 2}, {"optimizer": "muon", "dtype": "bfloat16"}],
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
    assert "identifiers" in whole.state()["slots"]
    assert_same_bits(part.state(), whole.state())
    assert rows(part) == rows(whole)


def test_going_on_from_portable_files_equals_going_on(
    trainer_of: Callable[..., Trainer], tmp_path: Path
):
    assert_portable_files_go_on(trainer_of, tmp_path / "state")


def test_the_same_puzzles_with_other_identifiers_are_another_run(
    trainer_of: Callable[..., Trainer], numbered: TrainData
):
    trainer = trainer_of(steps=2)
    train(trainer)
    other = replace(numbered, identifiers=numbered.identifiers.flip(0))  # type: ignore
    with pytest.raises(UserError, match="another run: data"):
        Trainer(OWN, trainer.config, other, trainer.out).resume()


def test_training_tells_identifiers_apart(data: TrainData, tmp_path: Path):
    """One puzzle with two solutions: only its identifier says which one is asked for."""
    inputs = data.inputs[:1].expand(2, -1).contiguous()
    labels, which = data.labels[:2], torch.arange(2)
    both = TrainData(inputs, labels, inputs, labels, identifiers=which, val_identifiers=which)
    settings = {"steps": 150, "lr": 2e-2, "weight_decay": 0.0, "explore": 0.0, "eval_every": 150}
    wide = DuoConfig(d_model=32, n_identifiers=2)
    trainer = Trainer(wide, TrainConfig(**{**FAST, **settings}), both, tmp_path / "own")
    train(trainer)
    assert trainer.best["exact"] == 1.0


# sites


def test_every_network_has_its_own_places():
    sites = {state: Duo.site_names(OWN, state) for state in ("work", "plan")}
    assert sites == {"work": ["inner.hook_mixed", "hook_out"], "plan": ["hook_out"]}
    assert Duo.site_names(OWN) == ["inner.hook_mixed", "hook_out"]
    assert RecursiveModel.site_names(OWN, "work") == []
    hooks = hook_names(OWN, n_sup=1)
    assert "step.0.h.1.l.0.inner.hook_mixed" in hooks and "step.0.h.1.hook_out" in hooks
    assert "step.0.h.1.inner.hook_mixed" not in hooks and "step.0.hook_q_continue" in hooks


def test_a_hooked_run_reads_what_the_model_reads(duo: Duo, puzzles: Any):
    inputs, which = puzzles[0], torch.tensor([2, 1, 0, 1, 2])
    hooked, names = HookedModel.of(duo, n_sup=2), ["step.1.hook_q_continue"]
    read, cache = hooked.run_with_cache(inputs, names_filter=names, identifiers=which)
    plain = run(duo, *puzzles, steps=2, identifiers=which)
    torch.testing.assert_close(read.q_continue, plain.q_continue)
    torch.testing.assert_close(cache[names[0]], read.q_continue[:, 1])
    assert read.further["size"].shape == (5, 2)
    assert torch.equal(plain.halts, plain.q_halt > plain.q_continue)
    first = torch.where(plain.halts.any(1), plain.halts.int().argmax(1), -1)
    assert torch.equal(plain.halt_step, first.to(torch.int16))
