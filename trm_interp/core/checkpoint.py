"""Checkpoints: our own folder, and readers for the files that others publish.

Ours is a folder with `config.json`, `model.safetensors` and `card.json` (measured numbers and
provenance). Also read: the public TRM file `step_N` (with `all_config.yaml` beside it or not),
nano-trm's Lightning file, and `hf://owner/repo` for either. Pickles are opened for tensors only.
"""

import json
import math
import pickle
import re
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trm_interp.core.config import TRMConfig
from trm_interp.core.model import TRM
from trm_interp.errors import UserError, first_line
from trm_interp.files import replacing, sha256_of, write_json

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "card.json"
FORMAT = "trm-interp/1"


class CheckpointError(UserError):
    """What is wrong with a checkpoint, in one line that names the file."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model with where it came from. `sha256` is of the weights' file."""

    model: TRM
    path: Path
    format: str  # "trm-interp", "TRM" or "nano-trm"
    sha256: str
    card: dict[str, Any]


def save_checkpoint(folder: Path, model: TRM, card: dict[str, Any]) -> None:
    """Write our folder; each file is whole or absent."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    with replacing(folder / WEIGHTS) as to:
        save_file(tensors, to)
    write_json(folder / CONFIG, {"format": FORMAT, **asdict(model.config)})
    write_json(folder / CARD, card)


def load_checkpoint(source: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read any known checkpoint; CheckpointError says in one line why it cannot be read."""
    path = _fetch(str(source)) if str(source).startswith("hf://") else Path(source)
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        if path.is_dir():
            path = _inside(path)
        loaded = _load_ours(path) if path.is_dir() else _load_public(path)
    except CheckpointError:
        raise
    except Exception as error:  # a stranger's file can be wrong in any way
        why = f"{type(error).__name__}: {first_line(error)}"
        raise CheckpointError(f"{path}: not a checkpoint that can be read ({why})") from error
    loaded.model.to(device).eval()
    return loaded


def _inside(folder: Path) -> Path:
    """Our folder itself, or the newest public `step_N` or Lightning file in it."""
    if (folder / CONFIG).exists() or (folder / WEIGHTS).exists():
        return folder
    steps = [p for p in folder.iterdir() if re.fullmatch(r"step_\d+", p.name)]
    if steps:
        return max(steps, key=lambda p: int(p.name.removeprefix("step_")))
    if lightning := sorted(folder.glob("*.ckpt")):
        return lightning[-1]
    raise CheckpointError(
        f"{folder}: no {CONFIG} with {WEIGHTS}, no step_N and no *.ckpt file in this folder"
    )


def _fetch(url: str) -> Path:
    parts = url.removeprefix("hf://").strip("/").split("/")
    if len(parts) < 2:
        raise CheckpointError(f"{url}: expected hf://owner/repo, optionally with /a/folder or file")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(f"{url}: needs 'pip install huggingface_hub'") from error
    inner = "/".join(parts[2:])
    try:
        root = snapshot_download(
            "/".join(parts[:2]), allow_patterns=[f"{inner}*", "*.yaml"] if inner else None
        )
    except Exception as error:  # the hub raises many kinds: offline, absent, gated
        raise CheckpointError(f"{url}: download failed ({first_line(error)})") from error
    return Path(root) / inner


# our folder


def _load_ours(folder: Path) -> Checkpoint:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).exists():
            raise CheckpointError(f"{folder / name}: missing")
    model = _blank(_our_config(folder / CONFIG))
    _fill(model, _read_safetensors(folder / WEIGHTS), folder / WEIGHTS)
    card = _read_json(folder / CARD) if (folder / CARD).exists() else {}
    return Checkpoint(model, folder, "trm-interp", sha256_of(folder / WEIGHTS), card)


def _our_config(path: Path) -> TRMConfig:
    settings = _read_json(path)
    if settings.pop("format", None) != FORMAT:
        raise CheckpointError(f"{path}: not written by this project (format {FORMAT})")
    kinds = {f.name: type(f.default) for f in fields(TRMConfig)}
    for name, value in settings.items():
        if name not in kinds:
            raise CheckpointError(f"{path}: unknown setting {name!r}")
        if type(value) is not kinds[name] and (type(value), kinds[name]) != (int, float):
            raise CheckpointError(f"{path}: {name} is {value!r}, not a {kinds[name].__name__}")
    try:
        return TRMConfig(**settings)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: truncated or damaged ({first_line(error)})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: holds a {type(value).__name__}, not an object")
    return value


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: truncated or damaged ({first_line(error)})") from error


