"""Streamed components against scikit-learn's and against planted ones."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from trm_interp.analysis.pca import ahead, streamed_pca


def pool(n: int = 400, width: int = 60, seed: int = 0) -> np.ndarray:
    """Five strong directions in noise, far from the origin."""
    rng = np.random.default_rng(seed)
    strong = rng.standard_normal((n, 5)) * [9, 7, 5, 4, 3]
    return strong @ rng.standard_normal((5, width)) + rng.standard_normal((n, width)) + 4


def chunks(states: np.ndarray, size: int):
    return lambda: (states[i : i + size] for i in range(0, len(states), size))


@pytest.mark.parametrize("size", [1, 7, 400])
def test_as_scikit_learn_in_any_chunks(size: int):
    states = pool().astype(np.float32)
    exact = PCA(3, svd_solver="full").fit(states)
    components, points = streamed_pca(chunks(states, size), 3)
    np.testing.assert_allclose(components.explained, exact.explained_variance_ratio_, rtol=1e-4)
    np.testing.assert_allclose(components.axes, exact.components_, atol=2e-3)
    np.testing.assert_allclose(components.mean, exact.mean_, rtol=1e-5)
    np.testing.assert_allclose(points, exact.transform(states), atol=0.05)
    np.testing.assert_allclose(points, components.project(states), atol=2e-3)
    assert components.n == 400


def test_a_line_is_one_component():
    # x = 2 + t (3, 0, 4) / 5 for t in -1, 0, 1: the axis is (0.6, 0, 0.8), the variance all on it
    along = np.array([-1.0, 0.0, 1.0])
    states = 2 + along[:, None] * np.array([0.6, 0.0, 0.8])
    components, points = streamed_pca(lambda: [states.astype(np.float16)], 1)
    np.testing.assert_allclose(components.axes[0], [0.6, 0, 0.8], atol=1e-3)
    np.testing.assert_allclose(components.explained, [1.0], atol=1e-5)
    np.testing.assert_allclose(points[:, 0], along, atol=2e-3)


def test_the_same_seed_gives_the_same_bits():
    states = pool()
    first, second = (streamed_pca(chunks(states, 50), 2, seed=3)[1] for _ in range(2))
    assert np.array_equal(first, second)


def test_what_cannot_be_done_is_refused():
    with pytest.raises(ValueError, match="no states"):
        streamed_pca(lambda: [], 2)
    with pytest.raises(ValueError, match="5 components of states with 4"):
        streamed_pca(lambda: [np.zeros((9, 4))], 5)


def test_reading_ahead_keeps_order_and_errors():
    assert list(ahead(range(1, 6))) == [1, 2, 3, 4, 5]

    def broken():
        yield 1
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        list(ahead(broken()))
