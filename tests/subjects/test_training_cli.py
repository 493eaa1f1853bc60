"""`trm-interp train`: settings, refusals, and a stopped run that equals an undisturbed one."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import trm_interp.subjects.training
from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.core.training.loop import METRICS_FILE
from trm_interp.core.training.trainer import STATE_FILE, Trainer
from trm_interp.runtime.outputs import MARKER, mark
from trm_interp.subjects.training import Trained

Cli = Callable[..., Any]
STEPS = 12
WALL_CLOCK = {"seconds", "steps_per_s"}


@pytest.fixture(scope="module")
def data(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "sudoku4"
    assert cli("data", "make", "sudoku4", "--out", folder).code == 0
    return folder


@pytest.fixture(scope="module")
def train(data: Path) -> list[object]:
    """A run of 12 steps, all but its --out."""
    words: list[object] = ["train", "--train", data / "train.txt", "--val", data / "val.txt"]
    words += ["--preset", "tiny", "--d-model", 16, "--multiple", 8, "--n-sup", 3]
    words += ["--train-steps", STEPS, "--batch-size", 8, "--eval-every", 5, "--log-every", 3]
    return [*words, "--save-every", 4, "--val-limit", 9]


@pytest.fixture(scope="module")
def whole(cli: Cli, train: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, undisturbed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    answer = cli(*train, "--out", out)
    assert answer.code == 0 and f"wrote {out} after 12 optimizer steps" in answer.out
    steps = [line.split(":")[0] for line in answer.err.splitlines()]
    assert steps == ["step 5", "step 10", "step 12"]
    return out


def rows(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / METRICS_FILE).read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in WALL_CLOCK} for row in lines]


def assert_same(one: Any, other: Any, where: str = "state") -> None:
    """Equal to the last bit, but for the wall clock."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one.keys() - WALL_CLOCK:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{i}]")
    else:
        assert one == other, where


def test_a_run_is_a_checkpoint_with_a_card(cli: Cli, whole: Path, data: Path):
    names = {"config.json", "model.safetensors", "card.json", METRICS_FILE, STATE_FILE, MARKER}
    assert {file.name for file in whole.iterdir()} == names
    loaded = load_checkpoint(whole)
    config, card = loaded.model.config, loaded.card
    assert (config.cells, config.vocab, config.d_model, config.h_cycles) == (16, 6, 16, 2)
    assert card["task"] == "sudoku4" and card["train"]["steps_done"] == STEPS
    assert card["train"]["lr"] == 3e-3  # of the preset
    assert card["validation"]["n"] == 9 and len(card["validation"]["exact_at_step"]) == 3
    assert card["data"]["train"].keys() == {"train.txt"} and card["train"]["puzzles"] == 200
    # the card's numbers are those that eval gives, on the validation puzzles it used
    words = ["--ckpt", whole, "--puzzles", data / "val.txt", "--limit", 9, "--steps", 3]
    summary = json.loads(cli("eval", *words, "--json").out)
    assert summary["exact_at_step"] == card["validation"]["exact_at_step"]


