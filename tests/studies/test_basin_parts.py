"""`trm-interp basins` end to end on a tiny checkpoint."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from trm_interp.core.checkpoints.folder import load_checkpoint, save_checkpoint
from trm_interp.core.infer import run_batch
from trm_interp.studies.settings import BasinsConfig
from trm_interp.studies.starts import Starts
from trm_interp.studies.subject import open_subject
from trm_interp.tasks.sudoku.grid import from_tokens, render

Cli = Callable[..., Any]
SMALL = ["--starts", 30, "--slice", 5, "--steps", 3, "--batch-size", 8, "--neighbours", 4]
SMALL += ["--shuffles", 19, "--device", "cpu"]
TABLES = ("basins", "ends", "planes", "plane-3", "answers", "corners", "clusters", "radii")


@pytest.fixture(scope="module")
def words(copier: Path, grids: Path) -> list[Any]:
    return ["basins", "--ckpt", copier, "--puzzles", grids, "--index", "3,7", *SMALL]


@pytest.fixture(scope="module")
def done(cli: Cli, words: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("basins") / "out"
    answer = cli(*words, "--out", out)
    assert answer.code == 0, answer.err
    assert answer.out.count("of 30 starts solved") == 2 and f"wrote {out}" in answer.err
    return out


def test_tables_agree_with_each_other_and_with_plain_inference(
    done: Path, copier: Path, grids: Path
):
    starts, answers = (pd.read_csv(done / f"{name}.csv") for name in ("basins", "answers"))
    assert starts.groupby("puzzle")["start"].apply(list).tolist() == [list(range(31))] * 2
    drawn = starts[starts["start"] > 0]
    assert sorted(drawn["radius"].unique()) == [0.5, 1, 2, 4]
    counted = drawn.groupby(["puzzle", "answer"]).size()
    listed = answers.set_index(["puzzle", "answer"])["starts"]
    pd.testing.assert_series_equal(counted.sort_index(), listed.sort_index(), check_names=False)
    assert (answers["low"] <= answers["share"]).all() and (
        answers["share"] <= answers["high"]
    ).all()
    # the model's own start is start 0
    model = load_checkpoint(copier).model
    lines = grids.read_text().splitlines()
    summary = json.loads((done / "summary.json").read_text())
    for one, puzzle in zip(summary["puzzles_looked_at"], (3, 7), strict=True):
        assert one["puzzle"] == puzzle and one["line"] == puzzle + 1
        question, solution = lines[puzzle].split(",")
        tokens = [
            torch.tensor([[1 if c == "." else int(c) + 1 for c in row]])
            for row in (question, solution)
        ]
        plain = run_batch(model, *tokens, 3)
        own = starts.query("puzzle == @puzzle and start == 0")
        solved = plain.solved[0].tolist()
        assert own["first_solved"].item() == (solved.index(True) if any(solved) else -1)
        assert own["q_halt"].item() == pytest.approx(float(plain.q_halt[0, -1]), abs=1e-4)
        last = answers.query("puzzle == @puzzle and answer == @own.answer.item()")
        if len(last):
            assert str(last["grid"].item()) == render(from_tokens(plain.tokens[0, -1].numpy()))


def test_images_and_clusters(done: Path):
    planes, corners, clusters = (
        pd.read_csv(done / f"{name}.csv") for name in ("planes", "corners", "clusters")
    )
    assert planes.groupby("puzzle").size().tolist() == [25, 25]
    for puzzle, rows in corners.groupby("puzzle"):
        image = planes[planes["puzzle"] == puzzle]
        assert rows["corner"].iloc[0] == "own start" and rows[["x", "y"]].iloc[0].tolist() == [0, 0]
        solved = image["solved_from"] >= 0
        assert ((image["wrong_2"] == 0) == solved).all() and image["wrong_0"].between(0, 16).all()
        for axis in "xy":
            assert image[axis].min() < rows[axis].min() and rows[axis].max() < image[axis].max()
    assert len(clusters) == 2 * 3 * 4
    tested = clusters.dropna()
    assert len(tested) and (tested["p"].between(1 / 20, 1)).all()
    for name in ("basins", "ends", "planes", "plane-3", "plane-7"):
        assert "plotly" in (done / f"{name}.html").read_text()


def test_a_killed_run_goes_on_to_the_same_numbers(
    cli: Cli, words: list[Any], done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, follow, calls = tmp_path / "out", Starts.follow, []

    def until_killed(self: Starts, start: Any, steps: int) -> Any:
        calls.append(len(start.z_H))
        if len(calls) == 6:  # 4 chunks of starts and 4 of the plane are a puzzle
            raise KeyboardInterrupt
        return follow(self, start, steps)

    with monkeypatch.context() as patched:
        patched.setattr(Starts, "follow", until_killed)
        stopped = cli(*words, "--out", out)
    assert stopped.code == 130 and "--resume" in stopped.err
    assert not (out / "summary.json").exists()
    again = cli(*words, "--out", out)
    assert again.code == 2 and "use --resume to continue" in again.err
    other = cli(*words, "--out", out, "--resume", "--seed", 1)
    assert other.code == 2 and "is of another run: seed (0 there, 1 now)" in other.err
    calls.clear()
    monkeypatch.setattr(Starts, "follow", lambda *a: (calls.append(1), follow(*a))[1])
    assert cli(*words, "--out", out, "--resume").code == 0
    assert len(calls) == 16 - 5
    for name in TABLES:
        assert (out / f"{name}.csv").read_bytes() == (done / f"{name}.csv").read_bytes(), name


def test_puzzles_are_chosen_half_and_half(cli: Cli, words: list[Any], tmp_path: Path):
    at = words.index("--index")
    short = [*words[:at], *words[at + 2 :], "--out", tmp_path, "--target", "both", "--json"]
    answer = cli(*short, "--per-position", "--n-puzzles", 2, "--slice", 0, "--overwrite")
    assert answer.code == 0, answer.err
    summary = json.loads(answer.out)
    own = [one["own_start_solved_from"] for one in summary["puzzles_looked_at"]]
    assert sorted(value >= 0 for value in own) == [False, True]
    assert len(summary["solved_where_own_start_fails"]) == 1
    assert not (tmp_path / "planes.csv").exists()
    assert summary["settings"]["shared"] is False


def test_starts_share_the_input_and_differ_in_the_target_only(copier: Path, grids: Path):
    config = BasinsConfig(ckpt=str(copier), puzzles=grids, out=Path("-"), device="cpu")
    subject = open_subject(config, print)
    starts = Starts(subject, 3, "z_L")
    state = starts.random(torch.arange(5), [1.0], shared=True, seed=0)
    assert state.z_H.stride(0) == 0 and torch.equal(state.z_H[4], starts.own.z_H)
    assert torch.equal(state.z_L[0], starts.own.z_L)
    added = state.z_L[1:] - starts.own.z_L
    torch.testing.assert_close(added.square().mean((1, 2)).sqrt(), torch.ones(4))
    assert torch.allclose(added, added[:, :1], atol=1e-6)  # one vector for all positions
    assert not torch.allclose(added[0], added[1], atol=0.1)
    alone = starts.random(torch.tensor([3]), [1.0], shared=True, seed=0)
    assert torch.equal(alone.z_L[0], state.z_L[3])
    one, two = (starts.follow(s, 2) for s in (state, alone))
    np.testing.assert_array_equal(one.answers[3], two.answers[0])


@pytest.mark.parametrize(
    ("more", "words_of_error"),
    [
        (["--index", "13"], "no puzzle 13"),
        (["--index", "x"], "is no index"),
        (["--neighbours", 30], "neighbours 30 must be fewer than the 30 starts"),
        (["--radii", "1,-2"], "radii must be above 0"),
        (["--radii", "1;2"], "are not numbers"),
        (["--slice", 1], "slice must be 0 or at least 2"),
        (["--tolerance", 0], "tolerance must be above 0"),
    ],
)
def test_bad_input_is_one_line(
    cli: Cli, words: list[Any], tmp_path: Path, more: list[Any], words_of_error: str
):
    answer = cli(*words, "--out", tmp_path / "out", *more)
    assert (answer.code, answer.out) == (2, "") and answer.err.count("\n") == 1
    assert answer.err.startswith("error: ") and words_of_error in answer.err


def test_states_that_are_not_finite_are_named(
    cli: Cli, words: list[Any], copier: Path, tmp_path: Path
):
    model = load_checkpoint(copier).model
    with torch.no_grad():
        next(model.net.parameters())[0] = 3e38  # finite, and the first product is not
    save_checkpoint(tmp_path / "broken", model, {"note": "for tests"})
    command = [tmp_path / "broken" if word == copier else word for word in words]
    answer = cli(*command, "--out", tmp_path / "out")
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert re.search(r"puzzle \d+ \(from 0\) are not finite", answer.err), answer.err


def test_paths_lead_from_each_start_to_its_outcome(done: Path, copier: Path, grids: Path):
    paths, starts = (pd.read_csv(done / f"{name}.csv") for name in ("trajectories", "basins"))
    assert len(paths) == 2 * 31 * 4  # two puzzles, 31 starts, before and after three steps
    each = paths.drop_duplicates(["puzzle", "start"]).set_index(["puzzle", "start"])
    known = starts.set_index(["puzzle", "start"])["solved_from"]
    pd.testing.assert_series_equal(each["solved_from"], known, check_dtype=False)
    # along two axes a run moves at most as far as its states do
    config = BasinsConfig(ckpt=str(copier), puzzles=grids, out=done, index="3", device="cpu")
    begin = Starts(open_subject(config), 3, "answer")
    states, solved = begin.passed(begin.random(torch.arange(3), [0.5], True, 0), 3)
    assert states.shape[:2] == (3, 4) and solved.shape == (3, 3)
    moved = np.sqrt(np.square(np.diff(states[0].astype(float), axis=0)).mean(1))
    own = paths.query("puzzle == 3 and start == 0")[["x", "y"]].to_numpy()
    along = np.linalg.norm(np.diff(own, axis=0), axis=1)
    assert (along <= moved + 1e-3).all() and along.max() > 0.01


def test_a_run_resumes_with_other_paths_and_without(
    cli: Cli, words: list[Any], done: Path, tmp_path: Path
):
    out = tmp_path / "out"
    shutil.copytree(done, out)
    assert cli(*words, "--out", out, "--shown", 4, "--resume").code == 0
    assert pd.read_csv(out / "trajectories.csv")["start"].max() == 4
    assert cli(*words, "--out", out, "--shown", 0, "--resume").code == 0
    assert not (out / "trajectories.csv").exists() and (out / "basins.csv").exists()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["puzzles_looked_at"][0]["path_explained"] == []


def test_coordinates_tell_the_same_basins_as_states(
    cli: Cli, words: list[Any], done: Path, tmp_path: Path
):
    out = tmp_path / "out"
    answer = cli(*words, "--out", out, "--ends", "coordinates")
    assert answer.code == 0 and "keeping 64 random coordinates" in answer.err
    for name in ("planes", "answers", "corners", "clusters", "radii"):  # none is of last states
        assert (out / f"{name}.csv").read_bytes() == (done / f"{name}.csv").read_bytes(), name
    ends, of_states = (pd.read_csv(folder / "basins.csv") for folder in (out, done))
    moved = ["state", "end_x", "end_y"]
    pd.testing.assert_frame_equal(ends.drop(columns=moved), of_states.drop(columns=moved))
    parts = (folder / "parts" / "puzzle-000003" / "starts-0000000.npz" for folder in (out, done))
    small, large = (np.load(file)["end"] for file in parts)
    assert small.shape == (8, 64) and large.ndim == 4
    z = torch.tensor(large.astype(np.float32)).flatten(1)
    far, near = torch.pdist(z) / z.shape[1] ** 0.5, torch.pdist(torch.tensor(small)) / 8
    assert torch.median((near / far - 1).abs()) < 0.2  # 1 / sqrt(2 * 64) is 0.09
