"""The flagship's scripts on a tiny model: pieces that end in time, states carried, a checkpoint."""

import itertools
import json
import runpy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.core.training.portable import INDEX, read_portable
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
    looks = itertools.count()  # at a clock on which 0.1 s pass between two of them
    monkeypatch.setattr(time, "monotonic", lambda: 0.1 * next(looks))
    monkeypatch.setitem(globals_, "BEGAN", 0.0)
    trainer["main"]()
    index = json.loads((tmp_path / "s" / INDEX).read_text())
    (piece,) = index["about"]["pieces"]
    assert index["step"] == piece["steps"][1] > 0
    assert piece["seconds"] <= 0.7 * 60 - 3
    assert (
        f"wrote {tmp_path / 's'} after {index['step']} optimizer steps" in capsys.readouterr().out
    )


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

    assert not after(90)  # compiles
    assert not any(after(1) for _ in range(80))  # at 170: 50 later the 90 are forgotten
    deadline.timed("validate", validation)  # at 190; 1.2 (20 + 5) = 30 kept from here on
    assert not after(1)  # at 191, 1 + 30 needed
    assert not after(24)  # at 215: 24 + 30 needed, 269
    assert after(1.5)


def test_a_run_starts_from_a_checkpoint_and_counts_its_sources(words: list[str], tmp_path: Path):
    first = run_piece(words)
    first.export()
    csv = tmp_path / "extreme.csv"
    lines = Path(words[words.index("--train") + 1]).read_text().split()
    rows = [f"{'kaggle' if i % 4 else 'forum'},{line},3" for i, line in enumerate(lines)]
    csv.write_text("\n".join(["source,question,answer,rating", *rows]))
    again = [*words, "--init", str(first.out), "--train", str(csv), "--sample", "40"]
    again[again.index("--state") + 1] = str(tmp_path / "second")
    with pytest.raises(ValueError, match="--init brings the model's shape"):
        run_piece([*again, "--set", "d_model=16"])
    second = run_piece(again, stop_after=1)
    assert second.model.config == first.model.config and len(second.data.inputs) == 40
    about = read_portable(tmp_path / "second")[0]["about"]
    assert sum(about["sources"].values()) == 40 and about["sources"].keys() == {"kaggle", "forum"}
    untrained = load_checkpoint(first.out).model.token_embedding
    assert (second.model.token_embedding - untrained).abs().max() < 1e-2  # one step of 3e-3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--resume"], "state.json is missing"),
        (["--val", "nowhere.txt"], "nowhere.txt"),
        (["--set", "lr=-1"], "lr must be at least 0"),
    ],
)
def test_errors_are_one_line(
    words: list[str],
    change: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("sys.argv", ["train.py", *words, *change])
    with pytest.raises(SystemExit) as stopped:
        trainer["main"]()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_a_damaged_state_is_named_and_kept(words: list[str], tmp_path: Path):
    run_piece(words, stop_after=2)
    (file,) = (tmp_path / "s").glob("*.safetensors")
    file.write_bytes(b"x" + file.read_bytes()[1:])
    before = {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()}
    with pytest.raises(ValueError, match=f"{file.name} is damaged"):
        run_piece([*words, "--resume"])
    with pytest.raises(ValueError, match="holds a state: --resume"):
        run_piece(words)
    assert {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()} == before