def _blank(config: TRMConfig) -> TRM:
    """A model to fill; reading a file draws nothing from the global random numbers."""
    return TRM(config, torch.Generator())


def _fill(model: TRM, tensors: dict[str, Tensor], path: Path) -> None:
    wanted = model.state_dict()
    if missing := sorted(wanted.keys() - tensors.keys()):
        raise CheckpointError(f"{path}: lacks {missing[0]} ({len(missing)} missing)")
    if extra := sorted(tensors.keys() - wanted.keys()):
        raise CheckpointError(f"{path}: unknown tensor {extra[0]} ({len(extra)} unknown)")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise CheckpointError(
                f"{path}: {name} has shape {list(tensor.shape)}, "
                f"the configuration gives {list(wanted[name].shape)}"
            )
    model.load_state_dict({k: v.float() for k, v in tensors.items()})


# files of others

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
_BLOCK = re.compile(r"(?:L_level|lenet)\.layers\.(\d+)\.(\w+\.\w+)\.weight")
_TRAINING_ONLY = ("puzzle_emb.local_", "rotary_emb.", "pos_embedding.")


def _load_public(path: Path) -> Checkpoint:
    if path.suffix == ".safetensors":
        raw: Any = _read_safetensors(path)
    else:
        try:
            with warnings.catch_warnings(action="ignore"):  # of old pickles
                raw = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            with path.open("rb") as file:
                is_pickle = file.read(1) in (b"\x80", b"P")  # a bare pickle, or torch's zip of one
            pickled = "a pickle that is not plain weights; it was not run"
            raise CheckpointError(f"{path}: {pickled if is_pickle else 'no weights'}") from error
        except (RuntimeError, EOFError, OSError, ValueError) as error:
            raise CheckpointError(f"{path}: truncated or damaged ({first_line(error)})") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: holds a {type(raw).__name__}, not weights")
    lightning = "state_dict" in raw
    settings = raw.get("hyper_parameters", {}) if lightning else _public_settings(path)
    tensors = _renamed(raw["state_dict"] if lightning else raw, path)
    config = _config_of(tensors, settings, path)
    model = _blank(config)
    _fill(model, tensors, path)
    origin = "nano-trm" if lightning else "TRM"
    return Checkpoint(model, path, origin, sha256_of(path), {"settings": _plain(settings)})


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in settings.items() if isinstance(v, (int, float, str, bool))}


def _public_settings(path: Path) -> dict[str, Any]:
    """`arch` of the all_config.yaml beside a public checkpoint; nothing where there is none."""
    file = path.parent / "all_config.yaml"
    if not file.exists():
        return {}
    try:
        import yaml
    except ImportError as error:
        raise CheckpointError(f"{file}: reading it needs 'pip install pyyaml'") from error
    try:
        return dict((yaml.safe_load(file.read_text()) or {}).get("arch", {}))
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{file}: not a TRM configuration ({first_line(error)})") from error


