"""An architecture and a task that the package does not have are trained, resumed and evaluated."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_architecture import Toy, ToyConfig
from toy_task import Latin, latin_puzzles

from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.core.training.settings import TrainConfig
from trm_interp.runtime.errors import UserError
from trm_interp.subjects.opening import task_of
from trm_interp.subjects.settings import RunConfig
from trm_interp.subjects.training import fit

MODEL = {"d_model": 12}
CONFIG = TrainConfig(steps=12, batch_size=6, n_sup=3, lr=3e-3, eval_every=6, save_every=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Files of training and validation puzzles that share no class of symmetric copies."""
    folder = tmp_path_factory.mktemp("latin")
    puzzles = latin_puzzles(60)
    keys = Latin().class_keys(puzzles.inputs)
    ours = np.isin(keys, np.unique(keys)[::2])
    for name, of in (("train", ours), ("val", ~ours)):
        Latin.save(folder / name, puzzles.subset(np.flatnonzero(of)))
    return folder / "train", folder / "val"


def run_of(data: tuple[Path, Path], out: Path, **settings: Any) -> RunConfig:
    return RunConfig(
        train=data[0], val=data[1], out=out, device="cpu", **{"architecture": "toy", **settings}
    )


def quiet(line: str) -> None:
    pass


def test_train_resume_and_evaluate(
    data: tuple[Path, Path], tmp_path: Path, cli: Callable[..., Any]
):
    whole = fit(run_of(data, tmp_path / "whole"), MODEL, CONFIG, tell=quiet)
    assert whole.finished and whole.steps == 12
    fit(run_of(data, tmp_path / "parts"), MODEL, replace(CONFIG, steps=5), tell=quiet)
    fit(run_of(data, tmp_path / "parts", resume=True), MODEL, CONFIG, tell=quiet)
    one = load_checkpoint(tmp_path / "whole")
    assert type(one.model) is Toy and one.model.config == ToyConfig(cells=9, vocab=5, d_model=12)
    assert one.task == "latin3" and task_of(one) == Latin()
    saved, resumed = (
        torch.load(tmp_path / name / "train_state.pt", weights_only=True)
        for name in ("whole", "parts")
    )
    for name, tensor in saved["model"].items():
        assert torch.equal(tensor, resumed["model"][name])

    answer = cli("eval", "--ckpt", one.path, "--puzzles", data[1], "--steps", 3, "--json")
    assert answer.code == 0, answer.err
    last = json.loads(answer.out)["exact_at_step"][-1]
    assert last == pytest.approx(one.card["validation"]["exact_at_step"][-1])
    answer = cli("info", one.path)
    assert answer.code == 0 and "toy" in answer.out, answer


def test_settings_that_cannot_be_are_one_line(data: tuple[Path, Path], tmp_path: Path):
    run = run_of(data, tmp_path / "run")
    with pytest.raises(UserError, match="unknown architecture 'hrm9': this version has trm"):
        fit(replace(run, architecture="hrm9"), MODEL, CONFIG, tell=quiet)
    with pytest.raises(UserError, match="^h_cycles is no setting of direct, which has cells"):
        fit(replace(run, architecture="direct"), {"h_cycles": 2}, CONFIG, tell=quiet)
    of_preset = replace(run, architecture="direct", preset="tiny")
    with pytest.raises(UserError, match="^h_cycles of --preset tiny is no setting of direct"):
        fit(of_preset, {"h_cycles": 2}, CONFIG, tell=quiet)
    with pytest.raises(UserError, match="would need .* of memory"):
        fit(run, {"d_model": 16_384}, replace(CONFIG, batch_size=10**6))
