"""Which cells `collect --positions` means by its words, by hand."""

import numpy as np
import pytest

from tests.maze_puzzles import maze_puzzles
from trm_interp.recording.positions import kept_positions
from trm_interp.runtime.errors import UserError
from trm_interp.subjects.settings import CollectConfig
from trm_interp.tasks.maze.grid import OPEN


def test_words_for_positions_by_hand():
    puzzles = maze_puzzles(3, 5)
    open_somewhere = [int(cell) for cell in range(25) if (puzzles.inputs[:, cell] == OPEN).any()]
    assert kept_positions("asked", puzzles, 2) == [2 + cell for cell in open_somewhere]
    border = [0, 1, 2, 3, 4, 5, 9, 10, 14, 15, 19, 20, 21, 22, 23, 24]
    assert kept_positions("border", puzzles, 3) == [3 + cell for cell in border]
    assert kept_positions(None, puzzles, 0) is None
    assert kept_positions("0-2,7", puzzles, 5) == [0, 1, 2, 7]  # indices count the prefix


def test_random_positions_are_the_same_cells_every_time_and_nested():
    puzzles = maze_puzzles(1, 5)
    few, many = (kept_positions(f"random:{k}", puzzles, 1) or [] for k in (4, 9))
    assert len(set(few)) == 4 and set(few) < set(many) <= set(range(1, 26))
    assert kept_positions("random:25", puzzles, 1) == list(range(1, 26))
    with pytest.raises(UserError, match="random:26 of 25 cells"):
        kept_positions("random:26", puzzles, 1)


def test_nothing_to_ask_is_said():
    puzzles = maze_puzzles(1, 5)
    puzzles.inputs[puzzles.inputs == OPEN] = 1
    with pytest.raises(UserError, match="no cell"):
        kept_positions("asked", puzzles, 0)
    assert np.all(puzzles.inputs != OPEN)


@pytest.mark.parametrize("text", ["random:0", "random:", "random:-3", "edge", "random:" + "9" * 40])
def test_positions_that_cannot_be_read_are_refused_before_anything_is_opened(text, tmp_path):
    with pytest.raises(UserError, match="positions"):
        CollectConfig(out=tmp_path / "store", positions=text)