def _renamed(raw: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors under our names."""
    ours: dict[str, Tensor] = {}
    for name, tensor in raw.items():
        short = re.sub(r"^(_orig_mod\.)?(model\.)?(_orig_mod\.)?(inner\.)?", "", str(name))
        if short.startswith(_TRAINING_ONLY):
            continue
        block = _BLOCK.fullmatch(short)
        if short in _OURS_BY_PUBLIC:
            target = _OURS_BY_PUBLIC[short]
        elif block and block[2] in _OURS_IN_BLOCK:
            target = f"net.blocks.{block[1]}.{_OURS_IN_BLOCK[block[2]]}.weight"
        else:
            raise CheckpointError(f"{path}: unknown tensor {name}; is this a TRM checkpoint?")
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: {name} is a {type(tensor).__name__}, not a tensor")
        ours[target] = tensor
    if "lm_head.weight" not in ours:
        raise CheckpointError(f"{path}: no lm_head.weight; is this a TRM checkpoint?")
    if (prefix := ours.get("prefix_embedding")) is not None:
        if prefix.shape[0] != 1:
            raise CheckpointError(
                f"{path}: {prefix.shape[0]} puzzle identifiers; only models with one are read here"
            )
        ours["prefix_embedding"] = prefix[0]
    return ours


def _config_of(tensors: dict[str, Tensor], settings: dict[str, Any], path: Path) -> TRMConfig:
    """The configuration: shapes where they tell, `settings` for the rest, else Sudoku's values.

    Shapes do not tell the cycles (3 and 6) nor the number of heads (d_model / 64); the number of
    positions, which token mixing tells, is that of the cells and of a prefix of 16 or 1.
    """
    if settings.get("use_conv_swiglu") or settings.get("pos_emb_type") == "2d":
        raise CheckpointError(f"{path}: convolutional SwiGLU and 2-D rotary are not supported")
    vocab, d_model = tensors["lm_head.weight"].shape
    n_layers = 1 + max(
        (int(m[1]) for name in tensors if (m := re.match(r"net\.blocks\.(\d+)\.", name))),
        default=-1,
    )
    mixer_down = tensors.get("net.blocks.0.mixer.down.weight")
    if mixer_down is None and settings.get("pos_encodings", "rope") != "rope":
        raise CheckpointError(f"{path}: attention is read with rotary positions only")
    mlp_down = tensors.get("net.blocks.0.mlp.down.weight")
    if mlp_down is None:
        raise CheckpointError(f"{path}: no blocks; is this a TRM checkpoint?")
    positions = None if mixer_down is None else mixer_down.shape[0]
    cells, prefix = _cells_and_prefix(positions, vocab, "prefix_embedding" in tensors, settings)
    widths = {d_model: mlp_down.shape[1]}
    if mixer_down is not None:
        widths[mixer_down.shape[0]] = mixer_down.shape[1]
    expansion, multiple = _swiglu_settings(widths, settings, path)
    return TRMConfig(
        cells=cells,
        vocab=vocab,
        d_model=d_model,
        n_layers=n_layers,
        h_cycles=int(settings.get("H_cycles", 3)),
        l_cycles=int(settings.get("L_cycles", 6)),
        mixer="attention" if mixer_down is None else "mlp",
        n_heads=int(settings.get("num_heads") or max(1, d_model // 64)),
        prefix=prefix,
        expansion=expansion,
        multiple=multiple,
        q_outputs=tensors["q_head.weight"].shape[0],
        norm_eps=float(settings.get("rms_norm_eps", 1e-5)),
        rope_base=float(settings.get("rope_theta", 10_000.0)),
    )


def _cells_and_prefix(
    positions: int | None, vocab: int, has_prefix: bool, settings: dict[str, Any]
) -> tuple[int, int]:
    """Sudoku's cells where they fit; `positions` of both together are known with token mixing.

    >>> _cells_and_prefix(97, 11, True, {}), _cells_and_prefix(916, 6, True, {})
    ((81, 16), (900, 16))
    """
    sudoku = (vocab - 2) ** 2
    stated = int(settings.get("seq_len", 0))
    # 0 means as many positions as the embedding fills, and only one that fills one is read
    prefix = (int(settings.get("puzzle_emb_len", 16)) or 1) if has_prefix else 0
    if positions is None:
        return stated or sudoku, prefix
    if not stated and has_prefix and positions - sudoku in (1, 16):
        stated = sudoku
    return (stated, positions - stated) if stated else (positions - prefix, prefix)


def _swiglu_settings(
    widths: dict[int, int], settings: dict[str, Any], path: Path
) -> tuple[float, int]:
    """An (expansion, multiple) that gives the widths found: as published where that fits."""
    stated = settings.get("expansion", settings.get("ffn_expansion", 4.0))
    common = math.gcd(*widths.values())
    for expansion in (float(stated), 4.0, 2.0, 1.0, 3.0, 8.0):
        for multiple in (256, common, *(2**k for k in range(7, -1, -1))):
            config = TRMConfig(expansion=expansion, multiple=multiple)
            if all(config.swiglu_width(n) == width for n, width in widths.items()):
                return expansion, multiple
    raise CheckpointError(f"{path}: no SwiGLU expansion gives the hidden widths {widths}")
