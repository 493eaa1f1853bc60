"""Fixed points and their gradients: linear maps by hand, and torchdeq's solvers as the oracle."""

import pytest
import torch
from torch import Tensor
from torchdeq.solver import get_solver

from trm_interp.core.equilibrium import (
    FixedPointSearch,
    HowToSolve,
    jacobian_penalty,
    relative_residual,
    solve,
    with_implicit_gradient,
    with_phantom_gradient,
)

DIM = 12
TIGHT = HowToSolve(tolerance=1e-12)


@pytest.fixture
def linear() -> tuple[Tensor, Tensor]:
    """A matrix of spectral norm 0.8 and offsets of 3 puzzles, of f(z) = z A^T + b, in float64."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(DIM, DIM, generator=generator, dtype=torch.float64)
    matrix *= 0.8 / torch.linalg.matrix_norm(matrix, 2)
    return matrix, torch.randn(3, DIM, generator=generator, dtype=torch.float64)


def tanh_map(seed: int = 0, gain: float = 0.9):
    """A non-linear contraction of states [batch, 4, 6], other for each puzzle."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(24, 24, generator=generator, dtype=torch.float64)
    weight *= gain / torch.linalg.matrix_norm(weight, 2)
    offset = torch.randn(5, 24, generator=generator, dtype=torch.float64)

    def f(z: Tensor) -> Tensor:
        return (z.flatten(1) @ weight.T + offset).tanh().view_as(z)

    return f


@pytest.mark.parametrize("how", [TIGHT, TIGHT._replace(solver="iterate")])
def test_the_fixed_point_of_a_linear_map(linear: tuple[Tensor, Tensor], how: HowToSolve):
    matrix, offset = linear
    found = solve(lambda z: z @ matrix.T + offset, torch.zeros_like(offset), how, 200)
    expected = torch.linalg.solve(torch.eye(DIM) - matrix, offset.T).T  # z = A z + b
    assert found.converged.all() and (found.residual <= 1e-12).all()
    torch.testing.assert_close(found.value, expected, rtol=0, atol=1e-10)


def test_anderson_needs_fewer_evaluations_than_iteration(linear: tuple[Tensor, Tensor]):
    matrix, offset = linear
    how, start = HowToSolve(tolerance=1e-8), torch.zeros_like(offset)
    counts = [
        solve(lambda z: z @ matrix.T + offset, start, how._replace(solver=solver), 200).evaluations
        for solver in ("anderson", "iterate")
    ]
    assert (counts[0] < counts[1]).all()


def test_anderson_by_hand_with_one_earlier_evaluation():
    # f(z) = z / 2 + 1 from 0: f(0) = 1, f(1) = 1.5; the secant through (0, 1) and (1, 0.5) of
    # f(z) - z is zero at 2, the fixed point
    search = FixedPointSearch(torch.zeros(1, 1, dtype=torch.float64), HowToSolve(memory=1))
    points = []
    for _ in range(3):
        points.append(search.point.item())
        search.tell(0.5 * search.point + 1)
    assert points == pytest.approx([0, 1, 2], abs=1e-5)
    assert search.residual.item() < 1e-5


def test_damping_by_hand():
    # z <- 0.25 z + 0.75 (z / 2 + 1): 0, 0.75, 0.25 0.75 + 0.75 1.375 = 1.21875
    how = HowToSolve("iterate", damping=0.75)
    search = FixedPointSearch(torch.zeros(1, 1), how)
    points = []
    for _ in range(3):
        points.append(search.point.item())
        search.tell(0.5 * search.point + 1)
    assert points == [0, 0.75, 1.21875]


@pytest.mark.parametrize("name", ["broyden", "anderson", "fixed_point_iter"])
@pytest.mark.parametrize("solver", ["anderson", "iterate"])
def test_agrees_with_torchdeq(name: str, solver: str):
    f, start = tanh_map(), torch.zeros(5, 4, 6, dtype=torch.float64)
    oracle, _, _ = get_solver(name)(f, start, max_iter=200, tol=1e-9, stop_mode="rel")
    found = solve(f, start, HowToSolve(solver, tolerance=1e-9), 200)  # type: ignore[arg-type]
    assert found.converged.all()
    torch.testing.assert_close(found.value, oracle.view_as(start), rtol=0, atol=1e-7)


def test_what_converged_rests_and_the_others_go_on():
    # f(z) = a z + 1: a = 0 is there after one evaluation, a = 0.9 needs many
    slope = torch.tensor([[0.0], [0.9]])
    values: list[Tensor] = []

    def f(z: Tensor) -> Tensor:
        values.append(slope * z + 1)
        return values[-1]

    found = solve(f, torch.ones(2, 1), HowToSolve("iterate", tolerance=1e-3), 30)
    assert found.converged.tolist() == [True, False]
    assert found.evaluations.tolist() == [1, 30]
    assert {value[0].item() for value in values} == {1.0}
    assert len({value[1].item() for value in values}) == 30
    # |f(z) - z| / |f(z)| after 30: z_29 = 10 - 9 0.9^29, f = 10 - 9 0.9^30
    expected = 9 * 0.9**29 * 0.1 / (10 - 9 * 0.9**30)
    assert found.residual[1].item() == pytest.approx(expected, rel=1e-3)


