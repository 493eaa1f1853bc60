"""Patches between pairs: choosing and judging cells, bad input, and a run that is stopped."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from toy_copier import save_squares, save_toy

from trm_interp import UserError
from trm_interp.core.models.registry import build, config_from
from trm_interp.studies import memory, trace
from trm_interp.studies.settings import TraceConfig
from trm_interp.studies.subject import Subject, open_subject
from trm_interp.studies.trace_measures import agreement, last_flip, sealed_table, strongest
from trm_interp.studies.traced import (
    CONTROLS,
    DIRECTIONS,
    PAIR,
    TOGETHER,
    WHOLE,
    Runs,
    plan_of,
    recorded,
    solved_from_starts,
)

Cli = Callable[..., Any]
SMALL = ["--starts", 4, "--steps", 3, "--then", 1, "--sigma", 2, "--exact", 6]


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("toys")
    puzzles = save_squares(folder / "squares.txt")
    return ["--ckpt", save_toy(folder / "toy"), "--puzzles", puzzles, "--device", "cpu"]


@pytest.fixture
def config(on: list[Any], tmp_path: Path) -> TraceConfig:
    how: dict[str, Any] = {"starts": 4, "steps": 3, "then": 1, "sigma": 2.0, "batch_size": 16}
    return TraceConfig(out=tmp_path, ckpt=str(on[1]), puzzles=on[3], device="cpu", **how)


@pytest.fixture
def subject(config: TraceConfig) -> Subject:
    return open_subject(config, lambda line: None)


def test_cells_of_a_plan(subject: Subject, config: TraceConfig):
    """slow is written at l 2 and 4, fast at 0, 1 and 3; a supervision step is two H-cycles."""
    plan = plan_of(subject, config)
    assert plan.done == [0, 1, 2] and plan.sites == ["slow", "fast", TOGETHER]
    hooks = {(cell.site, cell.moment): cell.hooks for cell in plan.cells}
    assert hooks["slow", 0] == ("start.hook_slow",)
    assert hooks["fast", 1] == ("step.0.h.1.l.3.hook_fast",)
    assert hooks[TOGETHER, 2] == ("step.1.h.1.hook_slow", "step.1.h.1.l.3.hook_fast")
    assert not [cell for cell in plan.cells if (cell.site, cell.group) == (TOGETHER, WHOLE)]
    assert [plan.cells[i].group for i in plan.whole] == [WHOLE] * 6

    wide = TraceConfig(
        **vars(config) | {"every": "h_cycle", "window": 2, "sites": "inner.hook_mixed"}
    )
    plan = plan_of(subject, wide)
    assert plan.done == [0, 0.5, 1, 1.5, 2]
    hooks = {(cell.site, cell.moment): cell.hooks for cell in plan.cells}
    assert hooks["slow", 0] == ("start.hook_slow", "step.0.h.0.hook_slow")
    inside = hooks["inner.hook_mixed", 1]
    assert len(inside) == 2 * 5 and all(name.endswith(".inner.hook_mixed") for name in inside)
    assert ("slow", 4) not in hooks  # a window of two ends with the last moment


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sigma", "1e-6"], "among 13 puzzles x 4 starts: 6 are solved from every start, 7 from"),
        (["--sites", "hook_mixed"], "--sites: no site 'hook_mixed'; there are states, "),
        (["--sites", "logits"], "--sites logits: it is no state and no site inside an evaluation"),
        (["--window", "9"], "--window 9: there are 3 moments of patching; lower it, or --then"),
        (["--then", "3"], "then must be from 0 to steps - 1, got 3 of 3"),
        (["--starts", "1"], "starts must be at least 2 to compare some, got 1"),
        (["--target", "z"], "--target 'z': no such state; give one of slow, fast"),
    ],
)
def test_bad_input(cli: Cli, on: list[Any], tmp_path: Path, words: list[str], message: str):
    answer = cli("trace", *on, *SMALL, *words, "--out", tmp_path / "out")
    assert answer.code == 2 and message in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_a_stopped_run_goes_on(
    cli: Cli, on: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In batches of two pairs; what was done is not done again, and the end is the same."""
    words = ["trace", *on, *SMALL, "--batch-size", 16]
    assert cli(*words, "--out", tmp_path / "whole").code == 0
    calls, measured = [], trace.measured

    def stopping(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measured(*args)

    out = ["--out", tmp_path / "stopped"]
    monkeypatch.setattr(trace, "measured", stopping)
    assert cli(*words, *out).code != 0
    answer = cli(*words, *out, "--resume")
    assert answer.code == 0 and len(calls) == 4  # of three batches one was done
    for name in ("trace", "sealed", "pairs"):
        one, other = (pd.read_csv(tmp_path / of / f"{name}.csv") for of in ("whole", "stopped"))
        pd.testing.assert_frame_equal(one, other)
    answer = cli(*words, *out, "--resume", "--exact", 7)
    assert answer.code == 2 and "exact" in answer.err


def test_pairs_that_end_otherwise_are_dropped(
    cli: Cli, on: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def other(*args: Any) -> Any:
        runs = recorded(*args)
        return runs._replace(valid=runs.valid & (np.arange(len(runs.valid)) > at))

    monkeypatch.setattr(trace, "recorded", other)
    at = 0
    answer = cli("trace", *on, *SMALL, "--out", tmp_path / "some")
    assert answer.code == 0 and "5 pairs among 13 puzzles x 4 starts" in answer.out
    assert "1 ended otherwise in another batch" in answer.out
    assert len(pd.read_csv(tmp_path / "some" / "pairs.csv")) == 5
    at = 99
    answer = cli("trace", *on, *SMALL, "--out", tmp_path / "none")
    assert answer.code == 2 and "all 6 pairs end otherwise" in answer.err


def test_progress_among_starts(subject: Subject, config: TraceConfig):
    told: list[int] = []
    solved = solved_from_starts(subject, config, slice(0, 3), told.append)
    assert solved.shape == (3, 4) and told == [3, 6, 9, 12]


def test_which_cells_are_measured(subject: Subject, config: TraceConfig):
    """As many at every moment, those with the largest estimates, and the whole ones in any case."""
    plan = plan_of(subject, config)
    n = len(plan.cells)
    guesses = {name: np.tile(np.arange(n, dtype=float)[:, None], 2) for name in DIRECTIONS}
    guesses["valid"] = np.array([1, 1])
    assert trace.choose(plan, guesses, 0).tolist() == plan.whole
    chosen = set(trace.choose(plan, guesses, 3)) - set(plan.whole)
    last = {plan.cells[i].moment: i for i in range(n) if i not in plan.whole}
    assert chosen == set(last.values())
    assert trace.choose(plan, guesses, 10**6).tolist() == list(range(n))


def test_memory_is_asked_for_the_sites_that_are_patched(
    config: TraceConfig, monkeypatch: pytest.MonkeyPatch
):
    model = build(config_from({"cells": 9, "vocab": 5, "d_model": 32, "n_heads": 2}))
    subject: Any = SimpleNamespace(model=model, puzzles=range(3))

    def need(sites: str) -> int:
        asked: list[int] = []
        monkeypatch.setattr(memory, "require_memory", lambda size, *words: asked.append(size))
        memory.for_trace(subject, replace(config, sites=sites))
        return asked[-1]

    assert need("states") < need("blocks.0.hook_mlp_out") < need("resid")


def test_the_last_flip(subject: Subject, config: TraceConfig):
    plan = plan_of(subject, config)
    chosen = np.arange(len(plan.cells))
    change = np.zeros((len(chosen), 3, 4))
    slow = [i for i in plan.whole if plan.cells[i].site == "slow"]
    change[slow[0], 0, 0] = change[slow[1], 0, 0] = 1  # of pair 0 at moments 0 and 1
    change[slow[2], 1, 0] = -1
    assert last_flip(plan, chosen, change, "slow").tolist()[:2] == [1, 2]
    assert np.isnan(last_flip(plan, chosen, change, "slow")[2])
    assert np.isnan(last_flip(plan, chosen, change, "fast")).all()


def test_agreement_is_a_rank_correlation_within_pairs():
    exact = np.array([[1.0, 10], [2, 20], [3, np.nan], [4, 40]])
    assert agreement(exact**3, exact, seed=0).value == pytest.approx(1)
    assert agreement(-exact, exact, seed=0).value == pytest.approx(-1)
    shifted = exact + np.array([[0.0, 1000]])  # of another pair
    assert agreement(exact, shifted, seed=0).value == pytest.approx(1)
    assert agreement(exact, np.ones((4, 2)), seed=0).value is None


def test_the_strongest_cells():
    ends = {
        "loss_low": 0.0,
        "loss_high": 1.0,
        "flipped": 0.5,
        "flipped_low": 0.0,
        "flipped_high": 1.0,
    }
    table = pd.DataFrame(
        {"direction": "ruin", "site": "z", "group": "all", "moment": [0.0, 1, 2, 3]}
        | {"loss": [0.1, -3.0, np.nan, 2.0]}
        | ends
    )
    assert [cell.moment for cell in strongest(table)] == [1, 3, 0]
    assert strongest(table, most=1)[0].loss.value == -3


def test_no_pair_at_all():
    with pytest.raises(UserError, match="among 2 puzzles x 2 starts: 2 are solved from every"):
        trace.pairs_among(np.ones((2, 2), bool))


def test_a_donor_that_ends_otherwise_is_no_control():
    """Each pair gets the donor of the one before it, the first that of the last."""
    runs: Any = dict.fromkeys(Runs._fields)
    assert Runs(**runs | {"valid": np.array([True, False, True, False])}).other.tolist() == [
        *(False, True, False, True)
    ]
    assert Runs(**runs | {"valid": np.array([True])}).other.tolist() == [False]


def test_where_all_pairs_flip_the_interval_is_not_empty(subject: Subject, config: TraceConfig):
    """Wilson's, z = 1.96: of 4 of 4 from 4 / (4 + z^2) = 0.51 to 1, of 0 of 4 from 0 to 0.49."""
    plan = plan_of(subject, config)
    changes = {
        f"{direction}{donor}": np.full((len(plan.whole), 4, 4), value)
        for direction in DIRECTIONS
        for donor, value in {"": 1.0, **dict.fromkeys((f"/{c}" for c in CONTROLS), 0.0)}.items()
    }
    changes[f"{DIRECTIONS[1]}"] *= -1  # solved less so, and a pair that has no such control
    changes[f"{DIRECTIONS[0]}/{CONTROLS[0]}"][:, 0] = np.nan
    table = sealed_table(plan, config, np.array(plan.whole), changes)
    bounds = table[["flipped_low", "flipped", "flipped_high"]].to_numpy()
    own = (table["donor"] == PAIR).to_numpy()
    assert bounds[own] == pytest.approx(np.tile([0.51, 1, 1], (12, 1)), abs=0.005)
    four = ~own & (table["n"] == 4).to_numpy()
    assert bounds[four] == pytest.approx(np.tile([0, 0, 0.49], (30, 1)), abs=0.005)
    assert table["n"].tolist().count(3) == 6
