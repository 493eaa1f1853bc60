"""What commands say of models that solve for fixed points, puzzle by puzzle."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Answer

from trm_interp.core.checkpoints.folder import save_checkpoint
from trm_interp.core.models.equilibrium import Equilibrium
from trm_interp.core.models.equilibrium_config import EquilibriumConfig
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.recording.store import Store
from trm_interp.subjects.equilibria import converged, convergence, line, notice
from trm_interp.subjects.evaluate import solve
from trm_interp.subjects.opening import read_checkpoint
from trm_interp.tasks.registry import load_puzzles

SHAPE: dict[str, Any] = {"cells": 16, "vocab": 6, "d_model": 8, "n_layers": 1, "multiple": 8}
SHAPE |= {"prefix": 0, "h_cycles": 2, "l_cycles": 6}
# tolerance: between the residuals of the first and the last step, so that some converge
TOLERANCE = 0.02


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("equilibria")
    lines = ["12343412" + "21434321", "1.343412" + "21434321", "12343.12" + "2143432."]
    (folder / "puzzles.txt").write_text("\n".join(lines) + "\n")
    config = EquilibriumConfig(**SHAPE, tolerance=TOLERANCE)
    model = Equilibrium(config, torch.Generator().manual_seed(0))
    save_checkpoint(folder / "ckpt", model, {"task": "sudoku4"})
    return {"ckpt": folder / "ckpt", "puzzles": folder / "puzzles.txt"}


def model_with(tolerance: float) -> Equilibrium:
    return Equilibrium(EquilibriumConfig(**SHAPE, tolerance=tolerance))


# three puzzles, two steps of two H-cycles; puzzle 1 lacks one H-cycle of the last step, puzzle 2
# one of the first, and what is not known has not converged
RESIDUAL = torch.tensor(
    [[[0.1, 0.1], [0.1, 0.1]], [[0.1, 0.1], [0.1, 0.3]], [[0.2, 0.1], [0.1, torch.nan]]]
)


def test_what_has_converged():
    there = converged(model_with(0.1 + 1e-6), RESIDUAL.numpy())
    assert there.tolist() == [[True, True], [True, False], [False, False]]
    found = convergence(model_with(0.1 + 1e-6), RESIDUAL[:2], np.array([7, 9]))
    assert found is not None
    assert found["share"] == 7 / 8 and found["at_step"] == [1.0, 0.5]
    assert found["unconverged"] == [9] and found["residual"] == pytest.approx(0.3)
    assert found["evaluations"] == 6 and found["solves"] == 8
    assert "87.5% of 8 solves" in line(found, 2) and "1 of 2 puzzles" in line(found, 2)
    unknown = convergence(model_with(0.1 + 1e-6), RESIDUAL, np.array([7, 9, 11]))
    assert unknown is not None and unknown["unconverged"] == [9, 11]
    assert unknown["residual"] is None
    every = convergence(model_with(1.0), RESIDUAL[:2], np.array([7, 9]))
    assert every is not None and line(every, 2).endswith("all of 2 puzzles at the last step")


def test_other_models_solve_for_nothing():
    model = TRM(TRMConfig(**SHAPE))
    assert notice(model, "x") is None and convergence(model, None, np.arange(3)) is None


def test_commands_report_what_the_model_reports(
    world: dict[str, Path], tmp_path: Path, cli: Callable[..., Answer]
):
    words = ["--ckpt", world["ckpt"], "--puzzles", world["puzzles"], "--steps", 3]
    puzzles = load_puzzles(world["puzzles"])
    read = solve(read_checkpoint(world["ckpt"]).model, puzzles, 3)
    assert read.residual is not None
    expected = read.residual.numpy()
    there = np.asarray((expected <= TOLERANCE).all(-1))
    answer = cli("eval", *words, "--json")
    assert answer.code == 0 and "solves for z_L in every H-cycle" in answer.err
    told = json.loads(answer.out)["fixed_points"]
    assert told["at_step"] == there.mean(0).tolist()
    assert told["unconverged"] == puzzles.lines[~there[:, -1]].tolist()
    plain = cli("eval", *words)
    assert "fixed points: " in plain.out
    answer = cli("collect", *words, "--sites", "z_H", "--out", tmp_path / "store")
    assert answer.code == 0 and "fixed points: " in answer.out + answer.err
    with Store(tmp_path / "store") as store:
        np.testing.assert_allclose(store["residual"][:], expected, rtol=1e-5)
        worst = store.frame()["residual"].to_numpy().reshape(3, 3)
        np.testing.assert_allclose(worst, expected.max(-1), rtol=1e-5)
    answer = cli("outcomes", *words, "--out", tmp_path / "outcomes")
    assert answer.code == 0, answer.err
    table = pd.read_csv(tmp_path / "outcomes" / "puzzles.csv")
    np.testing.assert_allclose(table["residual"], expected[:, -1].max(-1), rtol=1e-5)
    assert table["converged"].tolist() == there[:, -1].tolist()
