"""Hook names with a loop index, for looped language models that transformer-lens loads.

A looped model evaluates the same blocks several times in one forward. The adapters of
transformer-lens leave the loop inside the model: each hook point fires once an evaluation, a cache
keeps the last one, and a hook edits all of them. `LoopedModel(bridge)` tells them apart, in the
grammar of our own models:

    h.1.l.2.L_blocks.0.hook_out    HRM-Text: third L evaluation of the second H-cycle
    h.1.H_blocks.0.hook_out        the H evaluation that ends it
    loop.2.blocks.3.hook_out       Ouro: third pass through the stack
    loop.7.core_block.0.hook_out   Huginn: eighth recurrence; as many as the forward is asked for
    embed.hook_out                 a point outside the loops keeps its name

All indices count from 0. Every spelling that transformer-lens has for a point can follow the index
(`loop.2.blocks.3.hook_resid_post`).

- Loops are counted within one forward of the model, and start at 0 in each, also after a forward
  that raised an error. In generation every new token is a forward of its own, with or without a KV
  cache: an edit at one loop applies to that loop of every token, and what is kept by name is the
  last token's.
- A hook function may itself run the model: the inner forward has its own count, at `hook.depth` 1,
  and does not enter the cache of the outer one.
- A hook whose name never fires is an error; so is a point that fires more often than its loops.
- Parts of the model that are called outside a forward of it, and what gradient checkpointing
  evaluates again in the backward pass, belong to no loop: hooks do not see them.
- HRM-Text itself runs the first L evaluations of an H-cycle without gradient (`L_bp_cycles`).

HRM-Text is tested through the classes of transformers and transformer-lens. The code of Ouro and
Huginn is remote code, which comes with their weights: it was not run. Their adapters were, around
small stand-ins with the same module tree and the same loop (`tests/looped_standins.py`).

In nnsight the same activation is the k-th call of a module, k = h * L_cycles + l for an L block and
k = h for an H block (tested equal with nnsight 0.8.1):

    with model.trace(tokens) as tracer:  # model = NNsight(hrm_text)
        for _ in tracer.iter[1 * 3 + 2]:  # h.1.l.2 where L_cycles is 3
            state = model.model.L_module.layers[0].output.save()
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint, LensHandle

from trm_interp.recording.hooks import hook_points, require_eager
from trm_interp.recording.loops import Axes, Loops, axes_of, below, loop_index, loop_names, loops_of
from trm_interp.recording.names import Names, select

HookFunction = Callable[..., Any]  # (activation, hook: LoopPoint) -> a new activation, or None


@dataclass(frozen=True)
class LoopPoint:
    """One hook point in one loop: what a hook function receives as `hook`."""

    name: str  # with the loop index
    index: Mapping[str, int]  # of each loop axis, from 0
    point: HookPoint
    depth: int = 0  # 1 in a forward that a hook runs inside the one that is listened to

    @property
    def ctx(self) -> dict[Any, Any]:
        """The dictionary of the hook point, shared by its loops."""
        return self.point.ctx


class LoopedModel:
    """A model of transformer-lens whose hook points are named by loop.

    `model` is a `TransformerBridge`, or any module with hook points that fire several times in one
    forward; `loops` says which of them do and how often, as `loops_of(model.cfg)` does by default.
    Only the outermost axis may be None, a number of loops that the forward decides.

    The model is not changed: hooks are there while a method or a block runs, also after an error.
    TypeError for a compiled model, where hooks silently do not fire.
    """

    def __init__(self, model: nn.Module, loops: Loops | None = None) -> None:
        self.model: Any = model
        self.loops = loops_of(getattr(model, "cfg", None)) if loops is None else loops
        points = self.points()
        for name, axes in self.loops.items():
            if not any(below(point, name) for point in points):
                raise ValueError(f"loops: the model has no hook point below {name!r}")
            if any(size is not None and size < 1 for size in axes.values()):
                raise ValueError(f"loops: sizes must be at least 1, got {dict(axes)} for {name!r}")
            if None in list(axes.values())[1:]:
                raise ValueError(f"loops: only the outermost axis of {name!r} may be None")

    def points(self) -> dict[str, HookPoint]:
        """The hook points by the names of transformer-lens, without loops."""
        points = getattr(self.model, "hook_dict", None)
        if points is None:
            return hook_points(self.model)
        require_eager(self.model)
        require_eager(self._root())
        return dict(points)

    def hook_names(self) -> list[str]:
        """All names, as `loop_names` spells them; some points fire only in certain settings."""
        return loop_names(self.points(), self.loops)

    def fired_names(self, *args: Any, **kwargs: Any) -> list[str]:
        """Names that fire in one forward with these arguments, in the order of the run."""
        names: list[str] = []
        with torch.no_grad(), self.recording(None, lambda name, value: names.append(name)):
            self.model(*args, **kwargs)
        return names

    @contextmanager
    def recording(self, names: Names, sink: Callable[[str, Any], None]) -> Iterator[None]:
        """Send each activation that `names` selects to `sink`, by its name, while the block runs.

        The tensor is the live one: a sink that keeps it must copy it. `names` is one name, several,
        a function that accepts names, or None for all. ValueError as for `hooks`.
        """
        with self.hooks([(names, partial(_send, sink))]):
            yield

    def run_with_cache(
        self, *args: Any, names_filter: Names = None, with_grad: bool = False, **kwargs: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The result of one forward and the activations that `names_filter` selects, by name.

        The activations are detached. Without gradients unless `with_grad`; the other arguments are
        the model's. ValueError as for `hooks`.
        """
        kept: dict[str, Any] = {}
        keep = [(names_filter, partial(_keep, kept))]
        with torch.set_grad_enabled(with_grad), self.hooks(keep):
            result = self.model(*args, **kwargs)
        return result, kept

    def run_with_hooks(
        self, *args: Any, fwd_hooks: Sequence[tuple[Names, HookFunction]], **kwargs: Any
    ) -> Any:
        """The result of one forward with these hooks, as for `hooks`."""
        with self.hooks(fwd_hooks):
            return self.model(*args, **kwargs)

    @contextmanager
    def hooks(self, fwd_hooks: Sequence[tuple[Names, HookFunction]]) -> Iterator["LoopedModel"]:
        """Call a function at certain points in certain loops while the block runs.

        `fwd_hooks`: (names, function) pairs, names as for `recording`. The function receives the
        activation and `hook`, a `LoopPoint`; what it returns, unless None, takes the place of the
        activation.

        ValueError at once for a name that the loops cannot have, and at the end of the block for a
        name that did not fire in it, or a filter that accepted nothing.
        """
        points = self.points()
        count = _Count()
        taps = [self._taps(points, names, function, count) for names, function in fwd_hooks]
        handles: list[tuple[HookPoint, LensHandle]] = []
        root = self._root()
        around = [
            root.register_forward_pre_hook(count.begin),
            root.register_forward_hook(count.end, always_call=True),
        ]
        try:
            for tap in chain.from_iterable(taps):
                tap.point.add_hook(tap)
                handles.append((tap.point, tap.point.fwd_hooks[-1]))
            yield self
        finally:
            for removable in around:
                removable.remove()
            for point, handle in handles:
                handle.hook.remove()
                point.fwd_hooks = [other for other in point.fwd_hooks if other is not handle]
        for (names, _), of_hook in zip(fwd_hooks, taps, strict=True):
            _require_fired(names, of_hook)

    def _root(self) -> nn.Module:
        """The module whose call is one forward: also generation and `forward` end up in it."""
        return self.model.__dict__.get("original_model", self.model)

    def _taps(
        self, points: dict[str, HookPoint], names: Names, function: HookFunction, count: "_Count"
    ) -> list["_Tap"]:
        """Those that a hook needs: at every point of which it may want a loop."""
        wanted = self._wanted(points, names)
        return [
            _Tap(name, points[name], axes_of(name, self.loops), accepts, function, count)
            for name, accepts in wanted.items()
        ]

    def _wanted(
        self, points: dict[str, HookPoint], names: Names
    ) -> dict[str, Callable[[str], bool]]:
        """By point, which of its names are asked for. ValueError for a name that cannot be."""
        if names is None:
            return dict.fromkeys(points, lambda name: True)
        origin = {name: point for point in points for name in loop_names([point], self.loops)}
        by_name = {name: points[point] for name, point in origin.items()}
        if callable(names):
            # whether it wants a loop that the forward decides is seen when that fires
            some = select(by_name, lambda name: "*" in name or names(name))
            return {origin[name]: names for name in some}
        wanted: dict[str, set[str]] = {}
        for name in [names] if isinstance(names, str) else names:
            spelt, point = _with_star(name, origin), self._without_loops(name)
            if spelt not in origin and point in points:
                loops = loop_names([point], self.loops)
                raise ValueError(f"no hook point {name!r}; {point} fires at {_listed(loops)}")
            select(by_name, spelt)  # an error that lists the nearest
            wanted.setdefault(origin[spelt], set()).add(name)
        return {point: of.__contains__ for point, of in wanted.items()}

    def _without_loops(self, name: str) -> str:
        """A name without the loop indices that it begins with, be they right or wrong."""
        axes = {axis for of_point in self.loops.values() for axis in of_point}
        while (parts := name.split(".", 2))[0] in axes and len(parts) > 2 and parts[1].isdecimal():
            name = parts[2]
        return name


