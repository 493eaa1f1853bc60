"""Mazes through every command: train, eval, collect, studies, search, SAE, dashboard, solve.

The checkpoint is trained on 5x5 mazes for seconds. It learns to copy, which solves the mazes whose
goal is next to the start: both outcomes, and proofs.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Answer
from maze_puzzles import easy_and_hard

from trm_interp.recording.store import Store
from trm_interp.tasks.maze.grid import render
from trm_interp.tasks.maze.task import COLOURS, Maze

Cli = Callable[..., Answer]
SIDE, N, STEPS = 5, 12, 3
SMALL = ["--mixer", "attention", "--d-model", 16, "--n-heads", 2, "--multiple", 8, "--n-layers", 1]
SMALL += ["--prefix", 0, "--h-cycles", 2, "--l-cycles", 2, "--n-sup", 3, "--batch-size", 12]
SMALL += ["--train-steps", 160, "--lr", 0.01]
SMALL += ["--warmup", 0, "--weight-decay", 0, "--ema", 0.8, "--eval-every", 40, "--no-compile"]
SMALL += ["--dtype", "float32", "--device", "cpu"]


def done(answer: Answer) -> str:
    assert answer.code == 0, answer.err
    return answer.out


@pytest.fixture(scope="module")
def files(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Puzzles, a checkpoint trained on mazes of the same kind, a store of its runs."""
    folder = tmp_path_factory.mktemp("maze")
    names = ("train.csv", "val.csv", "run", "store", "sae")
    made = {name.partition(".")[0]: folder / name for name in names}
    Maze.save(made["train"], easy_and_hard(2 * N, SIDE, 1))
    Maze.save(made["val"], easy_and_hard(N, SIDE, 2))
    done(cli("train", "--train", made["train"], "--val", made["val"], *SMALL, "--out", made["run"]))
    words = ["--steps", STEPS, "--out", made["store"]]
    done(cli("collect", *model(made), *words))
    small = ["--train-steps", 3, "--expansion", 2, "--batch-size", 16, "--buffer-mb", 1]
    done(cli("train-sae", made["store"], "--site", "z_L", *small, "--out", made["sae"]))
    return made


def model(files: dict[str, Path]) -> list[object]:
    return ["--ckpt", files["run"], "--puzzles", files["val"]]


def summary(cli: Cli, *words: Any, out: Path) -> dict[str, Any]:
    return json.loads(done(cli(*words, "--out", out, "--json")))


def test_what_is_learnt_is_of_mazes(cli: Cli, files: dict[str, Path]):
    assert json.loads((files["run"] / "card.json").read_text())["task"] == "maze5"
    table = json.loads(done(cli("eval", *model(files), "--steps", STEPS, "--json")))
    assert table["n"] == N and 0 < table["exact_at_step"][-1] <= 0.5  # goals next to the start
    with Store(files["store"]) as store:
        assert store.task == Maze(SIDE)
        answers = store["predictions"][:, -1]
        proved = store.task.proves(store["inputs"][:], answers)
        np.testing.assert_array_equal(store["solved"][:, -1], proved)
        assert not proved[1::2].any() and proved.any()
    for path in (files["run"], files["store"]):
        assert "maze5" in done(cli("info", path, "--json"))


def test_puzzles_of_another_task_or_size_are_refused(cli: Cli, files: dict[str, Path], tmp_path):
    sudoku, larger = tmp_path / "sudoku.txt", tmp_path / "larger.csv"
    sudoku.write_text("1234341221434321\n")
    Maze.save(larger, easy_and_hard(2, 7, 1))
    for puzzles, title in ((sudoku, "4x4 Sudoku"), (larger, "7x7 maze")):
        answer = cli("eval", "--ckpt", files["run"], "--puzzles", puzzles)
        assert answer.code == 2 and len(answer.err.splitlines()) == 1
        assert f"{title} puzzles, but {files['run']} reads 25 cells of 6 tokens" in answer.err
        assert "a Sudoku here has" not in answer.err


