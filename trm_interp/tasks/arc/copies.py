"""Test pairs of one task and input under several augmentations, as copies of each other.

A model knows an augmentation by its identifier, so only those that a data set has laid down can be
asked; their answers are carried over by undoing one augmentation and applying another.
"""

import numpy as np

from trm_interp.tasks.arc.augmentations import parsed
from trm_interp.tasks.arc.grid import (
    Tokens,
    boxes_around,
    boxes_of_answers,
    crop,
    encode,
    side_of,
)
from trm_interp.tasks.arc.voting import plain_key
from trm_interp.tasks.puzzles import PuzzleSet
from trm_interp.tasks.symmetric import Copies, Rows


class ArcCopies(Copies):
    """Copies by the names of tasks and augmentations, which the pool has."""

    def carried(self, answers: Tokens, source: Rows, target: Rows) -> Tokens:
        assert self.pool.names is not None
        here, there = (boxes_around(self.pool.inputs[rows]) for rows in (source, target))
        boxes = boxes_of_answers(answers, here.top, here.left)
        side, out = side_of(answers.shape[1]), answers.copy()
        names = self.pool.names
        for i in np.flatnonzero(source != target).tolist():
            out[i] = 0
            _, made = parsed(str(names[source[i]]))
            _, wanted = parsed(str(names[target[i]]))
            grid = wanted.apply(made.invert(crop(answers[i], boxes, i)))
            corner = int(there.top[i]), int(there.left[i])
            if grid.size and all(a + b <= side for a, b in zip(corner, grid.shape, strict=True)):
                out[i] = encode(grid, side, *corner)
        return out


def copies(puzzles: PuzzleSet) -> ArcCopies | None:
    """As `Task.copies`: pairs whose task and input, augmentations undone, are equal. A pair that is
    there twice under one augmentation is no copy of itself."""
    if puzzles.names is None:
        return None
    named = {name: parsed(name) for name in np.unique(puzzles.names).tolist()}
    boxes = boxes_around(puzzles.inputs)
    numbers: dict[tuple[str, bytes], int] = {}
    forms: dict[tuple[str, bytes], int] = {}
    alike, form = np.empty((2, len(puzzles)), np.int64)
    for at, name in enumerate(puzzles.names.tolist()):
        task, augmentation = named[name]
        key = task, plain_key(augmentation, puzzles.inputs[at], boxes, at)
        alike[at] = numbers.setdefault(key, len(numbers))
        form[at] = forms.setdefault((name, puzzles.inputs[at].tobytes()), len(forms))
    if len(numbers) == len(forms):
        return None
    return ArcCopies(puzzles, np.arange(len(puzzles)), alike, form)
