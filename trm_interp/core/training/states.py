"""Training states as files: checked before they are used, refused in one line."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trm_interp.core.checkpoints.headers import check_archive, is_archive, require_file
from trm_interp.core.training.settings import TrainConfig
from trm_interp.runtime.errors import UserError, first_line, is_out_of_memory
from trm_interp.runtime.identity import require_same

# what every state of a training run holds
FIELDS: dict[str, type | tuple[type, ...]] = {
    **{"identity": dict, "settings": dict, "best": dict, "changes": list},
    **{"step": int, "rows": int, "summed_steps": int, "validated_at": int},
    **{"seconds": (int, float), "validated_on": str},
}
# none of these changes the weights of a step that is done: `ema` changes the average only, and a
# part of the run may end elsewhere just as the run may
MAY_CHANGE_ON_RESUME = (
    "steps",
    "n_sup_warm_until",
    "budget",
    "target",
    "eval_every",
    "save_every",
    "keep_every",
    "log_every",
    "compile",
    "ema",
    "micro_batches",
    "auto_batch",
    "graphs",
    "fused_mixer",
)
# settings of training that earlier versions did not have: their states go on without them
ADDED_LATER = ("n_sup_warm", "stagger", "easy_until", "early_weight")
AS_BEFORE = ("prefix_optimizer", "prefix_lr", "prefix_decay")  # older states had the defaults
WEIGHTS: dict[str, type | tuple[type, ...]] = {
    **{"model": dict, "average": list, "best_weights": list, "optimizers": list},
    **{"slots": dict, "sums": Tensor},
}


def read_state(file: Path, device: torch.device | str) -> dict[str, Any]:
    """What `Trainer.save` wrote. UserError for anything else, before memory is spent on it."""
    require_file(file)
    if is_archive(file):
        check_archive(file)
    try:
        state = torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # a truncated file makes torch raise many kinds
        if is_out_of_memory(error):
            raise
        raise UserError(f"{file}: truncated or damaged ({first_line(error)[:100]})") from None
    require_fields(state, FIELDS | WEIGHTS, file)
    return state


def require_same_run(
    file: Path, saved: Mapping[str, Any], identity: Mapping[str, Any]
) -> list[str]:
    """The settings of training that a saved identity is from before.

    UserError names what differs, but for what may change on a resume, which older states held.
    """
    later = [name for name in ADDED_LATER if f"train.{name}" not in saved]
    apart = {f"train.{name}" for name in (*MAY_CHANGE_ON_RESUME, *later)}
    saved = {f"train.{name}": getattr(TrainConfig(), name) for name in AS_BEFORE} | dict(saved)
    there, now = ({k: v for k, v in one.items() if k not in apart} for one in (saved, identity))
    require_same(file, there, now)
    return later


def require_fields(state: Any, fields: Mapping[str, type | tuple[type, ...]], file: Path) -> None:
    """UserError names the first field that is missing or of another type."""
    if not isinstance(state, dict):
        raise UserError(f"{file} holds a {type(state).__name__}: not a state of `trm-interp train`")
    for name, kind in fields.items():
        if name not in state:
            raise UserError(f"{file} has no {name}: not a state of `trm-interp train`")
        value = state[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(
                f"{file}: {name} is a {type(value).__name__}: not a state of `trm-interp train`"
            )


def require_shapes(saved: list[Tensor], wanted: list[Tensor], what: str, file: Path) -> None:
    """UserError where saved weights are not those of this model."""
    shapes = [list(t.shape) if isinstance(t, Tensor) else t for t in saved]
    if shapes != [list(t.shape) for t in wanted]:
        raise UserError(f"{file}: {what} are not this model's weights: start the run over")


def changed_settings(
    state: Mapping[str, Any],
    identity: Mapping[str, Any],
    config: TrainConfig,
    file: Path,
    tell: Callable[[str], None],
) -> dict[str, list[Any]]:
    """Settings that the resumed run has otherwise than its state, each [before, now].

    `identity`: of the resumed run; UserError if the state is another run's. `tell` hears of
    settings that did not exist when the state was saved.
    """
    later = require_same_run(file, state["identity"], identity)
    if later:
        going_on = ", ".join(f"{name} {getattr(config, name)}" for name in later)
        tell(f"{file}: saved before these settings existed: going on with {going_on}")
    before, now = asdict(TrainConfig()) | state["settings"], asdict(config)
    may_change = (*MAY_CHANGE_ON_RESUME, *later)
    return {name: [before[name], now[name]] for name in may_change if before[name] != now[name]}


@contextmanager
def restoring(file: Path) -> Iterator[None]:
    """Report what goes wrong while a state is restored as damage of its file."""
    try:
        yield
    except UserError:
        raise
    except (
        *(KeyError, IndexError, TypeError, ValueError, AttributeError),
        *(RuntimeError, OverflowError),
    ) as error:
        if is_out_of_memory(error):
            raise
        why = f"{type(error).__name__}: {first_line(error)[:100]}"
        raise UserError(f"{file}: damaged ({why}): start the run over") from None
