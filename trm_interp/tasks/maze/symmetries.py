"""The eight symmetries of a square as tensors, and keys that symmetric copies share."""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trm_interp.core.counter import hash64
from trm_interp.tasks.maze.grid import VOCAB, Tokens, side_of
from trm_interp.tasks.symmetry import Symmetry

N_SYMMETRIES = 8


@cache
def cells_of(side: int) -> NDArray[np.int64]:
    """[8, cell]: where each cell comes from, for four turns of the grid and of its mirror image.

    >>> cells_of(2).tolist()[:2]
    [[0, 1, 2, 3], [1, 3, 0, 2]]
    """
    grid = np.arange(side * side).reshape(side, side)
    turned = [np.rot90(each, k) for each in (grid, grid[:, ::-1]) for k in range(4)]
    return np.stack(turned).reshape(N_SYMMETRIES, -1)


def random_symmetry(keys: Tensor, side: int) -> Symmetry:
    """The symmetry named by each key, int64 [batch]: all eight equally likely; no token moves."""
    which = hash64(keys) % N_SYMMETRIES
    cells = torch.from_numpy(cells_of(side)).to(keys.device)[which]
    tokens = torch.arange(VOCAB, device=keys.device).expand(len(keys), -1)
    return Symmetry(cells, tokens)


def class_keys(inputs: Tokens) -> NDArray[np.uint64]:
    """[n], equal for mazes [n, cell] that a symmetry carries into each other: the smallest hash of
    the eight images.

    >>> maze = np.arange(25, dtype=np.uint8)[None]
    >>> bool(class_keys(maze) == class_keys(maze[:, ::-1]))
    True
    """
    if not len(inputs):
        return np.zeros(0, np.uint64)
    images = inputs[:, cells_of(side_of(inputs.shape[1]))]  # [n, 8, cell]
    words = np.zeros((*images.shape[:2], -(-images.shape[2] // 8) * 8), np.uint8)
    words[..., : images.shape[2]] = images
    packed = torch.from_numpy(words.view(np.int64))  # [n, 8, word]
    key = torch.zeros(packed.shape[:2], dtype=torch.int64)
    for word in range(packed.shape[2]):
        key = hash64(key, packed[..., word])
    return key.numpy().view(np.uint64).min(1)
