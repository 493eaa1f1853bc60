"""Sign descent for puzzle embeddings, as the public code trains them."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class SignSGD(torch.optim.Optimizer):
    """w <- (1 - lr decay) w - lr sign(gradient), for the rows of a table that a batch has used.

    A row without a gradient is of a puzzle that is not in the batch: it stays as it is, whatever
    the decay. A vector is one row. There is no state: a row seldom seen is not moved by moments of
    others. Source: `CastedSparseEmbeddingSignSGD` of the code of arXiv 2506.21734 and 2510.04871.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update; `closure` is there for the interface and must be None."""
        assert closure is None
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    _update(table, table.grad, group)


def _update(table: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
    used = grad.ne(0).any(-1, keepdim=True)
    change = group["weight_decay"] * table + grad.sign()
    table.sub_(group["lr"] * torch.where(used, change, 0.0))
