"""Models, losses, checkpoints, training, inference. Needs torch, numpy and safetensors alone.

`trm_interp` has the public names. Those below are here as they always were, imported on first use:
the settings among them can be read without torch.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "TRM": "models.trm",
    "State": "models.trm",
    "TRMConfig": "models.trm_config",
    "TrainConfig": "training.settings",
    "load_checkpoint": "checkpoints.folder",
    "save_checkpoint": "checkpoints.folder",
    "run": "infer",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
