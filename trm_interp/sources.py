"""Opens what a command is told to work on: a device, a checkpoint, puzzles that fit it."""

import os
from pathlib import Path

import torch

from trm_interp.core.checkpoint import Checkpoint, load_checkpoint
from trm_interp.core.memory import keep_freed_memory
from trm_interp.errors import UserError
from trm_interp.settings import artifact
from trm_interp.tasks.sudoku.dataset import PuzzleSet, load
from trm_interp.tasks.sudoku.formats import PuzzleError


def open_device(name: str) -> torch.device:
    """`auto` is the first GPU where there is one. UserError for a GPU that is not there."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {name}: this PyTorch sees no CUDA device; try --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cpu":
        keep_freed_memory()
    else:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return device


def open_puzzles(
    path: Path, checkpoint: Checkpoint, limit: int | None = None, skip_bad: bool = False
) -> PuzzleSet:
    """Puzzles of the checkpoint's grid. UserError where they are of another size."""
    puzzles = load(path, skip_bad=skip_bad, limit=limit)
    require_size(puzzles, checkpoint)
    return puzzles


def require_size(puzzles: PuzzleSet, checkpoint: Checkpoint) -> None:
    """UserError where the puzzles are of another size than the checkpoint's."""
    config = checkpoint.model.config
    if (config.cells, config.vocab) != (puzzles.shape.cells, puzzles.shape.vocab):
        raise PuzzleError(
            f"{puzzles.source}: {puzzles.shape.side}x{puzzles.shape.side} puzzles, "
            f"but {checkpoint.path} reads {config.cells} cells of {config.vocab} tokens"
        )


def test_puzzles(checkpoint: Checkpoint) -> Path:
    """The test puzzles of the checkpoint's size that ship. UserError where there are none."""
    side = int(checkpoint.model.config.cells**0.5)
    file = artifact("data") / f"sudoku{side}" / "test.txt"
    if not file.exists():
        raise UserError(f"{file}: no test puzzles of this size ship; give --puzzles")
    return file


def open_both(
    ckpt: str, puzzles: Path, device: torch.device, limit: int | None, skip_bad: bool
) -> tuple[Checkpoint, PuzzleSet]:
    checkpoint = load_checkpoint(ckpt, device)
    return checkpoint, open_puzzles(puzzles, checkpoint, limit, skip_bad)
