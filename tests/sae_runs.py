"""Quick SAEs on small stores, and words of the command line for them."""

from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE

from trm_interp.sae.settings import TrainSAEConfig


def quick(store: Path, out: Path, **more: Any) -> TrainSAEConfig:
    settings: dict[str, Any] = {"site": "z_L", "expansion": 2, "max_steps": 30, "batch_size": 32}
    settings |= {"held_out": 0.25, "log_every": 10, "save_every": 10, "device": "cpu", "k": 3}
    return TrainSAEConfig(store=store, out=out, **settings | more)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return SAE.load_from_disk(out).state_dict()


def silent(line: str) -> None:
    """Nobody to tell."""
