"""A 16x16 puzzle with 104 givens and one solution, and symmetric copies of it."""

import numpy as np
import torch

from trm_interp.core.counter import hash64
from trm_interp.tasks.base import PuzzleSet
from trm_interp.tasks.sudoku.augment import augment
from trm_interp.tasks.sudoku.grid import SHAPES, parse, to_tokens
from trm_interp.tasks.sudoku.task import Sudoku

PUZZLE = (
    "5.23......BCD..G.........2..9....A.C1..5.EF..67..EFG.A..4.7.1.3."
    "1...A4..E..6GF....4..F...8.7B1.9..6.7.C.5.........9B3.1...4....."
    "32..B....9.1..8.6.C1......D..G..89..FG..24....5..B.E..D..5832.14"
    "..5..D.9..6..8..74E6512......BG..D.9.7G...5...6AA..F6C4....E..23"
)
SOLUTION = (
    "512346789ABCDEFG4678DEFG12359ABC9ABC1235DEFG4678DEFG9ABC46781235"
    "1835A492EBC6GFD7EC4DGF563827B1A9GF6A7BCE519D8342279B381DAG4FC5E6"
    "32A4B5E7C9G16D8F65C12384F7DBAG9E89D7FG6124EA3C5BFBGEC9DA65832714"
    "B352EDA9GF6478C174E651238CA9FBGDCD1987GFB352E46AAG8F6C4B7D1E5923"
)


def puzzles16(n: int) -> PuzzleSet:
    """The puzzle and n - 1 symmetric copies."""
    inputs, labels = (
        torch.from_numpy(to_tokens(parse(text))).expand(n - 1, -1) for text in (PUZZLE, SOLUTION)
    )
    inputs, labels = augment(inputs, labels, hash64(7, torch.arange(n - 1)), SHAPES[16])
    own = [to_tokens(parse(text))[None] for text in (PUZZLE, SOLUTION)]
    return PuzzleSet(
        Sudoku(16),
        np.concatenate([own[0], inputs.numpy()]),
        np.concatenate([own[1], labels.numpy()]),
        np.arange(n) + 1,
        "made",
        {},
    )
