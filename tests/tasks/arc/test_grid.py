"""The encoding of ARC pairs, cell for cell as the public code has it, and how it is undone."""

import numpy as np
import pytest

from trm_interp.tasks.arc.augmentations import (
    N_SYMMETRIES,
    PLAIN,
    Augmentation,
    drawn,
    parsed,
    turned,
)
from trm_interp.tasks.arc.facts import facts, objects, rate
from trm_interp.tasks.arc.grid import (
    boxes_around,
    boxes_of_answers,
    crop,
    encode,
    encode_pair,
    grid_of,
    misplaced,
    parse,
    render,
)
from trm_interp.tasks.arc.task import Arc

GRID = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
ZERO = np.zeros(1, np.int64)


def frame(*rows: str) -> np.ndarray:
    """Tokens of a drawn frame."""
    return parse("".join(rows))


def test_a_grid_has_end_markers_below_and_on_the_right():
    np.testing.assert_array_equal(
        encode(GRID, 5), frame("123|.", "456|.", "|||..", ".....", ".....")
    )
    assert encode(GRID, 5).reshape(5, 5)[0].tolist() == [3, 4, 5, 1, 0]  # colour + 2, 1, pad 0


def test_no_marker_stands_outside_of_the_frame():
    np.testing.assert_array_equal(encode(GRID, 3), frame("123", "456", "|||"))
    np.testing.assert_array_equal(encode(GRID.T, 3), frame("14|", "25|", "36|"))
    full = np.full((4, 4), 9, np.uint8)
    np.testing.assert_array_equal(encode(full, 4), np.full(16, 11))


def test_a_moved_grid_takes_its_markers_along():
    moved = encode(GRID, 5, top=2, left=1)
    np.testing.assert_array_equal(moved, frame(".....", ".....", ".123|", ".456|", ".|||."))
    np.testing.assert_array_equal(encode(GRID, 5, 3, 2)[15:], frame("..123", "..456"))
    assert not misplaced(moved[None]).any()


def test_both_grids_of_a_pair_move_alike_and_stay_in_the_frame():
    pair = (GRID, np.array([[7], [8], [9]], np.uint8))  # together 3 x 3
    rng, offsets = np.random.default_rng(0), set()
    for _ in range(200):
        first, second = encode_pair(pair, 5, rng)
        boxes = boxes_around(np.stack([first, second]))
        assert boxes.top[0] == boxes.top[1] and boxes.left[0] == boxes.left[1]
        assert not misplaced(np.stack([first, second])).any()
        np.testing.assert_array_equal(crop(first, boxes, 0), pair[0])
        np.testing.assert_array_equal(crop(second, boxes, 1), pair[1])
        offsets.add((int(boxes.top[0]), int(boxes.left[0])))
    assert offsets == {(top, left) for top in range(3) for left in range(3)}  # 5 - 3 + 1 each
    plain = encode_pair(pair, 5)
    assert all((a == encode(b, 5)).all() for a, b in zip(plain, pair, strict=True))


@pytest.mark.parametrize(
    ("rows", "shape"),
    [
        (("123|.", "456|.", "|||..", ".....", "....."), (2, 3)),
        (("123.7", "456.7", "77.77", "....7", "....7"), (2, 3)),  # 3 x 2 has 6 cells, too
        (("12|..", "34567", "|||||", ".....", "....."), (2, 2)),  # 2 x 2 beats 1 x 2
        (("12345", "6|...", "7|...", "|....", "....."), (1, 5)),  # 1 x 5 beats 3 x 1
        (("|1234", "11111", "11111", "11111", "11111"), (0, 0)),  # nothing begins in the corner
        (("11111", "11111", "11111", "11111", "11111"), (5, 5)),
    ],
)
def test_answers_are_cropped_to_the_largest_box_in_the_corner(rows, shape):
    tokens = frame(*rows)[None]
    boxes = boxes_of_answers(tokens, ZERO, ZERO)
    assert (int(boxes.rows[0]), int(boxes.columns[0])) == shape


def test_answers_begin_where_their_inputs_do():
    tokens = frame("77777", "71234", "7567.", "|||||", ".....")[None]
    boxes = boxes_of_answers(tokens, np.array([1]), np.array([1]))
    np.testing.assert_array_equal(crop(tokens[0], boxes, 0), [[1, 2, 3], [5, 6, 7]])
    at_end = boxes_of_answers(tokens, np.array([4]), np.array([4]))
    assert int(at_end.rows[0]) == 0


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([[1, 2], [3]], "unequal length"),
        ([[10]], "colour 10; colours are 0 to 9"),
        ([[-1]], "colour -1"),
        ([[1.5]], "whole numbers"),
        ([], "not a grid"),
        ("12", "not a grid"),
        ([[0] * 31], "1x31, above the frame of 30x30"),
    ],
)
def test_what_is_no_grid(rows, says):
    with pytest.raises(ValueError, match=says):
        grid_of(rows)


