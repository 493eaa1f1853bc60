"""Listen to a TRM: a hook point for every network evaluation, and a recorder that streams them.

`HookedTRM` is a TRM with transformer-lens hook points, one for every moment of a run, so nothing
overwrites anything: `run_with_cache(names_filter=...)` returns 336 distinct states and
`run_with_hooks` edits one state at one moment. Names hold the `Tick`:

    hook_embed                          x, the injected input
    step.3.h.1.l.2.hook_z_L             z_L after that evaluation
    step.3.h.1.hook_z_H                 z_H after that H-cycle
    step.3.h.1.l.2.blocks.0.hook_resid_pre | hook_mixer_out | hook_resid_mid | hook_mlp_out
                           | hook_resid_post          inside an evaluation that writes z_L
    step.3.h.1.blocks.0...                            inside the one that writes z_H
    step.3.hook_logits, step.3.hook_q_halt            the read-outs

Attention models have hook_attn_out in the place of hook_mixer_out.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._dynamo.eval_frame import OptimizedModule
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from trm_interp.clock import Tick
from trm_interp.core.config import TRMConfig
from trm_interp.core.model import TRM, BlockSites, State
from trm_interp.shapes import Int


class _EvaluationPoints(nn.Module):
    """Hook points inside one evaluation, and of the state that it writes."""

    def __init__(self, config: TRMConfig, state: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            BlockSites(config.mixer_site, HookPoint) for _ in range(config.n_layers)
        )
        self.state = state
        self.add_module(state, HookPoint())


class _CyclePoints(_EvaluationPoints):
    def __init__(self, config: TRMConfig) -> None:
        super().__init__(config, "hook_z_H")
        self.l = nn.ModuleList(
            _EvaluationPoints(config, "hook_z_L") for _ in range(config.l_cycles)
        )


class _StepPoints(nn.Module):
    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.h = nn.ModuleList(_CyclePoints(config) for _ in range(config.h_cycles))
        self.hook_logits = HookPoint()
        self.hook_q_halt = HookPoint()


class HookedTRM(TRM, HookedRootModule):
    """A TRM whose runs of up to `n_sup` supervision steps can be listened to and edited.

    Weights and state-dict names are those of the TRM. `forward(tokens)` is a whole run, as
    transformer-lens expects of a model: logits [batch, step, cell, vocab] and q_halt
    [batch, step].
    """

    def __init__(
        self, config: TRMConfig, n_sup: int = 16, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(config, generator)
        self.n_sup = n_sup
        self.hook_embed = HookPoint()
        self.step = nn.ModuleList(_StepPoints(config) for _ in range(n_sup))
        self.setup()

    @classmethod
    def of(cls, model: TRM, n_sup: int = 16) -> "HookedTRM":
        """A hooked copy of a model, on its device."""
        hooked = cls(model.config, n_sup, torch.Generator())  # not the global random numbers
        hooked.load_state_dict(model.state_dict())
        return hooked.to(next(model.parameters()).device).eval()

    def embed(self, tokens: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.hook_embed(super().embed(tokens, dtype))

    def evaluate(self, tick: Tick, h: Tensor, injection: Tensor) -> Tensor:
        cycle = cast(_CyclePoints, self._points(tick.step).h[tick.h_cycle])
        here = cycle.l[tick.l_cycle] if tick.writes == "z_L" else cycle
        here = cast(_EvaluationPoints, here)
        written = self.net(h, injection, here.blocks)
        return here.get_submodule(here.state)(written)

    def readout(self, z_H: Tensor, step: int = 0) -> tuple[Tensor, Tensor]:
        logits, q_halt = super().readout(z_H, step)
        points = self._points(step)
        return points.hook_logits(logits), points.hook_q_halt(q_halt)

    def _points(self, step: int) -> _StepPoints:
        if not 0 <= step < self.n_sup:
            raise ValueError(f"no hook points for step {step}; this model has {self.n_sup} steps")
        return cast(_StepPoints, self.step[step])

    def forward(  # type: ignore[override]
        self,
        tokens: Int[Tensor, "batch cell"],
        state: State | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[Tensor, Tensor]:
        """A whole run from `state` (default: the start vectors), all H-cycles with gradient."""
        x = self.embed(tokens, dtype)
        state = state or self.initial_state(x)
        read = []
        for step in range(self.n_sup):
            state, _ = self.advance(state, x, step)
            read.append(self.readout(state.z_H, step))
        logits, q_halt = zip(*read, strict=True)
        return torch.stack(logits, dim=1), torch.stack(q_halt, dim=1)


def hook_names(config: TRMConfig, n_sup: int = 16) -> list[str]:
    """Every hook point of a run, in module order."""
    with torch.device("meta"):
        points = nn.ModuleDict({"step": nn.ModuleList(_StepPoints(config) for _ in range(n_sup))})
    return ["hook_embed", *(n for n, m in points.named_modules() if isinstance(m, HookPoint))]


@contextmanager
def recording(
    model: nn.Module, names: Sequence[str], sink: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Send each named activation to `sink` while the block runs; unhook also after an error.

    The tensor is the live one: a sink that keeps it must copy it. TypeError for a compiled model,
    where hooks silently do not fire; ValueError for a name that the model does not have.
    """
    for module in model.modules():
        if isinstance(module, OptimizedModule) or module._compiled_call_impl is not None:
            raise TypeError("record the eager model: torch.compile skips hooks added later")
    points = {name: m for name, m in model.named_modules() if isinstance(m, HookPoint)}
    if unknown := sorted(set(names) - points.keys()):
        close = ", ".join(list(points)[:3])
        raise ValueError(f"no hook point {unknown[0]!r}; there are {len(points)}: {close}, ...")
    handles = [points[name].register_forward_hook(partial(_emit, sink, name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _emit(
    sink: Callable[[str, Tensor], None], name: str, module: nn.Module, args: Any, output: Tensor
) -> None:
    sink(name, output)
