"""Files that others publish: the public TRM's `step_N` and nano-trm's Lightning file.

Which tensors they hold, under which names, and which configuration these and the settings beside
them give. What neither says is asked for, or is the published value where there is one.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file
from torch import Tensor

from trm_interp.core.checkpoints.headers import (
    MAX_YAML,
    CheckpointError,
    check_tensor,
    read_json,
    read_text,
    tensor_shapes,
)
from trm_interp.core.checkpoints.pickles import load_pickle, plain_settings
from trm_interp.core.models.config import TRMConfig
from trm_interp.runtime.errors import first_line

PREFIXES = (1, 16)  # positions before the cells in published models with a puzzle embedding
MAX_BRACKETS = 200  # in an all_config.yaml; a published one has two
ALL_CONFIG, DATASET = "all_config.yaml", "dataset.json"

_OURS_BY_PUBLIC = {
    "H_init": "z_H_init",
    "L_init": "z_L_init",
    "embed_tokens.embedding_weight": "token_embedding",
    # nano-trm
    "z_H_init": "z_H_init",
    "z_L_init": "z_L_init",
    "input_embedding.embedding_weight": "token_embedding",
    # both
    "lm_head.weight": "lm_head.weight",
    "q_head.weight": "q_head.weight",
    "q_head.bias": "q_head.bias",
    "puzzle_emb.weights": "prefix_embedding",
}
_OURS_IN_BLOCK = {
    "mlp_t.gate_up_proj": "mixer.gate_up",
    "mlp_t.down_proj": "mixer.down",
    "self_attn.qkv_proj": "mixer.qkv",
    "self_attn.o_proj": "mixer.out",
    "mlp.gate_up_proj": "mlp.gate_up",
    "mlp.down_proj": "mlp.down",
}
_WRAPPERS = re.compile(r"^(?:(?:_orig_mod|module|model|inner)\.)+")
_BLOCK = re.compile(r"(?:L_level|lenet)\.layers\.(\d+)\.(\w+\.\w+)\.weight")
_TRAINING_ONLY = ("puzzle_emb.local_", "rotary_emb.", "pos_embedding.")
_NANO = ("lenet.", "input_embedding.", "z_H_init", "z_L_init")
_WEIGHTS = ("state_dict", "model_state_dict", "model")  # dictionaries that hold weights
_AVERAGES = ("ema", "ema_state_dict")  # and those of their moving averages


class Public(NamedTuple):
    """What a file of others comes to."""

    format: str  # "TRM" or "nano-trm"
    config: TRMConfig
    tensors: dict[str, Tensor]  # under our names
    weights: str  # which of the file's weights these are
    card: dict[str, Any]


def read_public(path: Path, cells: int | None = None, averages: bool = True) -> Public:
    """Read one file; `cells` counts where neither the file nor what lies beside it says."""
    if path.suffix == ".safetensors":
        tensor_shapes(path)  # a header that is whole
        raw: Any = load_file(path)
    else:
        raw = load_pickle(path)
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: holds a {type(raw).__name__}, not weights")
    state, weights = _weights_of(raw, path, averages)
    names = [_WRAPPERS.sub("", str(name)) for name in state]
    origin = "nano-trm" if any(name.startswith(_NANO) for name in names) else "TRM"
    tensors = _renamed(state, path)
    if "hyper_parameters" in raw:
        settings, said_in = plain_settings(raw["hyper_parameters"]), f"{path}: hyper_parameters"
    else:
        settings, said_in = _settings_beside(path), str(path.parent / ALL_CONFIG)
    try:
        config = _config_of(tensors, _Settings(settings, said_in), path, cells)
        if config.vocab == side_of(config.cells) + 3 and origin == "nano-trm":
            tensors, config = _without_eos(tensors, config)
            settings = {**settings, "dropped": "token 1 (EOS) of the vocabulary"}
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{path}: {first_line(error)}") from error
    card: dict[str, Any] = {"settings": settings, "weights": weights}
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


# tensors


def _weights_of(raw: dict[Any, Any], path: Path, averages: bool) -> tuple[dict[Any, Any], str]:
    """The file's weights, those of its moving averages over them, and a word on which these are."""
    key = next((k for k in _WEIGHTS if k in raw), None)
    state = raw if key is None else raw[key]
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: its {key} is a {type(state).__name__}, not weights")
    where, shadow = _averages_of(raw)
    if key is None and not shadow:
        if raw and not any(isinstance(entry, Tensor) for entry in raw.values()):
            known = ", ".join(map(repr, list(raw)[:4]))
            raise CheckpointError(f"{path}: no weights under its keys {known}"[:250])
        return raw, "as saved"
    if not shadow or (not averages and key is not None):
        aside = f" without the averages in {where}" if shadow else ", no averages in the file"
        return state, f"{key}{aside}"
    plain = {} if key is None else {_WRAPPERS.sub("", str(k)): v for k, v in state.items()}
    # what is not trained (the start vectors) has no average
    return plain | {_WRAPPERS.sub("", str(k)): v for k, v in shadow.items()}, f"averages ({where})"


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