def test_a_map_that_expands_is_said_not_to_converge():
    # one puzzle contracts, one turns by a right angle (iteration circles), one expands
    slopes = torch.tensor([[[0.5, 0.0], [0.0, 0.5]], [[0.0, -1.0], [1.0, 0.0]], [[3.0, 0], [0, 3]]])

    def f(z: Tensor) -> Tensor:
        return (slopes @ z[..., None])[..., 0] + 1

    found = solve(f, torch.ones(3, 2), HowToSolve("iterate"), 20)
    assert found.converged.tolist() == [True, False, False]
    assert (found.residual[1:] > 0.5).all()
    overflowed = solve(lambda z: 1e30 * z, torch.ones(1, 2), HowToSolve("iterate"), 5)
    assert not overflowed.converged.any()


def test_no_evaluation_leaves_the_start_and_says_nothing():
    found = solve(lambda z: z, torch.ones(2, 3), HowToSolve(), 0)
    assert torch.equal(found.value, torch.ones(2, 3))
    assert found.residual.isnan().all() and not found.converged.any()


@pytest.mark.parametrize("solver", ["anderson", "iterate"])
def test_a_puzzle_is_solved_alone_as_in_company(solver: str):
    f, how = tanh_map(), HowToSolve(solver, tolerance=1e-6)  # type: ignore[arg-type]
    start = torch.randn(5, 24, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    together = solve(f, start, how, 40)
    for i in range(5):

        def alone(z: Tensor, i: int = i) -> Tensor:
            return f(z.expand(5, -1))[i : i + 1]

        found = solve(alone, start[i : i + 1], how, 40)
        assert found.evaluations.item() == together.evaluations[i].item()
        torch.testing.assert_close(found.value[0], together.value[i], rtol=0, atol=1e-12)


def test_the_relative_residual():
    # |(3, 4)| / |(0, 2)| = 5 / 2; no change of nothing is 0
    step = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert relative_residual(step, torch.tensor([[0.0, 2.0], [0.0, 0.0]])).tolist() == [2.5, 0.0]


# gradients


def gradients(linear: tuple[Tensor, Tensor], rule) -> tuple[Tensor, Tensor, Tensor]:
    """Of sum(v f(z*)) by the offset and the matrix under a gradient rule, and v."""
    matrix, offset = (of.clone().requires_grad_() for of in linear)
    with torch.no_grad():
        fixed = torch.linalg.solve(torch.eye(DIM) - matrix, offset.T).T
    point = fixed.requires_grad_()
    value = point @ matrix.T + offset
    v = torch.randn(3, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (rule(value, point) * v).sum().backward()
    assert offset.grad is not None and matrix.grad is not None
    return offset.grad, matrix.grad, v


def test_the_implicit_gradient_of_a_linear_map(linear: tuple[Tensor, Tensor]):
    residual = torch.full((3,), torch.nan)
    by_offset, by_matrix, v = gradients(
        linear, lambda value, point: with_implicit_gradient(value, point, TIGHT, 200, residual)
    )
    matrix, offset = linear
    inverse = torch.linalg.inv(torch.eye(DIM) - matrix)
    expected = v @ inverse  # (I - A)^-T v, as rows
    torch.testing.assert_close(by_offset, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(by_matrix, expected.T @ (offset @ inverse.T), rtol=0, atol=1e-8)
    assert (residual <= 1e-12).all()


def test_an_implicit_gradient_that_does_not_converge_is_told(linear: tuple[Tensor, Tensor]):
    residual = torch.full((3,), torch.nan)
    gradients(linear, lambda value, point: with_implicit_gradient(value, point, TIGHT, 2, residual))
    assert (residual > 1e-2).all()


def test_the_phantom_gradient_of_a_linear_map(linear: tuple[Tensor, Tensor]):
    by_offset, by_matrix, v = gradients(linear, with_phantom_gradient)
    matrix, offset = linear
    fixed = offset @ torch.linalg.inv(torch.eye(DIM) - matrix).T
    expected = v + v @ matrix  # v + A^T v, as rows
    torch.testing.assert_close(by_offset, expected)
    torch.testing.assert_close(by_matrix, expected.T @ fixed)


def test_the_penalty_is_the_squared_frobenius_norm_in_expectation(linear: tuple[Tensor, Tensor]):
    matrix, offset = linear
    free = matrix.clone().requires_grad_()
    probes = torch.randn(40_000, DIM, generator=torch.Generator().manual_seed(2)).double()
    point = torch.zeros(len(probes), DIM, dtype=torch.float64, requires_grad=True)
    penalty = jacobian_penalty(point @ free.T + offset[0], point, probes)
    # exactly |A^T e|^2 / n for each probe
    torch.testing.assert_close(penalty, (probes @ matrix).square().mean(1))
    exact = matrix.square().sum() / DIM
    torch.testing.assert_close(penalty.mean(), exact, rtol=0.02, atol=0)
    penalty.mean().backward()  # 2 A / n
    assert free.grad is not None
    torch.testing.assert_close(free.grad, 2 * matrix / DIM, rtol=0, atol=0.01)
