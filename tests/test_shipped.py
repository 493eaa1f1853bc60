"""Checkpoints that ship open, and solve what their cards say."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

import trm_interp
from trm_interp.core.infer import run_batch
from trm_interp.runtime.files import sha256_of

ROOT = Path(__file__).parents[1]
CARDS = sorted([*ROOT.glob("artifacts/*/card.json"), *ROOT.glob("artifacts/zoo/*/card.json")])
N, STEPS = 100, 2


@pytest.mark.parametrize("card", CARDS, ids=lambda path: path.parent.name)
def test_it_solves_what_its_card_says(card: Path):
    """Of evenly spaced test puzzles, within 4 standard errors of the share of all of them."""
    told = json.loads(card.read_text())
    model = trm_interp.load_checkpoint(card.parent).model
    named = told["test"]["data_sha256"]
    assert told["test"]["command"].startswith(
        f"trm-interp eval --ckpt {card.parent.relative_to(ROOT).as_posix()} "
    )
    (file,) = [f for f in ROOT.glob("artifacts/data/*/test*") if _is_of(f, named)]
    puzzles = trm_interp.load_puzzles(file)
    some = puzzles.subset(np.linspace(0, len(puzzles) - 1, N).astype(int))
    inputs, labels, identifiers = some.tensors
    solved = run_batch(model, inputs, labels, STEPS, identifiers=identifiers).solved
    for step in range(STEPS):
        share = told["test"]["exact_at_step"][step]
        error = math.sqrt(max(share * (1 - share), 1 / N) / N)
        assert abs(solved[:, step].float().mean().item() - share) < 4 * error


def _is_of(file: Path, named: dict[str, str]) -> bool:
    if file.is_dir():
        return all((file / name).exists() or (file.parent / name).exists() for name in named)
    return named.get(file.name) == sha256_of(file)
