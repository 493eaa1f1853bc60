"""Checkpoints: our own folder, and readers for the files that others publish.

Ours is a folder with `config.json`, `model.safetensors` and `card.json` (measured numbers and
provenance). Also read: the public TRM file `step_N` (with or without its `all_config.yaml`),
nano-trm's Lightning file, and `hf://owner/repo` for either. Pickles are opened for tensors only.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from trm_interp.core.checkpoints.headers import (
    CheckpointError,
    read_json,
    require_file,
    tensor_shapes,
)
from trm_interp.core.checkpoints.pickles import load_pickle
from trm_interp.core.checkpoints.public import read_public
from trm_interp.core.checkpoints.public_config import Fits
from trm_interp.core.checkpoints.tables import load_tensors, require_rows
from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.models.config import ModelConfig
from trm_interp.core.models.registry import (
    DEFAULT,
    build,
    config_class,
    model_class,
    names,
    settings_of,
)
from trm_interp.runtime.artifacts import existing, shipped_checkpoints
from trm_interp.runtime.errors import UserError, first_line, is_out_of_memory
from trm_interp.runtime.files import replacing, sha256_of, write_json
from trm_interp.runtime.hub import HubError, OnDisk, is_remote, repository
from trm_interp.runtime.outputs import maker

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "card.json"
STATE = "train_state.pt"  # beside them, while a training goes on
FORMAT = "trm-interp/1"

__all__ = ["CARD", "CONFIG", "WEIGHTS", "Checkpoint", "CheckpointError"]
__all__ += ["load_checkpoint", "locate", "save_checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model with where it came from. `sha256` is of the weights' file."""

    model: RecursiveModel
    path: Path
    format: str  # "trm-interp", "TRM" or "nano-trm"
    sha256: str
    card: dict[str, Any]
    weights: str = "as saved"  # which of the file's weights: its moving averages where it has them
    identifiers: tuple[int, ...] | None = None  # of the rows that were read; None: of all

    def rows_of(self, identifiers: Tensor) -> Tensor:
        """int64 [puzzle]: the model's own identifiers of puzzles with these of the file.

        ValueError for one whose row was not read.
        """
        if self.identifiers is None:
            return identifiers
        rows = {identifier: row for row, identifier in enumerate(self.identifiers)}
        if unread := sorted(set(identifiers.tolist()) - rows.keys()):
            raise ValueError(f"{self.path}: the row of puzzle identifier {unread[0]} was not read")
        return torch.tensor([rows[identifier] for identifier in identifiers.tolist()])

    @property
    def task(self) -> str | None:
        """Name of the task that the card states; None where it states none."""
        task = self.card.get("task")
        return task if isinstance(task, str) else None


