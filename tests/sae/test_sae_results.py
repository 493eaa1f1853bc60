"""Results of the SAE commands: replaced when told, and only their own; numbers that cannot be."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trm_interp.sae.features
from trm_interp.runtime.limits import memory_limit
from trm_interp.runtime.locks import locked_beside, locked_folder
from trm_interp.runtime.outputs import maker

Cli = Callable[..., Any]
TRAIN = ["--expansion", 4, "--train-steps", 60, "--batch-size", 64, "--l1", 0.3, "--device", "cpu"]


@pytest.fixture(scope="module")
def store(cli: Cli, copier: Path, grids: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "store"
    words = ["--ckpt", copier, "--puzzles", grids, "--out", out, "--steps", 4]
    assert cli("collect", *words, "--sites", "z_L").code == 0
    return out


@pytest.fixture(scope="module")
def made(cli: Cli, store: Path) -> Path:
    out = store.parent / "sae"
    words = ["train-sae", store, "--site", "z_L", "--out", out, *TRAIN, "--held-out", 0.4]
    assert cli(*words).code == 0
    return out


@pytest.fixture
def sae(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "sae")


def refused(cli: Cli, *words: object) -> str:
    """What a command that must fail says: one line, exit status 2."""
    answer = cli(*words)
    assert answer.code == 2, (answer.out, answer.err)
    line = answer.err.strip().splitlines()[-1]
    assert line.startswith("error: ") and "Traceback" not in answer.err
    return line


def test_measures_are_replaced_when_told_and_only_if_they_are_ours(
    cli: Cli, sae: Path, store: Path
):
    words = ["sae-eval", sae, store, "--no-loop"]
    assert cli(*words).code == 0
    first = (sae / "measures.json").read_bytes()
    assert "measures.json exists: use --overwrite" in refused(cli, *words, "--limit", 1)
    assert (sae / "measures.json").read_bytes() == first
    assert cli(*words, "--limit", 1, "--overwrite").code == 0
    assert (sae / "measures.json").read_bytes() != first
    for foreign in ('{"accuracy": 1}', "[]", "thesis"):
        (sae / "measures.json").write_text(foreign)
        assert "choose another output" in refused(cli, *words, "--overwrite")
        assert (sae / "measures.json").read_text() == foreign
    with locked_folder(sae):
        assert "written by another process" in refused(cli, *words, "--overwrite")


@pytest.mark.parametrize("name", ["cfg.json", "card.json", "sae_weights.safetensors"])
def test_an_input_is_no_output(cli: Cli, sae: Path, store: Path, name: str):
    before = (sae / name).read_bytes()
    on = [sae, store, "--out", sae / name, "--overwrite"]
    refused(cli, "sae-eval", *on, "--no-loop")
    refused(cli, "steer", *on, "--feature", 0)
    assert (sae / name).read_bytes() == before


@pytest.mark.parametrize("what", ["sae", "store"])
def test_features_are_not_written_into_an_input(cli: Cli, sae: Path, store: Path, what: str):
    folder = {"sae": sae, "store": store}[what]
    before = sorted(p.name for p in folder.iterdir())
    for flags in ([], ["--overwrite"]):
        line = refused(cli, "features", sae, store, "--out", folder, "--all-puzzles", *flags)
        assert "leaves it alone" in line
    assert {p.name for p in folder.iterdir()} - {".lock"} == {*before} - {".lock"}


def stopped(*_: Any) -> None:
    raise KeyboardInterrupt


def test_features_replace_their_own_when_told(
    cli: Cli, sae: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "features"
    words = ["features", sae, store, "--out", out, "--all-puzzles", "--surrogates", 19]
    assert cli(*words, "--examples", 10**12).code == 0  # as many as there are
    assert maker(out) == "features"
    before = (out / "features.csv").read_bytes()
    (out / "notes.md").write_text("mine")
    assert "use --overwrite to replace it" in refused(cli, *words, "--limit", 9)
    assert (out / "features.csv").read_bytes() == before
    refused(cli, *words, "--overwrite", "--ckpt", tmp_path / "nowhere")
    assert (out / "features.csv").read_bytes() == before  # a wrong word costs nothing
    with monkeypatch.context() as patched:
        patched.setattr(trm_interp.sae.features, "gather", stopped)
        assert cli(*words, "--overwrite").code == 130
    assert (out / "features.csv").read_bytes() == before
    assert cli(*words, "--limit", 9, "--overwrite").code == 0
    assert (out / "features.csv").read_bytes() != before
    assert (out / "notes.md").read_text() == "mine"


def test_a_result_of_steering(cli: Cli, sae: Path, store: Path, tmp_path: Path):
    out = tmp_path / "steer.json"
    words = ["steer", sae, store, "--feature", 0, "--controls", 1, "--all-puzzles", "--out", out]
    words[4] = next(n for n in range(64) if cli(*words[:4], n, *words[5:]).code == 0)  # it fires
    first = out.read_bytes()
    assert "steer.json exists: use --overwrite" in refused(cli, *words)
    assert out.read_bytes() == first
    assert cli(*words, "--overwrite", "--seed", 5).code == 0
    with locked_beside(out):
        assert "written by another process" in refused(cli, *words, "--overwrite")
    out.write_text('{"mode": 3}')
    assert "no result of `steer`" in refused(cli, *words, "--overwrite")
    assert out.read_text() == '{"mode": 3}'


def test_one_tick_is_read_after_its_own_step(cli: Cli, sae: Path, store: Path, tmp_path: Path):
    """At the last step the recursion has forgotten what was done to one tick: nothing to see."""
    out = tmp_path / "found.json"
    answer = cli("sae-eval", sae, store, "--tick", 4, "--all-puzzles", "--out", out)
    assert answer.code == 0, answer.err
    assert "in the loop, tick 4: its own step, 1" in answer.out
    assert "loss at the last step: clean" in answer.out
    looped = json.loads(out.read_text())["loop"]["tick_4"]
    assert looped["read_at"] == 0  # tick 4 of 6 a step
    for run in looped["runs"].values():
        assert run["loss"]["value"] == pytest.approx(run["by_step"]["loss"][0])
    lost = {name: run["loss"]["value"] for name, run in looped["runs"].items()}
    assert len(set(lost.values())) == 4  # clean, sae, zero and mean differ
    every = json.loads(out.read_text())["loop"]["every_tick"]
    assert every["read_at"] == 3


def test_numbers_that_cannot_be(cli: Cli, sae: Path, store: Path, tmp_path: Path):
    train = ["train-sae", store, "--site", "z_L", "--out", tmp_path / "new", "--device", "cpu"]
    steer = ["steer", sae, store, "--feature", 0]
    huge = 10**30
    cases: dict[str, list[object]] = {
        "value must be finite, got nan": [*steer, "--mode", "clamp", "--value", "nan"],
        "value must be finite, got -inf": [*steer, "--mode", "steer", "--value=-inf"],
        "--feature 1000000000: there are 64": [*steer[:3], "--feature", 10**9],
        "feature must lie within": [*steer[:3], "--feature", huge],
        "seed must be from 0 to": [*steer, "--seed", 2**64],
        "ticks: 0-99999999999 names more than": [*steer, "--ticks", "0-99999999999"],
        "--active 65: there are 64 features (4 x 16)": [
            *(*train, "--arch", "topk", "--active", 65, "--expansion", 4)
        ],
        "--active 99999: there are 32 features (2 x 16)": [
            *(*train, "--arch", "batchtopk", "--active", 99999, "--expansion", 2)
        ],
        "of memory": [*train, "--expansion", 10**9],
        "expansion must be at most": [*train, "--expansion", huge],
        "--batch-size must be at most": [*train, "--batch-size", huge],
        "--train-steps must be at most": [*train, "--train-steps", huge],
        "lower --expansion or --batch-size": [*train, "--batch-size", 10**11],
        "lr must be finite": [*train, "--lr", "inf"],
        "l1 must be finite": [*train, "--l1", "nan"],
        "error: --seed must be": [*train, "--seed", -1],
        "tick must lie within": ["sae-eval", sae, store, "--tick", huge],
        "not read at tick -5": ["sae-eval", sae, store, "--tick=-5"],
        "limit must lie within": ["sae-eval", sae, store, "--limit", huge],
        "surrogates must be at most 100000": [
            *("features", sae, store, "--out", tmp_path / "new", "--surrogates", huge)
        ],
        "controls must lie within": [*steer, "--controls", huge],
    }
    for words, command in cases.items():
        line = refused(cli, *command)
        assert any(word in line.replace("'", "") for word in words.split("|")), (words, line)
        assert len(line) < 300
    assert not (tmp_path / "new").exists()
    assert cli("sae-eval", sae, store, "--batch-size", 10**12).code == 0  # no more than there are
    assert memory_limit().n_bytes < 4 * 4 * 10**9 * 16 * 16  # so that --expansion did not fit
