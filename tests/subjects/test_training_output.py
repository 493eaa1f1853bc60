"""The folder of a run: one writer, nothing foreign replaced, resume of nothing starts."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.core.training.loop import METRICS_FILE
from trm_interp.core.training.trainer import STATE_FILE, Trainer
from trm_interp.runtime.locks import locked_folder
from trm_interp.runtime.outputs import MARKER, mark
from trm_interp.runtime.runs import Run

Cli = Callable[..., Any]
GRID = "1234341221434321"


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """A run of three steps, all but its --out."""
    folder = tmp_path_factory.mktemp("data")
    for name, blanks in (("train", 4), ("val", 1)):
        (folder / name).write_text(f"{'.' * blanks}{GRID[blanks:]},{GRID}\n")
    words: list[object] = ["train", "--train", folder / "train", "--val", folder / "val"]
    words += ["--preset", "tiny", "--d-model", 8, "--multiple", 8, "--n-sup", 2, "--train-steps", 3]
    return [*words, "--batch-size", 2, "--eval-every", 3, "--log-every", 1]


@pytest.fixture(scope="module")
def whole(cli: Cli, train: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    answer = cli(*train, "--out", out)
    assert answer.code == 0, answer.err
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != ".lock"}


def refused(cli: Cli, words: list[object], out: Path, problem: str) -> None:
    before = contents(out)
    answer = cli(*words, "--out", out)
    assert (answer.code, answer.out) == (2, "") and answer.err.count("\n") == 1, answer
    assert problem in answer.err, answer.err
    assert contents(out) == before


FLAGS: list[list[object]] = [[], ["--resume"], ["--overwrite"]]


@pytest.mark.parametrize("flag", FLAGS)
def test_a_checkpoint_of_another_origin_stays(
    cli: Cli, train: list[object], copier: Path, flag: list[object]
):
    refused(cli, [*train, *flag], copier, "is not empty and has no marker, so `train`")


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("marked", [False, True])
def test_an_sae_stays(
    cli: Cli, train: list[object], tmp_path: Path, flag: list[object], marked: bool
):
    """The run of train-sae has files of the same names."""
    torch.save({"identity": {}, "sae": {}}, tmp_path / STATE_FILE)
    (tmp_path / METRICS_FILE).write_text('{"step": 1, "held_out_fvu": 0.5}\n')
    (tmp_path / "cfg.json").write_text("{}")
    if marked:
        mark(tmp_path, "train-sae")
    why = "was written by `train-sae`" if marked else "is not empty and has no marker"
    refused(cli, [*train, *flag], tmp_path, why)


def test_a_second_process_is_refused(cli: Cli, train: list[object], whole: Path):
    with locked_folder(whole):
        refused(cli, [*train, "--resume"], whole, "is being written by another process")


def test_a_run_from_before_the_markers_is_gone_on_with_and_not_overwritten(
    cli: Cli, train: list[object], whole: Path, tmp_path: Path
):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / MARKER).unlink()
    refused(cli, train, out, "use --resume to continue, or delete it")
    refused(cli, [*train, "--overwrite"], out, "has no marker")
    answer = cli(*train, "--out", out, "--resume")
    assert answer.code == 0 and "after 3 optimizer steps" in answer.out
    assert load_checkpoint(out).sha256 == load_checkpoint(whole).sha256
    assert (out / MARKER).exists()


def test_a_run_from_before_the_markers_that_saved_nothing_is_begun_anew(
    cli: Cli, train: list[object], whole: Path, tmp_path: Path
):
    (tmp_path / METRICS_FILE).write_text('{"step": 1}\n')
    refused(cli, [*train, "--overwrite"], tmp_path, "has no marker")
    answer = cli(*train, "--out", tmp_path, "--resume")
    assert answer.code == 0, answer.err
    assert "nothing was saved yet" in answer.err
    assert load_checkpoint(tmp_path).sha256 == load_checkpoint(whole).sha256
    rows = [(at / METRICS_FILE).read_text().splitlines() for at in (whole, tmp_path)]
    assert len(rows[0]) == len(rows[1])


@pytest.mark.parametrize("n", [1, 2])
def test_resume_after_ctrl_c_before_the_first_save(
    cli: Cli,
    train: list[object],
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n: int,
):
    """Once ends with a save after the step; twice ends at once, with nothing saved."""
    out, step = tmp_path / "run", Trainer.step

    def interrupted(trainer: Trainer) -> Any:
        for _ in range(n):
            os.kill(os.getpid(), signal.SIGINT)
        return step(trainer)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", interrupted)
        answer = cli(*train, "--out", out)
        assert answer.code == 130 and "run the same command with --resume" in answer.err
    answer = cli(*train, "--out", out, "--resume")
    assert answer.code == 0, answer.err
    assert ("nothing was saved yet" in answer.err) == (n == 2)
    assert load_checkpoint(out).sha256 == load_checkpoint(whole).sha256


def test_overwriting_a_run_takes_away_what_it_kept(cli: Cli, train: list[object], tmp_path: Path):
    out = tmp_path / "run"
    answer = cli(*train, "--out", out, "--keep-every", 1)
    assert answer.code == 0, answer.err
    assert {folder.name for folder in out.glob("kept/*/")} == {
        f"step-{step:06d}" for step in (1, 2, 3)
    }
    answer = cli("eval", "--ckpt", out / "kept", "--puzzles", train[2])
    assert "name one of step-000001, step-000002, step-000003" in answer.err
    answer = cli("eval", "--ckpt", out / "kept" / "step-000002", "--puzzles", train[2])
    assert answer.code == 0, answer.err
    answer = cli(*train, "--out", out, "--overwrite", "--keep-every", 2)
    assert answer.code == 0, answer.err
    assert [folder.name for folder in out.glob("kept/*/")] == ["step-000002"]


def test_the_first_process_claims_for_all(tmp_path: Path):
    """Of a torchrun: the others open nothing, and get its answer or its refusal."""

    class Team:
        def __init__(self, rank: int, answer: Any = None) -> None:
            self.rank, self.answer = rank, answer

        def objects(self, mine: Any) -> list[Any]:
            self.answer = mine if self.rank == 0 else self.answer
            return [self.answer, None]

    first = Team(0)
    with Run(tmp_path, "train", ("*.pt",), team=first) as mine:
        assert mine.begun is False and (tmp_path / ".lock").exists()
        with Run(tmp_path, "train", ("*.pt",), team=Team(1, mine.begun)) as other:
            assert other.begun is False
    (tmp_path / "model.pt").touch()
    for team in (Team(0), Team(1)):
        team.answer = first.answer
        with (
            pytest.raises(ValueError, match="exists: use --resume"),
            Run(tmp_path, "train", ("*.pt",), team=team),
        ):
            pass
        first = team