def save_checkpoint(folder: Path | str, model: RecursiveModel, card: dict[str, Any]) -> None:
    """Write our folder; each file is whole or absent.

    The card holds what is measured and where the model comes from; its "task" names the kind of
    puzzle that the model solves.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    with replacing(folder / WEIGHTS) as to:
        save_file(tensors, to)
    write_json(folder / CONFIG, {"format": FORMAT, **settings_of(model.config)})
    write_json(folder / CARD, card)


def load_checkpoint(
    source: str | Path,
    device: torch.device | str = "cpu",
    cells: int | None = None,
    averages: bool = True,
    fits: Fits | None = None,
    identifiers: Sequence[int] | None = None,
) -> Checkpoint:
    """Read a checkpoint of any supported format; CheckpointError says why it cannot be read.

    Files of others need not say how many cells a puzzle has, and nothing here guesses it: `cells`
    is that number where they do not, `fits(cells, vocab)` tells whether there is a task of that
    shape, which decides between a few that are possible. Where it stays open the error asks.
    Of files with trained weights and their moving averages the averages are read, which is what
    their authors validate; `averages=False` takes the others.
    With `identifiers` only these rows of the table of puzzle embeddings are read, in this order:
    the model's identifier i is the file's `identifiers[i]`, which `Checkpoint.rows_of` translates.
    """
    path = locate(source)
    try:
        if path.is_dir():
            loaded = _load_ours(path, identifiers)
        else:
            loaded = _load_public(path, cells, averages, fits, identifiers)
    except CheckpointError:
        raise
    except Exception as error:  # a stranger's file can be wrong in any way
        if is_out_of_memory(error):
            raise
        why = f"{type(error).__name__}: {first_line(error)}"
        raise CheckpointError(f"{path}: not a checkpoint that can be read ({why})") from error
    loaded.model.to(device).eval()
    return loaded


def locate(source: str | Path) -> Path:
    """Our folder or the file of others that `source` means; a file of the hub is fetched."""
    path = _fetch(str(source)) if is_remote(source) else existing(source)
    try:
        if not path.exists():
            ships = ", ".join(shipped_checkpoints()) or "none here"
            raise CheckpointError(f"{path}: no such checkpoint; those that ship: {ships}")
        if path.is_dir():
            return _inside(path)
    except OSError as error:
        raise CheckpointError(f"{str(path)[:200]}: {error.strerror}") from error
    require_file(path)
    return _outside(path)


def _outside(file: Path) -> Path:
    """The folder of ours that a file of weights is in, any other file itself. CheckpointError for
    the state of a training."""
    if file.name == WEIGHTS and _is_ours(file.parent):
        return file.parent
    if file.name == STATE and _is_ours(file.parent):
        raise CheckpointError(f"{file}: how a training goes on; its weights: {file.parent}")
    return file


def _inside(folder: Path) -> Path:
    """Our folder itself, or in one of others the newest `step_N`, `checkpoint`, Lightning file or
    `model.safetensors`."""
    if _is_ours(folder):
        return folder
    steps = [p for p in folder.iterdir() if re.fullmatch(r"step_\d+", p.name)]
    if steps:
        return max(steps, key=lambda p: int(p.name.removeprefix("step_")))
    if (folder / "checkpoint").is_file():
        return folder / "checkpoint"
    if lightning := sorted(folder.glob("*.ckpt")):
        return _newest(lightning)
    if (folder / WEIGHTS).exists():
        return folder / WEIGHTS
    if (folder / CONFIG).exists():
        return folder
    if inner := sorted(file.parent.name for file in folder.glob(f"*/{WEIGHTS}")):
        names = ", ".join(inner[:8]) + (f" and {len(inner) - 8} more" if len(inner) > 8 else "")
        raise CheckpointError(f"{folder}: a folder of checkpoints: name one of {names}")
    if command := maker(folder):
        raise CheckpointError(f"{folder}: the output of `{command}`, not a checkpoint")
    raise CheckpointError(
        f"{folder}: no {CONFIG} with {WEIGHTS}, no 'checkpoint', "
        "no step_N and no *.ckpt file in this folder"
    )


def _is_ours(folder: Path) -> bool:
    """By the format in config.json; where that is damaged or missing by the card, or by a TRM's
    weights' names."""
    with suppress(CheckpointError):
        if str(read_json(folder / CONFIG).get("format")).startswith(FORMAT.split("/")[0]):
            return True
    with suppress(CheckpointError):
        shapes = tensor_shapes(folder / WEIGHTS)
        return (folder / CARD).exists() or "token_embedding" in shapes
    return False


def _newest(files: list[Path]) -> Path:
    """The Lightning file with the most optimizer steps; the last by name of equal ones."""
    if len(files) == 1:
        return files[0]
    steps = {}
    for file in files:
        content = load_pickle(file)
        step = content.get("global_step") if isinstance(content, dict) else None
        if type(step) is not int:
            raise CheckpointError(f"{file}: no global_step in it to tell the newest: name one file")
        steps[file] = step
    return max(files, key=lambda file: (steps[file], file.name))


def _fetch(url: str) -> Path:
    try:
        place, inner = repository(url, "model")
    except HubError as error:
        raise CheckpointError(f"{error}, optionally with /a/folder or file") from None
    if isinstance(place, OnDisk):
        return place.folder
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(f"{url}: needs 'pip install huggingface_hub'") from error
    wanted = [f"{inner}*", "*.yaml", "*dataset.json"] if inner else None
    try:
        root = snapshot_download(place.name, allow_patterns=wanted)
    except Exception as error:  # the hub raises many kinds: offline, absent, gated
        raise CheckpointError(f"{url}: download failed ({first_line(error)})") from error
    return Path(root) / inner


