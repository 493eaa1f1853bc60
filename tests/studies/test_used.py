"""Directions that are read and used, or read alone, in models where the answer is known."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from toy_architecture import Toy, ToyConfig
from toy_task import Latin, latin_puzzles

from trm_interp.analysis.estimates import Estimate
from trm_interp.core.checkpoints.folder import save_checkpoint
from trm_interp.studies import ablated, used
from trm_interp.studies.ablated import NOTHING, PROBE, RANDOM, SHUFFLED, SPREAD
from trm_interp.studies.sae_of_state import StateSAE

Cli = Callable[..., Any]
SMALL = ["--steps", 3, "--moments", 1, "--random", 2, "--device", "cpu", "--limit", 40]
LETTERS = (1, 2, 3)


def model(reads: str) -> Toy:
    """Channels 1 to 3 count the letters among each cell's peers, with a minus: its candidates.

    The head reads these ("candidates"), or channels that hold nothing ("nothing"), so that
    candidates are in the state as before and are used for nothing.
    """
    row, column = Latin().places().values()
    peer = ((row[:, None] == row) | (column[:, None] == column)) & ~np.eye(9, dtype=bool)
    toy = Toy(ToyConfig(cells=9, vocab=5, d_model=12), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for of in (toy.start, toy.embedding, toy.head, toy.quick.map, toy.calm.map):
            of.zero_()
        toy.quick.mix.copy_(torch.from_numpy(-1.0 * peer))
        toy.calm.mix.copy_(torch.eye(9))
        for of in (toy.embedding[:, 11], toy.quick.map[11, 11:], toy.calm.map[11, 11:]):
            of.fill_(0.3)  # a channel that is the same everywhere, for letters against other tokens
        for letter in LETTERS:
            toy.head[letter, 11] = -1.0
            toy.embedding[letter, letter + 7] = 1.0
            toy.quick.map[letter + 7, letter] = 0.3
            toy.calm.map[letter, letter] = 0.3
            toy.head[letter, letter if reads == "candidates" else letter + 3] = 1.0
    return toy.eval()


@pytest.fixture(scope="module")
def puzzles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("latin") / "puzzles.txt"
    Latin.save(file, latin_puzzles(40))
    return file


def table(cli: Cli, puzzles: Path, folder: Path, reads: str, *words: Any) -> pd.DataFrame:
    save_checkpoint(folder / reads, model(reads), {"task": Latin().name})
    out = folder / f"used-{reads}"
    answer = cli(
        *("used", "--ckpt", folder / reads, "--puzzles", puzzles, *SMALL, *words, "--out", out)
    )
    assert answer.code == 0, answer.err
    return pd.read_csv(out / "used.csv", keep_default_na=True).fillna({"label": ""})


def test_what_is_used_costs_and_what_is_not_used_costs_nothing(
    cli: Cli, puzzles: Path, tmp_path: Path
):
    """Both states tell candidates as well; taking them out costs only where the head reads them."""
    rows = {reads: table(cli, puzzles, tmp_path, reads) for reads in ("candidates", "nothing")}
    at = {
        reads: of.set_index(["site", "label", "what"]).loc[("slow", "candidates", PROBE)]
        for reads, of in rows.items()
    }
    for of in at.values():
        assert of["dims"] == 3 and of["auc"] > 0.95 and of["moved"] > 0.1
    costs, nothing = at["candidates"], at["nothing"]
    assert costs["loss_low"] > 0.02 and costs["cells"] < 0
    random = rows["candidates"].query(f"site == 'slow' and what == '{RANDOM}' and dims == 3")
    assert (random["moved"] < costs["moved"]).all() and np.isfinite(costs[f"beyond_{RANDOM}"])
    assert nothing[["loss", "cells", "exact"]].abs().max() == 0
    again = rows["candidates"][rows["candidates"]["what"] == NOTHING]
    assert len(again) == 2 and (again[["loss", "moved"]] == 0).all(axis=None)
    summary = used.Result.read(tmp_path / "used-candidates" / "summary.json")
    (one,) = (of for of in summary.ablated if (of.site, of.label) == ("slow", "candidates"))
    assert set(one.beyond) == {RANDOM, SPREAD, SHUFFLED} and not one.is_used  # see the next test
    assert summary.n_test == summary.n_train == 20
    more = Estimate(value=0.2, low=0.1, high=0.3)
    assert replace(one, beyond=dict.fromkeys(one.beyond, more)).is_used
    (line,) = (of for of in used.lines(summary) if of.startswith("candidates, probes in slow"))
    assert line.endswith(": not shown to be used")


def test_progress_goes_on_within_a_batch(puzzles: Path, tmp_path: Path):
    """One batch of 20 held-out puzzles; a batch of rows is one removal of them."""
    save_checkpoint(tmp_path / "toy", model("candidates"), {"task": Latin().name})
    words = {"ckpt": str(tmp_path / "toy"), "puzzles": puzzles, "out": tmp_path / "used"}
    config = used.Config(**words, steps=2, moments="1", limit=40, batch_size=20, device="cpu")
    said: list[float] = []
    result = used.run(config, lambda line: None, lambda done, of: said.append(done / of))
    assert said == sorted(said) and said[-1] == 1
    assert result.n_test == 20 and max(b - a for a, b in pairwise(said)) < 0.15
    assert pytest.approx(0.1) in said  # after the fits


def test_all_directions_are_all_of_a_state(cli: Cli, puzzles: Path, tmp_path: Path):
    """slow varies in three channels alone, so that three random mixtures of states take all of it,
    and so do three probes of shuffled labels: as much as the probes of three candidates."""
    rows = table(cli, puzzles, tmp_path, "candidates", "--singles", "--once", "--to", "zero")
    slow = rows.query("site == 'slow' and dims == 3").set_index("what")
    loss = slow.loc[PROBE, "loss"].iloc[0]
    assert loss == pytest.approx(slow.loc[SPREAD, "loss"], rel=1e-3)
    assert loss == pytest.approx(slow.loc[SHUFFLED, "loss"].iloc[0], rel=1e-3)
    assert "candidate A" in set(rows["label"]) and rows["dims"].min() == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--moments", "3"], "moments must be from 1 to steps - 1 = 2, got 3"),
        (["--steps", "1"], "steps must be at least 2, got 1"),
        (["--held-out", "1"], "held-out must be between 0 and 1, got 1"),
        (["--sae", "nowhere"], "nowhere"),
        (["--random", "0"], "random must be at least 1, got 0"),
    ],
)
def test_bad_input(cli: Cli, puzzles: Path, tmp_path: Path, words: list[str], message: str):
    save_checkpoint(tmp_path / "toy", model("nothing"), {"task": Latin().name})
    on = ["--ckpt", tmp_path / "toy", "--puzzles", puzzles, *SMALL]
    answer = cli("used", *on, *words, "--out", tmp_path / "out")
    assert answer.code == 2 and message in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_features_are_taken_out_of_a_state():
    """Two features of three: what each adds to the state goes, the rest stays."""
    rows = torch.tensor([[1.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 1, 0]])
    fake: Any = SimpleNamespace(W_dec=rows, encode=lambda z: torch.relu(z[..., :3] - 0.5))
    sae = StateSAE(Path("sae"), fake, "slow", torch.device("cpu"), frozenset())
    state = torch.tensor([[[1.5, 1.0, 0.25, 7.0]]])
    out = sae.without((0, 1))(state)
    assert out.tolist() == [[[0.5, 0.0, 0.25, 7.0]]]  # less 1 of the first row, .5 of the second
    before = sae.identity
    rows[2, 2] = 0.5  # trained again in the same folder
    assert before != sae.identity and before.startswith("sae ")


def test_the_other_features_are_all_different():
    density = np.array([0.5, 0.4, 0.1, 0.41, 0.52, 0.0])
    others = ablated._others(np.array([0, 1]), density, np.ones(6), seed=0)
    assert len(set(others)) == 2 and set(others) <= {2, 3, 4}
