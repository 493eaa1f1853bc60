"""What a device can compute in. Apple's GPUs (MPS) have no float64."""

import torch
from torch import Tensor


def has_float64(device: torch.device) -> bool:
    return device.type != "mps"


def widest(device: torch.device) -> torch.dtype:
    """float64, or float32 on a device that has nothing wider.

    >>> widest(torch.device("cpu")), widest(torch.device("mps"))
    (torch.float64, torch.float32)
    """
    return torch.float64 if has_float64(device) else torch.float32


def widened(x: Tensor) -> Tensor:
    """The values in the widest dtype of their device."""
    return x.to(widest(x.device))
