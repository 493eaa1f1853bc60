"""Muon with rates that are tensors, so that a CUDA graph sees them change."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trm_interp.runtime.shapes import Float


class Muon(torch.optim.Muon):
    """torch's Muon; where `lr` of a group is a tensor, no value of it passes through the host.

    torch's own step reads such a tensor on the host, which no CUDA graph can capture. Here `lr` is
    a float64 tensor without axes: shrinking and scaling are then rounded once, to float32, as torch
    rounds its Python numbers, and the weights get the same bits on a CPU.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        if not any(torch.is_tensor(group["lr"]) for group in self.param_groups):
            return super().step(closure)
        if closure is not None:
            raise ValueError("a Muon step with rates that are tensors takes no closure")
        for group in self.param_groups:
            if group["adjust_lr_fn"] not in (None, "original"):
                raise ValueError(f"adjust_lr_fn must be 'original', got {group['adjust_lr_fn']!r}")
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)
        return None

    def _update(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        kept, momentum = self.state[weight], group["momentum"]
        if "momentum_buffer" not in kept:
            kept["momentum_buffer"] = torch.zeros_like(grad)
        average = kept["momentum_buffer"].lerp_(grad, 1 - momentum)
        towards = grad.lerp(average, momentum) if group["nesterov"] else average
        how = (group["ns_coefficients"], group["ns_steps"], group["eps"])
        update = orthogonalised(towards, *how).to(weight.dtype)
        rows, columns = weight.shape
        rate = group["lr"] * math.sqrt(max(1.0, rows / columns))
        weight.mul_((1 - group["lr"] * group["weight_decay"]).to(weight.dtype))
        weight.addcmul_(update, -rate.to(weight.dtype))  # add_(alpha=...) takes a number only


def orthogonalised(
    matrix: Float[Tensor, "n_out n_in"],
    coefficients: tuple[float, float, float],
    steps: int,
    eps: float,
) -> Float[Tensor, "n_out n_in"]:
    """All singular values near 1, singular vectors as they were; bfloat16.

    The quintic Newton-Schulz iteration of Muon (Jordan et al., 2024), with the operations of
    `torch.optim.Muon` in the same order.
    """
    a, b, c = coefficients
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.bfloat16().T if is_tall else matrix.bfloat16()
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x
