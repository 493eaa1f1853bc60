"""Fixed points and eigenvalues that are known, and the dense Jacobian of a tiny model."""

import numpy as np
import pytest
import torch

from trm_interp.analysis.fixed_points import find_fixed_points, leading_eigenvalues, speed
from trm_interp.core.joint import CycleMap, joined
from trm_interp.core.models.trm import TRM
from trm_interp.core.tangent import push, pushforward

EXACT = {"dtype": torch.float64}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, **EXACT, generator=torch.Generator().manual_seed(seed))


def test_an_affine_map_takes_one_step_even_where_it_runs_away():
    # z -> A z + b with eigenvalues of modulus up to 3: z* = (1 - A)^-1 b
    A, b = random(12, 12), random(12, seed=1)
    assert torch.linalg.eigvals(A).abs().max() > 1.5
    points = find_fixed_points(pushforward(lambda z: z @ A.T + b), random(4, 12, seed=2))
    expected = torch.linalg.solve(torch.eye(12, **EXACT) - A, b)
    torch.testing.assert_close(points.state, expected.expand(4, 12), rtol=1e-6, atol=1e-6)
    assert points.converged.all() and points.steps.max() <= 2


def test_each_of_two_wells_and_the_ridge_between():
    # z -> z - (z^3 - z) / 2 rests at -1, 0 and 1; Newton finds the repeller 0 too
    def wells(z: torch.Tensor) -> torch.Tensor:
        return z - (z**3 - z) / 2

    start = torch.tensor([[-1.3], [0.1], [0.9], [1.0]], **EXACT)
    points = find_fixed_points(pushforward(wells), start)
    torch.testing.assert_close(points.state, torch.tensor([[-1.0], [0], [1], [1]], **EXACT))
    assert points.converged.all() and points.steps[3] == 0
    torch.testing.assert_close(points.q, speed(points.state, wells(points.state)))


def test_a_map_without_fixed_points_ends_at_a_slow_point():
    # z -> z + z^2 + 0.1: |F(z) - z| is least, 0.1, at z = 0; q = 0.1^2 / 2 = 0.005
    points = find_fixed_points(
        pushforward(lambda z: z + z**2 + 0.1), torch.ones(1, 1, **EXACT), steps=60
    )
    assert not points.converged.any() and 0.005 <= points.q.item() < 0.02


def test_runs_do_not_meet():
    A, b = random(6, 6), random(6, seed=1)

    def bent(z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(z @ A.T + b)

    start = random(5, 6, seed=3)
    together = find_fixed_points(pushforward(bent), start)
    for i in range(5):
        alone = find_fixed_points(pushforward(bent), start[i : i + 1])
        torch.testing.assert_close(alone.state[0], together.state[i], rtol=1e-6, atol=1e-6)
        assert alone.converged[0] == together.converged[i]


def test_eigenvalues_of_a_rotation_that_grows():
    # 1.1 e^{+-0.7 i} and 0.5 on a diagonal of small ones
    A = torch.diag(torch.linspace(0.1, 0.5, 8, **EXACT))
    turn = torch.tensor(0.7, **EXACT)
    A[:2, :2] = 1.1 * torch.stack(
        [torch.stack([turn.cos(), -turn.sin()]), torch.stack([turn.sin(), turn.cos()])]
    )
    values = leading_eigenvalues(pushforward(lambda z: z @ A.T), random(8), k=3)
    np.testing.assert_allclose(np.abs(values), [1.1, 1.1, 0.5], atol=1e-8)
    np.testing.assert_allclose(np.abs(np.angle(values[:2])), 0.7, atol=1e-8)


@pytest.mark.parametrize("k", [0, 7, 8])
def test_more_eigenvalues_than_can_be_had(k: int):
    with pytest.raises(ValueError, match="between 1 and 6"):
        leading_eigenvalues(pushforward(lambda z: z), random(8), k)


def test_a_tiny_model_against_its_dense_jacobian(tiny_trm: TRM, puzzles):
    x = tiny_trm.embed(puzzles[0][:2], torch.float64)
    cycle = CycleMap(tiny_trm, x)
    z = joined(tiny_trm.initial_state(x))
    for _ in range(3):
        z = cycle(z)
    one, at = cycle.rows(torch.tensor([1])), z[1:]
    # column j of the Jacobian is the push-forward of the j-th axis, by torch's forward mode
    axes = torch.eye(cycle.dim, **EXACT)[:, None]
    dense = push(one, at, axes)[1][:, 0].T.numpy()
    exact = np.linalg.eigvals(dense)
    exact = exact[np.argsort(-np.abs(exact))][:4]
    values = leading_eigenvalues(one.push, at[0], k=4)
    np.testing.assert_allclose(np.abs(values), np.abs(exact), rtol=1e-5)
    assert values[0] == pytest.approx(exact[0], rel=1e-5) or values[0] == pytest.approx(
        exact[0].conj(), rel=1e-5
    )


def test_fixed_points_of_a_tiny_model_stay_where_they_are(tiny_mlp: TRM, puzzles):
    with torch.no_grad():
        for weight in tiny_mlp.net.parameters():
            weight.mul_(0.25)  # slow enough to come to rest, in hundreds of cycles
    x = tiny_mlp.embed(puzzles[0], torch.float64)
    cycle = CycleMap(tiny_mlp, x)
    z = joined(tiny_mlp.initial_state(x))
    for _ in range(30):
        z = cycle(z)
    points = find_fixed_points(cycle.push, z, tolerance=1e-10, steps=15)
    assert points.converged.sum() >= 2
    assert (points.q < speed(z, cycle(z))).all()
    still = points.state[points.converged]
    torch.testing.assert_close(cycle.rows(points.converged)(still), still, rtol=0, atol=1e-8)
