"""Where a run can be changed: names of hook points, and positions of the board."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trm_interp.core.clock import Tick
from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.models.config import ModelConfig
from trm_interp.core.models.registry import model_class
from trm_interp.recording.names import Names, select
from trm_interp.runtime.shapes import Bool, Int
from trm_interp.tasks.base import Task

START = "start"  # what the hook points of the states before the first evaluation begin with


class Place(NamedTuple):
    """A hook point of a run. `at`: number of the evaluation, -1 for the start; `site`: a state that
    it writes, or a place inside it."""

    name: str
    at: int
    tick: Tick | None
    site: str

    @property
    def is_inside(self) -> bool:
        return self.tick is not None and self.site != self.tick.writes


@lru_cache(maxsize=16)
def _places(config: ModelConfig, steps: int) -> dict[str, Place]:
    model = model_class(config)
    names = [Place(start_hook(state), -1, None, state) for state in model.State._fields]
    sites = {state: model.site_names(config, state) for state in config.schedule.states}
    for at, tick in enumerate(config.schedule.ticks(steps)):
        names += [Place(f"{tick.name}.{site}", at, tick, site) for site in sites[tick.writes]]
        names.append(Place(tick.hook, at, tick, tick.writes))
    return {place.name: place for place in names}


def start_hook(state: str) -> str:
    """Hook point of a state before the first evaluation.

    >>> start_hook("z_L")
    'start.hook_z_L'
    """
    return f"{START}.hook_{state}"


def places(model: RecursiveModel, steps: int, names: Names = None) -> list[Place]:
    """The places of these names, in the order in which a run of `steps` passes them.

    `names`: one, several, a function that accepts some, or None for all states and sites. They are
    those of `recording.hooks` (less the input and the read-outs), and `start.hook_STATE` for the
    states before the first evaluation. ValueError with the nearest names for one that the model
    does not have.
    """
    chosen = select(_places(model.config, steps), names)
    return sorted(chosen.values(), key=lambda place: place.at)


def state_hooks(model: RecursiveModel, steps: int) -> list[str]:
    """Hook points of all states of a run, those of the start first."""
    return [place.name for place in _places(model.config, steps).values() if not place.is_inside]


def last_hook(model: RecursiveModel, steps: int, state: str, before: int) -> str:
    """Where a state was written last, of the first `before` evaluations."""
    schedule = model.config.schedule
    before = min(before, steps * schedule.evaluations)
    for at in range(before - 1, max(before - len(schedule.cycle), 0) - 1, -1):
        step, rest = divmod(at, schedule.evaluations)
        tick = schedule.tick(step, *divmod(rest, len(schedule.cycle)))
        if tick.writes == state:
            return tick.hook
    return start_hook(state)


# Positions


def positions_of(config: ModelConfig, cells: Sequence[int] | np.ndarray) -> Bool[Tensor, " pos"]:
    """A mask of positions from cells of the board, by their numbers from 0.

    ValueError for a cell that the board does not have.
    """
    numbers = np.asarray(cells, np.int64).ravel()
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= config.cells):
        raise ValueError(f"cells are 0 to {config.cells - 1}, got {numbers.tolist()}")
    mask = torch.zeros(config.positions, dtype=torch.bool)
    mask[torch.from_numpy(numbers) + config.prefix] = True
    return mask


def position_groups(
    task: Task,
    config: ModelConfig,
    inputs: Int[np.ndarray, "pair cell"],
    differ: Bool[np.ndarray, "pair cell"] | None = None,
    focus: Int[np.ndarray, " pair"] | None = None,
) -> dict[str, Bool[Tensor, "pair pos"]]:
    """Groups of positions by name: all, the prefix where there is one, givens, blanks; with
    `differ` the cells where two answers differ; with `focus`, one cell a pair, that cell and its
    row, column, box or whatever places the task has.
    """
    asked = np.asarray(task.asked(inputs), bool)
    masks = {"givens": ~asked, "blanks": asked}
    if differ is not None:
        masks["differ"] = np.asarray(differ, bool)
    if focus is not None:
        masks["cell"] = np.arange(config.cells) == focus[:, None]
        places = task.places()
        masks |= {f"its {name}": of == of[focus][:, None] for name, of in places.items()}
    n, prefix = len(inputs), config.prefix
    before = np.zeros((n, prefix), bool)
    groups = {"all": torch.ones(n, config.positions, dtype=torch.bool)}
    if prefix:
        groups["prefix"] = torch.arange(config.positions).lt(prefix).expand(n, -1)
    for name, mask in masks.items():
        groups[name] = torch.from_numpy(np.concatenate([before, mask], 1))
    return groups
