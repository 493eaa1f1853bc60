"""The networks that others publish checkpoints of, and the names that their tensors have there.

Which one a file holds stands in its settings (`arch.name`) or shows in the names of its tensors.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from trm_interp.core.checkpoints.headers import CheckpointError


class Network(NamedTuple):
    """One of them."""

    title: str  # as its authors call it
    architecture: str  # its name in our registry
    modules: tuple[str, ...]  # of the public code, as `arch.name` states them
    levels: Mapping[str, str]  # stacks of blocks: public name -> ours
    starts: Mapping[str, str]  # start vectors: public name -> ours
    layers: tuple[str, ...]  # settings that state how many blocks a stack has
    fills_prefix: bool = True  # the prefix is as long as a puzzle's embedding; else it is stated


_H, _L = {"H_init": "z_H_init"}, {"L_init": "z_L_init"}
_NANO_STARTS = {"z_H_init": "z_H_init", "z_L_init": "z_L_init"}
NETWORKS = (
    Network(
        title="TRM",
        architecture="trm",
        modules=("trm",),
        levels={"L_level": "net", "lenet": "net"},
        starts={**_H, **_L, **_NANO_STARTS},
        layers=("L_layers",),
        fills_prefix=False,
    ),
    Network(
        title="HRM",
        architecture="hrm",
        modules=("hrm_act_v1", "hrm"),
        levels={"L_level": "net", "H_level": "net_H"},
        starts={**_H, **_L},
        layers=("L_layers", "H_layers"),
    ),
    Network(
        title="single-z TRM",
        architecture="trm-single-z",
        modules=("trm_singlez",),
        levels={"L_level": "net"},
        starts={"L_init": "z_init"},
        layers=("L_layers",),
        fills_prefix=False,
    ),
    Network(
        title="multi-scale TRM",
        architecture="trm-multi-z",
        modules=("trm_hier6",),
        levels={"L_level": "net"},
        starts={**_H, **{f"L{i}_init": f"z_L{i}_init" for i in range(1, 7)}},
        layers=("L_layers",),
        fills_prefix=False,
    ),
    Network(
        title="direct prediction",
        architecture="direct",
        modules=("transformers_baseline",),
        levels={"H_level": "net"},
        starts=_H,
        layers=("H_layers",),
    ),
)
WRAPPERS = re.compile(r"^(?:(?:_orig_mod|module|model|inner)\.)+")
_BLOCK = re.compile(r"(\w+)\.layers\.(\d+)\.(\w+\.\w+)\.weight")
_IN_BLOCK = {
    "mlp_t.gate_up_proj": "mixer.gate_up",
    "mlp_t.down_proj": "mixer.down",
    "self_attn.qkv_proj": "mixer.qkv",
    "self_attn.o_proj": "mixer.out",
    "mlp.gate_up_proj": "mlp.gate_up",
    "mlp.down_proj": "mlp.down",
}
_AROUND = {
    "embed_tokens.embedding_weight": "token_embedding",
    "input_embedding.embedding_weight": "token_embedding",  # nano-trm
    "embed_pos.embedding_weight": "position_embedding",
    "lm_head.weight": "lm_head.weight",
    "q_head.weight": "q_head.weight",
    "q_head.bias": "q_head.bias",
    "puzzle_emb.weights": "prefix_embedding",
}


def network_of(tensors: Iterable[str], name: Any, source: str) -> Network:
    """The network with tensors of these names, without their wrappers.

    `name` is what the settings in `source` state, such as
    "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1", a module and its class; None where
    they state none. CheckpointError for one that is not read here.
    """
    if name is not None:
        module = str(name).partition("@")[0].rpartition(".")[2]
        for network in NETWORKS:
            if module in network.modules:
                return network
        readable = ", ".join(network.modules[0] for network in NETWORKS)
        raise CheckpointError(
            f"{source}: arch.name is {str(name)[:80]!r}; of public networks "
            f"this version has {readable}"
        )
    there = list(tensors)
    levels = {match[1] for tensor in there if (match := _BLOCK.fullmatch(tensor))}
    starts = {tensor for tensor in there if tensor.endswith("_init")}
    fitting = [network for network in NETWORKS if _has(levels, network.levels)]
    if levels and not fitting:
        stacks = ", ".join(sorted(levels))
        choices = ", ".join(network.modules[0] for network in NETWORKS)
        raise CheckpointError(
            f"{source} states no arch.name, and the stacks of blocks {stacks[:80]} are those of no "
            f"architecture that this version reads: state one there, of {choices}"
        )
    whole = [network for network in fitting if _has(starts, network.starts)]
    return (whole or fitting or NETWORKS)[0]  # whose reader says what does not fit


def _has(there: set[str], wanted: Mapping[str, str]) -> bool:
    """Whether these are names of all that is wanted (public name -> ours) and of nothing else."""
    return {wanted.get(name, name) for name in there} == set(wanted.values())


def our_name(network: Network, public: str) -> str | None:
    """Our name of a tensor, given without its wrappers; None for one that it does not have.

    >>> our_name(NETWORKS[0], "L_level.layers.1.self_attn.o_proj.weight")
    'net.blocks.1.mixer.out.weight'
    """
    block = _BLOCK.fullmatch(public)
    if block and block[1] in network.levels and block[3] in _IN_BLOCK:
        return f"{network.levels[block[1]]}.blocks.{block[2]}.{_IN_BLOCK[block[3]]}.weight"
    return network.starts.get(public, _AROUND.get(public))


def layers_of(tensors: Iterable[str], network: Network, stated: list[int], path: Path) -> int:
    """How many blocks each stack has, from our names and from what settings state (0: nothing).

    CheckpointError where there are none, settings state others, or a stack lacks some.
    """
    pattern = re.compile(r"(\w+)\.blocks\.(\d+)\.")
    there = {(m[1], int(m[2])) for tensor in tensors if (m := pattern.match(tensor))}
    n_layers = 1 + max((i for _, i in there), default=-1)
    if not n_layers:
        raise CheckpointError(f"{path}: no blocks; is this a checkpoint of {network.title}?")
    for name, n in zip(network.layers, stated, strict=True):
        if n and n != n_layers:
            raise CheckpointError(
                f"{path}: {n_layers} layers in the file, but its settings state {name} {n}"
            )
    for level, ours in network.levels.items():
        lacking = next(i for i in count() if (ours, i) not in there)  # a file may claim any number
        if lacking < n_layers:
            raise CheckpointError(
                f"{path}: {level}.layers.{lacking} is missing, "
                f"of {n_layers} layers of this {network.title} checkpoint"
            )
    return n_layers
