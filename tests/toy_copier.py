"""A checkpoint of the toy architecture that copies what it reads, and Latin squares for it.

It answers a cell that is given and leaves a blank, so full squares are solved and others are not:
both outcomes, and proofs, in a few milliseconds.
"""

from pathlib import Path

import numpy as np
import torch
from toy_architecture import Toy, ToyConfig
from toy_task import SQUARES, Latin, latin_puzzles

from trm_interp.core.checkpoints.folder import save_checkpoint
from trm_interp.tasks.base import PuzzleSet

CONFIG = ToyConfig(cells=9, vocab=5, d_model=6)
EVALUATIONS = 2 * 5  # of a supervision step: two H-cycles of fast, fast, slow, fast, slow
N_FULL, N_OPEN = 6, 7


def toy_copier() -> Toy:
    """Each token has a channel of its own; both maps pass all of them on."""
    model = Toy(CONFIG, torch.Generator().manual_seed(3))
    with torch.no_grad():
        model.start.zero_()
        for tokens in (model.embedding, model.head):
            tokens.copy_(torch.eye(CONFIG.vocab, CONFIG.d_model))
        for net in (model.quick, model.calm):
            net.mix.copy_(torch.eye(CONFIG.positions))
            net.map.copy_(0.3 * torch.eye(CONFIG.d_model))
    return model.eval()


def save_toy(folder: Path) -> Path:
    """The copier as a checkpoint that names its task."""
    save_checkpoint(folder, toy_copier(), {"task": Latin().name})
    return folder


def squares() -> PuzzleSet:
    """Full squares, then squares with blanks."""
    full, blank = SQUARES[:N_FULL], latin_puzzles(N_OPEN)
    inputs, labels = (np.concatenate([full, part]) for part in (blank.inputs, blank.labels))
    return PuzzleSet(Latin(), inputs, labels, np.arange(len(inputs)) + 2, "squares", {})


def save_squares(file: Path) -> Path:
    """The same as a file of puzzles."""
    Latin.save(file, squares())
    return file
