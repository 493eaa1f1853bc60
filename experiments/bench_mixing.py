"""Token mixing with rows of the weight at multiples of 16 bytes, against rows as they are.

A section of `bench.py`; ratios below 1 are faster.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trm_interp.core.models.layers import aligned_rows

Medians = Callable[[dict[str, Callable[[], object]], int], dict[str, float]]
WIDTH, D_MODEL, POSITIONS = 256, 512, 82  # of the published shape with one prefix position


def mixing(repeats: int, medians: Medians) -> dict[str, float]:
    """Seconds of the product and of its gradients in bfloat16, aligned over plain rows."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = 384 if device == "cuda" else 16
    kind: dict[str, Any] = {"device": device, "dtype": torch.bfloat16}
    x = torch.randn(batch, POSITIONS, D_MODEL, **kind)
    out = torch.randn(batch, 2 * WIDTH, D_MODEL, **kind)
    plain = torch.randn(2 * WIDTH, POSITIONS, **kind)
    runs: dict[str, Callable[[], object]] = {}
    for name, weight in (("plain", plain), ("aligned", aligned_rows(plain))):
        each = weight.expand(batch, -1, -1)
        runs[f"{name}_forward"] = _finished(lambda each=each: torch.bmm(each, x))
        runs[f"{name}_gradient"] = _finished(lambda each=each: torch.bmm(each.mT, out))
    runs["aligning"] = _finished(lambda: aligned_rows(plain))
    took = medians(runs, repeats)
    forward = (took["aligned_forward"] + took["aligning"]) / took["plain_forward"]
    return {
        "aligned_over_plain_forward": forward,
        "aligned_over_plain_gradient": took["aligned_gradient"] / took["plain_gradient"],
    }


def _finished(run: Callable[[], Tensor]) -> Callable[[], None]:
    """The same, and the device has done it when it returns."""

    def until_done() -> None:
        if run().is_cuda:
            torch.cuda.synchronize()

    return until_done
