"""Runs that are killed, and runs of several processes, equal one undisturbed process."""

import json
import os
import random
import runpy
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from team import in_two
from team import two as two_of
from tiny_training import CHILD, start

from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.core.training.loop import METRICS_FILE, train
from trm_interp.core.training.trainer import STATE_FILE

make, ticking = itemgetter("make", "ticking")(runpy.run_path(str(CHILD)))
WALL_CLOCK = ("seconds", "steps_per_s")


def saved(out: Path) -> Any:
    return torch.load(out / STATE_FILE, weights_only=True)


def rows(out: Path) -> list[dict[str, Any]]:
    lines = (out / METRICS_FILE).read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if k not in WALL_CLOCK} for x in lines]


def assert_same(one: Any, other: Any, where: str = "", tolerance: float = 0.0) -> None:
    """Equal to the last bit (or within `tolerance`), but for the wall clock."""
    if isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance, msg=where)
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one.keys() - {"seconds"}:
            assert_same(one[key], other[key], f"{where}.{key}", tolerance)
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{i}]", tolerance)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=tolerance, rel=tolerance), where
    else:
        assert one == other, where


def test_killed_at_random_moments_equals_undisturbed(tmp_path: Path):
    """SIGKILL at four moments, between and inside steps, rows, syncs and renames of files."""
    moments = [str(random.Random(seed).randrange(1, 45)) for seed in range(4)]
    output = start(CHILD, tmp_path / "killed", "die_at=" + ",".join(moments))
    assert output.split().count("killed") >= 3  # the last lives may reach the end first
    train(make(tmp_path / "whole"))
    assert_same(saved(tmp_path / "killed"), saved(tmp_path / "whole"))
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    one, other = (load_checkpoint(tmp_path / name) for name in ("killed", "whole"))
    assert one.sha256 == other.sha256
    assert not list((tmp_path / "killed").glob("*.partial"))


def test_killed_in_either_part_of_a_schedule_and_at_its_change_equals_undisturbed(tmp_path: Path):
    """12 of 23 steps are of the first part; the states are saved after 4, 8, ... steps."""
    schedule = {"n_sup_warm": 1, "n_sup_warm_until": 0.5}
    words = [f"{name}={value}" for name, value in schedule.items()]
    output = start(CHILD, tmp_path / "killed", *words, "die_at_step=6,11,12,13,18")
    assert output.split() == ["killed"] * 5
    whole = make(tmp_path / "whole", **schedule)
    train(whole)
    assert_same(saved(tmp_path / "killed"), saved(tmp_path / "whole"))
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    assert [row["n_sup"] for row in rows(whole.out) if "loss" in row] == [1] * 4 + [3] * 3


def test_two_processes_read_ahead_and_share_identifiers_as_one(tmp_path: Path):
    """A loss that needs one step more, in micro-batches; killed slots are read back by rank."""
    settings = {"duo": True, "steps": 7, "micro_batches": 2, "log_every": 1, "lr": 1e-3}
    words = [f"{name}={value}" for name, value in settings.items()]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    start(*launch, CHILD, tmp_path / "two", *words)
    train(make(tmp_path / "one", **settings))
    one, two = saved(tmp_path / "one"), saved(tmp_path / "two")
    for name in ("inputs", "identifiers", "steps", "halted", "draws"):
        assert torch.equal(one["slots"][name], two["slots"][name]), name
    assert len(one["slots"]["identifiers"].unique()) > 1
    assert_same(two["model"], one["model"], tolerance=1e-3)
    longer = settings | {"steps": 10}
    resumed = make(tmp_path / "two", **longer)
    assert torch.equal(resumed.slots.identifiers, two["slots"]["identifiers"])
    train(resumed)
    train(make(tmp_path / "one", **longer))
    assert_same(saved(tmp_path / "two")["model"], saved(tmp_path / "one")["model"], tolerance=1e-4)


@pytest.mark.parametrize("schedule", [{}, {"n_sup_warm": 1, "n_sup_warm_until": 0.6}])
def test_two_processes_equal_one(tmp_path: Path, schedule: dict[str, Any]):
    """The same global batch on gloo: the same puzzles, losses within rounding, one state file.

    The budget is 21 s and a step takes 1 s on the clock of rank 0, 2 s on that of rank 1. They
    must agree, on the slower: 11 steps, with the rates and depths of a single process at 2 s.
    """
    settings = {"budget": 0.35, "lr": 1e-3, "log_every": 1, "decay": "cosine", "weight_decay": 0.1}
    settings |= schedule
    words = [f"{name}={value}" for name, value in settings.items()]
    two_of(CHILD, tmp_path / "two", *words)
    train(make(tmp_path / "one", **settings), clock=ticking(2.0))
    one, two = saved(tmp_path / "one"), saved(tmp_path / "two")
    assert one["step"] == two["step"] == 11
    for name in ("inputs", "labels", "steps", "halted", "draws", "index"):
        assert torch.equal(one["slots"][name], two["slots"][name]), name
    assert len(rows(tmp_path / "one")) == 11 + 3  # a row every step, validations at 5, 10, 11
    for a, b in zip(rows(tmp_path / "two"), rows(tmp_path / "one"), strict=True):
        assert_same(a.pop("grad_norm", 0.0), b.pop("grad_norm", 0.0), "grad_norm", tolerance=1e-3)
        assert_same(a, b, str(b["step"]), tolerance=1e-4)
    assert_same(two["model"], one["model"], tolerance=1e-3)

    longer = {**settings, "budget": 0.45}  # 27 s: 14 steps
    resumed = make(tmp_path / "two", **longer)
    assert resumed.step_count == 11 and len(resumed.slots.index) == 4
    train(resumed, clock=ticking(2.0))
    train(make(tmp_path / "one", **longer), clock=ticking(2.0))
    one, two = saved(tmp_path / "one"), saved(tmp_path / "two")
    assert one["step"] == two["step"] == 14
    assert_same(two["model"], one["model"], tolerance=1e-3)


def test_no_process_validates_alone_at_a_stop(tmp_path: Path):
    """A signal may reach one of them earlier than another."""

    def stopped() -> None:
        trainer = make(tmp_path / "out")
        asked = os.environ["RANK"] == "0"
        train(
            trainer,
            should_stop=lambda: trainer.step_count == 2,
            validate_last=lambda: asked,
        )
        assert trainer.step_count == 2 and trainer.validated_at == -1
        trainer.ranks.close()

    assert in_two(stopped) == [0, 0]
