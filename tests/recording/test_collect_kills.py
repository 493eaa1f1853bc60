"""`collect` that is killed or stopped and resumed leaves the store of an undisturbed run."""

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import killed_collect
import pytest
from killed_collect import CHILD, assert_same_store, lives
from team import two

import trm_interp.recording.collect
from trm_interp.recording.store import Store

Cli = Callable[..., Any]
N = 13


@pytest.fixture
def words(copier: Path, grids: Path) -> list[object]:
    return ["--ckpt", copier, "--puzzles", grids, "--steps", 4, "--batch-size", 2]


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of two puzzles, as in the child: 7 for 13 puzzles."""
    monkeypatch.setattr(trm_interp.recording.collect, "plan_shards", killed_collect.small_shards())


@pytest.fixture
def whole(cli: Cli, words: list[object], small_shards: None, tmp_path: Path) -> Path:
    """The store of an undisturbed run."""
    assert cli("collect", *words, "--out", tmp_path / "whole").code == 0
    assert len(list((tmp_path / "whole").glob("shard-*.h5"))) == 7
    return tmp_path / "whole"


def test_killed_three_times_and_resumed_equals_undisturbed(
    cli: Cli, words: list[object], whole: Path, tmp_path: Path
):
    """SIGKILL at three moments among 56 writes, 7 batches and about 50 syncs and renames."""
    moments = [random.Random(seed).randrange(5, 40) for seed in range(3)]
    out = tmp_path / "killed"
    ends = lives("SIGKILL", moments, words, out)
    assert [end["status"] for end in ends] == [-signal.SIGKILL] * 3
    with Store(out, allow_incomplete=True) as store:
        assert not store.complete and store.n_puzzles % 2 == 0
        done = store.n_puzzles
    unfinished = cli("info", out, "--json")
    assert unfinished.code == 0 and json.loads(unfinished.out)["complete"] is False
    answer = cli("collect", *words, "--out", out, "--resume")
    assert answer.code == 0
    assert (f"resuming at puzzle {done} (from 0) of {N}" in answer.err) == bool(done)
    assert_same_store(out, whole)


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_stop_exits_130_with_one_line_and_leaves_a_store_to_resume(
    cli: Cli, words: list[object], whole: Path, tmp_path: Path, number: str
):
    out = tmp_path / "stopped"
    [end] = lives(number, [30], words, out)
    assert end["status"] == 130, end
    lines = [line for line in end["stderr"] if "MB" not in line and not line.startswith("about")]
    assert lines == ["stopped; to continue, run the same command with --resume"]
    assert not list(out.glob("*.partial")) and not (out / "store.h5").exists()
    with Store(out, allow_incomplete=True) as store:
        assert 0 < store.n_puzzles < N
    assert cli("collect", *words, "--out", out, "--resume").code == 0
    assert_same_store(out, whole)


def test_two_processes_finish_what_one_began(
    words: list[object], whole: Path, small_shards: None, cli: Cli, tmp_path: Path
):
    """A killed run of one process, resumed by two: the shards of an undisturbed run."""
    out = tmp_path / "team"
    [end] = lives("SIGKILL", [25], words, out)
    assert end["status"] == -signal.SIGKILL
    with Store(out, allow_incomplete=True) as store:
        assert 0 < store.n_puzzles < N
    done = two(CHILD, "TEAM", "collect", *words, "--out", out, "--resume")
    assert done.stdout.count("wrote") == done.stderr.count("resuming at puzzle") == 1
    assert_same_store(out, whole)


def test_two_processes_evaluate_as_one(cli: Cli, copier: Path, grids: Path):
    words = ["eval", "--ckpt", copier, "--puzzles", grids, "--steps", 4, "--batch-size", 2]
    done = two("trm_interp", *words, "--json", imports="trm_interp.subjects.evaluate")
    (line,) = done.stdout.splitlines()
    assert json.loads(line) == json.loads(cli(*words, "--json").out)


def test_ctrl_c_in_this_process(
    cli: Cli, words: list[object], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    record, out = trm_interp.recording.collect.record_batch, tmp_path / "stopped"
    batches = iter(range(N))

    def interrupted(*args: Any) -> Any:
        if next(batches) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return record(*args)

    with monkeypatch.context() as patch:
        patch.setattr(trm_interp.recording.collect, "record_batch", interrupted)
        answer = cli("collect", *words, "--out", out)
    assert answer.code == 130 and answer.err.splitlines()[-1].startswith("stopped")
    with Store(out, allow_incomplete=True) as store:
        assert store.n_puzzles == 6
    answer = cli("collect", *words, "--out", out, "--resume")
    assert answer.code == 0 and f"resuming at puzzle 6 (from 0) of {N}" in answer.err
    assert_same_store(out, whole)
