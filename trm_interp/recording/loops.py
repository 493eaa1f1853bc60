"""Which evaluations of a looped model are which: loop axes of hook points, and their names.

For models of others; our own have `core.clock`. Pure functions of names and configurations.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Axes = Mapping[str, int | None]  # loop axes from the outermost in, and how often each goes round
Loops = Mapping[str, Axes]  # the axes of all hook points below a name
NO_AXES: Axes = {}


def _hrm_text(config: Any) -> Loops:
    outer = {"h": config.H_cycles}
    inner = outer | {"l": config.L_cycles}
    return {"L_blocks": inner, "L_ln_final": inner, "H_blocks": outer, "H_ln_final": outer}


def _ouro(config: Any) -> Loops:
    axes = {"loop": config.total_ut_steps}
    return {"blocks": axes, "ln_final": axes}  # its norm ends every pass


def _huginn(config: Any) -> Loops:
    # as many loops as the forward is asked for; the norm comes before and after the coda
    return {"core_block": {"loop": None}, "ln_final": {"call": None}}


_LOOPS: dict[str, Callable[[Any], Loops]] = {  # by architecture and by model type
    "HrmTextForCausalLM": _hrm_text,
    "OuroForCausalLM": _ouro,
    "RavenForCausalLM": _huginn,
    "hrm_text": _hrm_text,
    "ouro": _ouro,
    "huginn_raven": _huginn,
}


def loops_of(config: Any) -> Loops:
    """Which points of a looped model are in which loops, from its configuration.

    `config` is that of a TransformerBridge or of transformers. ValueError where the architecture
    has no entry here: such a model needs `LoopedModel(model, loops=...)`.
    """
    single = [getattr(config, name, None) for name in ("architecture", "model_type")]
    names = [*single, *(getattr(config, "architectures", None) or [])]
    for name in names:
        if name in _LOOPS:
            return _LOOPS[name](config)
    named = next((repr(name) for name in names if name), "a model without an architecture name")
    architectures = ", ".join(name for name in _LOOPS if name.endswith("LM"))
    raise ValueError(
        f"the loops of {named} are not known, only those of {architectures}: pass them, "
        "for example loops={'blocks': {'loop': 4}} (`fires_per_forward` counts them)"
    )


def loop_index(axes: Axes, evaluation: int) -> dict[str, int]:
    """Which loop an evaluation of a forward is in, counted from 0 in the order of the run.

    ValueError if the loops have no such evaluation.

    >>> loop_index({"h": 2, "l": 3}, 4)
    {'h': 1, 'l': 1}
    """
    index, left = {}, evaluation
    for axis, size in reversed(list(axes.items())):
        left, index[axis] = (0, left) if size is None else divmod(left, size)
    if left:
        raise ValueError(f"the loops {dict(axes)} have no evaluation {evaluation}")
    return dict(reversed(list(index.items())))


def loop_names(points: Iterable[str], loops: Loops) -> list[str]:
    """Names with loop indices of hook points: all loops of a point in the order of a run.

    A loop whose number only the forward decides is spelt `*`.

    >>> loop_names(["embed", "blocks.0"], {"blocks": {"h": 2, "l": 2}})
    ['embed', 'h.0.l.0.blocks.0', 'h.0.l.1.blocks.0', 'h.1.l.0.blocks.0', 'h.1.l.1.blocks.0']
    >>> loop_names(["core_block.0"], {"core_block": {"loop": None}})
    ['loop.*.core_block.0']
    """
    names = []
    for point in points:
        prefixes = [""]
        for axis, size in axes_of(point, loops).items():
            numbers = ["*"] if size is None else range(size)
            prefixes = [f"{prefix}{axis}.{k}." for prefix in prefixes for k in numbers]
        names += [prefix + point for prefix in prefixes]
    return names


def axes_of(point: str, loops: Loops) -> Axes:
    """The loop axes of a hook point: of the longest name in `loops` that it is below; or none."""
    above = [name for name in loops if below(point, name)]
    return loops[max(above, key=len)] if above else NO_AXES


def below(point: str, name: str) -> bool:
    """Whether a hook point has this name, or lies in the part of the model that has it."""
    return point == name or point.startswith(f"{name}.")
