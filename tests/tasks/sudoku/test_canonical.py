from itertools import permutations

import numpy as np
import pytest
import torch

from trm_interp.core.counter import hash64, uniform
from trm_interp.tasks.sudoku import canonical
from trm_interp.tasks.sudoku.augment import random_symmetry
from trm_interp.tasks.sudoku.canonical import canonical_forms, cell_symmetries, class_keys
from trm_interp.tasks.sudoku.dataset import repeats
from trm_interp.tasks.sudoku.grid import SHAPES, Grid, parse, render


def random_partial(side: int, n: int, given: float) -> Grid:
    """Images of the pattern grid under random symmetries, that share of the cells kept."""
    shape = SHAPES[side]
    row, col = np.indices((side, side))
    grid = (row * shape.box_cols + row // shape.box_rows + col) % side + 1
    images = random_images(np.tile(grid.astype(np.uint8).ravel(), (n, 1)), side, seed=1)
    keep = uniform(2, torch.arange(images.size)).numpy().reshape(images.shape) < given
    return np.where(keep, images, 0).astype(np.uint8)


def random_images(grids: Grid, side: int, seed: int) -> Grid:
    """Each grid under its own random symmetry."""
    symmetry = random_symmetry(hash64(seed, torch.arange(len(grids))), SHAPES[side])
    return (symmetry.apply(torch.from_numpy(grids + 1)) - 1).numpy()


def grids_4x4() -> Grid:
    """All full 4x4 grids: three rows that break no rule leave one fourth row or none."""
    lines = np.array(list(permutations(range(1, 5))), np.uint8)  # [24, 4]
    a, b, c = (lines[i.ravel()] for i in np.indices((24, 24, 24)))
    grids = np.concatenate([a, b, c, 10 - a - b - c], axis=1)
    within = ((grids >= 1) & (grids <= 4)).all(1)
    return grids[within][~repeats(grids[within])]


def unique_4x4(grid: Grid, grids: Grid) -> Grid:
    """All puzzles whose one solution is `grid`: givens hit where any other one differs."""
    given = np.arange(2**16)
    differs = (grids != grid) @ (1 << np.arange(16))
    unique = np.array([differ > 0 for differ in differs])
    hits = ((given[:, None] & differs[unique]) > 0).all(1)
    masks = (given[hits][:, None] >> np.arange(16)) & 1
    return np.where(masks > 0, grid, 0).astype(np.uint8)


@pytest.mark.parametrize("side", SHAPES)
def test_keys_of_equivalent_puzzles_are_equal(side):
    puzzles = random_partial(side, 5, given=0.4)
    copies = np.repeat(puzzles, 200, axis=0)
    keys = class_keys(random_images(copies, side, seed=3)).reshape(5, 200)
    assert (keys == class_keys(puzzles)[:, None]).all()
    assert len(np.unique(keys)) == 5


def test_every_4x4_class_and_every_grid_class():
    # 288 grids in 2 classes; 13 579 680 puzzles with one solution in 4 710 classes
    grids = grids_4x4()
    assert len(grids) == 288
    forms = np.unique(canonical_forms(grids), axis=0)
    assert [render(form) for form in forms] == ["1234341221434321", "1234341223414123"]
    puzzles = np.concatenate([unique_4x4(form, grids) for form in forms])
    keys = class_keys(puzzles)
    assert len(np.unique(keys)) == 4710
    # refinement, which 9x9 uses, never splits a class and merges few
    refined = canonical._refined(puzzles, SHAPES[4])
    pairs = np.unique(np.stack([keys, refined], axis=1), axis=0)
    assert len(pairs) == 4710
    assert len(np.unique(refined)) == 4657


def test_canonical_form_is_a_least_image_of_its_puzzle():
    for side, n in ((4, 128), (6, 3456)):
        assert len(np.unique(cell_symmetries(SHAPES[side]), axis=0)) == n
        puzzles = random_partial(side, 200, given=0.4)
        forms = canonical_forms(puzzles)
        assert (canonical_forms(forms) == forms).all()
        assert ((forms > 0).sum(1) == (puzzles > 0).sum(1)).all()
        for image in (puzzles, random_images(puzzles, side, seed=4)):
            assert all(a.tolist() <= b.tolist() for a, b in zip(forms, image, strict=True))


def test_random_6x6_puzzles_differ_and_refinement_agrees_with_the_exact_form():
    puzzles = random_partial(6, 500, given=0.4)
    exact = class_keys(puzzles)
    assert len(np.unique(exact)) == 500
    assert len(np.unique(canonical._refined(puzzles, SHAPES[6]))) == 500


def test_random_9x9_puzzles_differ_beside_their_transposes():
    puzzles = random_partial(9, 1000, given=0.3)
    keys = class_keys(puzzles)
    assert len(np.unique(keys)) == 1000
    transposed = puzzles.reshape(-1, 9, 9).swapaxes(1, 2).reshape(-1, 81)
    assert (class_keys(transposed) == keys).all()


def test_one_clue_more_or_moved_is_another_class():
    empty = parse("." * 81)
    one, pair_in_row, pair_in_box = empty.copy(), empty.copy(), empty.copy()
    one[0] = pair_in_row[0] = pair_in_box[0] = 1
    pair_in_row[3] = pair_in_box[10] = 2  # another stack; another row and column of the box
    assert len(np.unique(class_keys(np.stack([empty, one, pair_in_row, pair_in_box])))) == 4


def test_no_puzzle_no_key():
    assert class_keys(np.zeros((0, 81), np.uint8)).shape == (0,)
    assert class_keys(np.zeros((0, 36), np.uint8)).shape == (0,)


def test_no_exact_form_at_9x9():
    with pytest.raises(ValueError, match="9x9"):
        canonical_forms(np.zeros((1, 81), np.uint8))
