"""Optimizers, their schedule, and the moving average of the weights."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.training.muon import Muon
from trm_interp.core.training.settings import TrainConfig
from trm_interp.core.training.sign_sgd import SignSGD
from trm_interp.runtime.errors import UserError

LAST = 0.2  # of a run, in which the rate of decay "late" falls
DEEPER = (0.0, 0.3, 0.6)  # fractions of a run at which the parts of the depth curriculum begin


def make_optimizers(model: RecursiveModel, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW over everything, or Muon over the networks' matrices and AdamW over the rest; with
    `prefix_optimizer` "sign-sgd" puzzle embeddings are trained by that.

    Muon is torch's: Nesterov momentum, and a step scaled by sqrt(max(1, rows / columns)), which is
    its "original" convention, not the one that matches the size of AdamW's updates.

    Every group keeps its peak learning rate in `peak_lr`, which the schedule scales. On a GPU the
    rates are tensors, so that a CUDA graph sees them change.
    """
    muon = config.optimizer == "muon"
    matrices = [p for net in model.networks() for p in net.parameters() if p.ndim == 2]
    matrices = matrices if muon else []
    tables = _tables(model) if config.prefix_optimizer == "sign-sgd" else []
    taken = {id(p) for p in (*matrices, *tables)}
    rest = [p for p in model.parameters() if id(p) not in taken]
    on_gpu = rest[0].is_cuda
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            rest,
            capturable=on_gpu,
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )
    ]
    if muon:
        optimizers.append(
            Muon(
                matrices,
                lr=config.muon_lr,
                weight_decay=config.muon_decay,
                momentum=0.95,
                adjust_lr_fn="original",
            )
        )
    if tables:
        optimizers.append(SignSGD(tables, config.prefix_lr, config.prefix_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    if on_gpu:
        hold_rates_in_tensors(optimizers)
    return optimizers


def _tables(model: RecursiveModel) -> list[Tensor]:
    """The puzzle embeddings. UserError for a model that has none."""
    table = getattr(model, model.identifier_table, None) if model.identifier_table else None
    if table is None:
        raise UserError(
            "prefix_optimizer sign-sgd: this model has no puzzle embeddings; give it a prefix"
        )
    return [table]


def hold_rates_in_tensors(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """From now on a learning rate is a tensor on its weights' device; `set_rates` fills it."""
    for optimizer in optimizers:
        # what the fused AdamW reads, and what gives Muon the bits of its rates as numbers
        dtype = torch.float64 if isinstance(optimizer, Muon) else torch.float32
        for group in optimizer.param_groups:
            device = group["params"][0].device
            group["lr"] = torch.tensor(float(group["lr"]), dtype=dtype, device=device)


def load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Take the state, but keep what depends on this device: the state may be of another one's.

    Rates, too, are the saved ones in the form that they have here: tensors on a GPU, else numbers.
    """
    of_device = {"fused", "capturable"}
    before = [dict(group) for group in optimizer.param_groups]
    optimizer.load_state_dict(saved)
    for group, own in zip(optimizer.param_groups, before, strict=True):
        for name, value in own.items():
            if name in of_device or name not in group:  # a state of an older torch lacks some
                group[name] = value
        rate = float(group["lr"])
        group["lr"] = own["lr"].fill_(rate) if torch.is_tensor(own["lr"]) else rate


def set_rates(optimizers: Sequence[torch.optim.Optimizer], factor: float) -> None:
    """Every learning rate at this share of its peak."""
    for group in (g for optimizer in optimizers for g in optimizer.param_groups):
        rate = group["peak_lr"] * factor
        if torch.is_tensor(group["lr"]):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], limit: float) -> Tensor:
    """Scale all gradients so that their common norm is at most `limit`; the norm of each before.

    As `torch.nn.utils.clip_grad_norm_`, which does not tell which tensor is not finite.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack(torch._foreach_norm(grads))  # type: ignore[reportPrivateImportUsage]
    factor = (limit / (norms.norm() + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(grads, factor)  # type: ignore[reportPrivateImportUsage]
    return norms


def lr_factor(config: TrainConfig, fraction: float) -> float:
    """Share of the peak learning rate when `fraction` of the run is used: warm-up, then decay.

    The very first update, at fraction 0, changes no weight.

    >>> config = TrainConfig(warmup=0.1, decay="cosine")
    >>> [round(lr_factor(config, f), 3) for f in (0.05, 0.1, 0.55, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    >>> late = TrainConfig(warmup=0.1, decay="late")
    >>> [round(lr_factor(late, f), 3) for f in (0.05, 0.1, 0.8, 0.9, 1.0)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if fraction < config.warmup:
        return fraction / config.warmup
    if config.decay == "constant":
        return 1.0
    if config.decay == "late":
        return min(1.0, max(0.0, (1 - fraction) / LAST))
    done = (fraction - config.warmup) / max(1 - config.warmup, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def depth(config: TrainConfig, fraction: float, full: tuple[int, int]) -> tuple[int, int]:
    """(H_cycles, L_cycles) of a supervision step when `fraction` of the run is used.

    With the curriculum: (1, 2) to 30 %, (2, 4) to 60 %, then the model's own.

    >>> config = TrainConfig(curriculum=True)
    >>> [depth(config, f, (3, 6)) for f in (0.0, 0.3, 0.6)]
    [(1, 2), (2, 4), (3, 6)]
    """
    if not config.curriculum or fraction >= DEEPER[2]:
        return full
    h, l = (1, 2) if fraction < DEEPER[1] else (2, 4)
    return min(h, full[0]), min(l, full[1])


def work_done(
    config: TrainConfig,
    fraction: float,
    full: tuple[int, int],
    cost: Callable[[tuple[int, int]], float],
) -> float:
    """Share of a run's work when `fraction` of its steps is done; `cost` of a step at a depth.

    >>> config = TrainConfig(curriculum=True)
    >>> evaluations = lambda depth: depth[0] * (depth[1] + 1)  # 3, 10 and 21
    >>> [round(work_done(config, f, (3, 6), evaluations), 3) for f in (0.3, 0.6, 0.8, 1.0)]
    [0.073, 0.317, 0.659, 1.0]
    """
    costs = [cost(depth(config, begins, full)) for begins in DEEPER]
    ends = (*DEEPER[1:], 1.0)
    whole = sum(c * (end - begin) for c, begin, end in zip(costs, DEEPER, ends, strict=True))
    done = sum(
        c * max(0.0, min(fraction, end) - begin)
        for c, begin, end in zip(costs, DEEPER, ends, strict=True)
    )
    return done / whole


def supervision_steps(config: TrainConfig, fraction: float) -> int:
    """Supervision steps after which a slot is refilled, when `fraction` of the run is used.

    >>> config = TrainConfig(n_sup=16, n_sup_warm=1, n_sup_warm_until=0.25)
    >>> [supervision_steps(config, f) for f in (0.0, 0.24, 0.25)]
    [1, 1, 16]
    """
    is_warm = config.n_sup_warm > 0 and fraction < config.n_sup_warm_until
    return config.n_sup_warm if is_warm else config.n_sup


def easiest(config: TrainConfig, fraction: float, puzzles: int) -> int:
    """How many of the easiest puzzles half of the draws are of, when `fraction` of the run is used.

    >>> config = TrainConfig(easy_until=0.5)
    >>> [easiest(config, f, 1000) for f in (0.0, 0.25, 0.5, 1.0)]
    [100, 550, 1000, 1000]
    """
    done = min(1.0, fraction / config.easy_until)
    return min(puzzles, max(1, round(puzzles * (0.1 + 0.9 * done))))


class WeightAverage:
    """Exponential moving average of a model's parameters."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.live = list(model.parameters())
        self.mean = [p.detach().clone() for p in self.live]

    @torch.no_grad()
    def update(self) -> None:
        live = [p.detach() for p in self.live]
        torch._foreach_lerp_(self.mean, live, 1 - self.decay)  # type: ignore[reportPrivateImportUsage]

    def __enter__(self) -> "WeightAverage":
        """Put the average into the model while the block runs."""
        self._kept = [p.detach().clone() for p in self.live]
        self._put(self.mean)
        return self

    def __exit__(self, *_: object) -> None:
        self._put(self._kept)

    @torch.no_grad()
    def _put(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.live, values, strict=True):
            parameter.copy_(value)
