"""Section `inference` of bench.py: where the time of an evaluation goes on a CPU, and what is ours.

`plain` is the same evaluation written without care: weights are cast every time, and norms and
gates write new tensors.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.core.models.layers import Network, SwiGLU, attend, from_the_left, weights_held
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.core.when_compiled import has_amx
from trm_interp.subjects.settings import shipped_checkpoint

Numbers = dict[str, float]
Medians = Callable[[dict[str, Callable[[], object]], int], Numbers]
KINDS = {  # of the profiler's operators, whose own time is counted
    "products": ("mm", "bmm", "addmm", "baddbmm", "mkldnn_linear"),
    "gates": ("silu", "silu_", "mul", "mul_"),
    "sums_and_norms": ("add", "add_", "pow", "mean", "sum", "div_", "rsqrt"),
    "copies_and_casts": ("copy_", "clone", "contiguous", "to", "_to_copy", "cat"),
}


def inference(repeats: int, medians: Medians) -> dict[str, Any]:
    """One evaluation of the published 5 M shape with and without prefix, and of what ships."""
    generator = torch.Generator().manual_seed(0)
    models = {
        "published_97_positions": (TRM(TRMConfig(), generator).eval(), 16),
        "published_81_positions": (TRM(TRMConfig(prefix=0), generator).eval(), 16),
        "sudoku9": (load_checkpoint(shipped_checkpoint("sudoku9")).model, 64),
        "sudoku6": (load_checkpoint(shipped_checkpoint("sudoku6")).model, 64),
    }
    return {"has_amx": has_amx(), "attention_gradient": _attention_gradient(repeats, medians)} | {
        f"{name}_{kind}": _evaluation(model, batch, dtype, repeats, medians)
        for name, (model, batch) in models.items()
        for kind, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
    }


@torch.no_grad()
def _evaluation(
    model: Any, batch: int, dtype: torch.dtype, repeats: int, medians: Medians
) -> Numbers:
    net, config = model.net, model.config
    numbers: Numbers = {}
    for n in (batch, 1):
        x = model.embed(torch.randint(1, config.vocab, (n, config.cells)), dtype)
        h = model.initial_state(x)[0].contiguous()
        if not torch.equal(_plain(net, h, x), net(h, x)):
            raise RuntimeError("the plain evaluation has other bits")
        often = 1 if n == batch else 2 * batch  # long enough to be timed
        runs: dict[str, Callable[[], object]] = {
            "plain": partial(_repeated, partial(_plain, net, h, x), often),
            "ours": partial(_repeated, partial(net, h, x), often),
        }
        with weights_held(net, dtype):  # as in a run, where they are cast before
            took = medians(runs, repeats)
            numbers[f"plain_over_ours_batch_{n}"] = took["plain"] / took["ours"]
            if n == batch:
                numbers |= _shares(net, h, x)
    return numbers


def _attention_gradient(repeats: int, medians: Medians) -> Numbers:
    """Forward and backward of bfloat16 attention: as PyTorch has it, over ours."""
    ratios: Numbers = {}
    for name, shape in {"maze10": (48, 4, 100, 16), "published": (16, 8, 97, 64)}.items():
        heads = [torch.randn(shape).bfloat16().requires_grad_() for _ in range(3)]
        kinds = {"plain": F.scaled_dot_product_attention, "ours": attend}
        took = medians({k: partial(_gradient, kind, heads) for k, kind in kinds.items()}, repeats)
        ratios[f"{name}_plain_over_ours"] = took["plain"] / took["ours"]
    return ratios


@torch.enable_grad()
def _gradient(attention: Callable[..., Tensor], heads: list[Tensor]) -> None:
    attention(*heads).sum().backward()


def _repeated(run: Callable[[], object], times: int) -> None:
    for _ in range(times):
        run()


def _shares(net: Network, h: Tensor, x: Tensor) -> Numbers:
    """Shares of an evaluation's time by kind of operator."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(3):
            net(h, x)
    own = {e.key.removeprefix("aten::"): e.self_cpu_time_total for e in profiled.key_averages()}
    total = sum(own.values())
    return {
        f"share_of_{kind}": sum(own.get(name, 0.0) for name in names) / total
        for kind, names in KINDS.items()
    }


def _plain(net: Network, h: Tensor, injection: Tensor) -> Tensor:
    h = h + injection
    for block in net.blocks:
        mixed = _swiglu(block.mixer, h)  # type: ignore[arg-type]
        h = _norm(h + mixed, block.mixer_norm_dim, block.eps)  # type: ignore[arg-type]
        h = _norm(h + _swiglu(block.mlp, h), -1, block.eps)  # type: ignore[arg-type]
    return h


def _swiglu(mlp: SwiGLU, x: Tensor) -> Tensor:
    product = F.linear if mlp.dim == -1 else lambda x, weight: from_the_left(weight, x)
    gate, value = product(x, mlp.gate_up.weight.to(x.dtype)).chunk(2, mlp.dim)
    return product(F.silu(gate) * value, mlp.down.weight.to(x.dtype))


def _norm(x: Tensor, dim: int, eps: float) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(dim, keepdim=True) + eps)).to(x.dtype)
