"""Files that others publish: `step_N` of the public TRM and HRM, and nano-trm's Lightning file.

Which weights they hold; `public_networks` has the names of tensors, `public_config` what settings
say.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from trm_interp.core.checkpoints.headers import CheckpointError, check_tensor, tensor_shapes
from trm_interp.core.checkpoints.pickles import load_pickle, plain_settings
from trm_interp.core.checkpoints.public_config import (
    ALL_CONFIG,
    Fits,
    Settings,
    architecture_settings,
    config_of,
    data_names,
)
from trm_interp.core.checkpoints.public_networks import WRAPPERS, Network, network_of, our_name
from trm_interp.core.checkpoints.tables import load_tensors, some_rows
from trm_interp.core.models.config import ModelConfig
from trm_interp.runtime.errors import first_line

_TRAINING_ONLY = ("puzzle_emb.local_", "rotary_emb.", "pos_embedding.")
_NANO = ("lenet.", "input_embedding.", "z_H_init", "z_L_init")
_WEIGHTS = ("state_dict", "model_state_dict", "model")  # dictionaries that hold weights
_AVERAGES = ("ema", "ema_state_dict")  # and those of their moving averages


class Public(NamedTuple):
    """What a file of others comes to."""

    format: str  # "TRM", "HRM" or another title of a public network, or "nano-trm"
    config: ModelConfig
    tensors: dict[str, Tensor]  # under our names
    weights: str  # which of the file's weights these are
    card: dict[str, Any]


def read_public(
    path: Path,
    cells: int | None = None,
    averages: bool = True,
    fits: Fits | None = None,
    identifiers: tuple[int, ...] | None = None,
) -> Public:
    """Read one file. `cells` and `fits`, as in `load_checkpoint`, count where it does not tell.

    `identifiers`: only these rows of its puzzle embeddings.
    """
    kept = identifiers  # what remains to be selected
    if path.suffix == ".safetensors":
        tensor_shapes(path)  # a header that is whole
        raw: Any = load_tensors(path, "puzzle_emb.weights", identifiers)
        kept = None if any(name.endswith("puzzle_emb.weights") for name in raw) else kept
    else:
        raw = load_pickle(path)
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: holds a {type(raw).__name__}, not weights")
    state, weights = _weights_of(raw, path, averages)
    bare = [WRAPPERS.sub("", str(name)) for name in state]
    if "hyper_parameters" in raw:
        values, source = plain_settings(raw["hyper_parameters"]), f"{path}: hyper_parameters"
        name = None
    else:
        values, source = architecture_settings(path), str(path.parent / ALL_CONFIG)
        name = values.get("name")
    network = network_of(bare, name, source)
    origin = "nano-trm" if any(name.startswith(_NANO) for name in bare) else network.title
    tensors = _renamed(state, network, path)
    if kept is not None:
        tensors["prefix_embedding"] = some_rows(tensors.get("prefix_embedding"), kept, path)
    elif identifiers is None and len(tensors.get("prefix_embedding", ())) == 1:
        tensors["prefix_embedding"] = tensors["prefix_embedding"][0]
    try:
        config = config_of(network, tensors, Settings(values, source), path, cells, fits)
        if origin == "nano-trm" and has_idle_eos(config, fits):
            tensors, config = _without_eos(tensors, config)
            values = {**values, "dropped": "token 1 (EOS) of the vocabulary"}
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{path}: {first_line(error)}") from error
    card: dict[str, Any] = {"settings": values, "weights": weights}
    if "hyper_parameters" not in raw and (data := data_names(path)):
        card["data_paths"] = data
    return Public(origin, config, tensors, weights, card)


def side_of(cells: int) -> int:
    """Side of a square grid; -1 where there is none.

    >>> side_of(81), side_of(80)
    (9, -1)
    """
    side = math.isqrt(cells)
    return side if side * side == cells else -1


def has_idle_eos(config: ModelConfig, fits: Fits | None = None) -> bool:
    """Whether a file of nano-trm's has an EOS token that none of its puzzles uses.

    Its vocabulary is PAD, EOS, blank, and as many symbols as a puzzle's side is long; EOS marks
    where a puzzle ends in a larger grid. A vocabulary of the side of the whole grid and three says
    that puzzles fill it. Not so where a task has just this vocabulary.
    """
    fills_the_grid = config.vocab == side_of(config.cells) + 3
    return fills_the_grid and not (fits is not None and fits(config.cells, config.vocab))


# tensors


def _weights_of(raw: dict[Any, Any], path: Path, averages: bool) -> tuple[dict[Any, Any], str]:
    """The file's weights, or their moving averages where it has some, and which these are."""
    key = next((k for k in _WEIGHTS if k in raw), None)
    state = raw if key is None else raw[key]
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: its {key} is a {type(state).__name__}, not weights")
    where, shadow = _averages_of(raw)
    if key is None and not shadow:
        if raw and not any(isinstance(entry, Tensor) for entry in raw.values()):
            keys = ", ".join(map(repr, list(raw)[:4]))
            raise CheckpointError(f"{path}: no weights under its keys {keys}"[:250])
        return raw, "as saved"
    if not shadow or (not averages and key is not None):
        note = f" without the averages in {where}" if shadow else ", no averages in the file"
        return state, f"{key}{note}"
    plain = {} if key is None else {WRAPPERS.sub("", str(k)): v for k, v in state.items()}
    # what is not trained (the start vectors) has no average
    return plain | {WRAPPERS.sub("", str(k)): v for k, v in shadow.items()}, f"averages ({where})"


