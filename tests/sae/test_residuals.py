"""SAEs of within-puzzle residuals and of shuffled ticks, from training to the loop."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sae_lens import SAE
from sae_runs import identity_sae, quick, silent
from sae_store import noise, write_store

from trm_interp.recording.site_reader import View
from trm_interp.runtime.errors import UserError
from trm_interp.sae.applied import applying
from trm_interp.sae.measures import measures
from trm_interp.sae.saved import provenance_of
from trm_interp.sae.settings import OnSAE
from trm_interp.sae.splice import Place, in_the_loop, open_loop, static_parts
from trm_interp.sae.steer import Change, edit_of
from trm_interp.sae.train import train_sae

Cli = Callable[..., Any]
SMALL = ["--train-steps", 20, "--expansion", 2, "--batch-size", 32, "--buffer-mb", 1]
SMALL += ["--device", "cpu"]


@pytest.fixture(scope="module")
def store(cli: Cli, copier: Path, grids: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("views") / "store"
    words = ["--ckpt", copier, "--puzzles", grids, "--out", out, "--steps", 3]
    assert cli("collect", *words, "--sites", "z_L,z_H").code == 0
    return out


@pytest.fixture(scope="module")
def residual_sae(cli: Cli, store: Path) -> Path:
    out = store.parent / "residual"
    words = ["--site", "z_L", "--centre", "puzzle", "--out", out, *SMALL]
    assert cli("train-sae", store, *words).code == 0
    return out


def of_puzzle(path: Path, d: int, scale: float) -> Path:
    """An SAE of residuals that gives back `scale` times what moves."""
    sae = SAE.load_from_disk(identity_sae(path, d, scale))
    sae.cfg.metadata.trm_interp["centre"] = "puzzle"
    sae.save_model(path)
    return path


def test_an_sae_of_residuals_does_not_see_the_static_code(tmp_path: Path):
    """Rows that hardly move about codes that differ much between puzzles."""
    static = 5 * np.random.default_rng(2).standard_normal((12, 1, 1, 1, 16, 4))
    path = write_store(tmp_path / "store", static + 0.1 * noise(12))
    spreads = {}
    for centre in ("rows", "puzzle"):
        out = tmp_path / centre
        assert train_sae(quick(path, out, centre=centre), silent)
        provenance = provenance_of(out)
        assert provenance is not None and provenance.view == View(centre)
        with applying(OnSAE(sae=out, store=path, device="cpu"), silent) as applied:
            result, usage = measures(applied, seed=0)
        rows = len(applied.puzzles) * applied.rows_per_puzzle
        spreads[centre] = usage.spread.sum() / rows
        assert (result.view is None) == (centre == "rows")
    assert spreads["rows"] > 4 * 5**2 / 2
    assert spreads["puzzle"] == pytest.approx(4 * 0.1**2, rel=0.2)


def test_what_is_spliced_gets_the_recorded_mean_back(store: Path, tmp_path: Path):
    # nothing of what moves is left: the state is the recorded mean of its puzzle and position
    with applying(
        OnSAE(
            sae=of_puzzle(tmp_path / "none", 16, 0.0),
            store=store,
            site="z_L",
            device="cpu",
            force_mismatch=True,
        ),
        silent,
    ) as applied:
        loop, _ = open_loop(applied, None, force=True, batch_size=5)
        static = static_parts(applied, applied.reader)
        assert static is not None and static.shape == (13, 18, 16)  # prefix 2
        place = Place("z_L", applied.reader.ticks, torch.zeros(16), static)
        codes = {"sae": torch.zeros_like, "whole": lambda x: x}
        spliced = in_the_loop(loop, [place], codes)
        # by hand: the same states written puzzle by puzzle
        expected = loop.run(
            lambda puzzles: dict.fromkeys(place.hooks, lambda x: static[puzzles].to(x))
        )
    assert spliced.runs["sae"].loss.value == pytest.approx(expected.loss[:, -1].mean(), rel=1e-5)
    assert spliced.runs["mean"] == spliced.runs["sae"]  # the mean residual is zero here
    clean = spliced.runs["clean"].loss.value
    assert spliced.runs["whole"].loss.value == pytest.approx(clean, rel=1e-4)
    assert spliced.runs["sae"].loss.value != pytest.approx(clean, rel=1e-3)


def test_a_steered_state_is_coded_without_its_static_part():
    rows, state = torch.eye(2), torch.tensor([[[5.0, 3.0], [1.0, -4.0]]])
    static = torch.tensor([[[4.0, 1.0], [0.0, 0.0]]])
    edit = edit_of(torch.relu, rows, Change(1, "ablate", 0), None, static)
    # feature 1 is relu(3 - 1) = 2 at the first position
    assert edit(state).tolist() == [[[5, 3 - 2], [1, -4]]]
    edit = edit_of(torch.relu, rows, Change(1, "ablate", 0), [1], static)
    assert edit(state).tolist() == [[[5, 3], [1, -4]]]


def test_commands_apply_the_centring_that_the_card_names(
    cli: Cli, residual_sae: Path, store: Path, tmp_path: Path
):
    assert json.loads((residual_sae / "card.json").read_text())["sae"]["centre"] == "puzzle"
    answer = cli("sae-eval", residual_sae, store, "--json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    assert result["view"] == "each puzzle's mean over its ticks taken away"
    assert result["loop"]["every_tick"]["runs"]["sae"]["loss"]["value"] > 0
    assert "rows: each puzzle's mean" in cli("sae-eval", residual_sae, store, "--overwrite").out
    words = ["--feature", 0, "--controls", 1, "--all-puzzles", "--mode", "clamp", "--json"]
    steered = cli("steer", residual_sae, store, *words)
    assert steered.code == 0 or "never fires" in steered.err
    out = tmp_path / "features"
    assert cli("features", residual_sae, store, "--out", out, "--surrogates", 19).code == 0
    assert json.loads((out / "summary.json").read_text())["view"] == result["view"]


def test_rows_that_no_run_has_are_not_spliced(
    cli: Cli, copier: Path, grids: Path, store: Path, tmp_path: Path
):
    shuffled = tmp_path / "shuffled"
    words = ["--site", "z_L", "--shuffle-ticks", "--out", shuffled, "--seed", 3, *SMALL]
    assert cli("train-sae", store, *words).code == 0
    provenance = provenance_of(shuffled)
    assert provenance is not None and provenance.view == View("rows", 3)
    refused = cli("sae-eval", shuffled, store)
    assert refused.code == 2 and "trained on shuffled ticks, which no run has" in refused.err
    assert not (shuffled / "measures.json").exists()
    answer = cli("sae-eval", shuffled, store, "--no-loop", "--json")
    assert json.loads(answer.out)["view"] == "the ticks of each coordinate shuffled on their own"
    refused = cli("steer", shuffled, store, "--feature", 0, "--controls", 1)
    assert refused.code == 2 and "which no run has" in refused.err
    some, sae = tmp_path / "some", tmp_path / "sae"
    words = ["--ckpt", copier, "--puzzles", grids, "--steps", 2, "--positions", "0-7"]
    assert cli("collect", *words, "--out", some).code == 0
    words = ["--site", "z_L", "--centre", "puzzle", "--out", sae, *SMALL]
    assert cli("train-sae", some, *words).code == 0
    refused = cli("sae-eval", sae, some)
    assert refused.code == 2 and "for some positions only: record all" in refused.err


def test_a_run_is_not_resumed_with_another_centring(store: Path, tmp_path: Path):
    out = tmp_path / "sae"
    assert train_sae(quick(store, out), silent)
    with pytest.raises(UserError, match="centre"):
        train_sae(quick(store, out, centre="puzzle", resume=True), silent)
