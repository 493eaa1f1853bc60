"""Listen to a model: a hook point for every network evaluation, and a recorder that streams them.

`HookedModel.of(model)` is a copy of any recursive model with transformer-lens hook points, one for
every moment of a run, so nothing overwrites anything: `run_with_cache(names_filter=...)` returns
all states of a run (336 of a TRM's), and `run_with_hooks` edits one state at one moment. Names hold
the `Tick`; those of a TRM are

    hook_embed                          x, the injected input
    step.3.h.1.l.2.hook_z_L             z_L after that evaluation
    step.3.h.1.hook_z_H                 z_H after that H-cycle, which its last evaluation writes
    step.3.h.1.l.2.blocks.0.hook_resid_pre | hook_mixer_out | hook_resid_mid | hook_mlp_out
                           | hook_resid_post          inside an evaluation that writes z_L
    step.3.h.1.blocks.0...                            inside the one that writes z_H
    step.3.hook_logits, step.3.hook_q_halt            the read-outs

and other architectures have their own states, sites and number of evaluations in the same grammar,
and step.3.hook_q_continue where they have such a read-out.
Attention models have hook_attn_out in the place of hook_mixer_out.

A name that the model does not have, a filter that matches nothing and a compiled model, where hooks
silently do not fire, are errors, whichever method the hook is added through.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch._dynamo.eval_frame import OptimizedModule
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from trm_interp.core.clock import Tick
from trm_interp.core.infer import identifiers_for, require_tokens
from trm_interp.core.models.base import Readout, RecursiveModel, States
from trm_interp.core.models.config import ModelConfig
from trm_interp.core.models.registry import DEFAULT, architecture, model_class
from trm_interp.recording.names import Names, select
from trm_interp.runtime.shapes import Int

READ = ("logits", "q_halt", "q_continue")  # of a `Readout`, what has a hook point


class _StepPoints(nn.Module):
    """Hook points of one supervision step, in a tree of modules that spells their names."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        model = model_class(config)

        def evaluation(state: str) -> nn.Module:
            points = model.evaluation_points(config, state, HookPoint)
            points.add_module(f"hook_{state}", HookPoint())
            return points

        def cycle(*earlier: str, last: str) -> nn.Module:
            points = evaluation(last)
            points.add_module("l", nn.ModuleList(evaluation(state) for state in earlier))
            return points

        *earlier, last = config.schedule.cycle
        self.h = nn.ModuleList(cycle(*earlier, last=last) for _ in range(config.schedule.h_cycles))
        self.hook_logits = HookPoint()
        self.hook_q_halt = HookPoint()
        if model.has_q_continue:
            self.hook_q_continue = HookPoint()

    def of(self, tick: Tick) -> nn.Module:
        """Those inside one evaluation, and of the state that it writes."""
        cycle = self.h[tick.h_cycle]
        return cycle if tick.ends_cycle else cast(nn.ModuleList, cycle.l)[tick.l_cycle]


