"""What can be recorded of a model: its states, the sites inside its evaluations, its read-outs."""

from trm_interp.core.clock import Tick
from trm_interp.core.models.config import ModelConfig
from trm_interp.core.models.registry import model_class
from trm_interp.recording.schema import RUN_SITES, Recursion, Site
from trm_interp.runtime.limits import shown

RESIDUAL = ("hook_resid_mid", "hook_resid_post")  # what `resid` stands for, of every block
Target = tuple[str, int | None, tuple[int, ...]]  # site, step, index inside the step's buffer


def recursion_of(config: ModelConfig) -> Recursion:
    """What readers of a store need to know of the architecture of these models."""
    model, states = model_class(config), config.schedule.states
    having = {
        name: tuple(of for of in states if name in model.site_names(config, of))
        for name in model.site_names(config)
    }
    return Recursion(
        config.schedule,
        model.State._fields,
        model.answer,
        model.latent,
        config.architecture,
        {name: of for name, of in having.items() if of != states},
    )


def recordable(config: ModelConfig, n_steps: int) -> dict[str, Site]:
    """Every array that a store of a run can hold besides its read-outs, by name.

    The states come first, in the order in which they are written.
    """
    recursion = recursion_of(config)
    sizes = {
        "step": n_steps,
        "h_cycle": recursion.schedule.h_cycles,
        "pos": config.positions,
        "d_model": config.d_model,
        "cell": config.cells,
        "vocab": config.vocab,
    }
    sites = {}
    for name in (*recursion.schedule.states, *RUN_SITES, *model_class(config).site_names(config)):
        dims = recursion.dims(name)
        if dims is None:
            raise ValueError(f"{config.architecture}: a site cannot be called {shown(name)!r}")
        shape = ((sizes | {"l_cycle": recursion.l_cycles(name)})[dim] for dim in dims)
        sites[name] = Site(name, dims, tuple(shape))
    return sites


def sites_of(config: ModelConfig, names: str, n_steps: int) -> list[Site]:
    """Store arrays for comma-separated site names. ValueError names those that exist.

    `states` stands for all states, `resid` for the residual stream of every block.

    >>> from trm_interp.core.models.registry import config_from
    >>> [site.name for site in sites_of(config_from({}), "z_H,blocks.1.hook_resid_post", 16)]
    ['z_H', 'blocks.1.hook_resid_post']
    """
    sites = recordable(config, n_steps)
    residual = [name for name in sites if name.endswith(RESIDUAL)]
    asked: list[str] = []
    for name in with_names_of_states(config, names).split(","):
        asked += residual if name == "resid" and residual else [name]
    if unknown := [name for name in asked if name not in sites]:
        raise ValueError(f"no site {shown(unknown[0])!r}; there are {_listed(sites)}")
    return [sites[name] for name in dict.fromkeys(asked)]


def with_names_of_states(config: ModelConfig, names: str) -> str:
    """Comma-separated site names in which the word `states` is replaced by the states' names.

    >>> from trm_interp.core.models.registry import config_from
    >>> with_names_of_states(config_from({}), "embed, states")
    'embed,z_L,z_H'
    """
    states = ",".join(config.schedule.states)
    parts = (part.strip() for part in names.split(","))
    return ",".join(states if part == "states" else part for part in parts)


def _listed(sites: dict[str, Site]) -> str:
    """The names for a message; of several blocks alike, those of the last one.

    >>> _listed(dict.fromkeys(["z", "hook_sum", "blocks.0.hook_resid_mid"]))
    'states, resid, z, hook_sum and, of every block, such as blocks.0.: hook_resid_mid'
    """
    in_blocks = [name for name in sites if name.startswith("blocks.")]
    groups = ["states", *(["resid"] if any(name.endswith(RESIDUAL) for name in sites) else [])]
    others = ", ".join([*groups, *(name for name in sites if name not in in_blocks)])
    if not in_blocks:
        return others
    last = ".".join(in_blocks[-1].split(".")[:2]) + "."
    of_block = ", ".join(name.removeprefix(last) for name in sites if name.startswith(last))
    return f"{others} and, of every block, such as {last}: {of_block}"


def hook_targets(config: ModelConfig, sites: dict[str, Site], n_steps: int) -> dict[str, Target]:
    """Hook point -> where its values belong, in the order in which the hook points fire."""
    recursion = recursion_of(config)
    targets: dict[str, Target] = {}

    def add(hook: str, name: str, step: int | None, place: tuple[int, ...] = ()) -> None:
        if name in sites and (step is None or step in sites[name].indices("step")):
            targets[hook] = (name, step, place)

    model = model_class(config)
    inside = {
        state: [name for name in model.site_names(config, state) if name in sites]
        for state in recursion.schedule.states
    }
    add("hook_embed", "embed", None)
    for tick in recursion.schedule.ticks(n_steps):
        for name in inside[tick.writes]:
            add(f"{tick.name}.{name}", name, tick.step, recursion.place(tick, name))
        add(tick.hook, tick.writes, tick.step, recursion.place(tick, tick.writes))
        if _ends_step(tick, recursion):
            add(f"step.{tick.step}.hook_logits", "logits", tick.step)
    return targets


def _ends_step(tick: Tick, recursion: Recursion) -> bool:
    return tick.ends_cycle and tick.h_cycle == recursion.schedule.h_cycles - 1