def _with_star(name: str, names: Mapping[str, str]) -> str:
    """How `names` spells a name: its first number is `*` where only the forward decides it."""
    axis, number, *rest = name.split(".", 2) if name.count(".") > 1 else (name, "", "")
    star = ".".join([axis, "*", *rest])
    return star if number.isdecimal() and star in names else name


def _send(sink: Callable[[str, Any], None], value: Any, hook: LoopPoint) -> None:
    sink(hook.name, value)


def _keep(kept: dict[str, Any], value: Any, hook: LoopPoint) -> None:
    if hook.depth:
        return
    if isinstance(value, tuple):
        value = tuple(one.detach() if isinstance(one, Tensor) else one for one in value)
    kept[hook.name] = value.detach() if isinstance(value, Tensor) else value


def fires_per_forward(model: nn.Module, *args: Any, **kwargs: Any) -> dict[str, int]:
    """How often each hook point of any model fires in one forward with these arguments.

    By the names of transformer-lens, in the order of the first time; points that do not fire are
    left out. What to pass as `loops` for a model that `loops_of` does not know.
    """
    fires: Counter[str] = Counter()
    looped = LoopedModel(model, loops={})
    counted = {name: {"fire": None} for name in looped.points()}
    with torch.no_grad(), LoopedModel(model, counted).hooks([(None, partial(_tally, fires))]):
        model(*args, **kwargs)
    return dict(fires)


