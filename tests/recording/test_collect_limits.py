"""What `collect` cannot do is refused in one line before anything is allocated or written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trm_interp.recording.store import Store
from trm_interp.runtime import limits
from trm_interp.runtime.files import sha256_of

Cli = Callable[..., Any]


@pytest.fixture
def words(copier: Path, grids: Path, tmp_path: Path) -> list[object]:
    return ["collect", "--ckpt", copier, "--puzzles", grids, "--out", tmp_path / "out"]


def error_of(answer: Any) -> str:
    """The one line of a refusal."""
    assert (answer.code, answer.out) == (2, ""), answer
    line = answer.err.splitlines()[-1]
    assert line.startswith("error: ") and len(line) < 300 and "Traceback" not in answer.err
    return line


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        (["--steps", "0-99999999999"], "steps: '0-99999999999' names more than 1000000 indices"),
        (["--steps", 900_000], "steps must be at most 1024, got 900000"),
        (["--positions", "0-99999999999"], "positions: "),
        (["--positions", "0-9999"], "z_L has pos 0..17, got 0..9999"),
        (["--batch-size", 10**12], "--batch-size must be at most"),
        (["--sites", "z_L," + "q" * 999], "no site 'qqqq"),
    ],
)
def test_what_no_store_can_hold(
    cli: Cli, words, tmp_path: Path, option: list[object], problem: str
):
    assert problem in error_of(cli(*words, *option))
    assert not (tmp_path / "out").exists()


def test_more_evaluations_than_a_store_describes(
    cli: Cli, words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("trm_interp.recording.collect.MOST_TICKS", 11)
    line = error_of(cli(*words, "--steps", 2))  # of 2 x (2 + 1) evaluations
    assert "2 steps of 6 network evaluations are more than a store describes (11)" in line
    assert not (tmp_path / "out").exists()


def test_a_batch_that_memory_cannot_hold(
    cli: Cli, words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # z_L 2 x 2 and z_H 2 states of 18 x 16 float16 = 6 * 576 = 3 456 bytes a step, 13 puzzles
    limit = limits.Memory(13 * 3456 - 1, "this machine has")
    monkeypatch.setattr(limits, "memory_limit", lambda: limit)
    line = error_of(cli(*words, "--steps", 2))
    assert "one step of 13 puzzles at these sites would need" in line and "--batch-size" in line
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(limits, "memory_limit", lambda: limits.Memory(13 * 3456, "this machine"))
    assert cli(*words, "--steps", 2).code == 0


def tamper(store: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((store / "manifest.json").read_text())
    change(manifest)
    (store / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def store(cli: Cli, copier: Path, grids: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stores") / "store"
    words = ["--ckpt", copier, "--puzzles", grids, "--out", out, "--steps", 2]
    assert cli("collect", *words).code == 0
    return out


LIES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda m: m["meta"]["model"].update(l_cycles=0), "meta.model.l_cycles: Expected `int` >= 1"),
    (lambda m: m["meta"].update(identity=None), "meta.identity: Expected `object`"),
    (lambda m: m["shards"][0].update(file="/etc/passwd"), "shard '/etc/passwd'"),
    (lambda m: m.update(n_puzzles=10**15), "n_puzzles: Expected `int` <="),
]


@pytest.mark.parametrize(("lie", "problem"), LIES)
def test_commands_on_a_lying_store_end_in_one_line(
    cli: Cli, store: Path, tmp_path: Path, lie: Callable[[dict[str, Any]], object], problem: str
):
    copy = Path(shutil.copytree(store, tmp_path / "copy"))
    tamper(copy, lie)
    commands = (
        ["info", copy, "--validate"],
        ["train-sae", copy, "--site", "z_L", "--out", tmp_path / "sae"],
        ["trajectories", copy, "--out", tmp_path / "figures"],
    )
    for command in commands:
        line = error_of(cli(*command))
        assert problem in line and "manifest.json" in line
    assert not (tmp_path / "sae").exists()


def test_a_store_without_its_model_says_so(cli: Cli, store: Path, tmp_path: Path):
    copy = Path(shutil.copytree(store, tmp_path / "copy"))
    tamper(copy, lambda m: (m["meta"].pop("model"), m["meta"]["identity"].pop("schedule")))
    line = error_of(cli("train-sae", copy, "--site", "z_L", "--out", tmp_path / "sae"))
    assert "manifest.json: meta.model is missing" in line


def test_info_of_damage_in_an_unfinished_store_is_an_error(cli: Cli, store: Path, tmp_path: Path):
    copy = Path(shutil.copytree(store, tmp_path / "copy"))
    tamper(copy, lambda m: m.update(complete=False))
    assert cli("info", copy, "--validate").code == 0  # unfinished is no damage
    shard = copy / "shard-00000.h5"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    answer = cli("info", copy, "--validate", "--json")
    assert answer.code == 2 and "was altered (sha256 differs)" in answer.err
    assert answer.err.count("\n") == 1
    tamper(copy, lambda m: m["shards"][0].update(sha256=sha256_of(shard)))
    with Store(copy, allow_incomplete=True) as opened:
        assert not opened.complete
