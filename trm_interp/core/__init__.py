"""The TRM itself: model, losses, checkpoints, training, inference. Needs torch, numpy, safetensors.

Names are imported on first use, so that the settings can be read without torch.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "TRM": "models.trm",
    "State": "models.trm",
    "TRMConfig": "models.config",
    "TrainConfig": "training.settings",
    "load_checkpoint": "checkpoints.folder",
    "save_checkpoint": "checkpoints.folder",
    "run": "infer",
    "iter_run": "infer",
    "Readouts": "infer",
    "TrainData": "training.trainer",
    "Trainer": "training.trainer",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
