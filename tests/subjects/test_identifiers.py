"""Blank and swapped identifiers, of a task whose puzzles have them by their lines."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from maze_puzzles import maze_puzzles
from toy_task import latin_puzzles

from trm_interp.runtime.errors import UserError
from trm_interp.subjects.identifiers import swapped, with_identifiers

READS: Any = SimpleNamespace(n_identifiers=3)
IGNORES: Any = SimpleNamespace(n_identifiers=0)


def test_controls_of_a_task_with_identifiers():
    puzzles = latin_puzzles(6)  # lines 2 to 7, of which the rest by 3 is the identifier
    assert with_identifiers(puzzles, "true", READS) is puzzles
    assert puzzles.identifiers is not None and puzzles.identifiers.tolist() == [2, 0, 1, 2, 0, 1]
    blank, other = (with_identifiers(puzzles, which, READS) for which in ("blank", "swapped"))
    assert blank.identifiers is not None and blank.identifiers.tolist() == [0] * 6
    # sorted 0 1 2, half way round: 0 -> 1, 1 -> 2, 2 -> 0
    assert other.identifiers is not None and other.identifiers.tolist() == [0, 1, 2, 0, 1, 2]
    part = other.subset([4, 2]).tensors
    assert part.identifiers is not None and part.identifiers.tolist() == [1, 2]


@pytest.mark.parametrize("n", range(2, 9))
def test_swapped_ones_are_all_others_and_all_taken_once(n: int):
    own = np.arange(n) * 3 + 1
    changed = swapped(own)
    assert (changed != own).all() and sorted(changed.tolist()) == own.tolist()


@pytest.mark.parametrize(
    ("puzzles", "config", "says"),
    [
        (maze_puzzles(2, 5), READS, "made has no identifiers of puzzles"),
        (latin_puzzles(3), IGNORES, "the model has no embeddings of puzzles"),
        (latin_puzzles(1), READS, "share one identifier"),
    ],
)
def test_what_cannot_be_swapped(puzzles, config, says):
    with pytest.raises(UserError, match=f"--identifiers swapped: .*{says}"):
        with_identifiers(puzzles, "swapped", config)