def test_ctrl_c_then_resume_equals_undisturbed(
    cli: Cli,
    train: list[object],
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Stopped inside step 7, then by SIGTERM inside step 10, which --save-every does not name."""
    out, step = tmp_path / "stopped", Trainer.step
    signals = {6: signal.SIGINT, 9: signal.SIGTERM}  # by steps done before

    def interrupted(trainer: Trainer) -> Any:
        if number := signals.pop(trainer.step_count, None):
            os.kill(os.getpid(), number)
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", interrupted)
    for done, resume in ((7, []), (10, ["--resume"])):
        answer = cli(*train, "--out", out, *resume)
        assert answer.code == 130 and f"after {done} optimizer steps" in answer.out
        assert "run the same command with --resume" in answer.err.splitlines()[-1]
        assert torch.load(out / STATE_FILE, weights_only=True)["step"] == done
    assert cli(*train, "--out", out, "--resume").code == 0
    one, other = (torch.load(run / STATE_FILE, weights_only=True) for run in (out, whole))
    assert_same(one, other)
    assert rows(out) == rows(whole)
    assert load_checkpoint(out).sha256 == load_checkpoint(whole).sha256


def test_a_second_ctrl_c_stops_at_once(
    cli: Cli, train: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, step = tmp_path / "stopped", Trainer.step

    def interrupted(trainer: Trainer) -> Any:
        if trainer.step_count == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", interrupted)
    before = signal.getsignal(signal.SIGINT)
    answer = cli(*train, "--out", out)
    assert answer.code == 130 and answer.err.splitlines()[-1].startswith("stopped")
    assert torch.load(out / STATE_FILE, weights_only=True)["step"] == 4  # of --save-every
    assert signal.getsignal(signal.SIGINT) is before


def test_a_longer_run_goes_on_from_a_finished_one(
    cli: Cli, train: list[object], whole: Path, tmp_path: Path
):
    out = tmp_path / "run"
    assert cli(*train, "--out", out).code == 0
    answer = cli(*train, "--out", out, "--resume", "--train-steps", STEPS + 2)
    assert answer.code == 0 and "after 14 optimizer steps" in answer.out
    again = cli(*train, "--out", out, "--resume", "--train-steps", STEPS + 2)
    assert again.code == 0 and "after 14 optimizer steps" in again.out


def test_overwrite_leaves_nothing_of_the_old_run(
    cli: Cli, train: list[object], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "run"
    assert cli(*train, "--out", out).code == 0
    (out / "notes.txt").write_text("mine")

    def killed(trainer: Trainer) -> Any:
        raise SystemExit(137)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", killed)
        assert cli(*train, "--out", out, "--overwrite").code == 137
    assert {file.name for file in out.iterdir()} == {"notes.txt", MARKER}
    assert cli(*train, "--out", out).code == 0
    assert rows(out) == rows(whole)


# refusals


def refused(cli: Cli, words: list[object], *expected: object) -> None:
    answer = cli(*words)
    assert (answer.code, answer.out) == (2, ""), answer
    assert answer.err.count("\n") == 1 and answer.err.startswith("error: ")
    for word in expected:
        assert str(word) in answer.err


def test_outputs_that_are_refused(cli: Cli, train: list[object], whole: Path, tmp_path: Path):
    before = {file.name: file.read_bytes() for file in whole.iterdir()}
    refused(cli, [*train, "--out", whole], whole, "--resume", "--overwrite")
    refused(cli, [*train, "--out", whole, "--resume", "--overwrite"], "one of")
    resumed = [*train, "--out", whole, "--resume"]
    refused(cli, [*resumed, "--d-model", 32], whole, "d_model (16 there, 32 now)")
    refused(cli, [*resumed, "--lr", 0.5], whole, "lr (0.003 there, 0.5 now)")
    assert {file.name: file.read_bytes() for file in whole.iterdir()} == before
    (tmp_path / "thesis.tex").write_text("mine")
    refused(cli, [*train, "--out", tmp_path, "--overwrite"], tmp_path, "has no marker")
    refused(cli, [*train, "--out", tmp_path / "thesis.tex"], tmp_path / "thesis.tex")


def test_resume_before_the_first_save_starts_anew(
    cli: Cli, train: list[object], whole: Path, tmp_path: Path
):
    out = tmp_path / "run"
    mark(out, "train")
    (out / METRICS_FILE).write_text((whole / METRICS_FILE).read_text()[:300])
    assert cli(*train, "--out", out, "--resume").code == 0
    assert rows(out) == rows(whole)


def test_a_checkpoint_without_its_state_is_not_started_anew(
    cli: Cli, train: list[object], whole: Path, tmp_path: Path
):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / STATE_FILE).unlink()
    refused(cli, [*train, "--out", out, "--resume"], out / STATE_FILE, "is missing")
    assert load_checkpoint(out).sha256 == load_checkpoint(whole).sha256


def test_a_damaged_state_is_named(cli: Cli, train: list[object], whole: Path, tmp_path: Path):
    out = tmp_path / "run"
    mark(out, "train")
    (out / STATE_FILE).write_bytes((whole / STATE_FILE).read_bytes()[:2000])
    refused(cli, [*train, "--out", out, "--resume"], out / STATE_FILE, "truncated or damaged")


def test_puzzles_that_do_not_fit(cli: Cli, train: list[object], data: Path, tmp_path: Path):
    out = tmp_path / "out"
    # a validation puzzle that is a training puzzle with its digits renamed and its rows reversed
    puzzle, solution = (data / "train.txt").read_text().split()[4].split(",")
    copy = ",".join(
        text.translate(str.maketrans("1234", "3142"))[::-1] for text in (puzzle, solution)
    )
    leaking = tmp_path / "leaking.txt"
    leaking.write_text((data / "val.txt").read_text() + copy + "\n")
    words = [*train, "--out", out, "--val-limit", 99, "--val"]
    refused(cli, [*words, leaking], leaking, "1 puzzle", "symmetric", data / "train.txt")
    six = tmp_path / "six.txt"
    six.write_text("123456456123231564564231312645645312\n")
    refused(cli, [*words, six], six, "another size", data / "train.txt")
    bad = tmp_path / "bad.txt"
    bad.write_text("11..............\n")
    refused(cli, [*words, bad], bad, "line 1: contradictory givens")
    refused(cli, [*words, tmp_path / "none"], tmp_path / "none", "no such file")
    assert not out.exists()


@pytest.mark.parametrize(
    "option",
    [
        *("d-model", "n-layers", "h-cycles", "l-cycles", "n-heads", "expansion", "multiple"),
        *(
            "q-outputs",
            "train-steps",
            "batch-size",
            "n-sup",
            "eval-every",
            "save-every",
            "log-every",
        ),
        *("val-limit", "norm-eps", "rope-base"),
    ],
)
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_are_positive(cli: Cli, train: list[object], tmp_path: Path, option: str, value: int):
    words = [*train, "--out", tmp_path / "out", f"--{option}", value]
    if option in ("n-heads", "rope-base"):  # of attention, and without effect without it
        words += ["--mixer", "attention"]
    refused(cli, words, f"--{option}", value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["lr", "muon-lr", "weight-decay", "clip", "halt-weight", "ema"])
def test_rates_are_not_negative(cli: Cli, train: list[object], tmp_path: Path, option: str):
    words = [*train, "--out", tmp_path / "out", f"--{option}", -0.5]
    refused(cli, words, f"--{option}", -0.5)


# settings


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What `train` hands on: (run, model, config) of every call, without training."""
    seen: list[tuple[Any, ...]] = []

    def fit(run: Any, model: Any, config: Any, *more: Any) -> Trained:
        seen.append((run, model, config))
        return Trained(run.out, config.steps, {}, finished=True)

    monkeypatch.setattr(trm_interp.subjects.training, "fit", fit)
    return seen


FILES = ["train", "--train", "T", "--val", "V", "--out", "O"]


def test_defaults_presets_and_options_in_this_order(cli: Cli, settings: list[tuple[Any, ...]]):
    assert cli(*FILES).code == 0
    _, model, config = settings[-1]
    assert model == {} and config.steps == 50_000 and config.lr == 1e-4
    assert (
        cli(*FILES, "--preset", "sudoku6", "--lr", 0.5, "--d-model", 64, "--no-compile").code == 0
    )
    run, model, config = settings[-1]
    assert model == {"d_model": 64, "multiple": 32, "prefix": 0}
    assert (config.lr, config.steps, config.batch_size) == (0.5, 1250, 128)
    assert config.compile is False and config.dtype == "bfloat16"
    assert (run.train, run.val, run.out) == (Path("T"), Path("V"), Path("O"))
    refused(cli, [*FILES, "--preset", "sudoku5"], "--preset sudoku5", "tiny")


@pytest.mark.parametrize(
    ("text", "minutes"), [("22m", 22.0), ("90s", 1.5), ("1.5h", 90.0), ("22", 22.0), ("0.5", 0.5)]
)
def test_budgets(cli: Cli, settings: list[tuple[Any, ...]], text: str, minutes: float):
    assert cli(*FILES, "--budget", text).code == 0
    assert settings[-1][2].budget == minutes


@pytest.mark.parametrize("text", ["soon", "22q", "", "m", "1:30", "nan", "inf", "0", "-1"])
def test_bad_budgets(cli: Cli, settings: list[tuple[Any, ...]], text: str):
    answer = cli(*FILES, "--budget", text)
    assert answer.code == 2 and "budget" in answer.err and settings == []


def test_a_budget_ends_the_run(cli: Cli, train: list[object], tmp_path: Path):
    words = [*train, "--budget", "0.3s", "--train-steps", 10**6]
    assert cli(*words, "--out", tmp_path / "out").code == 0
    card = load_checkpoint(tmp_path / "out").card
    assert 0 < card["train"]["steps_done"] < 10**6 and card["times"]["training_s"] >= 0.3
