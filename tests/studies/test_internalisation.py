"""Runs whose inner loop is cut short: by hand on a toy with two networks, and over training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from option_world import SMALL_TRAIN
from torch import Tensor
from toy_copier import N_FULL, N_OPEN, save_squares
from toy_task import Latin
from toy_two_networks import Duo, DuoConfig

from trm_interp.core.checkpoints.folder import save_checkpoint
from trm_interp.core.models.registry import build, config_class
from trm_interp.figures.internalisation import internalisation_figure
from trm_interp.runtime.errors import UserError
from trm_interp.studies.internalisation import measure, own_cap
from trm_interp.studies.settings import InternalisationConfig
from trm_interp.studies.subject import open_subject

Cli = Callable[..., Any]
N, OWN, STEPS = N_FULL + N_OPEN, 2, 2


@pytest.fixture(scope="module")
def duo() -> Any:
    """A `Duo` that contracts."""
    model: Any = Duo(DuoConfig(cells=9, vocab=5, l_cycles=OWN), torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.work.mix.mul_(0.8 / torch.linalg.matrix_norm(model.work.mix, 2))
        model.work.map.mul_(0.8 / torch.linalg.matrix_norm(model.work.map, 2))
    return model.eval()


@pytest.fixture(scope="module")
def world(duo: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("internalisation")
    save_checkpoint(folder / "duo", duo, {"task": Latin().name})
    return {"ckpt": folder / "duo", "puzzles": save_squares(folder / "squares.txt")}


def config_of(world: dict[str, Path], out: Path, **settings: Any) -> InternalisationConfig:
    given: dict[str, Any] = {"caps": "0,1,3", "steps": STEPS, "batch_size": 5, "deep": 200}
    given |= {"tolerance": 1e-6, "device": "cpu", "out": out}
    return InternalisationConfig(
        ckpt=str(world["ckpt"]), puzzles=world["puzzles"], **(given | settings)
    )


@torch.no_grad()
def by_hand(duo: Any, x: Tensor, caps: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """work and its fixed point, work once more, and the answer, with so many writes of work in
    each H-cycle."""
    plan, work = duo.initial_state(x)
    for cap in caps:
        for _ in range(cap):
            work = duo.work(work, plan + x)
        once, fixed = duo.work(work, plan + x), work
        for _ in range(300):
            fixed = duo.work(fixed, plan + x)
        plan = duo.plan(plan, work)
    return work, fixed, once, plan


@pytest.mark.parametrize("cap", [0, 1, OWN, 3])
@pytest.mark.parametrize("where", ["every", "last"])
def test_a_run_that_is_cut_short(duo: Any, world, tmp_path: Path, where: str, cap: int):
    subject = open_subject(config_of(world, tmp_path), lambda line: None)
    cut = measure(subject, config_of(world, tmp_path), [0, 1, OWN, 3])[where, cap]
    cycles = STEPS * duo.config.h_cycles
    caps = [cap] * cycles if where == "every" else [OWN] * (cycles - 1) + [cap]
    x = duo.embed(subject.inputs)
    work, fixed, once, plan = by_hand(duo, x, caps)
    assert cut.converged.all()

    def norm(z: Tensor) -> np.ndarray:
        return z.flatten(1).norm(dim=1).numpy()

    np.testing.assert_allclose(cut.residual, norm(once - work) / norm(once), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(cut.distance, norm(fixed - work) / norm(fixed), rtol=1e-2, atol=1e-4)
    tokens = duo.readout(plan).logits.argmax(-1)
    assert cut.solved.tolist() == (tokens == subject.labels).all(-1).tolist()


def test_more_writes_are_nearer_to_the_fixed_point(world, tmp_path: Path, cli: Cli):
    words = ["--ckpt", world["ckpt"], "--puzzles", world["puzzles"], "--device", "cpu"]
    words += ["--steps", STEPS, "--caps", "0-3", "--out", tmp_path / "out", "--json"]
    answer = cli("internalisation", *words)
    assert answer.code == 0, answer.err
    summary = json.loads(answer.out)
    assert (summary["own_cap"], summary["latent"], summary["n"]) == (OWN, "work", N)
    (snapshot,) = summary["snapshots"]
    assert snapshot["trained"] is None
    for where in ("every", "last"):
        assert [at["cap"] for at in snapshot[where]] == [0, 1, 2, 3]
        distances = [at["distance"]["median"] for at in snapshot[where]]
        assert distances == sorted(distances, reverse=True) and distances[3] < distances[0]
        assert all(at["converged"]["hits"] == N for at in snapshot[where])
    own = [snapshot[where][OWN] for where in ("every", "last")]
    assert own[0] == own[1]
    puzzles = pd.read_csv(tmp_path / "out" / "puzzles.csv")
    assert len(puzzles) == N * 4 * 2
    shown = pd.read_csv(tmp_path / "out" / "internalisation.csv")
    assert len(shown) == 4 * 2 and (tmp_path / "out" / "internalisation.html").exists()


def test_fixed_points_that_are_not_reached_are_told_and_not_used(world, tmp_path: Path):
    config = config_of(world, tmp_path, deep=1, tolerance=1e-9)
    cuts = measure(open_subject(config, lambda line: None), config, [0, OWN])
    for cut in cuts.values():
        assert not cut.converged.any() and np.isnan(cut.distance).all()
        assert np.isfinite(cut.residual).all()


@pytest.mark.parametrize("name", ["direct", "trm-single-z", "trm-multi-z"])
def test_a_model_without_one_inner_loop_is_one_line(name: str):
    small: dict[str, Any] = {"cells": 9, "vocab": 5, "d_model": 8, "multiple": 8, "n_layers": 1}
    kind: Any = config_class(name)
    with pytest.raises(UserError, match=f"those of {name} write"):
        own_cap(build(kind(**small)))


def test_over_training(world, grids: Path, tmp_path: Path, cli: Cli):
    run, on = tmp_path / "run", ["--puzzles", grids, "--device", "cpu"]
    (tmp_path / "val.txt").write_text("..34341221434321,1234341221434321\n")
    train = ["train", "--architecture", "equilibrium", "--train", grids]
    train += ["--val", tmp_path / "val.txt", "--device", "cpu"]
    settings = ["--train-steps", 4, "--keep-every", 2, "--l-cycles", 2, "--out", run]
    trained = cli(*train, *SMALL_TRAIN, *settings)
    assert trained.code == 0, trained.err
    words = ["internalisation", "--ckpt", run, *on, "--steps", 1, "--caps", "0,1", "--kept"]
    answer = cli(*words, "--out", tmp_path / "out", "--json")
    assert answer.code == 0, answer.err
    snapshots = json.loads(answer.out)["snapshots"]
    assert [one["trained"] for one in snapshots] == [2, 4]
    assert snapshots[0]["checkpoint_sha256"] != snapshots[1]["checkpoint_sha256"]
    assert set(pd.read_csv(tmp_path / "out" / "puzzles.csv")["trained"]) == {2, 4}
    told = cli(*words, "--out", tmp_path / "out", "--overwrite").out
    assert "after 2 optimizer steps" in told and "after 4 optimizer steps" in told
    none = cli(
        *words, "--ckpt", world["ckpt"], "--puzzles", world["puzzles"], "--out", tmp_path / "no"
    )
    assert none.code == 2 and "no kept checkpoints here" in none.err


def test_training_steps_are_told_apart_without_colours():
    rows = [
        {"trained": trained, "where": "every", "cap": cap, "solved": 0.5, "distance": 0.1}
        for trained in (2, 4)
        for cap in (0, 1)
    ]
    table = pd.DataFrame(rows).assign(converged=1.0)
    for end in ("low", "high"):
        table[f"solved_{end}"], table[f"distance_{end}"] = table["solved"], table["distance"]
    named = [
        trace
        for trace in internalisation_figure(table, "z_L", own=1, title="").to_dict()["data"]
        if (trace.get("name") or "").startswith("step") and trace.get("mode") == "lines+markers"
    ]
    symbols = {trace["name"]: trace["marker"]["symbol"] for trace in named}
    assert len(named) == 6 and len(set(symbols.values())) == 2