def _load_ours(folder: Path, identifiers: Sequence[int] | None) -> Checkpoint:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).exists():
            raise CheckpointError(f"{folder / name}: missing")
    file = folder / WEIGHTS
    config = _our_config(folder / CONFIG)
    shapes = tensor_shapes(file)
    _check_shapes(config, shapes, file)
    kept = None if identifiers is None else tuple(identifiers)
    table = model_class(config).identifier_table
    if kept is not None:
        require_rows(shapes.get(table or "", ()), kept, file)
        config = replace(config, n_identifiers=len(kept))  # type: ignore[type-var]
    tensors = load_tensors(file, table, kept)
    card = read_json(folder / CARD) if (folder / CARD).exists() else {}
    model = _filled(config, tensors, file)
    return Checkpoint(model, folder, "trm-interp", sha256_of(file), card, identifiers=kept)


def _our_config(path: Path) -> ModelConfig:
    settings = read_json(path)
    if settings.pop("format", None) != FORMAT:
        raise CheckpointError(f"{path}: not written by this project (format {FORMAT})")
    stated = "architecture" in settings  # files of the default one name none
    kind = settings.pop("architecture", DEFAULT)
    try:
        config: Any = config_class(kind)
    except UserError as error:
        raise CheckpointError(f"{path}: {error}") from error
    kinds: dict[str, Any] = {f.name: type(f.default) for f in fields(config)}
    for name, value in settings.items():
        if name not in kinds:
            of = f"of {kind}" if stated else f"of {kind}, and the file names no other architecture"
            raise CheckpointError(
                f"{path}: unknown setting {name[:40]!r}: it is none {of}; "
                f"this version has {', '.join(names())}"
            )
        if type(value) is not kinds[name] and (type(value), kinds[name]) != (int, float):
            kind = kinds[name].__name__
            raise CheckpointError(f"{path}: {name} is {repr(value)[:40]}, not a {kind}")
    try:  # a whole float may stand in JSON as an integer
        return config(**{name: kinds[name](value) for name, value in settings.items()})
    except (ValueError, OverflowError) as error:
        raise CheckpointError(f"{path}: {first_line(error)[:150]}") from error


def _load_public(
    path: Path,
    cells: int | None,
    averages: bool,
    fits: Fits | None,
    identifiers: Sequence[int] | None,
) -> Checkpoint:
    kept = None if identifiers is None else tuple(identifiers)
    public = read_public(path, cells, averages, fits, kept)
    shapes = {name: tuple(tensor.shape) for name, tensor in public.tensors.items()}
    _check_shapes(public.config, shapes, path)
    model = _filled(public.config, public.tensors, path)
    whole = sha256_of(path)
    return Checkpoint(model, path, public.format, whole, public.card, public.weights, kept)


def _check_shapes(config: ModelConfig, shapes: dict[str, tuple[int, ...]], path: Path) -> None:
    """CheckpointError where names or shapes are not the configuration's; allocates nothing."""
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in build(config).state_dict().items()}
    if missing := sorted(wanted.keys() - shapes.keys()):
        raise CheckpointError(f"{path}: lacks {missing[0]} ({len(missing)} missing)")
    if extra := sorted(shapes.keys() - wanted.keys()):
        raise CheckpointError(f"{path}: unknown tensor {extra[0][:80]} ({len(extra)} unknown)")
    for name, shape in shapes.items():
        if shape != wanted[name]:
            raise CheckpointError(
                f"{path}: {name} has shape {list(shape)}, "
                f"the configuration gives {list(wanted[name])}"
            )


def _filled(config: ModelConfig, tensors: dict[str, Tensor], path: Path) -> RecursiveModel:
    """The model; reading a file draws nothing from the global random numbers."""
    weights = {name: tensor.float() for name, tensor in tensors.items()}
    for name, tensor in weights.items():
        if wrong := int((~torch.isfinite(tensor)).sum()):
            raise CheckpointError(
                f"{path}: {name} has NaN or infinite entries ({wrong} of {tensor.numel()}): "
                "training diverged, or the file is damaged"
            )
    model = build(config, torch.Generator())
    model.load_state_dict(weights)
    return model
