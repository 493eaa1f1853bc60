"""Links between models: laws, a planted truth, and a run that is stopped."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from toy_copier import N_FULL, N_OPEN, save_squares, save_toy
from toy_task import Latin

from trm_interp.core.checkpoints.folder import save_checkpoint
from trm_interp.core.link import Link
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.runtime.errors import UserError
from trm_interp.studies.settings import StitchConfig
from trm_interp.studies.stitch import (
    AS_IT_BEGINS,
    LINK,
    OTHER,
    UNTRAINED,
    Measured,
    Pair,
    Stitched,
    longer,
    measure,
    open_pair,
)

SHAPE: dict[str, Any] = {"cells": 9, "vocab": 5, "d_model": 16, "multiple": 8, "prefix": 1}
SHAPE |= {"h_cycles": 2, "l_cycles": 2}


def saved_trm(folder: Path, seed: int, **settings: Any) -> TRM:
    """A random model with read-outs that differ between cells."""
    model = TRM(TRMConfig(**{**SHAPE, **settings}), torch.Generator().manual_seed(seed))
    save_checkpoint(folder, model, {"task": Latin().name})
    return model


@pytest.fixture
def config(tmp_path: Path) -> StitchConfig:
    saved_trm(tmp_path / "a", 0)
    saved_trm(tmp_path / "b", 1, d_model=24, n_heads=2, prefix=0)
    return StitchConfig(
        out=tmp_path / "out",
        source=str(tmp_path / "a"),
        to=str(tmp_path / "b"),
        puzzles=save_squares(tmp_path / "squares.txt"),
        device="cpu",
        limit=N_FULL,
        fit=N_OPEN,
        steps=2,
        then=1,
        link_steps=40,
        batch_size=4,
        lr=0.03,
    )


def pair_of(config: StitchConfig) -> Pair:
    source, target, fitted = open_pair(config, lambda line: None)
    return Pair(source.model, source, target, fitted, config)


def constant(link: Link, value: torch.Tensor) -> Link:
    """The link that gives this vector whatever it reads."""
    for parameter in link.parameters():
        parameter.data.zero_()
    link.straight.bias.data = value.clone()
    return link


def test_a_link_by_hand():
    link = Link(2, 1, 1)
    values = {"straight.weight": [[1.0, 2.0]], "straight.bias": [0.5]}
    values |= {"inner.weight": [[3.0, 0.0]], "inner.bias": [0.0]}
    values |= {"outer.weight": [[2.0]], "outer.bias": [0.0]}
    link.load_state_dict({n: torch.tensor(v) for n, v in values.items()}, strict=False)
    # norm([3, 1]) = [1, -1]; gelu(3) = 3 * 0.99865; 3 + 2 + 0.5 + 2 * 2.99595
    assert link(torch.tensor([3.0, 1.0])).item() == pytest.approx(11.4919, abs=1e-3)


def test_a_link_that_gives_the_own_start_changes_nothing(config: StitchConfig):
    """Of another width and prefix than A, whatever A says."""
    pair = pair_of(config)
    model, rows = pair.target.model, slice(0, 3)
    link = constant(Link(16, 24, 8), model.get_buffer("z_H_init"))
    given = pair.states_of(pair.source)
    assert given.shape == (N_FULL, 9, 16)
    state = pair.continued(link, given[rows], pair.target, rows)
    begun, x = pair.target.begin(rows)
    expected, _ = model.advance(begun, x)
    assert torch.equal(state.z_H, expected.z_H) and torch.equal(state.z_L, expected.z_L)


def test_the_identity_hands_a_state_over_as_it_is(config: StitchConfig):
    pair = pair_of(replace(config, to=config.source))
    link = constant(Link(16, 16, 8), torch.zeros(16))
    link.straight.weight.data = torch.eye(16)
    rows = slice(0, 3)
    state = pair.continued(link, pair.states_of(pair.source)[rows], pair.target, rows)
    begun, x = pair.source.begin(rows)
    ran = begun
    for _ in range(config.steps):
        ran, _ = pair.source.model.advance(ran, x)
    cells = torch.cat([begun.z_H[:, :1], ran.z_H[:, 1:]], 1)  # the prefix is B's own
    expected, _ = pair.source.model.advance(begun._replace(z_H=cells), x)
    assert torch.allclose(state.z_H, expected.z_H, atol=1e-6)


def test_a_link_is_trained_and_the_models_are_not(config: StitchConfig):
    pair = pair_of(config)
    before = {n: p.clone() for n, p in pair.target.model.named_parameters()}
    part = pair.part([LINK, AS_IT_BEGINS, OTHER], lambda step: None)
    assert part["fit"][-5:].mean() < part["fit"][:5].mean() - 0.05
    arms = [part[f"{i}-loss"] for i in range(3)]  # they differ, puzzle by puzzle
    assert all(arm.shape == (N_FULL,) and np.unique(arm).size == N_FULL for arm in arms)
    assert not np.allclose(arms[0], arms[1]) and not np.allclose(arms[0], arms[2])
    for name, parameter in pair.target.model.named_parameters():
        assert torch.equal(parameter, before[name]) and parameter.grad is None
    again = pair_of(config).part([LINK, AS_IT_BEGINS, OTHER], lambda step: None)
    assert all(np.array_equal(part[name], again[name]) for name in part)


def test_planted_losses(config: StitchConfig):
    """B alone gains 1.0 over the link from an untrained model, and the link 0.75 of it."""
    pair, n = pair_of(config), N_FULL
    noise = np.random.default_rng(0).normal(size=n) * 0.01

    def arm(loss: float) -> Measured:
        return Measured(np.arange(n) % 2 == 0, np.full(n, 0.5), loss + noise)

    losses = {LINK: 0.5, UNTRAINED: 1.25, longer(config): 0.25, AS_IT_BEGINS: 2.0, OTHER: 1.5}
    stitched = Stitched({name: arm(loss) for name, loss in losses.items()}, {})
    stitched.losses[LINK] = stitched.losses[UNTRAINED] = np.ones(2)
    result, tables = measure(pair.source, pair.target, config, stitched, N_OPEN)
    assert result.understood.value == pytest.approx(0.75)
    assert {name: of.value for name, of in result.gained.items()} == pytest.approx(
        {UNTRAINED: 0.75, AS_IT_BEGINS: 1.5, OTHER: 1.0}
    )
    assert result.arms[LINK].exact.hits == (n + 1) // 2
    assert len(tables["puzzles"]) == 5 * n and len(tables["fit"]) == 4
    losses[longer(config)] = 1.5  # B gains nothing by its own steps
    nothing = Stitched({name: arm(loss) for name, loss in losses.items()}, stitched.losses)
    result, _ = measure(pair.source, pair.target, config, nothing, N_OPEN)
    assert result.understood.value is None


def test_a_stopped_run_goes_on_and_another_design_is_refused(
    cli: Callable[..., Any], config: StitchConfig
):
    words = ["stitch", config.source, config.to, "--puzzles", config.puzzles, "--limit", 4]
    words += ["--fit", 4, "--steps", 1, "--link-steps", 3, "--batch-size", 2, "--device", "cpu"]
    out = config.out
    assert cli(*words, "--out", out).code == 0
    before = pd.read_csv(out / "puzzles.csv")
    assert set(before["arm"]) >= {LINK, UNTRAINED, AS_IT_BEGINS, OTHER, "A alone, 1 step"}
    (out / "summary.json").unlink()
    (out / "parts" / "link-1.npz").unlink()
    answer = cli(*words, "--out", out, "--resume")
    assert answer.code == 0, answer.err
    pd.testing.assert_frame_equal(pd.read_csv(out / "puzzles.csv"), before)
    (out / "summary.json").unlink()
    other = cli(*words, "--out", out, "--resume", "--then", 2)
    assert other.code == 2 and "then" in other.err and other.err.count("\n") == 1


def test_what_does_not_go_together_is_refused(config: StitchConfig, tmp_path: Path):
    with pytest.raises(UserError, match=r"none left for the links: lower --limit"):
        open_pair(replace(config, limit=N_FULL + N_OPEN), lambda line: None)
    saved_trm(tmp_path / "nine", 0, cells=81, vocab=11)
    with pytest.raises(UserError, match=r"but .*nine reads 81 cells"):
        open_pair(replace(config, to=str(tmp_path / "nine")), lambda line: None)
    told: list[str] = []
    open_pair(replace(config, fit=10_000), told.append)
    assert told == [f"{N_OPEN} puzzles for the links, not 10000"]
    # another architecture is no obstacle
    _, target, _ = open_pair(replace(config, to=str(save_toy(tmp_path / "toy"))), told.append)
    assert target.model.architecture == "toy"
