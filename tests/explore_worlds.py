"""Sessions of the explorer on tiny models: every architecture, three tasks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import toy_architecture  # noqa: F401 (registers "toy")
from maze_puzzles import maze_puzzles
from sae_runs import identity_sae
from toy_copier import squares, toy_copier

from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.models.registry import build, config_class
from trm_interp.explore.session import Session
from trm_interp.tasks.base import PuzzleSet
from trm_interp.tasks.sudoku.task import Sudoku

STEPS = 3
PUZZLES = ["12.4...2....4..1", ".23434122143432.", "12..3....1..4..1"]
SHAPE: dict[str, Any] = {"cells": 16, "vocab": 6}
BLOCKS: dict[str, Any] = SHAPE | {"d_model": 8, "multiple": 8}
SETTINGS: dict[str, dict[str, Any]] = {
    "trm": BLOCKS | {"h_cycles": 2, "l_cycles": 2, "prefix": 2},
    "hrm": BLOCKS | {"n_heads": 2},
    "direct": BLOCKS | {"mixer": "attention", "n_heads": 2},
    "trm-multi-z": BLOCKS | {"h_cycles": 2, "separate_networks": True},
    "equilibrium": BLOCKS | {"h_cycles": 2, "l_cycles": 3},
    "toy": SHAPE,
}


def checkpoint_of(model: RecursiveModel, card: dict[str, Any] | None = None) -> Checkpoint:
    return Checkpoint(model, Path("tiny"), "ours", "0" * 64, card or {})


def drawn(name: str, **settings: Any) -> RecursiveModel:
    """A model with random weights, its halting head included."""
    generator = torch.Generator().manual_seed(1)
    model = build(config_class(name)(**{**SETTINGS[name], **settings}), generator).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "q_head" in key:
                weight.normal_(generator=generator)
    return model


def sudokus() -> PuzzleSet:
    return Sudoku.load_text("\n".join(PUZZLES) + "\n", "three puzzles", several=True)


def session_of(name: str = "trm", **how: Any) -> Session:
    """On 4x4 Sudokus."""
    return Session(checkpoint_of(drawn(name)), sudokus(), **{"steps": STEPS, **how})


def toy_session(**how: Any) -> Session:
    """The copier of Latin squares: full squares are solved, those with blanks are not."""
    return Session(checkpoint_of(toy_copier()), squares(), **{"steps": STEPS, **how})


def maze_session(**how: Any) -> Session:
    model = drawn("trm", cells=49)
    return Session(checkpoint_of(model), maze_puzzles(3, 7), **{"steps": STEPS, **how})


def rows(puzzles: PuzzleSet, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels [1, cell]."""
    one = puzzles.subset(np.array([index]))
    return torch.from_numpy(one.inputs.copy()), torch.from_numpy(one.labels.copy())


def identity_for(checkpoint: Checkpoint, folder: Path, **more: Any) -> Path:
    """An SAE of z_L of this checkpoint: x -> relu(x) - relu(-x), twice as many features as x."""
    path = identity_sae(folder, checkpoint.model.config.d_model)
    config = json.loads((path / "cfg.json").read_text())
    ours = config["metadata"]["trm_interp"]
    ours |= {"checkpoint_sha256": checkpoint.sha256, **more}
    (path / "cfg.json").write_text(json.dumps(config))
    return path
