"""Stopped before anything was saved, every command keeps its word: --resume simply starts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trm_interp.recording.collect
import trm_interp.sae.train
import trm_interp.search.run
import trm_interp.tasks.sudoku.forge.hard
from trm_interp.core.training.trainer import Trainer
from trm_interp.studies.starts import Starts
from trm_interp.tasks.sudoku import task
from trm_interp.tasks.sudoku.forge.hard import HardPreset
from trm_interp.tasks.sudoku.forge.presets import PRESETS
from trm_interp.tasks.sudoku.forge.walk import Walk

Cli = Callable[..., Any]
WALK = Walk(side=6, mean=30, sd=8, low=21, high=45, temperature=2, lists=100, climbs=60)


@pytest.fixture(scope="module")
def store(cli: Cli, copier: Path, grids: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sae") / "store"
    assert (
        cli("collect", "--ckpt", copier, "--puzzles", grids, "--out", out, "--steps", 2).code == 0
    )
    return out


@pytest.fixture(scope="module")
def splits(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "sudoku4"
    assert cli("data", "make", "sudoku4", "--out", out).code == 0
    return out


def commands(copier: Path, grids: Path, store: Path, splits: Path) -> dict[str, list[object]]:
    """Every command that can be resumed, all but its --out."""
    both = ["--ckpt", copier, "--puzzles", grids]
    files = ["--train", splits / "train.txt", "--val", splits / "val.txt", "--val-limit", 5]
    tiny = ["--preset", "tiny", "--d-model", 16, "--multiple", 8, "--n-sup", 2, "--train-steps", 2]
    small = ["--expansion", 2, "--train-steps", 3, "--batch-size", 64, "--device", "cpu"]
    starts = ["--index", 3, "--starts", 30, "--slice", 5, "--steps", 2, "--neighbours", 4]
    return {
        "collect": ["collect", *both, "--steps", 1],
        "search": ["search", *both, "--steps", 1, "--k", 2],
        "train": ["train", *files, *tiny, "--batch-size", 8],
        "train-sae": ["train-sae", store, "--site", "z_L", *small],
        "basins": ["basins", *both, *starts, "--shuffles", 19, "--device", "cpu"],
        "data make": ["data", "make", "tiny-hard", "--workers", 1],
    }


FIRST_WORK: dict[str, tuple[Any, str]] = {
    "collect": (trm_interp.recording.collect, "record_batch"),
    "search": (trm_interp.search.run, "search"),
    "train": (Trainer, "step"),
    "train-sae": (trm_interp.sae.train.Trainer, "advance"),
    "basins": (Starts, "follow"),
    "data make": (trm_interp.tasks.sudoku.forge.hard, "build"),
}


@pytest.fixture
def command(
    request: pytest.FixtureRequest,
    copier: Path,
    grids: Path,
    store: Path,
    splits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> list[object]:
    monkeypatch.setitem(PRESETS, "tiny-hard", HardPreset(WALK, train=4, val=2, test=2))
    monkeypatch.setitem(task.PRESETS, "tiny-hard", "a few puzzles")
    out = tmp_path / ("table.csv" if request.param == "search" else "out")
    return [*commands(copier, grids, store, splits)[request.param], "--out", out]


@pytest.mark.parametrize(
    ("command", "name"), [(name, name) for name in FIRST_WORK], indirect=["command"]
)
def test_after_ctrl_c_before_the_first_save(
    cli: Cli, command: list[object], name: str, monkeypatch: pytest.MonkeyPatch
):
    def stopped(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*FIRST_WORK[name], stopped)
        answer = cli(*command)
        assert (answer.code, answer.out) == (130, "")
        advice = "to continue, run the same command with --resume"
        assert answer.err.splitlines()[-1] == f"stopped; {advice}"
        over = cli(*command, "--overwrite")
        assert over.code == 130
        assert over.err.splitlines()[-1].endswith(f"{advice} instead of --overwrite")
    again = cli(*command, "--resume")
    assert again.code == 0, again.err


@pytest.mark.parametrize("command", list(FIRST_WORK), indirect=True)
def test_where_there_is_nothing_at_all(cli: Cli, command: list[object]):
    answer = cli(*command, "--resume")
    assert answer.code == 0, answer.err
