"""The configuration of a checkpoint that others publish: what shapes and settings say of it.

Settings are in the file, in the `all_config.yaml` of its folder or in the `dataset.json` of its
data.
What none of them says is asked for, or is the published value where there is only one.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from trm_interp.core.checkpoints.headers import MAX_YAML, CheckpointError, read_json, read_text
from trm_interp.core.checkpoints.pickles import plain_settings
from trm_interp.core.checkpoints.public_networks import Network, layers_of
from trm_interp.core.models.config import ModelConfig
from trm_interp.core.models.registry import config_class
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.runtime.errors import first_line

PREFIXES = (1, 16)  # positions before the cells in published models with a puzzle embedding
FEWEST_CELLS = 4  # of a grid
MAX_BRACKETS = 200  # in an all_config.yaml; a published one has two
ALL_CONFIG, DATASET = "all_config.yaml", "dataset.json"
ASK = "give --puzzles or --cells"

Fits: TypeAlias = Callable[[int, int], bool]
"""Whether some task has so many cells of so many tokens."""


class Settings(NamedTuple):
    """Settings of a file of others, checked as they are read."""

    values: Mapping[str, Any]
    source: str

    def number(self, name: str, default: float) -> float:
        """CheckpointError for what is no finite number; YAML reads 1e-5 as text."""
        value = self.values.get(name)
        if value is None:
            return default
        try:
            number = float("nan" if isinstance(value, bool) else value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise CheckpointError(f"{self.source}: {name} is {repr(value)[:40]}, not a number")
        return number

    def whole(self, name: str, default: int) -> int:
        number = self.number(name, default)
        if number != int(number) or number < 0:
            raise CheckpointError(f"{self.source}: {name} is {number:g}, not a count")
        return int(number)


def config_beside(path: Path) -> dict[str, Any]:
    """All of the all_config.yaml in a public checkpoint's folder; empty where there is none."""
    file = path.parent / ALL_CONFIG
    if not file.exists():
        return {}
    try:
        import yaml
    except ImportError as error:
        raise CheckpointError(f"{file}: reading it needs 'pip install pyyaml'") from error
    text = read_text(file, MAX_YAML)
    # merged mappings can grow without end, deep brackets take the parser minutes; no program
    # that writes settings makes either
    if "<<" in text or text.count("[") + text.count("{") > MAX_BRACKETS:
        raise CheckpointError(
            f"{file}: not a model configuration (merge keys or too many brackets)"
        )
    try:
        settings = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: not a model configuration ({first_line(error)})") from error
    if not isinstance(settings, dict):
        kind = type(settings).__name__
        raise CheckpointError(f"{file}: not a model configuration (holds a {kind}, not settings)")
    return settings


def architecture_settings(path: Path) -> dict[str, Any]:
    """`arch` of that file."""
    arch = config_beside(path).get("arch", {})
    if not isinstance(arch, dict):
        file = path.parent / ALL_CONFIG
        raise CheckpointError(f"{file}: arch holds a {type(arch).__name__}, not settings")
    return plain_settings(arch)


def data_names(path: Path) -> list[str]:
    """Folders of training data that the all_config.yaml of a public checkpoint names."""
    settings = config_beside(path)
    paths = settings.get("data_paths", settings.get("data_path", []))
    names = paths[:8] if isinstance(paths, list) else [paths]
    return [name for name in names if isinstance(name, str) and name]


def _cells_of_dataset(path: Path, vocab: int) -> int | None:
    """seq_len of `dataset.json`, in the checkpoint's folder or in one that its settings name."""
    folders = [path.parent]
    for data in data_names(path):
        folders += [root / data for root in (Path(), path.parent)]
    for folder in folders:
        for file in (folder / DATASET, folder / "train" / DATASET, folder / "test" / DATASET):
            if not file.exists():
                continue
            facts = Settings(read_json(file), str(file))
            if (theirs := facts.whole("vocab_size", vocab)) != vocab:
                raise CheckpointError(
                    f"{file}: vocab_size {theirs}, but {path} has {vocab}: another data set"
                )
            if cells := facts.whole("seq_len", 0):
                return cells
    return None


