"""SAEs on stores of an architecture and a task that the package does not have."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from toy_copier import CONFIG, EVALUATIONS, N_FULL, N_OPEN, save_squares, save_toy, squares
from toy_task import Latin

from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.recording.site_reader import SiteReader, expanded
from trm_interp.recording.store import Store
from trm_interp.runtime.errors import UserError
from trm_interp.sae.applied import applying
from trm_interp.sae.gather import gather
from trm_interp.sae.meaning import facts_of
from trm_interp.sae.results import FeaturesSummary, SAEMeasures, Steering
from trm_interp.sae.settings import OnSAE
from trm_interp.sae.splice import Loop, Place, in_the_loop

Cli = Callable[..., Any]
N, STEPS, SITE = N_FULL + N_OPEN, 3, "inner.hook_mixed"
CYCLE = ("fast", "fast", "slow", "fast", "slow")
TRAIN = ["--expansion", 4, "--batch-size", 64, "--l1", 0.1, "--device", "cpu", "--held-out", 0.4]


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("toys") / "toy")


@pytest.fixture(scope="module")
def store(cli: Cli, ckpt: Path) -> Path:
    out = ckpt.parent / "store"
    puzzles = save_squares(ckpt.parent / "squares.txt")
    words = ["--ckpt", ckpt, "--puzzles", puzzles, "--out", out, "--steps", STEPS]
    answer = cli("collect", *words, "--sites", f"states,{SITE}")
    assert answer.code == 0, answer.err
    return out


@pytest.fixture(scope="module")
def sae(cli: Cli, store: Path) -> Path:
    out = store.parent / "sae"
    steps = ["--max-steps", 80]
    answer = cli("train-sae", store, "--site", "fast", "--out", out, *TRAIN, *steps)
    assert answer.code == 0, answer.err
    return out


def test_sites_are_those_of_the_store(cli: Cli, store: Path, tmp_path: Path):
    with Store(store) as opened:
        assert expanded(opened, ["states"]) == ["fast", "slow"]
        assert expanded(opened, [SITE, "states", "slow"]) == [SITE, "fast", "slow"]
        with pytest.raises(
            UserError, match="holds no sites of 'resid'; it holds fast, slow, inner"
        ):
            expanded(opened, ["resid"])
    out = tmp_path / "pooled"
    words = [*TRAIN, "--max-steps", 5, "--arch", "topk", "--active", 2]
    assert cli("train-sae", store, "--site", "states", "--out", out, *words).code == 0
    card = json.loads((out / "card.json").read_text())["sae"]
    assert card["sites"] == ["fast", "slow"] and card["architecture"] == "toy"
    assert card["ticks"] == list(range(STEPS * EVALUATIONS))
    refused = cli("train-sae", store, "--site", "z_L", "--out", tmp_path / "no", *words)
    assert refused.code == 2 and "holds no 'z_L'; it holds fast, slow" in refused.err


@pytest.mark.parametrize("site", ["fast", "slow", SITE])
def test_what_is_spliced_runs_on_in_the_recursion(ckpt: Path, store: Path, site: str):
    """A perfect reconstruction of any site at all of its ticks changes nothing, zeros a lot."""
    puzzles = squares()
    boards = [torch.from_numpy(tokens) for tokens in (puzzles.inputs, puzzles.labels)]
    loop = Loop(load_checkpoint(ckpt).model, *boards, n_steps=STEPS, batch_size=5)
    with Store(store) as opened:
        reader = SiteReader(opened, site)
    writes = [CYCLE[i % len(CYCLE)] for i in reader.indices]
    assert set(writes) == ({site} if site != SITE else {"fast", "slow"})
    mean = torch.zeros(CONFIG.d_model)
    places = [Place(site, reader.ticks, mean)]
    perfect = in_the_loop(loop, places, {"sae": lambda x: x})
    assert perfect.runs["sae"] == perfect.runs["clean"]
    assert perfect.runs["clean"].exact.value == N_FULL / N
    assert perfect.runs["zero"].loss.value != perfect.runs["clean"].loss.value
    assert perfect.recovered_over_zero.value == 1


def test_measures(cli: Cli, sae: Path, store: Path, tmp_path: Path):
    out = tmp_path / "measures.json"
    words = ["sae-eval", sae, store, "--all-puzzles", "--out", out]
    answer = cli(*words, "--tick", 23, "--json")  # the second write of fast in cycle 2 of step 2
    assert answer.code == 0, answer.err
    measures = SAEMeasures.from_json(json.loads(answer.out))
    assert measures == SAEMeasures.from_json(json.loads(out.read_text()))
    run = range(STEPS * EVALUATIONS)
    assert measures.by_tick.tick == [i for i in run if CYCLE[i % len(CYCLE)] == "fast"]
    assert 0 <= measures.fvu.value < 1 and measures.n_solved == N_FULL
    assert measures.loop and set(measures.loop.spliced) == {"every_tick", "tick_23"}
    assert measures.loop.spliced["tick_23"].read_at == 2
    assert "loss recovered" in cli(*words, "--overwrite").out
    refused = cli(*words[:4], "--tick", 2)
    assert refused.code == 2 and "fast is not read at tick 2; it is at 0, 1, 3, 5" in refused.err


def test_features(cli: Cli, sae: Path, store: Path, tmp_path: Path):
    out = tmp_path / "features"
    answer = cli("features", sae, store, "--out", out, "--all-puzzles", "--surrogates", 19)
    assert answer.code == 0, answer.err
    summary = FeaturesSummary.from_json(json.loads((out / "summary.json").read_text()))
    assert (summary.solved, summary.failed) == (N_FULL, N_OPEN) and summary.alive > 0
    table = pd.read_csv(out / "features.csv")
    fires = table[table["density"] > 0]
    # one direction a token is all that there is: features tell tokens, and push what they tell
    best = fires.loc[(fires["fact_auc"] - 0.5).abs().idxmax()]
    assert re.fullmatch(r"(guess|solution) [ABC]|given", best["fact"]) and best["fact_auc"] > 0.9
    assert set(fires["pushes"]) <= {"A", "B", "C"}
    page = (out / "dashboard.html").read_text()
    data = json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', page)[1])
    assert data["grid"] == [3, 3] and data["rulings"] == [[], []]
    assert data["glyphs"] == ["", "A", "B", "C", ""] and data["push_names"] == ["A", "B", "C"]
    assert data["steps"] == [0, EVALUATIONS, 2 * EVALUATIONS]
    names = set(data["fact_names"])
    assert {"row 3", "column 1", "single", "conflict", "wrong", "guess C"} <= names
    assert not {name for name in names if "box" in name or "candidates" in name}


def test_facts_by_hand():
    task = Latin()
    puzzle, solution = (
        task.load_text(text, "x").inputs[0] for text in ("A.C|BCA|CAB", "ABC|BCA|CAB")
    )
    guess = solution.copy()
    guess[1] = 1  # A: twice in its row, twice in its column
    facts = facts_of(task, puzzle, solution, np.stack([guess, solution]), [0, 1])
    values = {name: facts.values[:9, i] for i, name in enumerate(facts.names)}
    assert np.flatnonzero(values["given"]).tolist() == [0, *range(2, 9)]
    assert np.flatnonzero(values["wrong"]).tolist() == [1]
    assert np.flatnonzero(values["conflict"]).tolist() == [0, 1, 7]
    assert np.flatnonzero(values["single"]).tolist() == [1]
    assert np.flatnonzero(values["solution B"]).tolist() == [1, 3, 8]
    assert np.flatnonzero(values["guess A"]).tolist() == [0, 1, 5, 7]
    assert np.flatnonzero(facts.asked).tolist() == [1, 10]


def test_gathered_series_are_those_of_the_site(sae: Path, store: Path):
    config = OnSAE(sae=sae, store=store, all_puzzles=True, device="cpu")
    with applying(config, lambda line: None) as applied:
        observed = gather(applied, n_examples=2)
        levels = [acts.mean(1).numpy() for _, _, acts in applied.encode()]
    assert observed.level.shape == (N, 18, 24)  # 3 steps of 2 cycles of 3 writes; 4 x 6 features
    np.testing.assert_array_equal(observed.level, np.stack(levels))
    assert observed.cells.tolist() == observed.at.tolist() == list(range(9))


def test_steering(cli: Cli, sae: Path, store: Path, tmp_path: Path):
    config = OnSAE(sae=sae, store=store, all_puzzles=True, device="cpu")
    with applying(config, lambda line: None) as applied:
        strongest = int(gather(applied, n_examples=1).largest.argmax())
    words = ["steer", sae, store, "--feature", strongest, "--controls", 1, "--all-puzzles"]
    answer = cli(*words, "--ticks", "0,1,3", "--at-cells", "0-2", "--json")
    assert answer.code == 0, answer.err
    steering = Steering.from_json(json.loads(answer.out))
    assert steering.ticks_changed == 3 and steering.last_change == 0
    assert steering.feature.after_last_change.loss.value != 0
    refused = cli(*words, "--ticks", "2")
    assert refused.code == 2 and "holds no fast at tick 2" in refused.err