@pytest.mark.parametrize("symmetry", range(N_SYMMETRIES))
def test_every_symmetry_is_undone_with_its_colours(symmetry):
    augmentation = Augmentation(symmetry, "0987654321")
    moved = augmentation.apply(GRID)
    np.testing.assert_array_equal(augmentation.invert(moved), GRID)
    np.testing.assert_array_equal(moved, turned(10 - GRID, symmetry))  # colour c becomes 10 - c
    assert parsed(augmentation.name("task")) == ("task", augmentation)
    assert moved.shape == (GRID.shape if symmetry in (0, 2, 4, 5) else GRID.shape[::-1])


def test_symmetries_are_numbered_as_in_public_names():
    # 1 2     quarter turns counter-clockwise, then mirror images
    # 3 4
    square = np.array([[1, 2], [3, 4]], np.uint8)
    images = [turned(square, symmetry).tolist() for symmetry in range(N_SYMMETRIES)]
    assert images == [
        [[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]],
        [[2, 1], [4, 3]], [[3, 4], [1, 2]], [[1, 3], [2, 4]], [[4, 2], [3, 1]],
    ]  # fmt: skip


def test_augmentations_that_are_drawn_make_other_pairs():
    pairs = [(GRID, GRID[:, :1])]
    some = list(drawn(pairs, 20, np.random.default_rng(1)))
    images = {augmentation.apply(GRID).tobytes() for augmentation in some}
    assert len(some) == 20 and len(images) == 20 and GRID.tobytes() not in images
    assert all(a.colours[0] == "0" and sorted(a.colours) == list(PLAIN) for a in some)
    black = np.zeros((2, 2), np.uint8)
    assert not list(drawn([(black, black)], 5, np.random.default_rng(1)))  # there are no others


@pytest.mark.parametrize(
    "name", ["a|||t8|||0123456789", "a|||t1|||0123", "a|||t1", "a|||x1|||" + PLAIN]
)
def test_names_of_no_augmentation(name):
    with pytest.raises(ValueError, match="names no"):
        parsed(name)


def test_planted_faults_are_found():
    task = Arc(5)
    first, right = encode_pair((GRID, GRID[:, ::-1]), 5)
    inputs, good = first[None], right[None]
    assert not task.verify(inputs, good).broken.any()
    assert not task.verify(inputs, good).proved.any()  # no rule proves an answer
    noise = right.copy()
    noise[24] = 7  # beyond the grid nothing is judged
    assert not task.verify(inputs, noise[None]).broken.any()
    for cell, token in ((3, 0), (8, 0), (10, 0), (12, 0)):  # end markers that are missing
        wrong = right.copy()
        wrong[cell] = token
        broken = task.verify(inputs, wrong[None]).broken
        assert np.flatnonzero(broken[0]).tolist() == [cell]
        assert task.violations(wrong)["end markers"].nonzero()[0].tolist() == [cell]
    none = np.where(right > 1, 1, right)[None]
    assert task.verify(inputs, none).broken.all() and task.violations(none)["a grid"].all()


def test_facts_of_a_pair_by_hand():
    # 0 1 1 0        a pair of blue cells, a red one by itself
    # 0 0 0 2
    grid = np.array([[0, 1, 1, 0], [0, 0, 0, 2]], np.uint8)
    output = np.array([[0, 3, 1, 0]], np.uint8)
    inputs, labels = encode_pair((grid, output), 5)
    named = {name: np.flatnonzero(of).tolist() for name, of in facts(inputs, labels).items()}
    assert named["in the grid"] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert named["background"] == [0, 3, 5, 6, 7]
    assert named["in an object"] == named["in the largest object"] == [1, 2]
    assert named["border of the grid"] == named["in the grid"]  # of two rows
    assert named["in the output"] == [0, 1, 2, 3]
    assert named["changed"] == [1, 5, 6, 7, 8]
    assert named["end marker of the output"] == [4, 5, 6, 7, 8]
    assert named["blue in the input"] == [1, 2] and named["red in the input"] == [8]
    ratings = rate(inputs[None], labels[None])
    assert {name: int(of[0]) for name, of in ratings.items()} == {
        "changed": 5, "cells": 8, "colours": 3, "objects": 1,
    }  # fmt: skip
    inner = np.zeros((4, 4), np.uint8)
    edge = facts(*encode_pair((inner, inner), 5))["border of the grid"].reshape(5, 5)
    assert edge[:4, :4].sum() == 12 and not edge[1:3, 1:3].any() and not edge[4].any()


def test_objects_hang_together_by_their_sides():
    grid = np.array([[1, 0, 2], [0, 1, 2], [0, 1, 0]], np.uint8)  # a blue cell touches by a corner
    numbers = objects(encode(grid, 3)).reshape(3, 3)
    assert (numbers > 0).astype(int).tolist() == [[0, 0, 1], [0, 1, 1], [0, 1, 0]]
    assert numbers[1, 1] == numbers[2, 1] != numbers[1, 2] == numbers[0, 2]
    assert render(encode(grid, 3)) == "102012010"
