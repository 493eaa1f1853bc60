"""Studies of a store look at any site that was recorded, not at states alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trm_interp.analysis.divergence import distance_to_successes
from trm_interp.recording.states import states_of
from trm_interp.recording.store import Store

Cli = Callable[..., Any]
STEPS, LAST = 3, "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def store(cli: Cli, copier: Path, grids: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stores") / "resid"
    words = ["--ckpt", copier, "--puzzles", grids, "--out", out, "--steps", STEPS]
    assert cli("collect", *words, "--sites", "z_L,resid").code == 0
    return out


@pytest.mark.parametrize("site", ["resid", "blocks.0.hook_resid_mid"])
def test_trajectories_of_a_site_inside_an_evaluation(
    cli: Cli, store: Path, tmp_path: Path, site: str
):
    answer = cli("trajectories", store, "--site", site, "--out", tmp_path / "out", "--json")
    assert answer.code == 0, answer.err
    name = LAST if site == "resid" else site
    assert f'"site": "{name}"' in answer.out
    ticks = pd.read_csv(tmp_path / "out" / "paths_ticks.csv")
    assert ticks["update"].max() == 2 * (2 + 1) * STEPS - 1  # every evaluation, not one in three


def test_divergence_of_the_residual_stream(cli: Cli, store: Path, tmp_path: Path):
    """The control over starts records the same site, at the same evaluations."""
    words = ["divergence", store, "--site", "resid", "--starts", 8, "--tries", 13]
    answer = cli(*words, "--out", tmp_path)
    assert answer.code == 0, answer.err
    assert f"update of {LAST}" in (tmp_path / "divergence.html").read_text()
    with Store(store) as opened:
        far = distance_to_successes(states_of(opened, LAST), opened["solved"][:, -1])
    table = pd.read_csv(tmp_path / "divergence.csv").query("outcome == 'failed'")
    failed = far[~Store(store)["solved"][:, -1]].mean(0)
    np.testing.assert_allclose(table["mean"], failed, rtol=1e-5)


def test_a_site_that_was_not_recorded_is_one_line(cli: Cli, store: Path, tmp_path: Path):
    for site, problem in {
        "logits": "give one of z_H, z_L, answer, latent, resid, blocks.0.hook_resid_mid",
        "z_H": "lacks z_H",
    }.items():
        answer = cli("trajectories", store, "--site", site, "--out", tmp_path / "out")
        assert answer.code == 2 and answer.err.count("\n") == 1
        assert problem in answer.err, answer.err