def config_of(
    network: Network,
    tensors: dict[str, Tensor],
    settings: Settings,
    path: Path,
    cells: int | None,
    fits: Fits | None = None,
) -> ModelConfig:
    """The configuration: shapes where they tell, `settings` for the rest, else published values.

    Shapes do not tell the cycles nor the number of heads (d_model / 64); token mixing and learned
    positions tell the number of positions, rotary attention nothing of it.
    """
    vocab, d_model = tensors["lm_head.weight"].shape
    stated = [settings.whole(name, 0) for name in network.layers]
    n_layers = layers_of(tensors, network, stated, path)
    mlp_down = next((tensors[n] for n in sorted(tensors) if n.endswith(".mlp.down.weight")), None)
    mixer_down = tensors.get("net.blocks.0.mixer.down.weight")
    learned = tensors.get("position_embedding")
    positions = next((len(of) for of in (mixer_down, learned) if of is not None), None)
    _require_supported(settings, mixer_down is None, learned is not None, path)
    if mlp_down is None:
        raise CheckpointError(f"{path}: no blocks; is this a checkpoint of {network.title}?")
    table = tensors.get("prefix_embedding")
    filled = None
    if network.fills_prefix:
        filled = 0 if table is None else -(-table.shape[-1] // d_model)
    cells, prefix = _cells_and_prefix(
        positions, filled, vocab, table is not None, settings, path, cells, fits
    )
    widths = {d_model: mlp_down.shape[1]}
    if mixer_down is not None:
        widths[len(mixer_down)] = mixer_down.shape[1]
    expansion, multiple = _swiglu_settings(widths, settings, path)
    values = {
        "cells": cells,
        "vocab": vocab,
        "d_model": d_model,
        "n_layers": n_layers,
        "mixer": "attention" if mixer_down is None else "mlp",
        "n_heads": settings.whole("num_heads", 0) or max(1, d_model // 64),
        "prefix": prefix,
        "puzzle_dims": _partly_filled(table, prefix * d_model),
        "n_identifiers": 0 if table is None or table.ndim == 1 else len(table),
        "position_encoding": "rotary" if learned is None else "learned",
        "expansion": expansion,
        "multiple": multiple,
        "q_outputs": tensors["q_head.weight"].shape[0],
        "norm_eps": settings.number("rms_norm_eps", 1e-5),
        "rope_base": settings.number("rope_theta", 10_000.0),
    }
    return _made(network, values, settings, path)


def _made(network: Network, values: dict[str, Any], settings: Settings, path: Path) -> ModelConfig:
    """The configuration of these values, as far as its kind has them, and of the cycles."""
    kind: Any = config_class(network.architecture)
    own = {f.name for f in fields(kind)}
    for name, stated in (("h_cycles", "H_cycles"), ("l_cycles", "L_cycles")):
        fixed = getattr(kind, name)
        values[name] = settings.whole(stated, fixed)
        if name not in own and values[name] != fixed:
            raise CheckpointError(f"{path}: {name} {values[name]}, but {network.title} has {fixed}")
    return kind(**{name: value for name, value in values.items() if name in own})


def _partly_filled(table: Tensor | None, size: int) -> int:
    """Numbers in a puzzle's embedding where they do not fill the prefix of this size; else 0."""
    return 0 if table is None or table.shape[-1] == size else table.shape[-1]


def _require_supported(settings: Settings, attention: bool, has_learned: bool, path: Path) -> None:
    """CheckpointError for variants of the network that are not read, and for positions that
    settings and weights do not have alike."""
    values = settings.values
    rotary_2d = values.get("pos_emb_type") == "2d" or values.get("use_2d_rope")
    if values.get("use_conv_swiglu") or (attention and rotary_2d):
        raise CheckpointError(f"{path}: convolutional SwiGLU and 2-D rotary are not supported")
    stated = values.get("pos_encodings", "learned" if has_learned else "rope")
    if has_learned != (stated == "learned") and attention:
        has = "has" if has_learned else "has no"
        raise CheckpointError(
            f"{path}: {has} embed_pos, but its settings state pos_encodings {str(stated)[:40]!r}"
        )
    without_rotary = values.get("pos_emb_type", "1d") != "1d" or stated not in ("rope", "learned")
    if attention and (without_rotary or values.get("attn_gate_type")):
        raise CheckpointError(f"{path}: attention is read with rotary positions and no gate only")


def _cells_and_prefix(
    positions: int | None,
    filled: int | None,
    vocab: int,
    has_prefix: bool,
    settings: Settings,
    path: Path,
    cells: int | None,
    fits: Fits | None,
) -> tuple[int, int]:
    """How many of the positions are cells and how many come before them.

    `filled`: how many positions a puzzle's embedding fills, where the prefix is just these. What
    the file's settings say counts most, then its data set, then `cells`, then what `fits`;
    positions that attention does not tell, and several splits that remain, are asked about.
    """
    if filled is not None and positions is not None:
        if (stated := settings.whole("seq_len", 0)) not in (0, positions - filled):
            raise CheckpointError(
                f"{path}: {stated} cells are stated, the weights have {positions} positions, "
                f"{filled} of them before the cells"
            )
        return positions - filled, filled
    # 0 means as many positions as the embedding fills, and only one that fills one is read
    stated_prefix = settings.whole("puzzle_emb_len", 16) or 1
    if (stated := settings.whole("seq_len", 0)) == 0:
        if positions is None:
            stated = _cells_of_dataset(path, vocab) or cells or 0
        elif not has_prefix:
            return positions, 0
        elif settings.values.get("puzzle_emb_len") is not None:
            return positions - stated_prefix, stated_prefix
        else:
            splits = _splits(positions)
            if len(splits) != 1:
                stated = _cells_of_dataset(path, vocab) or 0
            if not stated:
                return _split(splits, vocab, positions, path, cells, fits)
    if positions is None:
        if not stated:
            raise CheckpointError(
                f"{path}: attention does not tell the number of cells: {ASK} (in Python cells=81), "
                f"or put the data set's {DATASET} next to it"
            )
        if filled is not None:
            return stated, filled
        return stated, stated_prefix if has_prefix else 0
    if (stated < positions) != has_prefix or stated > positions:
        raise CheckpointError(
            f"{path}: {stated} cells are stated, the weights mix {positions} positions"
        )
    return stated, positions - stated


def _splits(positions: int) -> list[tuple[int, int]]:
    """(cells, prefix) that published models with a puzzle embedding would have.

    >>> _splits(97), _splits(17)
    ([(96, 1), (81, 16)], [(16, 1)])
    """
    return [(positions - n, n) for n in PREFIXES if positions - n >= FEWEST_CELLS]


def _split(
    splits: list[tuple[int, int]],
    vocab: int,
    positions: int,
    path: Path,
    cells: int | None,
    fits: Fits | None,
) -> tuple[int, int]:
    """The one that is meant; CheckpointError asks where that is ambiguous."""
    chosen = [split for split in splits if split[0] == cells]
    if not chosen and fits is not None:
        chosen = [split for split in splits if fits(split[0], vocab)]
    if not chosen:
        chosen = splits
    if len(chosen) == 1:
        return chosen[0]
    either = " or ".join(f"{cells} cells and a prefix of {prefix}" for cells, prefix in chosen)
    raise CheckpointError(
        f"{path}: its {positions} positions can be {either}: {ASK} (in Python cells=...), "
        f"or put the data set's {DATASET} next to it"
    )


def _swiglu_settings(widths: dict[int, int], settings: Settings, path: Path) -> tuple[float, int]:
    """An (expansion, multiple) that gives these widths: as published where that fits."""
    stated = settings.number("expansion", settings.number("ffn_expansion", 4.0))
    common = math.gcd(*widths.values())
    for expansion in (stated, 4.0, 2.0, 1.0, 3.0, 8.0):
        for multiple in (256, common, *(2**k for k in range(7, -1, -1))):
            config = TRMConfig(expansion=expansion, multiple=multiple)
            if all(config.swiglu_width(n) == width for n, width in widths.items()):
                return expansion, multiple
    raise CheckpointError(f"{path}: no SwiGLU expansion gives the hidden widths {widths}")
