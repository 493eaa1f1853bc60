"""Ends of maps whose basins are known: how large a push they survive, and in which directions."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from trm_interp.analysis.robustness import (
    ABOVE,
    BELOW,
    INSIDE,
    epsilon_50,
    leading_directions,
    random_directions,
    ranked,
    returns,
)
from trm_interp.core.tangent import pushforward

EPSILONS = np.geomspace(0.02, 2, 21)
DIM, DRAWS = 10, 200


def shares(
    ends: Tensor, directions: Tensor, one: Callable[[Tensor], Tensor], batch_size: int = 512
) -> np.ndarray:
    """[run, epsilon] of the pushes that are back within 0.01 after 60 maps."""

    def go_on(z: Tensor, run: Tensor) -> Tensor:
        for _ in range(60):
            z = one(z)
        return z

    def judge(z: Tensor, run: Tensor) -> Tensor:
        return ((z - ends[run]).square().mean(1).sqrt() < 0.01)[:, None]

    back = returns(ends, directions, EPSILONS.tolist(), go_on, judge, batch_size)
    assert back.shape == (len(ends), len(EPSILONS), directions.shape[1], 1)
    return back[..., 0].mean(2)


def double_well(z: Tensor) -> Tensor:
    """Down -x^2 / 2 + x^4 / 4 in the first number, whose wells are at -1 and 1 and whose barrier is
    at 0; the others shrink tenfold."""
    x = z[:, 0]
    return torch.cat([(x + 0.2 * (x - x**3).clamp(-5, 5))[:, None], 0.1 * z[:, 1:]], 1)


def at_the_wells(dim: int = DIM) -> Tensor:
    ends = torch.zeros(2, dim)
    ends[:, 0] = torch.tensor([1.0, -1.0])
    return ends


def test_a_double_well_along_its_axis():
    # along the axis one number carries all: of RMS epsilon it moves by epsilon sqrt(10), and one of
    # the two ways leads over the barrier, 1 away: at 1 / sqrt(10) = 0.316 half do not come back
    leading = leading_directions(pushforward(double_well), at_the_wells(), 1)
    # slope at a well: 1 + 0.2 (1 - 3) = 0.6, of the others 0.1
    np.testing.assert_allclose(leading.values, 0.6 + 0j, atol=1e-5)
    axis = torch.eye(DIM)[0] * DIM**0.5
    torch.testing.assert_close(
        leading.directions[:, 0].abs(), axis.expand(2, -1), atol=1e-4, rtol=0
    )
    both = torch.cat([leading.directions, -leading.directions], 1)
    value, side = epsilon_50(EPSILONS, shares(at_the_wells(), both, double_well))
    step = EPSILONS[1] / EPSILONS[0]
    assert side == [INSIDE, INSIDE]
    assert (value >= 10**-0.5 / step).all() and (value <= 10**-0.5 * step).all()


@pytest.mark.parametrize("width", [0.15, 0.6])
def test_a_basin_of_known_width_in_every_direction(width: float):
    """A double well in the distance from an end: back to 0 within the barrier, else out to 3."""

    def one(z: Tensor) -> Tensor:
        r = (z - 1).square().mean(1, keepdim=True).sqrt().clamp(min=1e-9)
        return 1 + (z - 1) * torch.where(r < width, 0.5, (3 / r) ** 0.5)

    ends = torch.ones(2, DIM)
    directions = random_directions(torch.arange(2), 20, DIM, seed=0)
    value, side = epsilon_50(EPSILONS, shares(ends, directions, one))
    at = int(np.searchsorted(EPSILONS, width))
    # all come back below the barrier and none above it: half way between, on a logarithmic axis
    np.testing.assert_allclose(value, (EPSILONS[at - 1] * EPSILONS[at]) ** 0.5, rtol=1e-9)
    assert side == [INSIDE, INSIDE]


def test_random_directions_meet_a_narrow_basin_later_than_leading_ones():
    """Within |x| < 0.3 the first number comes back, beyond it does not; the others always do."""

    def one(z: Tensor) -> Tensor:
        x = z[:, :1]
        return torch.cat(
            [torch.where(x.abs() < 0.3, 0.9 * x, 2 * x.clamp(-1, 1)), 0.1 * z[:, 1:]], 1
        )

    ends = torch.zeros(1, DIM)
    leading = leading_directions(pushforward(one), ends, 1).directions
    random = random_directions(torch.tensor([7]), DRAWS, DIM, seed=1)
    along, _ = epsilon_50(EPSILONS, shares(ends, torch.cat([leading, -leading], 1), one))
    aside, _ = epsilon_50(EPSILONS, shares(ends, random, one))
    step = EPSILONS[1] / EPSILONS[0]
    # all of the push: 0.3 / sqrt(10) = 0.095
    assert 0.3 / 10**0.5 / step < along[0] < 0.3 / 10**0.5 * step
    # one of ten numbers, whose median size in a push of RMS 1 the directions themselves tell
    expected = 0.3 / random[0, :, 0].abs().median().item()
    assert expected / step < aside[0] < expected * step and aside[0] > 3 * along[0]


def test_a_contraction_always_returns():
    ends = torch.zeros(3, DIM)
    directions = random_directions(torch.arange(3), 5, DIM, seed=0)
    back = shares(ends, directions, lambda z: 0.5 * z)
    assert (back == 1).all()
    value, side = epsilon_50(EPSILONS, back)
    assert side == [ABOVE] * 3 and (value == EPSILONS[-1]).all()
    assert np.isinf(ranked(value, side)).all()


def test_a_push_that_nothing_survives_is_bounded_from_above():
    value, side = epsilon_50(EPSILONS, np.zeros((1, len(EPSILONS))))
    assert side == [BELOW] and value[0] == EPSILONS[0] and ranked(value, side)[0] == 0


def test_shares_that_rise_again_are_smoothed():
    # 1, 0.4, 0.8, 0: the middle two pool to 0.6; from there to 0 half is 1 / 6 of the way
    value, _ = epsilon_50(np.array([1.0, 2.0, 4.0, 64.0]), np.array([[1, 0.4, 0.8, 0]]))
    np.testing.assert_allclose(value, 4 * 16 ** (1 / 6), rtol=1e-9)


def test_numbers_do_not_depend_on_the_batch_nor_on_the_company():
    ends, runs = at_the_wells(), torch.tensor([4, 9])
    directions = random_directions(runs, 6, DIM, seed=3)
    torch.testing.assert_close(directions.square().mean(-1), torch.ones(2, 6))
    assert torch.equal(directions[1:], random_directions(runs[1:], 6, DIM, seed=3))
    assert torch.equal(directions[:, :2], random_directions(runs, 2, DIM, seed=3))
    assert not torch.equal(directions, random_directions(runs, 6, DIM, seed=4))
    whole = shares(ends, directions, double_well)
    np.testing.assert_array_equal(shares(ends, directions, double_well, batch_size=7), whole)


def test_a_complex_pair_gives_the_plane_in_which_it_turns():
    angle, dtype = torch.tensor(0.7, dtype=torch.float64), torch.float64
    turn = 0.9 * torch.stack(
        [torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]
    )
    block = torch.block_diag(turn, torch.diag(torch.tensor([0.5, -0.3, 0.1], dtype=dtype)))
    basis = torch.linalg.qr(
        torch.randn(5, 5, dtype=dtype, generator=torch.Generator().manual_seed(0))
    ).Q
    map_ = basis @ block @ basis.T
    z = torch.zeros(1, 5, dtype=dtype)
    leading = leading_directions(pushforward(lambda z: z @ map_.T), z, 3, iterations=60)
    np.testing.assert_allclose(np.abs(leading.values[0]), [0.9, 0.9, 0.5], atol=1e-9)
    plane = leading.directions[0, :2] @ basis  # in the block's own coordinates
    assert plane[:, 2:].abs().max() < 1e-9 and torch.linalg.matrix_rank(plane) == 2
    with pytest.raises(ValueError, match="k must be between 1 and 5"):
        leading_directions(pushforward(lambda z: z), z, 6)
