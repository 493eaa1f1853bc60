import math

import pytest
import torch
from sudoku_oracles import is_solution

from trm_interp.core.counter import hash64, uniform
from trm_interp.tasks.sudoku.augment import FIRST_DIGIT, augment, random_symmetry
from trm_interp.tasks.sudoku.grid import SHAPES, from_tokens

N = 2000
SIDES = list(SHAPES)


def splitmix64(x: int) -> int:
    """Vigna's reference C, in Python's integers."""
    mask = 2**64 - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def solution_tokens(side: int, n: int) -> torch.Tensor:
    """The pattern grid of that size as tokens, n times: row r is the digits rotated."""
    shape = SHAPES[side]
    row, col = torch.arange(side)[:, None], torch.arange(side)
    grid = (row * shape.box_cols + row // shape.box_rows + col) % side
    return (grid.flatten() + FIRST_DIGIT).expand(n, -1)


def puzzle_tokens(side: int, n: int) -> torch.Tensor:
    """The same with about half of the cells blank, others for each example."""
    tokens = solution_tokens(side, n)
    return torch.where(uniform(5, torch.arange(n * side**2)).view(n, -1) < 0.5, 1, tokens)


def test_hash64_is_splitmix64():
    values = [0, 1, 2, 12345, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -1]
    signed = torch.tensor([(v + 2**63) % 2**64 - 2**63 for v in values])
    expected = [splitmix64(v % 2**64) for v in values]
    assert [v % 2**64 for v in hash64(signed).tolist()] == expected
    assert [int(hash64(v)) % 2**64 for v in values] == expected
    # the second output of the reference generator seeded with 0: its state is then gamma
    assert int(hash64(0x9E3779B97F4A7C15)) % 2**64 == 0x6E789E6AA1B965F4


def test_hash64_chains_its_parts_and_broadcasts():
    a, b = torch.arange(3)[:, None], torch.arange(4)
    chained = [[splitmix64(splitmix64(i) ^ j) for j in range(4)] for i in range(3)]
    assert [[v % 2**64 for v in row] for row in hash64(a, b).tolist()] == chained
    assert torch.equal(hash64(2, b), hash64(a, b)[2])


def test_hash64_flips_half_of_the_bits():
    x = torch.arange(4096)
    for bit in (0, 17, 63):
        changed = hash64(x) ^ hash64(x ^ (1 << bit if bit < 63 else -(2**63)))
        ones = sum(v.bit_count() for v in (changed & (2**63 - 1)).tolist()) / 4096
        # 63 fair bits: mean 31.5, standard error sqrt(63 / 4 / 4096) = 0.062
        assert abs(ones - 31.5) < 4 * 0.062


def test_hash64_refuses_nothing_and_floats():
    with pytest.raises(ValueError, match="at least one part"):
        hash64()
    with pytest.raises(TypeError, match="float32"):
        hash64(torch.zeros(2))


def test_uniform_is_uniform():
    draws = uniform(3, torch.arange(10000))
    assert draws.dtype == torch.float64
    assert draws.min() >= 0 and draws.max() < 1
    # standard errors: mean sqrt(1/12) / 100 = 0.0029, mean of squares sqrt(4/45) / 100 = 0.003
    assert abs(draws.mean() - 1 / 2) < 4 * 0.0029
    assert abs(draws.square().mean() - 1 / 3) < 4 * 0.003


@pytest.mark.parametrize("side", SIDES)
def test_a_transformed_puzzle_has_the_transformed_solution(side):
    inputs, labels = puzzle_tokens(side, 50), solution_tokens(side, 50)
    new_inputs, new_labels = augment(inputs, labels, hash64(0, torch.arange(50)), SHAPES[side])
    grids = from_tokens(new_inputs.numpy()), from_tokens(new_labels.numpy())
    for puzzle, answer in zip(*grids, strict=True):
        assert is_solution(puzzle, answer)
    assert torch.equal((new_inputs == 1).sum(1), (inputs == 1).sum(1))


@pytest.mark.parametrize("side", SIDES)
def test_invert_undoes_apply(side):
    tokens = puzzle_tokens(side, 50)
    symmetry = random_symmetry(hash64(1, torch.arange(50)), SHAPES[side])
    assert torch.equal(symmetry.invert().apply(symmetry.apply(tokens)), tokens)
    assert torch.equal(symmetry.apply(symmetry.invert().apply(tokens)), tokens)
    assert not torch.equal(symmetry.apply(tokens), tokens)


def test_pad_and_blank_stay_and_dtype_is_kept():
    for token in (0, 1):
        tokens = torch.full((20, 81), token, dtype=torch.uint8)
        inputs, labels = augment(tokens, tokens.int(), torch.arange(20), SHAPES[9])
        assert torch.equal(inputs, tokens) and inputs.dtype == torch.uint8
        assert torch.equal(labels, tokens.int()) and labels.dtype == torch.int32


def test_an_example_depends_on_its_own_key_only():
    inputs, labels = puzzle_tokens(9, 8), solution_tokens(9, 8)
    keys = hash64(2, torch.arange(8))
    whole = augment(inputs, labels, keys, SHAPES[9])
    alone = augment(inputs[5:6], labels[5:6], keys[5:6], SHAPES[9])
    assert torch.equal(whole[0][5:6], alone[0]) and torch.equal(whole[1][5:6], alone[1])
    assert len({tuple(row) for row in whole[1].tolist()}) == 8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same():
    inputs, labels, keys = puzzle_tokens(9, 64), solution_tokens(9, 64), torch.arange(64)
    on_cpu = augment(inputs, labels, keys, SHAPES[9])
    on_gpu = augment(inputs.cuda(), labels.cuda(), keys.cuda(), SHAPES[9])
    for a, b in zip(on_cpu, on_gpu, strict=True):
        assert torch.equal(a, b.cpu())


def chi_square_bound(freedom: int) -> float:
    """Mean + 5 standard deviations; the seed is fixed, so this passes or fails for good."""
    return freedom + 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("side", SIDES)
def test_marginals_are_uniform(side):
    symmetry = random_symmetry(hash64(3, torch.arange(N)), SHAPES[side])
    for images, what in ((symmetry.tokens[:, FIRST_DIGIT:] - FIRST_DIGIT, side),
                         (symmetry.cells, side**2)):  # fmt: skip
        for position in (0, 1, what - 1):
            counts = torch.bincount(images[:, position], minlength=what)
            chi_square = float(((counts - N / what) ** 2 / (N / what)).sum())
            assert chi_square < chi_square_bound(what - 1)


def test_all_4x4_cell_symmetries_appear_equally_often():
    # 2! bands x 2! stacks x 2!^2 rows x 2!^2 columns x 2 (transpose) = 128
    symmetry = random_symmetry(hash64(4, torch.arange(12800)), SHAPES[4])
    kinds, counts = symmetry.cells.unique(dim=0, return_counts=True)
    assert len(kinds) == 128
    assert float(((counts - 100.0) ** 2 / 100).sum()) < chi_square_bound(127)


def test_all_6x6_cell_symmetries_appear_without_transpose():
    # 3! bands x 2!^3 rows in them x 2! stacks x 3!^2 columns in them = 6 * 8 * 2 * 36 = 3456
    n = 60000  # expected number of elements never drawn: 3456 exp(-60000 / 3456) = 1e-4
    cells = random_symmetry(hash64(5, torch.arange(n)), SHAPES[6]).cells.view(-1, 6, 6)
    rows, cols = cells // 6, cells % 6
    assert torch.equal(rows, rows[:, :, :1].expand_as(rows))  # rows stay rows
    lines = torch.cat([rows[:, :, 0], cols[:, 0]], dim=1)  # [n, 12], determines the element
    kinds, counts = (lines * 6 ** torch.arange(12)).sum(1).unique(return_counts=True)
    assert len(kinds) == 3456
    assert float(((counts - n / 3456) ** 2 / (n / 3456)).sum()) < chi_square_bound(3455)


def test_each_generator_of_the_group_appears():
    cells = random_symmetry(hash64(6, torch.arange(N)), SHAPES[9]).cells.view(-1, 9, 9)
    transposed = cells[:, 0, 0] // 9 != cells[:, 0, 1] // 9
    assert 0.45 < transposed.float().mean() < 0.55  # standard error 0.011
    upright = torch.where(transposed[:, None, None], cells.mT, cells)
    for lines in (upright[:, :, 0] // 9, upright[:, 0, :] % 9):  # source rows, source columns
        groups, members = lines.view(-1, 3, 3) // 3, lines.view(-1, 3, 3) % 3
        assert torch.equal(groups, groups[:, :, :1].expand_as(groups))  # a band stays together
        assert len(groups[:, :, 0].unique(dim=0)) == 6
        for inside in range(3):
            assert len(members[:, inside].unique(dim=0)) == 6
        # the orders inside two bands are independent: all 36 pairs occur
        assert len(members[:, :2].flatten(1).unique(dim=0)) == 36
