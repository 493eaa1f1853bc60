"""A training state small enough to be carried from machine to machine, in checksummed parts.

Weights and their average in float32, optimizer moments in bfloat16: 12 bytes a weight, 58 MB for
the published model without prefix. The puzzles in flight and the best average stay behind. So that
going on after a save equals going on from the files, saving does to the run what loading would: it
rounds the moments and restarts the slots (`settle`).
"""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trm_interp.core.checkpoints.headers import read_json
from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.models.registry import DEFAULT, build, config_class, config_from
from trm_interp.core.training.states import FIELDS, require_fields, restoring
from trm_interp.core.training.trainer import Trainer
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import replacing, sha256_of, write_json

INDEX = "state.json"
PART_BYTES = 15_600_000  # with its header a file is below 15 MiB
PART = re.compile(r"step-\d+-\d+\.safetensors")
SCALARS = ("settings", "identity", "changes", "step", "seconds", "rows")
SCALARS += ("about", "summed_steps", "validated_on", "validated_at", "best", "micro_batches")


def settle(trainer: Trainer) -> None:
    """Round the optimizers' moments to bfloat16 and draw new puzzles for all slots."""
    for optimizer in trainer.optimizers:
        for kept in optimizer.state.values():
            for moment in kept.values():
                if torch.is_tensor(moment) and moment.ndim:
                    moment.copy_(moment.bfloat16())
    trainer.put(trainer.slots.restarted())


def save_portable(trainer: Trainer, folder: Path, about: dict[str, Any] | None = None) -> None:
    """Settle the run and write its state; a kill leaves the old state or the new one.

    `about` is stored with it, as JSON, for whoever reads the state.
    """
    trainer.check()
    settle(trainer)
    state = trainer.state()
    if trainer.ranks.rank:
        return
    folder.mkdir(parents=True, exist_ok=True)
    parts = _parts(_tensors(state, _names(trainer)))
    names = [f"step-{state['step']:06d}-{i}.safetensors" for i in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        with replacing(folder / name) as to:
            save_file(part, to)
    state["about"] = about or {}
    index = {name: state[name] for name in SCALARS}
    index["files"] = {name: sha256_of(folder / name) for name in names}
    write_json(folder / INDEX, index)
    for old in folder.glob("step-*.safetensors*"):
        if old.name not in names:
            old.unlink()


def load_portable(trainer: Trainer, folder: Path) -> dict[str, Any]:
    """Go on where `save_portable` ended; the `about` that was stored.

    UserError names what is missing, damaged or of another run.
    """
    index, tensors = read_portable(folder)
    with restoring(folder / INDEX):
        _take(trainer, index, tensors, folder / INDEX)
    return index["about"]


def _take(trainer: Trainer, index: dict[str, Any], tensors: dict[str, Tensor], file: Path) -> None:
    optimizers = []
    for i, optimizer in enumerate(trainer.optimizers):
        fresh = optimizer.state_dict()
        held: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under(tensors, f"optimizer.{i}").items():
            weight, kind = name.split(".", 1)
            held.setdefault(int(weight), {})[kind] = tensor.float()
        optimizers.append({"state": held, "param_groups": fresh["param_groups"]})
    average = _under(tensors, "average")
    trainer.restore(
        {
            **index,
            "model": _under(tensors, "model"),
            "average": [average[name].to(trainer.device) for name in _names(trainer)],
            "optimizers": optimizers,
            "sums": tensors["sums"].to(trainer.device),
        },
        file,
    )
    slots = trainer.slots.restarted()
    slots.draws = tensors["slots.draws"].to(trainer.device)[slots.index]
    trainer.put(slots)


def read_portable(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Scalars and tensors of a state, every file checked against its sha256."""
    if not (folder / INDEX).exists():
        raise UserError(f"{folder / INDEX} is missing: no state to resume from")
    index = read_json(folder / INDEX)
    require_fields(index, FIELDS | {"files": dict, "about": dict}, folder / INDEX)
    tensors: dict[str, Tensor] = {}
    for name, digest in index["files"].items():
        if not PART.fullmatch(name):  # also one that leaves the folder
            raise UserError(f"{folder / INDEX}: {name[:60]!r} is no part of a state")
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: bring it from where the state was saved")
        if sha256_of(folder / name) != digest:
            raise UserError(f"{folder / name} is damaged (sha256 differs): bring it again")
        with restoring(folder / name):
            tensors |= load_file(folder / name)
    return index, tensors


def average_of(index: dict[str, Any], tensors: dict[str, Tensor]) -> RecursiveModel:
    """The model with the averaged weights of a state, on the CPU."""
    weights = _under(tensors, "model") | _under(tensors, "average")
    with restoring(Path(INDEX)):
        identity = {"architecture": DEFAULT, **index["identity"]}
        kind = config_class(identity["architecture"])
        names = [
            f.name
            for f in fields(kind)  # type: ignore[arg-type]
            if f.name in identity or not f.metadata.get("added_later")
        ]
        config = config_from({name: identity[name] for name in ("architecture", *names)})
        model = build(config, torch.Generator())
        model.load_state_dict(weights)
    return model


def _names(trainer: Trainer) -> list[str]:
    return [name for name, _ in trainer.model.named_parameters()]


def _tensors(state: dict[str, Any], parameters: list[str]) -> Iterator[tuple[str, Tensor]]:
    """What is stored, by name; `parameters` are those that `average` holds, in its order."""
    for name, tensor in state["model"].items():
        yield f"model.{name}", tensor
    for name, tensor in zip(parameters, state["average"], strict=True):
        yield f"average.{name}", tensor
    for i, optimizer in enumerate(state["optimizers"]):
        for weight, kept in optimizer["state"].items():
            for kind, value in kept.items():
                small = value.bfloat16() if value.ndim else value.float()
                yield f"optimizer.{i}.{weight}.{kind}", small
    yield "slots.draws", state["slots"]["draws"]
    yield "sums", state["sums"]


def _parts(tensors: Iterator[tuple[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Tensors in few groups of at most PART_BYTES; one that is larger makes its own.

    The largest first, each into the first group that has room (first fit decreasing).
    """
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors}
    parts: list[dict[str, Tensor]] = []
    room: list[int] = []
    for name in sorted(on_cpu, key=lambda name: -on_cpu[name].nbytes):
        size = on_cpu[name].nbytes
        at = next((i for i, left in enumerate(room) if size <= left), len(parts))
        if at == len(parts):
            parts.append({})
            room.append(PART_BYTES)
        parts[at][name] = on_cpu[name]
        room[at] -= size
    return parts


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix` and a dot, without it."""
    start = prefix + "."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