def _renamed(raw: dict[Any, Any], path: Path) -> dict[str, Tensor]:
    """The tensors under our names."""
    ours: dict[str, Tensor] = {}
    for name, tensor in raw.items():
        short = _WRAPPERS.sub("", str(name))
        if short.startswith(_TRAINING_ONLY):
            continue
        block = _BLOCK.fullmatch(short)
        if short in _OURS_BY_PUBLIC:
            target = _OURS_BY_PUBLIC[short]
        elif block and block[2] in _OURS_IN_BLOCK:
            target = f"net.blocks.{block[1]}.{_OURS_IN_BLOCK[block[2]]}.weight"
        elif short.startswith("H_level."):
            raise CheckpointError(f"{path}: an HRM, which has two networks; only TRM is read here")
        else:
            raise CheckpointError(f"{path}: unknown tensor {name}; is this a TRM checkpoint?"[:280])
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: {name} is a {type(tensor).__name__}, not a tensor")
        if target in ours:
            raise CheckpointError(f"{path}: {target} comes twice, the second time as {name}")
        check_tensor(tensor, str(name), path)
        ours[target] = tensor
    for name in ("lm_head.weight", "q_head.weight"):
        if name not in ours:
            raise CheckpointError(f"{path}: no {name}; is this a TRM checkpoint?")
    if (prefix := ours.get("prefix_embedding")) is not None:
        if prefix.shape[0] != 1:
            raise CheckpointError(
                f"{path}: {prefix.shape[0]} puzzle identifiers; only models with one are read here"
            )
        ours["prefix_embedding"] = prefix[0]
    return ours


def _without_eos(
    tensors: dict[str, Tensor], config: TRMConfig
) -> tuple[dict[str, Tensor], TRMConfig]:
    """nano-trm counts PAD, EOS, blank, digits; a grid without padding has no EOS, and we have none.

    Token 1 goes from the embedding and the read-out, so that the others are numbered as ours.
    """
    kept = [0, *range(2, config.vocab)]
    changed = {name: tensors[name][kept] for name in ("token_embedding", "lm_head.weight")}
    return tensors | changed, replace(config, vocab=config.vocab - 1)


# settings


class _Settings(NamedTuple):
    """Settings of a file of others, checked as they are read."""

    values: Mapping[str, Any]
    said_in: str

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
            raise CheckpointError(f"{self.said_in}: {name} is {repr(value)[:40]}, not a number")
        return number

    def whole(self, name: str, default: int) -> int:
        number = self.number(name, default)
        if number != int(number) or number < 0:
            raise CheckpointError(f"{self.said_in}: {name} is {number:g}, not a count")
        return int(number)


def _config_beside(path: Path) -> dict[str, Any]:
    """All of the all_config.yaml beside a public checkpoint; nothing where there is none."""
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
        raise CheckpointError(f"{file}: not a TRM configuration (merge keys or too many brackets)")
    try:
        known = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: not a TRM configuration ({first_line(error)})") from error
    if not isinstance(known, dict):
        kind = type(known).__name__
        raise CheckpointError(f"{file}: not a TRM configuration (holds a {kind}, not settings)")
    return known


def _settings_beside(path: Path) -> dict[str, Any]:
    """`arch` of that file."""
    arch = _config_beside(path).get("arch", {})
    if not isinstance(arch, dict):
        file = path.parent / ALL_CONFIG
        raise CheckpointError(f"{file}: arch holds a {type(arch).__name__}, not settings")
    return plain_settings(arch)


def data_names(path: Path) -> list[str]:
    """Folders of training data that the settings beside a public checkpoint name."""
    settings = _config_beside(path)
    paths = settings.get("data_paths", settings.get("data_path", []))
    names = paths[:8] if isinstance(paths, list) else [paths]
    return [name for name in names if isinstance(name, str) and name]


def _cells_of_dataset(path: Path, vocab: int) -> int | None:
    """seq_len of `dataset.json`: beside the checkpoint, or in the folder that its settings name."""
    folders = [path.parent]
    for data in data_names(path):
        folders += [root / data for root in (Path(), path.parent)]
    for folder in folders:
        for file in (folder / DATASET, folder / "train" / DATASET, folder / "test" / DATASET):
            if not file.exists():
                continue
            known = _Settings(read_json(file), str(file))
            if (theirs := known.whole("vocab_size", vocab)) != vocab:
                raise CheckpointError(
                    f"{file}: vocab_size {theirs}, but {path} has {vocab}: another data set"
                )
            if cells := known.whole("seq_len", 0):
                return cells
    return None