def test_studies_of_a_checkpoint(cli: Cli, files: dict[str, Path], tmp_path: Path):
    on = model(files)
    outcomes = summary(cli, "outcomes", *on, "--steps", STEPS, out=tmp_path / "outcomes")
    assert 0 < outcomes["exact"][-1] <= 0.5
    assert outcomes["ratings_tell_failed"]["path"]["auc"] > 0.8  # longer paths fail
    settling = ["settling", *on, "--steps", 5, "--long", 0]
    assert summary(cli, *settling, out=tmp_path / "settling")["n"] == N
    basins = ["basins", *on, "--starts", 4, "--neighbours", 2, "--slice", 2, "--steps", 2]
    basins += ["--n-puzzles", 1, "--shuffles", 3]
    made = summary(cli, *basins, out=tmp_path / "basins")
    assert made["written"]
    grids = pd.concat(pd.read_csv(file) for file in (tmp_path / "basins").glob("*answers*.csv"))
    assert grids["grid"].str.len().eq(SIDE**2).all()
    origins = ["origins", *on, "--starts", 2, "--limit", 4, "--steps", 2]
    assert summary(cli, *origins, out=tmp_path / "origins")["settings"]["copies"] == 8


def test_stability(cli: Cli, files: dict[str, Path], tmp_path: Path):
    words = ["stability", *model(files), "--steps", 5, "--exponents", 1, "--sample", 2]
    made = summary(cli, *words, "--fixed", 1, out=tmp_path / "stability")
    assert made["rating"] == "path" and made["sample"] == 2


def test_lens_and_probes_of_facts(cli: Cli, files: dict[str, Path], tmp_path: Path):
    assert summary(cli, "lens", files["store"], out=tmp_path / "lens")["written"]
    probes = ["probes", files["store"], "--cycles", 5, "--ckpt", files["run"]]
    rows = summary(cli, *probes, out=tmp_path / "probes")["auc"]
    labels = {row["label"] for row in rows}
    assert {"facts", "violations", "fact dead end", "fact start within 4"} <= labels
    assert "shortest path conflict" in labels and "candidates" not in labels
    assert "facts of the board" in (tmp_path / "probes" / "probes.html").read_text()


def test_search_with_symmetry(cli: Cli, files: dict[str, Path], tmp_path: Path):
    out = tmp_path / "t.csv"
    words = ["--k", 4, "--steps", 2, "--sigma", 0.1, "--symmetry", "--stop", "rules"]
    done(cli("search", *model(files), *words, "--out", out))
    assert pd.read_csv(out)["answer"].str.len().eq(SIDE**2).all()
    assert json.loads((tmp_path / "t.json").read_text())["summary"]["n"] == N


def test_features_with_a_dashboard_of_mazes(cli: Cli, files: dict[str, Path], tmp_path: Path):
    words = ["features", files["sae"], files["store"], "--surrogates", 19, "--limit", 4]
    done(cli(*words, "--all-puzzles", "--out", tmp_path / "features"))
    pages = list((tmp_path / "features").glob("*.html"))
    page = "".join(path.read_text() for path in pages)
    assert json.dumps(list(COLOURS), separators=(",", ":")) in page
    assert '"glyphs":["","#","","S","G","o"]' in page
    table = pd.read_csv(tmp_path / "features" / "features.csv")
    facts = {"given", "solution path", "guess open", "on the path", "dead end", "wrong"}
    assert facts <= set(json.loads(page.partition('"fact_names":')[2].partition("]")[0] + "]"))
    assert set(table["pushes"]) <= {"open", "path"}


def test_solve_a_maze_that_a_person_types(cli: Cli, files: dict[str, Path], tmp_path: Path):
    with Store(files["store"]) as store:
        solved = np.flatnonzero(store["solved"][:, -1])
    mazes = easy_and_hard(N, SIDE, 2)
    for at, is_solved in ((solved[0], True), (1, False)):
        file = tmp_path / "maze.txt"
        line = render(mazes.inputs[at])
        file.write_text("".join(f"{line[i : i + SIDE]}\n" for i in range(0, SIDE**2, SIDE)))
        words = ["solve", file, "--ckpt", files["run"], "--steps", STEPS, "--k", 1, "--trace"]
        drawn = done(cli(*words))
        assert "* changed, ! in conflict" in drawn
        assert ("line 1: confirmed by the rules" in drawn) == is_solved
        board = mazes.task.lines(mazes.labels[at])
        assert ("\n".join(board) in drawn) == is_solved
        assert is_solved or "can be completed to a solution" in drawn