class HookedModel(RecursiveModel, HookedRootModule):
    """A model whose runs of up to `n_sup` supervision steps can be listened to and edited.

    `HookedModel.of(model)` makes one of any architecture: its class derives from this one and from
    the model's own. Weights and state-dict names are those of the model. `forward(tokens)` is a
    whole run, as transformer-lens expects of a model: a `Readout` of all its supervision steps,
    logits [batch, step, cell, vocab] and q_halt [batch, step].

    `run_with_cache` computes no gradients unless asked; `run_with_hooks` and a plain call do
    outside `torch.no_grad()`, and then keep the activations of all evaluations of the run.
    """

    def __init__(
        self, config: ModelConfig, n_sup: int = 16, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(config, generator)
        self.n_sup = n_sup
        self.hook_embed = HookPoint()
        self.step = nn.ModuleList(_StepPoints(config) for _ in range(n_sup))
        self.setup()

    @classmethod
    def of(cls, model: RecursiveModel, n_sup: int = 16) -> "HookedModel":
        """A hooked copy of a model, on its device."""
        generator = torch.Generator()  # not the global random numbers
        hooked = hooked_class(type(model))(model.config, n_sup, generator)
        hooked.load_state_dict(model.state_dict())
        return hooked.to(model.device).eval()

    def embed(
        self,
        tokens: Tensor,
        dtype: torch.dtype = torch.float32,
        identifiers: Tensor | None = None,
    ) -> Tensor:
        return self.hook_embed(super().embed(tokens, dtype, identifiers))

    def evaluate(self, tick: Tick, h: Tensor, injection: Tensor) -> Tensor:
        points = self._points(tick.step).of(tick)
        written = self.network(tick)(h, injection, points)
        return points.get_submodule(f"hook_{tick.writes}")(written)

    def readout(self, answer: Tensor, step: int = 0) -> Readout:
        plain, points = super().readout(answer, step), self._points(step)
        heard = {name: getattr(points, f"hook_{name}", None) for name in READ}
        there = {name: point for name, point in heard.items() if point is not None}
        return plain._replace(**{name: at(getattr(plain, name)) for name, at in there.items()})

    # every method of transformer-lens that adds a hook goes through one of these four

    def hooks(  # type: ignore[override]
        self,
        fwd_hooks: Sequence[tuple[Names, Callable[..., Any]]] = (),
        bwd_hooks: Sequence[tuple[Names, Callable[..., Any]]] = (),
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        points = hook_points(self)
        for name, _ in (*fwd_hooks, *bwd_hooks):
            select(points, name)
        return super().hooks(list(fwd_hooks), list(bwd_hooks), *args, **kwargs)  # type: ignore

    def add_hook(self, name: Names, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        select(hook_points(self), name)
        super().add_hook(name, *args, **kwargs)  # type: ignore[arg-type]

    def get_caching_hooks(self, names_filter: Names = None, *args: Any, **kwargs: Any) -> Any:
        names = list(select(hook_points(self), names_filter))
        return super().get_caching_hooks(names, *args, **kwargs)

    def add_caching_hooks(self, names_filter: Names = None, *args: Any, **kwargs: Any) -> Any:
        names = list(select(hook_points(self), names_filter))
        return super().add_caching_hooks(names, *args, **kwargs)

    def run_with_cache(
        self,
        *args: Any,
        names_filter: Names = None,
        incl_bwd: bool = False,
        with_grad: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The result of a run and the activations that `names_filter` selects, by their names.

        Without gradients, so that memory holds what is cached and no more. `with_grad=True` keeps
        the graph of the result, which needs the activations of all evaluations; what is cached is
        detached even then. The other arguments are transformer-lens'.
        """
        if incl_bwd:
            raise TypeError(
                "incl_bwd needs a model that returns one loss: add bwd_hooks with `hooks`, and "
                "call backward on a loss of your own inside the block"
            )
        with torch.set_grad_enabled(with_grad):
            return super().run_with_cache(*args, names_filter=names_filter, **kwargs)

    def _points(self, step: int) -> _StepPoints:
        if not 0 <= step < self.n_sup:
            raise ValueError(f"no hook points for step {step}; this model has {self.n_sup} steps")
        return cast(_StepPoints, self.step[step])

    def forward(  # type: ignore[override]
        self,
        tokens: Int[Tensor, "batch cell"],
        state: States | None = None,
        dtype: torch.dtype = torch.float32,
        identifiers: Tensor | None = None,
    ) -> Readout:
        """A whole run from `state` (default: the start vectors), all H-cycles with gradient.

        `identifiers`: as in `RecursiveModel.embed`.
        """
        require_tokens(self.config, tokens)
        x = self.embed(tokens, dtype, identifiers_for(self.config, identifiers, len(tokens)))
        state = state or self.initial_state(x)
        steps = []
        for step in range(self.n_sup):
            state, _ = self.advance(state, x, step)
            steps.append(self.readout(self.answer_of(state), step))
        logits, q_halt, q_continue, further = zip(*steps, strict=True)
        return Readout(
            torch.stack(logits, 1),
            torch.stack(q_halt, 1),
            None if q_continue[0] is None else torch.stack(q_continue, 1),
            {name: torch.stack([of[name] for of in further], 1) for name in further[0]},
        )


@cache
def hooked_class(model: type[RecursiveModel]) -> type[HookedModel]:
    """The class of hooked models of an architecture."""
    if issubclass(model, HookedModel):
        return model
    return type(f"Hooked{model.__name__}", (HookedModel, model), {"__doc__": HookedModel.__doc__})


if TYPE_CHECKING:
    HookedTRM = HookedModel


def __getattr__(name: str) -> Any:
    if name == "HookedTRM":  # from before there were other architectures than the default one
        return hooked_class(architecture(DEFAULT))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def hook_names(model: RecursiveModel | ModelConfig, n_sup: int = 16) -> list[str]:
    """Every hook point of a run of a model, or of those of a configuration, in module order."""
    config = model.config if isinstance(model, RecursiveModel) else model
    with torch.device("meta"):
        points = _StepPoints(config)
    names = [name for name, m in points.named_modules() if isinstance(m, HookPoint)]
    return ["hook_embed", *(f"step.{step}.{name}" for step in range(n_sup) for name in names)]


def require_eager(model: nn.Module) -> None:
    """TypeError for a model that is compiled, or a part of it: hooks silently do not fire there."""
    left: list[nn.Module | None] = [model]  # thousands: `modules` would take longer than a run
    while left:
        module = left.pop()
        if module is None:
            continue
        if isinstance(module, OptimizedModule) or module._compiled_call_impl is not None:
            raise TypeError("hook the eager model: torch.compile skips hooks added later")
        left.extend(module._modules.values())


def hook_points(model: nn.Module) -> dict[str, HookPoint]:
    """All hook points by name. TypeError for a compiled model, where hooks silently do not fire."""
    require_eager(model)
    if isinstance(model, HookedModel):
        return model.hook_dict
    return {name: m for name, m in model.named_modules() if isinstance(m, HookPoint)}


@contextmanager
def recording(
    model: nn.Module, names: Sequence[str], sink: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Send each named activation to `sink` while the block runs; unhook also after an error.

    The tensor is the live one: a sink that keeps it must copy it. TypeError for a compiled model,
    where hooks silently do not fire; ValueError for a name that the model does not have.
    """
    handles = [
        point.register_forward_hook(partial(_emit, sink, name))
        for name, point in select(hook_points(model), names).items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _emit(
    sink: Callable[[str, Tensor], None], name: str, module: nn.Module, args: Any, output: Tensor
) -> None:
    sink(name, output)
