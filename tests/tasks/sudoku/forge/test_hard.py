import csv
import hashlib
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trm_interp.tasks.base import PuzzleError
from trm_interp.tasks.sudoku import task
from trm_interp.tasks.sudoku.dataset import load
from trm_interp.tasks.sudoku.forge import presets
from trm_interp.tasks.sudoku.forge.build import LINEAGES, build
from trm_interp.tasks.sudoku.forge.hard import HardPreset
from trm_interp.tasks.sudoku.forge.presets import PRESETS, make_preset
from trm_interp.tasks.sudoku.forge.rate import rate
from trm_interp.tasks.sudoku.forge.tournament import TOURNAMENT, Race, family, race
from trm_interp.tasks.sudoku.forge.walk import Walk, grow
from trm_interp.tasks.sudoku.grid import parse, render
from trm_interp.tasks.sudoku.splits import check

WALK = Walk(side=6, mean=30, sd=8, low=21, high=45, temperature=2, lists=100, climbs=60)
TINY = HardPreset(WALK, train=16, val=8, test=12)
SHIPPED = Path(__file__).parents[4] / "artifacts" / "data"


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny-hard", TINY)
    monkeypatch.setitem(task.PRESETS, "tiny-hard", "a few puzzles")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The tiny data set, made without a break."""
    presets.PRESETS["tiny-hard"] = TINY
    out = tmp_path_factory.mktemp("hard") / "made"
    make_preset("tiny-hard", out, seed=4, workers=2)
    del presets.PRESETS["tiny-hard"]
    return out


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_lines_hold_ratings_and_lineages_that_replay(made):
    card = json.loads((made / "card.json").read_text())
    for split, size in TINY.sizes.items():
        file = made / f"{split}.csv"
        assert card["splits"][split]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        rows = list(csv.DictReader(file.read_text().splitlines()))
        assert len(rows) == size
        ratings = rate(np.stack([parse(row["question"]) for row in rows]))
        for i, row in enumerate(rows):
            lineage = grow(WALK, int(row["lineage"]))
            assert (render(lineage.puzzle), render(lineage.solution)) == (
                row["question"],
                row["answer"],
            )
            for name in ("clues", "guesses_first", "guesses_all", "effort"):
                assert float(row[name]) == getattr(ratings, name)[i]
        plain = [int(row["lineage"]) % 4 == 3 for row in rows]
        assert plain != sorted(plain) and plain != sorted(plain, reverse=True)  # mixed
        assert sum(plain) == size // 4 == card["splits"][split]["random_minimal"]["n"]
        assert load(file).inputs.shape == (size, 36)


def test_splits_are_clean_and_rate_knows_the_lineages(made, cli):
    files = [made / f"{split}.csv" for split in TINY.sizes]
    report = check(files)
    assert report["clean"] and [pair["lineages"] for pair in report["pairs"]] == [0, 0, 0]
    rows = json.loads(cli("data", "rate", files[0], "--json").out)
    assert {"guesses_first", "guesses_all", "effort", "clues", "lineage"} <= set(rows[0])
    seeds = [int(row["lineage"]) for row in csv.DictReader(files[0].read_text().splitlines())]
    assert [row["lineage"] for row in rows] == seeds


def test_workers_do_not_matter(made, tmp_path):
    make_preset("tiny-hard", tmp_path / "one", seed=4, workers=1)
    assert contents(tmp_path / "one") == contents(made)


def test_a_longer_test_split_leaves_the_others_as_they_are(made, tmp_path):
    make_preset("tiny-hard", tmp_path / "long", seed=4, sizes={"test": 20})
    longer = contents(tmp_path / "long")
    assert longer["train.csv"] == contents(made)["train.csv"]
    assert longer["val.csv"] == contents(made)["val.csv"]
    assert set(contents(made)["test.csv"].splitlines()) < set(longer["test.csv"].splitlines())


def test_an_interrupted_build_resumes_to_the_same_bytes(made, tmp_path, cli):
    out = tmp_path / "out"

    def interrupt(done: int, total: int) -> None:
        if done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_preset("tiny-hard", out, seed=4, progress=interrupt)
    assert not out.exists()
    grown = tmp_path / "out.build" / LINEAGES
    assert len(grown.read_text().splitlines()) >= 10
    with grown.open("a") as file:
        file.write('{"puzzle": "12')  # a line that a kill cut off
    refused = cli("data", "make", "tiny-hard", "--out", out, "--seed", 4)
    assert refused.code == 2
    assert "use --resume to continue or --overwrite to start over" in refused.err
    other = cli("data", "make", "tiny-hard", "--out", out, "--seed", 5, "--resume")
    assert other.code == 2 and "is of another run: seed (4 there, 5 now)" in other.err
    counts = []
    make_preset("tiny-hard", out, seed=4, resume=True, progress=lambda *at: counts.append(at))
    assert counts[0][0] >= 10  # nothing is grown twice
    assert contents(out) == contents(made)
    assert not grown.parent.exists()


def test_a_build_that_is_to_replace_another_data_set_is_resumed_with_resume_alone(tmp_path, cli):
    out = tmp_path / "out"
    make_preset("tiny-hard", out, seed=3, sizes={"train": 4, "val": 2, "test": 2})
    before = contents(out)

    def interrupt(done: int, total: int) -> None:
        if done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        make_preset("tiny-hard", out, seed=4, overwrite=True, progress=interrupt)
    assert "with --resume instead of --overwrite" in str(stopped.value)
    assert contents(out) == before
    other = cli("data", "make", "tiny-hard", "--out", out, "--seed", 5, "--resume")
    assert other.code == 2 and "seed (3 there, 5 now)" in other.err
    counts = []
    make_preset("tiny-hard", out, seed=4, resume=True, progress=lambda *at: counts.append(at))
    assert counts[0][0] >= 3  # nothing is grown twice
    make_preset("tiny-hard", tmp_path / "whole", seed=4)
    assert contents(out) == contents(tmp_path / "whole")


def test_a_killed_build_resumes_to_the_same_bytes(made, tmp_path):
    out = tmp_path / "out"
    code = (
        "from trm_interp.tasks.sudoku.forge import presets as p\n"
        "from trm_interp.tasks.sudoku.forge.hard import HardPreset\n"
        "from trm_interp.tasks.sudoku.forge.walk import Walk\n"
        f"p.PRESETS['tiny-hard'] = {TINY!r}\n"
        f"p.make_preset('tiny-hard', {str(out)!r}, seed=4, workers=1)\n"
    )
    grown = tmp_path / "out.build" / LINEAGES
    child = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[4])
    try:
        while child.poll() is None:
            if grown.exists() and len(grown.read_text().splitlines()) >= 3:
                break
            time.sleep(0.005)
    finally:
        child.kill()  # SIGKILL: nothing is tidied up
        child.wait()
    assert out.exists() or grown.exists()  # the child has begun
    if not out.exists():  # else the child was done before it could be killed
        make_preset("tiny-hard", out, seed=4, resume=True)
    assert contents(out) == contents(made)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}  # what the kill left is gone


def test_targets_out_of_reach_end_at_the_budget():
    walk = replace(WALK, mean=500, low=500, high=500, lists=2, climbs=1)
    with pytest.raises(
        PuzzleError, match=r"budget spent: 18 of \d+ lineages .* came to \d+ of 500"
    ):
        build(walk, {"test": 8}, seed=0, workers=1)


def test_more_than_exists_is_refused(tmp_path, cli, monkeypatch):
    monkeypatch.setattr(presets, "MAX_DRAWS", 2)  # 50 take long to find what 2 nearly find
    answer = cli("data", "make", "sudoku4", "--out", tmp_path / "out", "--n-train", 4700)
    assert answer.code == 2 and "classes, 4800 are wanted" in answer.err


def test_a_race_is_replayed_and_climbs():
    rules = Race(heats=(8, 4), lists=6, rounds=2, round_lists=10, kept=3)
    walk = replace(TOURNAMENT, side=6)
    first, again = (race(5, rules, walk, workers) for workers in (1, 2))
    assert [one.energy for one in first] == [one.energy for one in again]
    assert first == sorted(first, key=lambda one: -one.energy) and len(first) == 4
    puzzles, solutions = family(first[0], first[0].energy - 20, lists=30, seed=1, walk=walk)
    assert len(np.unique(puzzles, axis=0)) == len(puzzles) == len(solutions)


@pytest.mark.skipif(not (SHIPPED / "sudoku6-hard").exists(), reason="not in this checkout")
def test_shipped_lineages_replay_byte_for_byte():
    card = json.loads((SHIPPED / "sudoku6-hard" / "card.json").read_text())
    walk = PRESETS["sudoku6-hard"].walk
    assert card["walk"] == {**card["walk"], **vars(walk)}
    with (SHIPPED / "sudoku6-hard" / "test.csv").open() as file:
        rows = [row for _, row in zip(range(40), csv.DictReader(file), strict=False)]
    for row in rows:
        lineage = grow(walk, int(row["lineage"]))
        assert (render(lineage.puzzle), render(lineage.solution)) == (
            row["question"],
            row["answer"],
        )
