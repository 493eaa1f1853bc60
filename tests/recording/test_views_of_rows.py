"""Rows as an SAE of within-puzzle residuals and one of shuffled ticks read them."""

from pathlib import Path

import numpy as np
import pytest
from sae_store import noise, write_store

from trm_interp.recording.site_reader import SiteReader, View
from trm_interp.recording.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise about a code of its own of every puzzle and position."""
    static = 4 * np.random.default_rng(1).standard_normal((3, 1, 1, 1, 16, 4))
    return write_store(tmp_path_factory.mktemp("views") / "store", noise(3) + static)


def test_residuals_are_what_moves(store: Path):
    with Store(store) as opened:
        rows = SiteReader(opened, "z_L").read(1).astype(np.float64)
        reader = SiteReader(opened, "z_L", view=View("puzzle"))
        moving, static = reader.read(1), reader.static(1)
        late = SiteReader(opened, "z_L", reader.indices[6:], View("puzzle")).static(1)
    assert moving.dtype == np.float16 and static.shape == (16, 4)
    np.testing.assert_allclose(static, rows.mean(0), atol=1e-5)
    np.testing.assert_allclose(moving, rows - rows.mean(0), atol=4e-3)  # float16
    np.testing.assert_allclose(late, rows[6:].mean(0), atol=1e-5)  # over the ticks that are read


def test_shuffled_coordinates_keep_their_values_and_lose_each_other(store: Path):
    with Store(store) as opened:
        rows = SiteReader(opened, "z_L").read(2)
        shuffled = SiteReader(opened, "z_L", view=View(shuffle=5)).read(2)
        again = SiteReader(opened, "z_L", view=View(shuffle=5)).read(2)
        other = SiteReader(opened, "z_L", view=View(shuffle=6)).read(2)
        both = SiteReader(opened, "z_L", view=View("puzzle", 5)).read(2)
    np.testing.assert_array_equal(np.sort(shuffled, 0), np.sort(rows, 0))
    np.testing.assert_array_equal(shuffled, again)
    assert (shuffled != other).mean() > 0.5 and (shuffled != rows).mean() > 0.5
    places = [np.argsort(values[:, 0, :2], 0) for values in (rows, shuffled)]
    moved = places[1][:, 0] != places[1][:, 1]
    assert moved.any()  # two coordinates of a position went different ways
    np.testing.assert_allclose(both.mean(0), 0, atol=2e-3)


def test_a_pair_of_coordinates_that_go_together_is_uncorrelated_when_shuffled(tmp_path: Path):
    z_L = noise(2)
    z_L[..., 1] = z_L[..., 0]
    path = write_store(tmp_path / "store", z_L)

    def correlation(view: View) -> float:
        with Store(path) as opened:
            rows = SiteReader(opened, "z_L", view=view).read(0).reshape(-1, 4)
        return float(np.corrcoef(rows[:, 0], rows[:, 1])[0, 1])

    assert correlation(View()) == pytest.approx(1)
    assert abs(correlation(View(shuffle=0))) < 0.3  # 192 rows


def test_views_in_words():
    assert View().words is None
    assert View("puzzle", 0).words == (
        "each puzzle's mean over its ticks taken away, the ticks of each coordinate shuffled on "
        "their own"
    )
