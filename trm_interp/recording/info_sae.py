"""What the folder of a sparse autoencoder says of itself; reads no weights."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from trm_interp.runtime.schema import read_json

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
ADVICE = "restore it, or train the SAE again"
SHOWN = ("sites", "ticks", "arch", "gated_variant", "checkpoint_sha256", "mixed_checkpoints")
SHOWN += ("centre", "shuffle")


@dataclass(frozen=True)
class _Metadata:
    trm_interp: dict[str, Any] = field(default_factory=dict)  # SAEs of others have none


@dataclass(frozen=True)
class _Config:
    d_in: Annotated[int, Meta(ge=1)]
    d_sae: Annotated[int, Meta(ge=1)]
    architecture: str = "standard"
    k: float | None = None
    metadata: _Metadata = field(default_factory=_Metadata)


def is_sae(path: Path) -> bool:
    """Whether a folder has the files that sae-lens opens."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def describe_sae(path: Path) -> dict[str, Any]:
    """Facts about it. UserError where its `cfg.json` is damaged."""
    config = read_json(path / CONFIG, _Config, advice=ADVICE)
    ours = config.metadata.trm_interp
    return {
        "kind": "sparse autoencoder",
        "path": str(path),
        "architecture": config.architecture,
        "d_in": config.d_in,
        "features": config.d_sae,
        **({} if config.k is None else {"k": config.k}),
        "trained_here": bool(ours),
        **{name: ours[name] for name in SHOWN if ours.get(name) not in (None, [])},
        "bytes": (path / WEIGHTS).stat().st_size,
    }
