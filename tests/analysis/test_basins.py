"""Starts, planes, endings and shares where the answer is known in closed form."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from trm_interp.analysis import linkage
from trm_interp.analysis.basins import (
    SOLVED,
    STEPS,
    by_size,
    cluster_table,
    displacements,
    follow,
    plane_through,
    principal_plane,
    same_answer,
    same_state,
    shares,
    square,
)
from trm_interp.analysis.linkage import linked
from trm_interp.analysis.outcomes import first_solved, solved_from, wilson
from trm_interp.analysis.spatial import morans_i, nearest

RADII = torch.tensor([0.5, 1.0, 2.0, 0.0])


def two_wells(state: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """x -> x + (x - x^3) / 4 in the first coordinate, y -> y / 2 in the second: the ends are
    (1, 0) and (-1, 0), and the line x = 0 divides their basins."""
    x, y = state[0][..., 0], state[0][..., 1]
    return (torch.stack([x + (x - x**3) / 4, y / 2], -1),)


def sign(state: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    x = state[0][..., 0]
    return 1 + (x > 0).int(), x[:, 0]


def test_the_basins_of_two_wells():
    places = square(np.array([[-1.0, -1.0], [1.0, 1.0]]), 20, margin=0.0)  # no place on x = 0
    start = torch.from_numpy(places)[:, None]  # [start, pos 1, 2]
    endings = follow((start,), two_wells, sign, steps=60)
    assert endings.answers.shape == (400, 60, 1)
    right = places[:, 0] > 0
    np.testing.assert_array_equal(endings.answers[:, -1, 0], 1 + right)
    ends = endings.end[0].numpy()
    np.testing.assert_allclose(ends[:, 0], np.stack([2.0 * right - 1, 0 * right], 1), atol=1e-4)
    states = same_state(ends.reshape(400, 2), tolerance=0.01)
    assert set(states) == {0, 1}
    np.testing.assert_array_equal(states == states[right][0], right)
    table = shares(same_answer(endings.answers[:, -1]))
    assert table["share"].tolist() == [0.5, 0.5]
    assert (table["low"][0], table["high"][0]) == wilson(200, 400)
    # from (1/2, 0): x moves by (1/2 - 1/8) / 4 = 3/32 of two numbers: RMS 3/32 / sqrt 2
    half = follow((torch.tensor([[[0.5, 0.0]]]),), two_wells, sign, steps=1)
    assert half.moved[0, 0] == pytest.approx(3 / 32 / 2**0.5)


def test_a_radius_is_the_rms_of_what_is_added():
    for shared, places in ((True, 1), (False, 5)):
        moved = displacements(torch.arange(4), RADII, 5, 7, shared, 0, 1)
        assert moved.shape == (4, places, 7)
        torch.testing.assert_close(moved.square().mean((1, 2)).sqrt(), RADII)


def test_a_start_is_the_same_in_any_company():
    many = displacements(torch.arange(4), RADII, 5, 7, False, 0, 1)
    one = displacements(torch.tensor([2]), RADII[2:3], 5, 7, False, 0, 1)
    assert torch.equal(many[2:3], one)
    assert not torch.equal(many[:2] / RADII[:2, None, None], many[1:3] / RADII[1:3, None, None])
    other = displacements(torch.arange(4), RADII, 5, 7, False, 0, 2)
    assert not torch.allclose(many[:3], other[:3])


def test_directions_have_no_preference():
    drawn = displacements(torch.arange(4000), torch.ones(4000), 1, 3, False, 9)[:, 0]
    np.testing.assert_allclose(drawn.mean(0), 0, atol=0.06)
    np.testing.assert_allclose(drawn.T @ drawn / 4000, np.eye(3), atol=0.06)


def test_a_plane_keeps_distances_and_goes_through_its_points():
    points = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    plane = plane_through(points)
    torch.testing.assert_close(plane.at(plane.corners), points, atol=1e-5, rtol=0)
    places = np.array([[0.3, -1.0], [2.0, 0.5]])
    a, b = plane.at(places)
    distance = (a - b).square().mean().sqrt()
    assert float(distance) == pytest.approx(np.linalg.norm(places[0] - places[1]), abs=1e-5)
    assert plane.corners[0].tolist() == [0, 0] and plane.corners[1, 1] == 0


def test_points_on_a_line_span_no_plane():
    a, b = torch.randn(2, 4, 5)
    for other in (a + 2 * (b - a), a, b):
        with pytest.raises(ValueError, match="span no plane"):
            plane_through(torch.stack([a, b, other]))
    with pytest.raises(ValueError, match="span no plane"):
        plane_through(torch.stack([a, a, b]))


def test_chains_are_one_state_and_order_is_nothing():
    # links of 0.9, 0.9, then 1.1: tolerance 1 joins the first three though 0 and 1.8 are apart
    line = np.array([0.0, 0.9, 1.8, 2.9, 10.0])[:, None]
    assert same_state(line, tolerance=1.0).tolist() == [0, 0, 0, 1, 2]
    order = np.array([4, 2, 0, 3, 1])
    assert same_state(line[order], tolerance=1.0).tolist() == [1, 0, 0, 2, 0]


def test_clusters_over_several_blocks(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 50)
    states = rng.standard_normal((4, 30))[truth] + 0.01 * rng.standard_normal((50, 30))
    monkeypatch.setattr("trm_interp.analysis.linkage.BLOCK", 7)
    groups = same_state(states, tolerance=0.1)
    np.testing.assert_array_equal(groups, by_size(truth))


def test_groups_are_those_of_all_pairs():
    """Groups from far apart to touching, in one dimension to a dozen; and one long chain."""
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(40):
        width, n, link = rng.integers(1, 13), rng.integers(2, 150), rng.choice([0.1, 0.5, 1, 2])
        centres = rng.choice([0.5, 2, 10]) * rng.standard_normal((rng.integers(1, 9), width))
        spread = rng.choice([1e-3, 0.1, 0.4, 1])
        z = centres[rng.integers(0, len(centres), n)] + spread * rng.standard_normal((n, width))
        z = z.astype(np.float32)
        pairs = np.linalg.norm(z[:, None] - z, axis=2) <= link
        truth = connected_components(csr_matrix(pairs), directed=False)[1]
        np.testing.assert_array_equal(by_size(linked(z, link)), by_size(truth))
        found.add(int(truth.max()))
    assert 0 in found and max(found) > 20
    chain = 0.45 * np.arange(2000, dtype=np.float32)[:, None] * np.ones((1, 4), np.float32)
    assert linked(chain, 1.0).max() == 0


def test_points_by_themselves_are_compared_by_products(monkeypatch: pytest.MonkeyPatch):
    """Ends that wander, in many dimensions: two are sqrt(2) apart in RMS."""
    rng = np.random.default_rng(0)
    truth = np.r_[np.arange(700), rng.integers(700, 703, 100)]
    z = rng.standard_normal((703, 400))[truth] + 1e-3 * rng.standard_normal((800, 400))
    z = z.astype(np.float32)
    counts = {"_distances": 0, "_touch": 0}
    for name, of in ((name, getattr(linkage, name)) for name in counts):

        def counted(z: np.ndarray, other: np.ndarray, *link: float, name: str = name, of=of):
            counts[name] += 1 if link else len(other)
            return of(z, other, *link)

        monkeypatch.setattr(linkage, name, counted)
    near, apart = 0.1 * np.sqrt(400), np.sqrt(2 * 400) / 1.5
    np.testing.assert_array_equal(by_size(linked(z, near)), by_size(truth))
    assert counts["_distances"] <= 100 * 99 / 2 and counts["_touch"] == 0
    np.testing.assert_array_equal(by_size(linked(z, apart)), by_size(truth))
    assert counts["_touch"] <= 3 * 703  # two single points have one distance, about 1.5 links


def test_steps_to_solution():
    solved = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1]], bool)
    assert first_solved(solved).tolist() == [1, 0, 0, -1, 0]
    assert solved_from(solved).tolist() == [1, 2, -1, -1, 0]


def test_unsolved_starts_are_not_mixed_with_the_steps_of_solved_ones():
    """Left half solved at random steps, right half not: outcomes cluster, steps do not. With the
    unsolved as one step more than all, the same starts have a high Moran's I of steps."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (400, 2))
    solved = points[:, 0] < 0
    since = np.where(solved, rng.integers(0, 16, 400), -1)
    rows = pd.DataFrame({"solved_from": since, "answer": np.where(solved, 0, 1)})
    weights, among = nearest(points, 8), nearest(points[solved], 8)
    table = cluster_table(rows, weights, among, seed=0, shuffles=199).set_index(
        ["measure", "label"]
    )
    outcome, steps = (table.loc[("Moran's I", label)] for label in (SOLVED, STEPS))
    assert outcome["value"] > 0.7 and outcome["p"] == 1 / 200
    assert abs(steps["value"]) < 0.1 and steps["p"] > 0.05 and steps["n"] == solved.sum()
    mixed = float(morans_i(np.where(solved, since, 16).astype(float), weights))
    assert mixed > 0.4
    few = cluster_table(rows, weights, None, seed=0, shuffles=19)
    assert few.set_index(["measure", "label"]).loc[("Moran's I", STEPS)].isna()["p"]


def test_the_principal_plane_of_a_plane():
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((60, 2)) * [3.0, 1.0]
    basis = np.linalg.qr(rng.standard_normal((8, 2)))[0]
    places, explained = principal_plane(flat @ basis.T, seed=0)
    assert explained.sum() == pytest.approx(1) and explained[0] > 0.8
    centred = flat - flat.mean(0)
    np.testing.assert_allclose(
        8**0.5 * np.linalg.norm(places, axis=1), np.linalg.norm(centred, axis=1), atol=1e-4
    )
