"""Checkpoints that a run keeps along the way: which, of what, and what kills do to them."""

import json
import random
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import CHILD, rows, start

from trm_interp.core.checkpoints.folder import CARD, load_checkpoint
from trm_interp.core.training.exported import KEPT, kept_folder
from trm_interp.core.training.loop import train
from trm_interp.core.training.settings import TrainConfig
from trm_interp.core.training.trainer import STATE_FILE, Trainer

Make = Callable[..., Trainer]
make_child = runpy.run_path(str(CHILD))["make"]


def kept(out: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Weights and card, without its times, of all that a run kept."""
    return {
        folder.name: (opened.sha256, {k: v for k, v in opened.card.items() if k != "times"})
        for folder in sorted((out / KEPT).glob("step-*"))
        for opened in [load_checkpoint(folder)]
    }


def test_every_few_steps_the_average_weights_are_kept(make: Make):
    trainer = make(keep_every=5)
    averages: dict[int, list[torch.Tensor]] = {}
    step = trainer.step

    def noted() -> Any:
        metrics = step()
        averages[trainer.step_count] = [mean.clone() for mean in trainer.average.mean]
        return metrics

    trainer.step = noted  # type: ignore[method-assign]
    train(trainer)
    names = sorted(folder.name for folder in (trainer.out / KEPT).glob("*/"))
    assert names == ["step-000005", "step-000010"]
    for at in (5, 10):
        opened = load_checkpoint(kept_folder(trainer.out, at))
        for weights, mean in zip(opened.model.parameters(), averages[at], strict=True):
            assert torch.equal(weights, mean)
        assert opened.card["step"] == opened.card["train"]["steps_done"] == at
    # five slots of three supervision steps: 2 puzzles each in 5 steps, 4 in 10, unless they halt
    seen = [load_checkpoint(kept_folder(trainer.out, at)).card["puzzles_seen"] for at in (5, 10)]
    assert 10 <= seen[0] <= 25 and seen[0] + 5 <= seen[1] <= 50
    assert seen[1] == draws_at(make, 10)


def draws_at(make: Make, steps: int) -> int:
    other = make("other", steps=12)
    train(other, should_stop=lambda: other.step_count >= steps)
    return int(other.slots.draws.sum())


def test_keeping_changes_neither_weights_nor_rows(make: Make):
    one, other = make("one"), make("other", keep_every=1)
    train(one)
    train(other)
    for name, weights in one.model.state_dict().items():
        assert torch.equal(weights, other.model.state_dict()[name]), name
    assert rows(one) == rows(other)
    assert len(kept(other.out)) == 12 and not (one.out / KEPT).exists()


def test_killed_at_random_moments_keeps_the_same(tmp_path: Path):
    """SIGKILL at six moments, some of them inside the writing of a kept checkpoint."""
    moments = [str(random.Random(seed).randrange(5, 60)) for seed in range(6)]
    words = ["keep_every=3", "die_at=" + ",".join(moments)]
    output = start(CHILD, tmp_path / "killed", *words)
    assert output.split().count("killed") >= 3
    whole = make_child(tmp_path / "whole", keep_every=3)
    train(whole)
    assert list(kept(whole.out)) == [f"step-{at:06d}" for at in range(3, 23, 3)]
    assert kept(tmp_path / "killed") == kept(whole.out)
    assert not list((tmp_path / "killed").rglob("*.partial"))


@pytest.mark.parametrize("lost", [CARD, "config.json", "model.safetensors"])
def test_one_that_a_kill_left_unfinished_is_made_of_the_state(make: Make, lost: str):
    """Between the state and the kept checkpoint, or inside it: its files end with the card."""
    whole = make("whole", keep_every=4)
    train(whole)
    part = make("part", keep_every=4)
    train(part, should_stop=lambda: part.step_count >= 8)
    folder = kept_folder(part.out, 8)
    for name in ("model.safetensors", "config.json", CARD):
        if name == lost or not (folder / lost).exists():
            (folder / name).unlink()
    again = make("part", keep_every=4)
    again.resume()
    train(again)
    assert kept(again.out) == kept(whole.out)


def test_a_complete_one_is_not_made_again(make: Make):
    trainer = make(keep_every=4, steps=4)
    train(trainer)
    card = kept_folder(trainer.out, 4) / CARD
    card.write_text(json.dumps(json.loads(card.read_text()) | {"note": "mine"}))
    again = make(keep_every=4, steps=4)
    again.resume()
    train(again)
    assert json.loads(card.read_text())["note"] == "mine"


def test_a_state_from_before_goes_on_and_keeps_from_there(make: Make):
    whole = make("whole")
    train(whole)
    before = make("run")
    train(before, should_stop=lambda: before.step_count >= 6)
    file = before.out / STATE_FILE
    state = torch.load(file, weights_only=True)
    del state["settings"]["keep_every"]  # it is no part of the identity
    torch.save(state, file)
    assert "train.keep_every" not in state["identity"]
    on = make("run", keep_every=4)
    on.resume()
    train(on)
    assert list(kept(on.out)) == ["step-000008", "step-000012"]
    assert on.changes == [{"after_step": 6, "keep_every": [0, 4]}]
    for one, other in zip(on.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_it_is_checked():
    with pytest.raises(ValueError, match="keep_every must be at least 0, got -1"):
        TrainConfig(keep_every=-1)
