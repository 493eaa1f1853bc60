"""ARC pairs for tests: the tasks that `data make arc-small` draws, in a frame of any size."""

import numpy as np

from trm_interp.tasks.arc.augmentations import Augmentation
from trm_interp.tasks.arc.generators import synthetic
from trm_interp.tasks.arc.grid import encode_pair
from trm_interp.tasks.arc.task import Arc
from trm_interp.tasks.base import PuzzleSet

TURNED = Augmentation(3, "0213456789")


def arc_puzzles(n: int, side: int, seed: int = 0) -> PuzzleSet:
    """Pairs of as many tasks as there are, in turn plain and augmented, with their identifiers."""
    rng = np.random.default_rng(seed)
    tasks = synthetic()
    inputs, labels, names = [], [], []
    for at in range(n):
        task = tasks[at % len(tasks)]
        augmentation = TURNED if at % 2 else Augmentation()
        first, second = (augmentation.apply(grid) for grid in next(task.pairs(rng)))
        for part, tokens in zip((inputs, labels), encode_pair((first, second), side), strict=True):
            part.append(tokens)
        names.append(augmentation.name(task.name))
    return PuzzleSet(
        Arc(side), np.stack(inputs), np.stack(labels), np.arange(n) + 2, "made", {},
        given_identifiers=np.arange(n) + 1, names=np.array(names),
    )  # fmt: skip
