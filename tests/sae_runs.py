"""Quick SAEs on small stores, and words of the command line for them."""

from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE, StandardSAE, StandardSAEConfig

from trm_interp.sae.settings import TrainSAEConfig


def quick(store: Path, out: Path, **more: Any) -> TrainSAEConfig:
    settings: dict[str, Any] = {"site": "z_L", "expansion": 2, "max_steps": 30, "batch_size": 32}
    settings |= {"held_out": 0.25, "log_every": 10, "save_every": 10, "device": "cpu", "k": 3}
    return TrainSAEConfig(**{"stores": [store], "out": out} | settings | more)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return SAE.load_from_disk(out).state_dict()


def silent(line: str) -> None:
    """Nobody to tell."""


def identity_sae(path: Path, d: int, scale: float = 1.0, keep: int | None = None) -> Path:
    """x -> relu(x) - relu(-x): exact, with 2 d features. `keep` features are left of it."""
    sae = StandardSAE(StandardSAEConfig(d_in=d, d_sae=2 * d, apply_b_dec_to_input=False))
    eye = torch.eye(d)
    with torch.no_grad():
        sae.W_enc.copy_(torch.cat([eye, -eye], dim=1))
        sae.W_dec.copy_(scale * torch.cat([eye, -eye]))
        sae.b_enc.zero_()
        sae.b_dec.zero_()
        if keep is not None:
            sae.W_enc[:, keep:] = 0
    sae.cfg.metadata.trm_interp = {
        "sites": ["z_L"],
        "store_sha256": "none",
        "checkpoint_sha256": "c0ffee",
        "ticks": None,
    }
    sae.save_model(path)
    return path
