"""Exponents of maps whose exponents are known; tangents against torch's forward mode."""

import numpy as np
import pytest
import torch

from trm_interp.analysis.lyapunov import lyapunov
from trm_interp.core.joint import CycleMap, joined
from trm_interp.core.models.layers import rms_norm
from trm_interp.core.models.trm import TRM
from trm_interp.core.tangent import push, pushforward, rms_norm_tangent, swiglu_tangent

EXACT = {"dtype": torch.float64}


def rotation(n: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(n, n, **EXACT, generator=torch.Generator().manual_seed(3))).Q


def test_spectrum_of_a_diagonal_map_is_the_logarithms():
    # z -> A z with A = diag(2, 1, 1/2, 1/4): every tangent frame turns to the axes
    A = torch.diag(torch.tensor([2.0, 1.0, 0.5, 0.25], **EXACT))
    grown = lyapunov(pushforward(lambda z: z @ A), torch.zeros(2, 4, **EXACT), k=4, maps=60)
    late = grown.exponents(first=40)
    np.testing.assert_allclose(late, np.log([[2, 1, 0.5, 0.25]] * 2), atol=1e-9)
    # over any stretch of time all four add up to log |det A| = log(1 / 4)
    np.testing.assert_allclose(grown.exponents().sum(1), np.log(0.25), atol=1e-9)


@pytest.mark.parametrize("every", [1, 3, 7])
def test_a_normal_map_in_a_rotated_basis(every: int):
    # U diag(...) U^T has the same exponents; 100 maps are no multiple of 3 or 7
    U, eigen = rotation(6), torch.tensor([1.5, -1.2, 0.9, 0.6, -0.3, 0.1], **EXACT)
    A = U @ torch.diag(eigen) @ U.T
    start = torch.randn(3, 6, **EXACT, generator=torch.Generator().manual_seed(0))
    grown = lyapunov(pushforward(lambda z: z @ A.T), start, k=3, maps=100, every=every)
    late = grown.exponents(first=len(grown.maps) // 2)
    np.testing.assert_allclose(late, np.log([[1.5, 1.2, 0.9]] * 3), atol=1e-4)
    assert sum(grown.maps) == 100
    torch.testing.assert_close(grown.state, start @ torch.matrix_power(A.T, 100))


def test_henon():
    # a = 1.4, b = 0.3: lambda_1 = 0.41922 nats a map (Wolf et al. 1985: 0.603 bits), and
    # lambda_1 + lambda_2 = log |det J| = log b at every point
    def henon(z: torch.Tensor) -> torch.Tensor:
        return torch.stack([1 - 1.4 * z[:, 0] ** 2 + z[:, 1], 0.3 * z[:, 0]], 1)

    start = 0.1 * torch.rand(512, 2, **EXACT, generator=torch.Generator().manual_seed(0))
    grown = lyapunov(pushforward(henon), start, k=2, maps=150)
    exponents = grown.exponents(first=30)
    assert exponents[:, 0].mean() == pytest.approx(0.419, rel=0.01)
    np.testing.assert_allclose(exponents.sum(1), np.log(0.3), atol=1e-9)


def test_units_and_intervals():
    # growth 3 a map; 2 evaluations a map: log(3) / 2 nats per evaluation
    seen = []
    grown = lyapunov(
        pushforward(lambda z: 3 * z),
        torch.ones(1, 4),
        k=1,
        maps=5,
        every=2,
        watch=lambda done, state: seen.append((done, float(state[0, 0]))),
    )
    assert grown.maps == [2, 2, 1] and grown.log_stretch.shape == (3, 1, 1)
    np.testing.assert_allclose(grown.exponents(evaluations=2), np.log(3) / 2, rtol=1e-6)
    assert seen == [(i, 3.0**i) for i in range(1, 6)]


def test_a_seed_gives_the_same_bits_and_a_lost_direction_is_minus_infinity():
    A = torch.diag(torch.tensor([2.0, 1.0, 0.0]))
    once, again, other = (
        lyapunov(pushforward(lambda z: z @ A), torch.ones(2, 3), k=3, maps=4, seed=seed)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(once.log_stretch, again.log_stretch)
    assert not np.array_equal(once.log_stretch, other.log_stretch)
    assert once.log_stretch[-1, 0, 2] < -30 and np.isfinite(once.log_stretch[..., :2]).all()


@pytest.mark.parametrize(("k", "maps", "every"), [(0, 1, 1), (4, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_what_cannot_be_asked(k: int, maps: int, every: int):
    with pytest.raises(ValueError, match="must be"):
        lyapunov(pushforward(lambda z: z), torch.ones(1, 3), k, maps, every)


# tangents


@pytest.mark.parametrize("dim", [-1, -2])
@pytest.mark.parametrize("norm", [False, True])
def test_tangents_of_the_parts(dim: int, norm: bool):
    g, v = torch.randn(2, 3, 5, 4, **EXACT, generator=torch.Generator().manual_seed(0))
    dg, dv = torch.randn(2, 6, 3, 5, 4, **EXACT, generator=torch.Generator().manual_seed(1))
    y, dy = push(lambda x: rms_norm(x, dim, 1e-2), g, dg)
    for mine, theirs in zip(rms_norm_tangent(g, dg.clone(), dim, 1e-2), (y, dy), strict=True):
        torch.testing.assert_close(mine, theirs)

    def swiglu(both: torch.Tensor) -> torch.Tensor:
        gate, value = both
        if norm:
            return torch.sigmoid(gate) * rms_norm(gate * value, dim, 1e-2)
        return torch.nn.functional.silu(gate) * value

    expected = push(swiglu, torch.stack([g, v]), torch.stack([dg, dv], 1))
    ours = swiglu_tangent(g, v, dg, dv, (dim, 1e-2) if norm else None)
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_one_cycle_of_every_variant_against_forward_mode(tiny_trm: TRM, puzzles):
    x = tiny_trm.embed(puzzles[0], torch.float64)
    cycle = CycleMap(tiny_trm, x)
    z = joined(tiny_trm.initial_state(x))
    assert z.shape == (5, cycle.dim)
    z = z + 0.1 * torch.randn(z.shape, **EXACT, generator=torch.Generator().manual_seed(0))
    tangents = torch.randn(3, *z.shape, **EXACT, generator=torch.Generator().manual_seed(1))
    kept = tangents.clone()
    image, moved = cycle.push(z, tangents)
    torch.testing.assert_close(tangents, kept, rtol=0, atol=0)  # what was given is left alone
    for mine, theirs in zip((image, moved), push(cycle, z, tangents), strict=True):
        torch.testing.assert_close(mine, theirs)
    # two H-cycles are one supervision step of this model
    state, _ = tiny_trm.advance(cycle.split(z), x)
    torch.testing.assert_close(cycle(cycle(z)), joined(state))
    # runs do not meet: the map of some puzzles is those puzzles' part
    torch.testing.assert_close(cycle.rows(torch.tensor([3, 1]))(z[[3, 1]]), cycle(z)[[3, 1]])


def test_push_agrees_with_finite_differences(tiny_mlp: TRM, puzzles):
    x = tiny_mlp.embed(puzzles[0], torch.float64)
    cycle, z = CycleMap(tiny_mlp, x), joined(tiny_mlp.initial_state(x))
    tangent = torch.randn(1, *z.shape, **EXACT, generator=torch.Generator().manual_seed(2))
    _, moved = cycle.push(z, tangent)
    step = 1e-6 * tangent[0]
    torch.testing.assert_close(
        moved[0], (cycle(z + step) - cycle(z - step)) / 2e-6, rtol=1e-5, atol=1e-6
    )
