"""Votes of augmentations, counted by hand."""

import numpy as np
import pytest

from trm_interp.tasks.arc.augmentations import Augmentation
from trm_interp.tasks.arc.grid import encode
from trm_interp.tasks.arc.task import Arc
from trm_interp.tasks.arc.voting import ballots, has_right_shape, ranked, scores
from trm_interp.tasks.base import PuzzleSet

SIDE = 4
AUGMENTATIONS = [Augmentation(), Augmentation(1, "0213456789"), Augmentation(6, "0123456798")]
AUGMENTATIONS += [Augmentation(4, "0987654321")]
INPUT = np.array([[1, 2], [3, 4]], np.uint8)
RIGHT = np.array([[1, 2, 3]], np.uint8)
WRONG = np.array([[3, 2, 1]], np.uint8)
OTHER = np.array([[5]], np.uint8)


def voted(*pairs: tuple[str, np.ndarray, list[np.ndarray]]) -> tuple[PuzzleSet, np.ndarray]:
    """Test pairs with their answers, an augmentation for each, all told in the plain task."""
    names, inputs, labels, answers = [], [], [], []
    for task, given, grids in pairs:
        for augmentation, grid in zip(AUGMENTATIONS, grids, strict=False):
            names.append(augmentation.name(task))
            for part, of in ((inputs, given), (labels, RIGHT), (answers, grid)):
                part.append(encode(augmentation.apply(of), SIDE))
    n = len(names)
    puzzles = PuzzleSet(
        Arc(SIDE), np.stack(inputs), np.stack(labels), np.arange(n), "made", {},
        given_identifiers=np.arange(n) + 1, names=np.array(names),
    )  # fmt: skip
    return puzzles, np.stack(answers)


def passed(q_halt: list[float], *pairs: tuple[str, np.ndarray, list[np.ndarray]]) -> list[float]:
    found = scores(*voted(*pairs), np.array(q_halt))
    return [found["pass@1"], found["pass@2"]]


def test_more_votes_come_first():
    # two votes for the right grid, one each for others that are surer of themselves
    assert passed([-5, -5, 9, 9], ("a", INPUT, [RIGHT, RIGHT, WRONG, OTHER])) == [1, 1]
    # three for a wrong one, one for the right one, which is second
    assert passed([0, 0, 0, 0], ("a", INPUT, [WRONG, WRONG, WRONG, RIGHT])) == [0, 1]
    assert passed([0, 0, 0, 0], ("a", INPUT, [WRONG, WRONG, OTHER, OTHER])) == [0, 0]


def test_equally_many_votes_are_told_apart_by_the_mean_halting_probability():
    # sigmoid(1) = 0.73 and 0.73 against sigmoid(9) = 1.00 and sigmoid(-9) = 0.00, mean 0.50: the
    # mean is of probabilities, as the logits' would be 1 against 0 too, but 4 against 1 with 17, -9
    assert passed([1, 1, 17, -9], ("a", INPUT, [RIGHT, RIGHT, WRONG, WRONG])) == [1, 1]
    assert passed([-1, -1, 17, -9], ("a", INPUT, [RIGHT, RIGHT, WRONG, WRONG])) == [0, 1]
    assert passed([0, 1, 2], ("a", INPUT, [RIGHT, WRONG, OTHER])) == [0, 0]  # third of three


def test_full_ties_are_broken_by_the_order_of_the_file():
    assert ranked({b"x": [0.5], b"a": [0.5]}) == [b"x", b"a"]
    assert passed([2, 2], ("a", INPUT, [RIGHT, WRONG])) == [1, 1]
    assert passed([2, 2], ("a", INPUT, [WRONG, RIGHT])) == [0, 1]


def test_a_task_counts_with_the_share_of_its_pairs():
    pairs = (
        ("a", INPUT, [RIGHT, RIGHT]),
        ("a", INPUT.T, [WRONG, WRONG]),  # another pair of the same task
        ("b", INPUT, [RIGHT, WRONG]),  # the same input in another task
    )
    # task a passes one of two pairs, task b one of one: (1/2 + 1) / 2 = 3/4, pooled it were 2/3
    assert passed([1, 1, 1, 1, 1, 0], *pairs) == [0.75, 0.75]


def test_ballots_have_no_augmentation():
    puzzles, answers = voted(("a", INPUT, [RIGHT, RIGHT, RIGHT, RIGHT]))
    ((task, _), (output, votes)), *more = ballots(puzzles, answers, np.zeros(4)).items()
    assert not more and task == "a" and list(votes) == [output]
    assert votes[output] == [0.5] * 4


def test_moved_pairs_vote_as_well():
    moved = {"top": 1, "left": 1}
    frames = [encode(grid, SIDE, **moved)[None] for grid in (INPUT, RIGHT, RIGHT)]
    noise = np.where(np.arange(SIDE**2) < SIDE, 7, frames[2])  # above the grid
    puzzles = PuzzleSet(
        Arc(SIDE), frames[0], frames[1], np.arange(1), "made", {}, names=np.array(["a"])
    )
    assert scores(puzzles, noise.astype(np.uint8), np.zeros(1))["pass@1"] == 1


def test_shapes_and_empty_answers():
    puzzles, answers = voted(("a", INPUT, [RIGHT, WRONG, OTHER, RIGHT]))
    answers[3] = 1  # no colour at all
    assert has_right_shape(puzzles, answers).tolist() == [True, True, False, False]
    found = scores(puzzles, answers, np.zeros(4))
    assert found == {"pass@1": 1.0, "pass@2": 1.0, "right shape": 0.5}


def test_without_names_nothing_is_scored():
    puzzles, answers = voted(("a", INPUT, [RIGHT]))
    bare = PuzzleSet(puzzles.task, puzzles.inputs, puzzles.labels, puzzles.lines, "made", {})
    assert scores(bare, answers, np.zeros(1)) == {}
    with pytest.raises(ValueError, match="names or identifiers"):
        PuzzleSet(
            puzzles.task, puzzles.inputs, puzzles.labels, puzzles.lines, "", {},
            names=np.array(["a", "b"]),
        )  # fmt: skip
