"""One law of earlier work for all commands that write (`runtime/existing.py`)."""

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import trm_interp.recording.collect
import trm_interp.sae.train
import trm_interp.search.run
import trm_interp.tasks.sudoku.forge.build
import trm_interp.tasks.sudoku.forge.hard
from trm_interp.core.training.trainer import Trainer
from trm_interp.runtime.locks import locked_beside, locked_folder
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
        "collect": ["collect", *both, "--steps", 1, "--batch-size", 4],
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


# What is there decides ------------------------------------------------------------------------

OTHER: dict[str, tuple[list[object], str]] = {  # another setting, and its field in the message
    "collect": (["--limit", 9], "limit"),
    "search": (["--seed", 1], "search.seed"),
    "train": (["--lr", 0.5], "train.lr"),
    "train-sae": (["--train-steps", 4], "max_steps (3 there, 4 now); a run cannot be extended"),
    "basins": (["--seed", 1], "seed"),
    "data make": (["--seed", 1], "seed"),
}
RESULTS = {  # files that a run and a resumed one share to the last bit
    "collect": "shard-*.h5",
    "search": "table.csv",
    "train": "model.safetensors",
    "train-sae": "sae_weights.safetensors",
    "basins": "*.csv",
    "data make": "*.csv",
}
SAVES: dict[str, list[object]] = {
    "train": ["--save-every", 1],
    "train-sae": ["--save-every", 1],
}
IN_THE_MIDDLE: dict[str, tuple[Any, str, int]] = {  # what to kill, and at which call
    **{name: (*work, 2) for name, work in FIRST_WORK.items()},
    "data make": (trm_interp.tasks.sudoku.forge.build, "append_row", 3),
}


def contents(out: Path, pattern: str) -> dict[str, bytes]:
    folder = out.parent if out.suffix else out
    return {file.name: file.read_bytes() for file in sorted(folder.glob(pattern))}


def everything(out: Path) -> dict[Path, bytes]:
    files = [file for file in out.parent.rglob("*") if file.is_file()]
    return {file: file.read_bytes() for file in files if not file.name.endswith(".lock")}


def held(name: str, out: Path) -> AbstractContextManager[None]:
    """As if another process wrote there."""
    if name == "search":
        return locked_beside(out.with_suffix(".json"))
    return locked_beside(out) if name == "data make" else locked_folder(out)


@pytest.mark.parametrize(("command", "name"), [(n, n) for n in FIRST_WORK], indirect=["command"])
def test_finished_work(cli: Cli, command: list[object], name: str):
    out = Path(str(command[-1]))
    assert cli(*command).code == 0
    before, (change, field) = everything(out), OTHER[name]

    def refused(*flags: object) -> str:
        answer = cli(*command, *flags)
        assert (answer.code, answer.out) == (2, ""), answer
        assert everything(out) == before
        line = answer.err.splitlines()[-1]
        assert line.startswith("error: ") and str(out.with_suffix("")) in line
        return line

    advice = "use --resume to continue or --overwrite to start over"
    assert advice in refused() and advice in refused(*change)
    line = refused(*change, "--resume")
    assert "is of another run: " in line and field in line and "--overwrite" in line
    with held(name, out):
        for flags in (["--resume"], ["--overwrite"]):
            assert "is being written by another process: wait for it" in refused(*flags)
    whole = contents(out, RESULTS[name])
    again = cli(*command, "--resume")
    assert again.code == 0 and contents(out, RESULTS[name]) == whole
    if name != "basins":  # whose tables are made again of its parts
        assert f"{out} is complete" in again.err + again.out
    assert cli(*command, *change, "--overwrite").code == 0
    assert contents(out, RESULTS[name]) != whole


@pytest.mark.parametrize(("command", "name"), [(n, n) for n in FIRST_WORK], indirect=["command"])
def test_killed_in_the_middle_and_resumed(
    cli: Cli, command: list[object], name: str, monkeypatch: pytest.MonkeyPatch
):
    """SIGKILL at the second batch, block or step: the resumed run gives the same bytes."""
    monkeypatch.setattr(trm_interp.search.run, "block_puzzles", lambda *size: 4)
    words, out = [*command[:-1], *SAVES.get(name, [])], Path(str(command[-1]))
    words.insert(-len(SAVES.get(name, [])) or len(words), out)
    child = os.fork()
    if child == 0:
        holder, function, at = IN_THE_MIDDLE[name]
        plain, calls = getattr(holder, function), iter(range(10**6))

        def killed(*args: Any, **kwargs: Any) -> Any:
            if next(calls) + 1 == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*args, **kwargs)

        setattr(holder, function, killed)
        cli(*words)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert "--resume to continue" in cli(*words).err
    answer = cli(*words, "--resume")
    assert answer.code == 0, answer.err
    resumed = contents(out, RESULTS[name])
    assert resumed and cli(*words, "--overwrite").code == 0
    assert contents(out, RESULTS[name]) == resumed


# Commands without --resume --------------------------------------------------------------------


@pytest.fixture
def short(
    request: pytest.FixtureRequest, copier: Path, grids: Path, tmp_path: Path
) -> tuple[list[object], Path]:
    both: list[object] = ["--ckpt", copier, "--puzzles", grids, "--steps", 1, "--limit", 4]
    out = tmp_path / "made" / {"eval": "t.csv", "data import": "p.txt"}.get(request.param, "out")
    words: dict[str, list[object]] = {
        "eval": ["eval", *both, "--csv", out],
        "data import": ["data", "import", grids, "--out", out],
        "outcomes": ["outcomes", *both, "--out", out],
    }
    return words[request.param], out


@pytest.mark.parametrize("short", ["eval", "data import", "outcomes"], indirect=True)
def test_work_that_is_not_resumed(cli: Cli, short: tuple[list[object], Path]):
    words, out = short
    assert cli(*words).code == 0
    before = everything(out)
    answer = cli(*words)
    assert answer.code == 2 and answer.out == ""
    advice = f"{out} exists: use --overwrite to replace it, or choose another output"
    assert advice in answer.err.splitlines()[-1]
    with locked_folder(out) if out.is_dir() else locked_beside(out):
        answer = cli(*words, "--overwrite")
        assert answer.code == 2 and f"{out} is being written by another process" in answer.err
    assert everything(out) == before
    assert cli(*words, "--overwrite").code == 0 and everything(out).keys() == before.keys()