def _tally(fires: Counter[str], value: Any, hook: LoopPoint) -> None:
    fires[hook.name.split(".", 2)[2]] += 1


class _Count:
    """How often each tap has fired in the forwards that are running, the innermost one last.

    Ctrl-C leaves its forward here until the block ends, as torch calls no hook then: loops of the
    next one are right all the same, and its depth is one more.
    """

    def __init__(self) -> None:
        self.forwards: list[Counter[_Tap]] = []

    def begin(self, module: nn.Module, args: Any) -> None:
        self.forwards.append(Counter())

    def end(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.forwards:  # empty if the block was entered while a forward was running
            self.forwards.pop()


@dataclass(eq=False, repr=False)  # transformer-lens takes the repr of every hook
class _Tap:
    """A hook function at one point, called in the loops that `accepts` accepts by name."""

    name: str
    point: HookPoint
    axes: Axes
    accepts: Callable[[str], bool]
    function: HookFunction
    count: _Count
    fired: dict[str, bool] = field(default_factory=dict)  # by name: was it accepted?

    def __call__(self, tensor: Any, *, hook: HookPoint) -> Any:
        if not self.count.forwards:
            return None
        counter = self.count.forwards[-1]
        evaluation, counter[self] = counter[self], counter[self] + 1
        try:
            index = loop_index(self.axes, evaluation)
        except ValueError:
            raise ValueError(
                f"{self.name} fired {evaluation + 1} times in one forward, more often than its "
                f"loops {dict(self.axes)}: pass `loops` that say how often"
            ) from None
        name = "".join(f"{axis}.{k}." for axis, k in index.items()) + self.name
        self.fired[name] = self.accepts(name)
        if not self.fired[name]:
            return None
        depth = len(self.count.forwards) - 1
        return self.function(tensor, hook=LoopPoint(name, index, self.point, depth))


def _require_fired(names: Names, taps: Sequence[_Tap]) -> None:
    """ValueError unless every name that was asked for fired, or at least one that was accepted."""
    fired = [name for tap in taps for name in tap.fired]
    accepted = {name for tap in taps for name, was in tap.fired.items() if was}
    if names is None or callable(names):
        if not accepted:
            what = "nothing" if names is None else "nothing that the filter accepts"
            raise ValueError(f"{what} fired; what did: {_listed(fired)}")
        return
    for name in [names] if isinstance(names, str) else names:
        if name not in accepted:
            near = [at for tap in taps for at in tap.fired if name.endswith(f".{tap.name}")]
            raise ValueError(f"{name!r} did not fire; what did: {_listed(near or fired)}")


def _listed(names: Sequence[str]) -> str:
    more = [f"... ({len(names)} in all)"] if len(names) > 12 else []
    return ", ".join([*names[:12], *more]) or "nothing (did the model run?)"