def _averages_of(raw: dict[Any, Any]) -> tuple[str, dict[Any, Any]]:
    """Where moving averages lie, and they; nothing where there are none."""
    callbacks = raw.get("callbacks")
    for name, state in callbacks.items() if isinstance(callbacks, dict) else ():
        if str(name).startswith("EMACallback") and isinstance(state, dict):
            shadow = state.get("shadow")
            if isinstance(shadow, dict) and shadow:
                return "callbacks.EMACallback.shadow", shadow
    for key in _AVERAGES:
        inner, where = raw.get(key), key
        if isinstance(inner, dict) and isinstance(inner.get("shadow"), dict):
            inner, where = inner["shadow"], f"{key}.shadow"
        if isinstance(inner, dict) and inner:
            return where, inner
    return "", {}


def _renamed(raw: dict[Any, Any], network: Network, path: Path) -> dict[str, Tensor]:
    """The tensors under our names."""
    ours: dict[str, Tensor] = {}
    for name, tensor in raw.items():
        short = WRAPPERS.sub("", str(name))
        if short.startswith(_TRAINING_ONLY):
            continue
        target = our_name(network, short)
        if target is None:
            raise CheckpointError(
                f"{path}: unknown tensor {str(name)[:120]}; "
                f"is this a checkpoint of {network.title}?"
            )
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: {name} is a {type(tensor).__name__}, not a tensor")
        if target in ours:
            raise CheckpointError(f"{path}: {target} comes twice, the second time as {name}")
        check_tensor(tensor, str(name), path)
        ours[target] = tensor
    for name in ("lm_head.weight", "q_head.weight"):
        if name not in ours:
            raise CheckpointError(f"{path}: no {name}; is this a checkpoint of {network.title}?")
    return ours


def _without_eos(
    tensors: dict[str, Tensor], config: ModelConfig
) -> tuple[dict[str, Tensor], ModelConfig]:
    """Token 1 leaves embedding and read-out, so that the others are numbered as ours: no EOS."""
    kept = [0, *range(2, config.vocab)]
    changed = {name: tensors[name][kept] for name in ("token_embedding", "lm_head.weight")}
    return tensors | changed, replace(config, vocab=config.vocab - 1)  # type: ignore[type-var]