def _config_of(
    tensors: dict[str, Tensor], settings: _Settings, path: Path, cells: int | None
) -> TRMConfig:
    """The configuration: shapes where they tell, `settings` for the rest, else Sudoku's values.

    Shapes do not tell the cycles (3 and 6) nor the number of heads (d_model / 64); token mixing
    tells the number of positions, attention nothing of it.
    """
    said = settings.values
    vocab, d_model = tensors["lm_head.weight"].shape
    n_layers = 1 + max(
        (int(m[1]) for name in tensors if (m := re.match(r"net\.blocks\.(\d+)\.", name))),
        default=-1,
    )
    mixer_down = tensors.get("net.blocks.0.mixer.down.weight")
    positions = None if mixer_down is None else mixer_down.shape[0]
    attention = positions is None
    rotary_2d = said.get("pos_emb_type") == "2d" or said.get("use_2d_rope")
    if said.get("use_conv_swiglu") or (attention and rotary_2d):
        raise CheckpointError(f"{path}: convolutional SwiGLU and 2-D rotary are not supported")
    without_rotary = said.get("pos_emb_type", "1d") != "1d" or (
        said.get("pos_encodings", "rope") != "rope"
    )
    if attention and (without_rotary or said.get("attn_gate_type")):
        raise CheckpointError(f"{path}: attention is read with rotary positions and no gate only")
    mlp_down = tensors.get("net.blocks.0.mlp.down.weight")
    if mlp_down is None:
        raise CheckpointError(f"{path}: no blocks; is this a TRM checkpoint?")
    has_prefix = "prefix_embedding" in tensors
    stated = settings.whole("seq_len", 0) or None
    shapes_decide = positions is not None and (
        not has_prefix or "puzzle_emb_len" in said or positions - (vocab - 2) ** 2 in PREFIXES
    )
    if stated is None and not shapes_decide:
        stated = _cells_of_dataset(path, vocab)
        if stated is None and (positions is None or positions - (cells or 0) in PREFIXES):
            stated = cells
    # 0 means as many positions as the embedding fills, and only one that fills one is read
    prefix = (settings.whole("puzzle_emb_len", 16) or 1) if has_prefix else 0
    cells, prefix = _cells_and_prefix(positions, vocab, prefix, stated, path)
    widths = {d_model: mlp_down.shape[1]}
    if mixer_down is not None and positions is not None:
        widths[positions] = mixer_down.shape[1]
    expansion, multiple = _swiglu_settings(widths, settings, path)
    return TRMConfig(
        cells=cells,
        vocab=vocab,
        d_model=d_model,
        n_layers=n_layers,
        h_cycles=settings.whole("H_cycles", 3),
        l_cycles=settings.whole("L_cycles", 6),
        mixer="attention" if attention else "mlp",
        n_heads=settings.whole("num_heads", 0) or max(1, d_model // 64),
        prefix=prefix,
        expansion=expansion,
        multiple=multiple,
        q_outputs=tensors["q_head.weight"].shape[0],
        norm_eps=settings.number("rms_norm_eps", 1e-5),
        rope_base=settings.number("rope_theta", 10_000.0),
    )


def _cells_and_prefix(
    positions: int | None, vocab: int, prefix: int, stated: int | None, path: Path
) -> tuple[int, int]:
    """What `positions` of both together come to; without them the cells must be stated.

    A prefix of 1 or 16 is told apart by Sudoku's cells.

    >>> _cells_and_prefix(97, 11, 16, None, Path()), _cells_and_prefix(916, 6, 16, None, Path())
    ((81, 16), (900, 16))
    >>> _cells_and_prefix(82, 11, 16, None, Path()), _cells_and_prefix(82, 12, 0, None, Path())
    ((81, 1), (82, 0))
    """
    if positions is None:
        if stated is None:
            raise CheckpointError(
                f"{path}: attention does not tell the number of cells: give --puzzles or --cells "
                f"(in Python cells=81), or put the data set's {DATASET} beside it"
            )
        return stated, prefix
    sudoku = (vocab - 2) ** 2
    if stated is None and prefix and positions - sudoku in PREFIXES:
        stated = sudoku
    if stated is None:
        return positions - prefix, prefix
    if (stated < positions) != bool(prefix) or stated > positions:
        raise CheckpointError(
            f"{path}: {stated} cells are stated, the weights mix {positions} positions"
        )
    return stated, positions - stated


def _swiglu_settings(widths: dict[int, int], settings: _Settings, path: Path) -> tuple[float, int]:
    """An (expansion, multiple) that gives the widths found: as published where that fits."""
    stated = settings.number("expansion", settings.number("ffn_expansion", 4.0))
    common = math.gcd(*widths.values())
    for expansion in (stated, 4.0, 2.0, 1.0, 3.0, 8.0):
        for multiple in (256, common, *(2**k for k in range(7, -1, -1))):
            config = TRMConfig(expansion=expansion, multiple=multiple)
            if all(config.swiglu_width(n) == width for n, width in widths.items()):
                return expansion, multiple
    raise CheckpointError(f"{path}: no SwiGLU expansion gives the hidden widths {widths}")
