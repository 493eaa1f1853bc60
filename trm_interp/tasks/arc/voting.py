"""Votes of the augmentations of a task, and what the benchmark makes of them: pass@1, pass@2.

Every augmentation of a test pair gives one answer; with the augmentation undone it is a vote for a
grid. Grids are ranked by the number of their votes; of equally many the one whose voters have the
higher mean halting probability comes first; where these are equal too, the one that was voted for
first, in the order of the file. A test pair is passed at k where its output is among the first k,
and a task counts with the share of its pairs that are passed, as in the public evaluation.
"""

import numpy as np
from numpy.typing import NDArray

from trm_interp.tasks.arc.augmentations import Augmentation, key_of, parsed
from trm_interp.tasks.arc.grid import Bools, Boxes, Tokens, boxes_around, boxes_of_answers, crop
from trm_interp.tasks.base import PuzzleSet

AT_ONCE = 4096  # answers that are cropped together
SCORES = ("pass@1", "pass@2")

Votes = dict[bytes, list[float]]  # a grid -> halting probabilities of those that voted for it


def ranked(votes: Votes) -> list[bytes]:
    """The grids, the one with the most votes first.

    >>> ranked({b"a": [0.2], b"b": [0.1, 0.3], b"c": [0.9], b"d": [0.9]})
    [b'b', b'c', b'd', b'a']
    """
    return sorted(votes, key=lambda grid: (-len(votes[grid]), -float(np.mean(votes[grid]))))


def ballots(
    puzzles: PuzzleSet, answers: Tokens, q_halt: NDArray[np.floating]
) -> dict[tuple[str, bytes], tuple[bytes, Votes]]:
    """By task and input, the output and the votes of every test pair, all without augmentation.

    `answers` [n, cell] tokens and `q_halt` [n] halting logits of the puzzles, which have names.
    """
    assert puzzles.names is not None
    named = {name: parsed(name) for name in np.unique(puzzles.names).tolist()}
    probability = 1 / (1 + np.exp(-np.asarray(q_halt, np.float64)))
    pairs: dict[tuple[str, bytes], tuple[bytes, Votes]] = {}
    for begin in range(0, len(puzzles), AT_ONCE):
        some = puzzles.subset(slice(begin, begin + AT_ONCE))
        assert some.names is not None
        inputs, labels = boxes_around(some.inputs), boxes_around(some.labels)
        voted = boxes_of_answers(answers[begin : begin + AT_ONCE], inputs.top, inputs.left)
        for at, name in enumerate(some.names.tolist()):
            task, augmentation = named[name]
            given, output, answer = (
                plain_key(augmentation, tokens[at], boxes, at)
                for tokens, boxes in (
                    (some.inputs, inputs),
                    (some.labels, labels),
                    (answers[begin : begin + AT_ONCE], voted),
                )
            )
            _, votes = pairs.setdefault((task, given), (output, {}))
            votes.setdefault(answer, []).append(float(probability[begin + at]))
    return pairs


def plain_key(augmentation: Augmentation, tokens: Tokens, boxes: Boxes, at: int) -> bytes:
    """Equal for grids, in box number `at` of frames [cell], that are equal without augmentation."""
    return key_of(augmentation.invert(crop(tokens, boxes, at)))


def scores(puzzles: PuzzleSet, answers: Tokens, q_halt: NDArray[np.floating]) -> dict[str, float]:
    """`pass@1` and `pass@2` of answers as in `ballots`, in [0, 1]: means over tasks.

    `right shape` is the share of answers whose grid has the size of the output's. Nothing where the
    puzzles have no names, as then nothing tells which belong together.
    """
    if puzzles.names is None or not len(puzzles):
        return {}
    by_task: dict[str, list[list[bool]]] = {}
    for (task, _), (output, votes) in ballots(puzzles, answers, q_halt).items():
        order = ranked(votes)
        by_task.setdefault(task, []).append([output in order[:k] for k in (1, 2)])
    shares = np.mean([np.mean(passed, axis=0) for passed in by_task.values()], axis=0)
    named = dict(zip(SCORES, map(float, shares), strict=True))
    return {**named, "right shape": float(has_right_shape(puzzles, answers).mean())}


def has_right_shape(puzzles: PuzzleSet, answers: Tokens) -> Bools:
    """[n]: answers with a grid of the size of the output's."""
    right: list[Bools] = []
    for begin in range(0, len(puzzles), AT_ONCE):
        rows = slice(begin, begin + AT_ONCE)
        given, wanted = boxes_around(puzzles.inputs[rows]), boxes_around(puzzles.labels[rows])
        boxes = boxes_of_answers(answers[rows], given.top, given.left)
        right.append((boxes.rows == wanted.rows) & (boxes.columns == wanted.columns))
    return np.concatenate(right)
