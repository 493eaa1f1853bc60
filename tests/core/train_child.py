"""One training run for the tests, alone or under torchrun; it can kill itself at chosen moments.

`train_child.py OUT [key=value ...]`: keys are TrainConfig's, or `model.*` for the model's. With
`die_at=3,17` the run is started anew for every number and dies by SIGKILL at that moment, counted
over steps, rows, file syncs and renames; then it is finished. `die_at_step=5,12` dies where so many
optimizer steps of the run are done.
"""

import ast
import itertools
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # optimizers import it late; here once for all forks
import torch.distributed

import trm_interp.core.training.loop as loop
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.core.training.loop import train
from trm_interp.core.training.settings import TrainConfig
from trm_interp.core.training.slots import TrainData
from trm_interp.core.training.trainer import STATE_FILE, Trainer

MODEL: dict[str, Any] = {"cells": 4, "vocab": 4, "d_model": 8, "multiple": 8}
MODEL |= {"h_cycles": 2, "l_cycles": 2, "prefix": 1}
TRAIN: dict[str, Any] = {
    "steps": 23,
    "batch_size": 4,
    "n_sup": 3,
    "lr": 1e-2,
    "muon_lr": 1e-2,
    "ema": 0.9,
}
TRAIN |= {"warmup": 0.1, "explore": 0.5, "eval_every": 5, "save_every": 4, "log_every": 3}


def data() -> TrainData:
    """2x2 "puzzles": rows of two tokens and their order; a symmetry adds the key's last bit."""
    inputs = torch.tensor([[1, 2, 3, 1], [2, 3, 1, 1], [3, 1, 2, 2], [2, 2, 1, 3], [1, 1, 3, 2]])
    labels = inputs.flip(1)

    def augment(inputs: Any, labels: Any, keys: Any) -> Any:
        turn = (keys & 1).bool()[:, None]
        return inputs, torch.where(turn, labels, labels.roll(1, 1))

    return TrainData(inputs, labels, inputs[:3], labels[:3], augment)


def make(out: Path, **settings: Any) -> Trainer:
    model = {k.removeprefix("model."): v for k, v in settings.items() if k.startswith("model.")}
    rest = {k: v for k, v in settings.items() if not k.startswith("model.")}
    duo = rest.pop("duo", False)
    config = TrainConfig(**{**TRAIN, **rest})
    if duo:
        trainer = duo_trainer(config, out)
    else:
        trainer = Trainer(TRMConfig(**{**MODEL, **model}), config, data(), out)
        # so that some slots halt at once
        torch.nn.init.zeros_(trainer.model.get_parameter("q_head.bias"))
    if (out / STATE_FILE).exists():
        trainer.resume()
    return trainer


def duo_trainer(config: TrainConfig, out: Path) -> Trainer:
    """Of the toy that reads ahead and has an embedding for every puzzle, of three here."""
    sys.path.append(str(Path(__file__).parents[1]))
    from toy_two_networks import DuoConfig

    which = torch.arange(5) % 3
    numbered = replace(data(), identifiers=which, val_identifiers=which[:3])
    shape = DuoConfig(cells=4, vocab=4, d_model=8, n_identifiers=3, size_weight=0.1)
    return Trainer(shape, config, numbered, out)


def ticking(seconds: float) -> Callable[[], float]:
    """A clock on which so much passes between two looks."""
    looks = itertools.count()
    return lambda: seconds * next(looks)


def die_at(moment: int) -> None:
    """SIGKILL this process at its `moment`-th step, row, sync or rename."""
    left = moment

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    loop.append_row = counted(loop.append_row)
    Trainer.step = counted(Trainer.step)
    os.fsync = counted(os.fsync)
    os.replace = counted(os.replace)


def die_at_step(step: int) -> None:
    """SIGKILL this process before the optimizer step that follows `step` of the run."""
    take_step = Trainer.step

    def call(self: Trainer) -> Any:
        if self.step_count == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return take_step(self)

    Trainer.step = call  # type: ignore[method-assign]


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    settings: dict[str, Any] = dict(word.split("=", 1) for word in sys.argv[2:])
    deaths = [
        (die, int(word))
        for die in (die_at, die_at_step)
        for word in settings.pop(die.__name__, "").split(",")
        if word
    ]
    settings = {k: v if v.isalpha() else ast.literal_eval(v) for k, v in settings.items()}
    for die, moment in deaths:  # forked before any backward pass, so that torch is imported once
        child = os.fork()
        if child == 0:
            die(moment)
            train(make(out, **settings))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print("killed" if os.WIFSIGNALED(status) else "ended", flush=True)
    rank = int(os.environ.get("RANK", "0"))
    train(make(out, **settings), clock=ticking(1.0 + rank))  # clocks of two machines differ
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
