"""Variance components against hand-computed tables, an identity of sums, and planted components."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trm_interp.analysis.variance import components, shares, shares_with_bounds


def test_two_factors_by_hand():
    """Rows 1 2 / 3 6: means 1.5, 4.5; 2, 4; all 3. SS_row 9, SS_column 4, SS_both 1; df 1 each."""
    found = components(np.array([[1.0, 2.0], [3.0, 6.0]]))
    assert found == pytest.approx({(0,): (9 - 1) / 2, (1,): (4 - 1) / 2, (0, 1): 1.0})
    assert shares(np.array([[1.0, 2.0], [3.0, 6.0]]))[(0,)] == pytest.approx(4 / 6.5)


def test_three_factors_by_hand():
    """Parity of three bits: means of all smaller sets are 1/2, so all of it is the full set's."""
    i, j, k = np.indices((2, 2, 2))
    found = components(((i + j + k) % 2).astype(float))
    whole = found.pop((0, 1, 2))
    assert whole == pytest.approx(8 / 4)  # sum of squares 2, one degree of freedom
    # what is in expectation a part of every smaller set's mean square, which is 0 here
    assert all(value < 0 for name, value in found.items() if len(name) == 2)


@given(
    st.tuples(st.integers(1, 4), st.integers(2, 4), st.integers(2, 4)),
    st.integers(0, 2**31),
    st.floats(-5, 5),
)
def test_expected_mean_squares_add_up_to_the_total(shape: tuple[int, ...], seed: int, add: float):
    """sum over sets of (df x expected MS) is the total sum of squares, whatever the values; a
    constant changes nothing, a factor scales with its square."""
    values = np.random.default_rng(seed).normal(size=shape)
    found = components(values)
    total = ((values - values.mean()) ** 2).sum()
    n = np.array(shape)
    came_to = 0.0
    axes = [axis for axis in range(3) if shape[axis] > 1]
    for size in range(1, len(axes) + 1):
        for names in combinations(axes, size):
            wider = [s for s in found if set(names) <= set(s)]
            cells = {s: np.prod([n[a] for a in range(3) if a not in s]) for s in wider}
            freedom = np.prod([n[a] - 1 for a in names])
            came_to += freedom * sum(found[s] * cells[s] for s in wider)
    assert came_to == pytest.approx(total, rel=1e-9)
    assert components(values + add) == pytest.approx(found, abs=1e-9)
    assert components(3 * values) == pytest.approx({s: 9 * v for s, v in found.items()}, abs=1e-9)


def test_planted_components_come_back():
    """Variances 4, 1, 2 and 0.5 of rows, of planes, of rows x columns, and of every cell."""
    rng = np.random.default_rng(0)
    a, b, c = 120, 40, 40
    values = 2 * rng.normal(size=(a, 1, 1)) + rng.normal(size=(1, 1, c))
    values = values + np.sqrt(2) * rng.normal(size=(a, b, 1))
    values = values + np.sqrt(0.5) * rng.normal(size=(a, b, c))
    found = components(values)
    assert found[(0,)] == pytest.approx(4, rel=0.3)
    assert found[(2,)] == pytest.approx(1, rel=0.5)
    assert found[(0, 1)] == pytest.approx(2, rel=0.05)
    assert found[(0, 1, 2)] == pytest.approx(0.5, rel=0.02)
    for none in ((1,), (0, 2), (1, 2)):
        assert found[none] == pytest.approx(0, abs=0.02)


def test_intervals_hold_the_planted_share_and_groups_add_up():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(80, 1, 1)) + rng.normal(size=(80, 6, 6))
    groups = {"row": ((0,),), "rest": ((1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))}
    found = shares_with_bounds(values, groups, seed=0)
    assert found["row"]["low"] < 0.5 < found["row"]["high"]
    assert found["row"]["high"] - found["row"]["low"] < 0.3
    assert found["row"]["value"] + found["rest"]["value"] == pytest.approx(1)
    assert shares_with_bounds(values, groups, seed=0) == found


def test_no_variance_and_a_single_row_have_no_share():
    flat = shares_with_bounds(np.ones((4, 2, 2)), {"row": ((0,),)}, seed=0)["row"]
    assert all(np.isnan(number) for number in flat.values())
    single = shares_with_bounds(np.arange(4.0).reshape(1, 2, 2), {"start": ((2,),)}, 0)["start"]
    assert np.isfinite(single["value"]) and np.isnan(single["low"])
