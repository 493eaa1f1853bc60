"""The symmetries of Sudoku as tensors: random ones from keys, applied on the tokens' device.

The group: digit permutations x band and stack permutations x rows in bands x columns in stacks
x, where boxes are square, the transpose. A symmetry maps puzzles with one solution to puzzles
with one solution, so it augments training data and stays inside a class (`canonical.py`).
"""

import torch
from torch import Tensor

from trm_interp.core.counter import hash64
from trm_interp.tasks.sudoku.grid import Shape
from trm_interp.tasks.symmetry import Symmetry

FIRST_DIGIT = 2  # tokens below are pad and blank; no symmetry moves them


def _orders(draws: Tensor) -> Tensor:
    """A permutation of range(n) for each [..., n] draws; stable, so a tie is no difference."""
    return draws.argsort(dim=-1, stable=True)


def _lines(draws: Tensor, groups: int, size: int) -> Tensor:
    """[batch, groups * size] source rows (or columns) of a shuffle of groups and inside them.

    `draws` [batch, groups + groups * size]: first the groups', then their members'.
    """
    group = _orders(draws[:, :groups])  # [batch, groups]
    member = _orders(draws[:, groups:].unflatten(1, (groups, size)))  # [batch, groups, size]
    return (group[:, :, None] * size + member).flatten(1)


def random_symmetry(keys: Tensor, shape: Shape) -> Symmetry:
    """The symmetry named by each key, int64 [batch]: all elements of the group equally likely.

    >>> from trm_interp.tasks.sudoku.grid import SHAPES
    >>> random_symmetry(torch.tensor([8]), SHAPES[4]).tokens.tolist()
    [[0, 1, 4, 3, 5, 2]]
    """
    side, bands, stacks = shape.side, shape.box_cols, shape.box_rows
    sizes = (side, bands + side, stacks + side, 1)
    draws = hash64(keys[:, None], torch.arange(sum(sizes), device=keys.device))
    for_digits, for_rows, for_cols, for_transpose = draws.split(sizes, dim=1)

    rows = _lines(for_rows, bands, shape.box_rows)
    cols = _lines(for_cols, stacks, shape.box_cols)
    cells = rows[:, :, None] * side + cols[:, None, :]  # [batch, side, side]
    if shape.box_rows == shape.box_cols:
        cells = torch.where(for_transpose[:, :, None] < 0, cells.mT, cells)

    fixed = torch.arange(FIRST_DIGIT, device=keys.device).expand(len(keys), -1)
    digits = torch.cat([fixed, _orders(for_digits) + FIRST_DIGIT], dim=1)
    return Symmetry(cells.flatten(1), digits)


def augment(inputs: Tensor, labels: Tensor, keys: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Each puzzle and its solution under the random symmetry its key names.

    `inputs`, `labels`: integer tokens [batch, cells]; `keys`: int64 [batch], on the same device.
    A pure function of its arguments, equal on CPU and CUDA; pad and blank stay what they are.
    """
    symmetry = random_symmetry(keys, shape)
    return symmetry.apply(inputs), symmetry.apply(labels)
