"""The flagship's scripts on a tiny model: pieces that end in time, states carried, a checkpoint."""

import itertools
import json
import os
import runpy
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from trm_interp.cli import app
from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.core.training.portable import INDEX, read_portable
from trm_interp.runtime.locks import locked_folder
from trm_interp.tasks.sudoku.forge.presets import make_preset

SCRIPTS = Path(__file__).parents[1] / "experiments" / "flagship"
trainer = runpy.run_path(str(SCRIPTS / "train.py"))
evaluator = runpy.run_path(str(SCRIPTS / "evaluate.py"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "sudoku4"
    make_preset("sudoku4", folder)
    return folder


@pytest.fixture
def words(data: Path, tmp_path: Path) -> list[str]:
    files = ["--train", data / "train.txt", "--val", data / "val.txt", "--state", tmp_path / "s"]
    options = ["--preset", "tiny", "--budget", "9", "--reserve", "0", "--val-limit", "20"]
    return [*map(str, files), *options, "--set", "steps=24", "--set", "eval_every=8"]


def run_piece(words: list[str], stop_after: int | None = None) -> Any:
    """One piece in this process; with `stop_after` its deadline comes after so many steps."""
    asked = 0

    class Soon:
        def __init__(self, minutes: float, reserve: float) -> None:
            pass

        def reached(self) -> bool:
            nonlocal asked
            asked += 1
            return stop_after is not None and asked > stop_after

        def timed(self, name: str, body: Callable[[], Any]) -> Any:
            return body()

    piece = trainer["piece"]
    kept = piece.__globals__["Deadline"]
    piece.__globals__["Deadline"] = Soon
    try:
        return piece(trainer["parse"](words))
    finally:
        piece.__globals__["Deadline"] = kept


def test_pieces_carry_the_state_to_a_checkpoint(words: list[str], data: Path, tmp_path: Path):
    state, out = tmp_path / "s", tmp_path / "out"
    assert run_piece(words, stop_after=9).step_count == 9
    moved = state.rename(tmp_path / "moved")  # another machine
    words[words.index(str(state))] = str(moved)
    whole = run_piece([*words, "--resume"])
    assert whole.step_count == 24 and whole.fraction() == 1
    index, _ = read_portable(moved)
    assert [piece["steps"] for piece in index["about"]["pieces"]] == [[0, 9], [9, 24]]
    rows = [json.loads(line) for line in (moved / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "val_exact" in row] == [8, 9, 16, 24]

    test = ["--test", str(data / "test.txt"), "--steps", "4"]
    evaluator["main"](["--state", str(moved), "--out", str(out), *test])
    loaded = load_checkpoint(out)
    for weights, mean in zip(loaded.model.parameters(), whole.average.mean, strict=True):
        assert torch.equal(weights, mean)
    card = loaded.card
    assert card["test"]["n"] == 50 and len(card["test"]["exact_at_step"]) == 4
    assert card["train"]["steps_done"] == 24 and card["train"]["puzzles"] == 200
    per_puzzle = evaluator["step_flops"](loaded.model.config, training=True)
    assert card["train"]["FLOPs"] == pytest.approx(24 * 32 * per_puzzle)
    table = pd.read_csv(out / "curve.csv")
    assert table["exact"].tolist() == card["test"]["exact_at_step"]
    assert len((out / "train_log.jsonl").read_text().splitlines()) == len(rows)

    # in two steps, on two machines
    two = tmp_path / "two"
    evaluator["main"](["--state", str(moved), "--out", str(two), *test, "--measure-only"])
    assert [path.name for path in two.iterdir()] == ["measured.safetensors"]
    measured = ["--measured", str(two / "measured.safetensors"), "--out", str(two)]
    evaluator["main"](["--state", str(moved), *measured])
    for name in ("curve.csv", "train_log.jsonl", "model.safetensors"):
        assert (two / name).read_bytes() == (out / name).read_bytes()
    cards = [load_checkpoint(folder).card for folder in (out, two)]
    for each, where in zip(cards, (out, two), strict=True):
        del each["test"]["seconds"]
        command = each["test"].pop("command").split()
        assert command[:4] == ["trm-interp", "eval", "--ckpt", str(where)]
        told = json.loads(CliRunner().invoke(app, [*command[1:], "--json"]).stdout)
        assert told["exact_at_step"] == each["test"]["exact_at_step"]
    assert cards[0] == cards[1]

    evaluator["main"](["--ckpt", str(out), "--out", str(tmp_path / "again"), *test])
    again = json.loads((tmp_path / "again" / "test.json").read_text())
    assert again["exact_at_step"] == card["test"]["exact_at_step"]


def test_the_command_ends_before_its_budget(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """A run without end stops by itself, its state written, `--reserve` seconds early."""
    timed = [*words, "--set", "steps=1000000", "--budget", "0.7", "--reserve", "3"]
    monkeypatch.setattr("sys.argv", ["train.py", *timed])
    globals_ = trainer["main"].__globals__
    looks, own = itertools.count(), threading.get_ident()
    # at a clock on which 0.3 s pass between two looks; other threads of the tests look at another
    other = time.perf_counter
    monkeypatch.setattr(
        time, "monotonic", lambda: 0.3 * next(looks) if threading.get_ident() == own else other()
    )
    monkeypatch.setitem(globals_, "BEGAN", 0.0)
    trainer["main"]()
    index = json.loads((tmp_path / "s" / INDEX).read_text())
    (piece,) = index["about"]["pieces"]
    assert index["step"] == piece["steps"][1] > 0
    assert piece["seconds"] <= 0.7 * 60 - 3
    assert (
        f"wrote {tmp_path / 's'} after {index['step']} optimizer steps" in capsys.readouterr().out
    )


def test_a_signal_ends_a_piece_after_its_step_saved_and_without_a_validation(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    Trainer = trainer["Trainer"]
    step = Trainer.step

    def interrupted(self: Any) -> Any:
        if self.step_count == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self)

    monkeypatch.setattr(Trainer, "step", interrupted)
    stopped = run_piece(words)
    assert stopped.step_count == 5 and stopped.validated_at != 5
    assert read_portable(tmp_path / "s")[0]["step"] == 5
    assert run_piece([*words, "--resume"], stop_after=2).validated_at == 7  # the deadline does


def test_a_deadline_keeps_what_the_longest_recent_step_needs(monkeypatch: pytest.MonkeyPatch):
    globals_ = trainer["Deadline"].__init__.__globals__
    now = [globals_["BEGAN"]]
    monkeypatch.setattr(globals_["time"], "monotonic", lambda: now[0])
    deadline = trainer["Deadline"](minutes=5, reserve=30)  # ends at 270; 1.2 (10 + 5) = 18 kept

    def after(seconds: float) -> bool:
        now[0] += seconds
        return deadline.reached()

    def validation() -> None:
        now[0] += 20

    assert not after(0)  # before the first step
    assert not after(90)  # compiles: no step to come is like it
    assert not any(after(1) for _ in range(80))  # at 170
    deadline.timed("validate", validation)  # at 190; 1.2 (20 + 5) = 30 kept from here on
    assert not after(1)  # at 191, 1 + 30 needed
    assert not after(24)  # at 215: 24 + 30 needed, 269
    assert after(1.5)


def test_a_piece_that_is_short_for_its_compilation_uses_the_rest(monkeypatch: pytest.MonkeyPatch):
    globals_ = trainer["Deadline"].__init__.__globals__
    now = [globals_["BEGAN"]]
    monkeypatch.setattr(globals_["time"], "monotonic", lambda: now[0])
    deadline = trainer["Deadline"](minutes=2, reserve=0)  # ends at 120, 18 kept
    steps = 0
    for seconds in (0, 60, *[1] * 60):
        now[0] += seconds
        if deadline.reached():
            break
        steps += 1
    assert now[0] == pytest.approx(globals_["BEGAN"] + 101)  # one more needs 1 + 18
    assert steps == 42


def test_a_fitted_schedule_ends_with_its_piece(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The share that is used never falls, and is whole when the time is used, over two pieces."""
    globals_ = trainer["main"].__globals__
    looks, own = itertools.count(), threading.get_ident()
    # at a clock on which 0.3 s pass between two looks; other threads of the tests look at another
    other = time.perf_counter
    monkeypatch.setattr(
        time, "monotonic", lambda: 0.3 * next(looks) if threading.get_ident() == own else other()
    )
    monkeypatch.setitem(globals_, "BEGAN", 0.0)
    timed = partial(globals_["train"], clock=lambda: time.monotonic())
    monkeypatch.setitem(globals_, "train", timed)
    fit = [*words, "--budget", "1", "--total", "fit", "--set", "log_every=1"]
    first = trainer["piece"](trainer["parse"](fit))
    assert first.step_count > 30
    rows = [
        json.loads(line) for line in (tmp_path / "s" / "metrics.jsonl").read_text().split("\n")[:-1]
    ]
    shares = [row["fraction"] for row in rows if "loss" in row]
    assert len(shares) == first.step_count and shares == sorted(shares)
    assert shares[0] < 0.1 and shares[-1] > 0.95
    rates = [row["lr"] for row in rows if "lr" in row]
    assert max(rates) == pytest.approx(3e-3, rel=0.1)
    budget = read_portable(tmp_path / "s")[0]["settings"]["budget"]
    assert 0.5 < budget < 1

    monkeypatch.setitem(globals_, "BEGAN", 0.3 * next(looks))
    second = trainer["piece"](trainer["parse"]([*fit, "--resume"]))
    assert second.step_count > 1.8 * first.step_count
    assert second.seconds == pytest.approx(60 * second.config.budget, rel=0.05)


def test_validation_puzzles_come_in_whole_batches_where_a_graph_is_compiled(
    words: list[str], data: Path, capsys: pytest.CaptureFixture[str]
):
    globals_ = trainer["open_trainer"].__globals__
    puzzles = globals_["load_puzzles"](data / "val.txt", limit=40)
    cut = globals_["whole_batches"](puzzles, 16, True)
    assert len(cut) == 32 and "the first 32 puzzles" in capsys.readouterr().out
    for kept in ((puzzles, 16, False), (puzzles, 64, True), (puzzles, 8, True)):
        assert len(globals_["whole_batches"](*kept)) == 40
    assert not capsys.readouterr().out


def test_a_state_is_saved_every_2000_steps(words: list[str]):
    args = trainer["parse"](words)
    assert args.save_every == 2000 and trainer["open_trainer"](args)[0].config.save_every == 2000


def test_the_recipe_of_its_source():
    preset = trainer["PRESETS"]["flagship-muon"]
    assert (preset["muon_decay"], preset["weight_decay"]) == (0.005, 1.0)
    assert (preset["n_sup_warm"], preset["n_sup_warm_until"]) == (1, 0.25)


def test_a_run_starts_from_a_checkpoint_and_counts_its_sources(words: list[str], tmp_path: Path):
    first = run_piece(words)
    first.export()
    csv = tmp_path / "extreme.csv"
    lines = Path(words[words.index("--train") + 1]).read_text().split()
    rows = [f"{'kaggle' if i % 4 else 'forum'},{line},3" for i, line in enumerate(lines)]
    csv.write_text("\n".join(["source,question,answer,rating", *rows]))
    again = [*words, "--init", str(first.out), "--train", str(csv), "--sample", "40"]
    again[again.index("--state") + 1] = str(tmp_path / "second")
    with pytest.raises(ValueError, match="--init takes the model's shape"):
        run_piece([*again, "--set", "d_model=16"])
    second = run_piece(again, stop_after=1)
    assert second.model.config == first.model.config and len(second.data.inputs) == 40
    about = read_portable(tmp_path / "second")[0]["about"]
    assert sum(about["sources"].values()) == 40 and about["sources"].keys() == {"kaggle", "forum"}
    untrained = load_checkpoint(first.out).model.token_embedding
    assert (second.model.token_embedding - untrained).abs().max() < 1e-2  # one step of 3e-3


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["--resume"], "state.json is missing"),
        (["--val", "nowhere.txt"], "nowhere.txt"),
        (["--set", "lr=-1"], "lr must be at least 0"),
        (["--set", "n_sup_warm=5"], "n_sup_warm must be from 0 to n_sup, which is 4, got 5"),
    ],
)
def test_errors_are_one_line(
    words: list[str],
    change: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("sys.argv", ["train.py", *words, *change])
    with pytest.raises(SystemExit) as stopped:
        trainer["main"]()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line


def test_a_damaged_state_is_named_and_kept(words: list[str], tmp_path: Path):
    run_piece(words, stop_after=2)
    (file,) = (tmp_path / "s").glob("*.safetensors")
    file.write_bytes(b"x" + file.read_bytes()[1:])
    before = {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()}
    with pytest.raises(ValueError, match=f"{file.name} is damaged"):
        run_piece([*words, "--resume"])
    with pytest.raises(ValueError, match="exists: use --resume to continue or --overwrite"):
        run_piece(words)
    with (
        locked_folder(tmp_path / "s"),
        pytest.raises(ValueError, match="s is being written by another process"),
    ):
        run_piece([*words, "--resume"])
    assert {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()} == before


def test_results_of_another_state_or_of_nothing_are_refused(
    words: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run_piece(words, stop_after=2)
    first = tmp_path / "s"
    test = ["--test", str(data / "test.txt"), "--steps", "2", "--out", str(tmp_path / "m")]
    evaluator["main"](["--state", str(first), *test, "--measure-only"])
    words[words.index(str(first))] = str(tmp_path / "other")
    run_piece(words, stop_after=3)

    def refused(state: Path, file: Path) -> str:
        out = ["--out", str(tmp_path / "out"), "--measured", str(file)]
        with pytest.raises(SystemExit):
            evaluator["main"](["--state", str(state), *out])
        assert not (tmp_path / "out").exists()
        (line,) = capsys.readouterr().err.splitlines()
        return line

    measured = tmp_path / "m" / "measured.safetensors"
    assert "was measured on another state" in refused(tmp_path / "other", measured)
    assert "is missing: bring it" in refused(first, tmp_path / "nowhere")
    (tmp_path / "damaged").write_bytes(measured.read_bytes()[:-20])
    assert "damaged" in refused(first, tmp_path / "damaged")
