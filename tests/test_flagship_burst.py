"""A burst on the CPU with a tiny model: what is packed, also where something breaks on the way."""

import io
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.core.training.portable import read_portable
from trm_interp.runtime.errors import UserError
from trm_interp.tasks.sudoku.forge.presets import make_preset

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "experiments" / "flagship"
burst = runpy.run_path(str(SCRIPTS / "burst.py"))
packing = runpy.run_path(str(SCRIPTS / "packing.py"))
evaluator = runpy.run_path(str(SCRIPTS / "evaluate.py"))
smoke = runpy.run_path(str(SCRIPTS / "smoke.py"))
# of the full environment; a machine that trains has none of them
MISSING = "scipy sklearn statsmodels plotly transformer_lens sae_lens transformers datasets umap "
MISSING += "huggingface_hub pysat diptest kaleido matplotlib wandb beartype pynndescent"
BLOCK = f"""
import sys
from importlib.machinery import PathFinder
class Bare:
    @staticmethod
    def find_spec(name, *how):
        is_missing = name.split(".")[0] in {set(MISSING.split())!r}
        return None if is_missing else PathFinder.find_spec(name, *how)
sys.meta_path[:] = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "sudoku4"
    make_preset("sudoku4", folder)
    return folder


@pytest.fixture
def words(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A burst whose schedule takes 5 s of training, in a process with few packages."""
    constants = burst["run"].__globals__
    for name, seconds in {"PACKING_S": 3, "STOPPING_S": 3, "LEAST_TRAINING_S": 5}.items():
        monkeypatch.setitem(constants, name, seconds)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "sitecustomize.py").write_text(BLOCK)
    monkeypatch.setenv("PYTHONPATH", f"{bare}{os.pathsep}{ROOT}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    files = ["--train", data / "train.txt", "--val", data / "val.txt", "--test", data / "test.txt"]
    options = ["--device", "cpu", "--preset", "tiny", "--batch-size", "32", "--val-limit", "20"]
    times = ["--seconds", "120", "--start-s", "10", "--evaluate-s", "60", "--steps", "4"]
    out = ["--out", tmp_path / "out"]
    return [*map(str, [*files, *out]), *options, *times, "--", "--total", "0.08"]


def logs_of(state: Path) -> dict[str, str]:
    with tarfile.open(state / "logs.tar.gz") as archive:
        return {
            member.name: io.TextIOWrapper(archive.extractfile(member), errors="replace").read()  # type: ignore[arg-type]
            for member in archive
        }


def assert_packed(out: Path) -> None:
    assert [path.name for path in out.iterdir()] == ["state"]
    files = list((out / "state").iterdir())
    assert 2 <= len(files) <= 6 and all(path.stat().st_size <= 15 * 2**20 for path in files)


def test_a_burst_with_few_packages_gives_a_state_and_its_results(
    words: list[str], data: Path, tmp_path: Path
):
    with pytest.raises(subprocess.CalledProcessError):  # they are blocked indeed
        subprocess.run([sys.executable, "-c", "import scipy"], check=True, capture_output=True)
    burst["main"](words)
    assert_packed(tmp_path / "out")
    kept, shipped, again = (tmp_path / name for name in ("kept", "shipped", "again"))
    packing["main"](["unpack", str(tmp_path / "out" / "state"), str(kept)])
    index, _ = read_portable(kept)
    assert index["step"] > 5
    log = (kept / "1-train.log").read_text()
    assert re.search(rf"after {index['step']} optimizer steps \(10\d\.\d% of the run", log)
    measured = ["--measured", str(kept / "measured.safetensors"), "--out", str(shipped)]
    evaluator["main"](["--state", str(kept), *measured])
    test = ["--test", str(data / "test.txt"), "--steps", "4", "--out", str(again)]
    evaluator["main"](["--state", str(kept), *test])
    cards = [load_checkpoint(folder).card for folder in (shipped, again)]
    assert cards[0]["test"]["exact_at_step"] == cards[1]["test"]["exact_at_step"]
    assert cards[0]["test"]["n"] == 50 and len(cards[0]["test"]["exact_at_step"]) == 4

    # a second burst goes on with it
    more = [*words[: words.index("--")], "--from", str(tmp_path / "out" / "state")]
    more[more.index("--out") + 1] = str(tmp_path / "second")
    burst["main"]([*more, "--", "--total", "0.12"])
    assert_packed(tmp_path / "second")
    pieces = json.loads(logs_of(tmp_path / "second" / "state")["state.json"])["about"]["pieces"]
    assert pieces[0]["steps"][1] == pieces[1]["steps"][0] == index["step"] < pieces[1]["steps"][1]


def test_a_burst_whose_compiler_is_broken_trains_without(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CXX", "/no/such/compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    burst["main"]([*words, "--set", "compile=true"])
    assert_packed(tmp_path / "out")
    logs = logs_of(tmp_path / "out" / "state")
    assert "2-train.log" not in logs  # one attempt
    (line,) = [row for row in logs["1-train.log"].splitlines() if "torch.compile failed" in row]
    assert line.endswith("going on without it")
    index = json.loads(logs["state.json"])
    assert index["changes"] == [{"after_step": 0, "compile": [True, False]}]
    assert index["step"] > 5 and "measured.safetensors" in logs


def kill_soon(state: Path, done: threading.Event) -> None:
    """SIGKILL the child that trains, once it has saved a state."""
    children = Path(f"/proc/{os.getpid()}/task")
    while not done.wait(0.02):
        if not (state / "state.json").exists():
            continue
        for listed in children.glob("*/children"):
            for pid in listed.read_text().split():
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"train.py" in command:
                    os.kill(int(pid), signal.SIGKILL)
                    return


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_burst_whose_training_is_killed_goes_on_from_the_last_save(
    words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    done = threading.Event()
    killer = threading.Thread(target=kill_soon, args=(tmp_path / "out" / "state", done))
    killer.start()
    try:
        burst["main"]([*words, "--save-every", "3"])
    finally:
        done.set()
        killer.join()
    assert "training ended with status -9" in capfd.readouterr().out
    assert_packed(tmp_path / "out")
    logs = logs_of(tmp_path / "out" / "state")
    index = json.loads(logs["state.json"])
    first, second = (piece["steps"] for piece in index["about"]["pieces"])
    assert first[0] == 0 and first[1] == second[0] > 0 and second[1] == index["step"]
    assert re.search(r"\(10\d\.\d% of the run", logs["2-train.log"])
    rows = [json.loads(line) for line in logs["metrics.jsonl"].splitlines()]
    steps = [row["step"] for row in rows if "loss" in row]
    assert steps == sorted(set(steps))
    packing["unpack"](tmp_path / "out" / "state", tmp_path / "kept")
    assert read_portable(tmp_path / "kept")[0]["step"] == index["step"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="its child ends by prctl")
def test_a_burst_that_is_killed_itself_leaves_a_state_that_can_be_packed(
    words: list[str], tmp_path: Path
):
    state = tmp_path / "out" / "state"
    command = [sys.executable, str(SCRIPTS / "burst.py"), *words, "--total", "5"]
    with subprocess.Popen([*command, "--save-every", "3"], stdout=subprocess.DEVNULL) as killed:
        ends = time.monotonic() + 60
        while not (state / "state.json").exists() and time.monotonic() < ends:
            time.sleep(0.05)
        killed.kill()
    ends = time.monotonic() + 60
    while True:
        try:
            packing["pack"](state, [tmp_path / "out" / "1-train.log"])
            break
        except UserError:  # its child, which is told to stop, holds the folder
            assert time.monotonic() < ends
            time.sleep(0.2)
    packing["unpack"](state, tmp_path / "kept")
    step = read_portable(tmp_path / "kept")[0]["step"]
    assert step > 0
    trainer = runpy.run_path(str(SCRIPTS / "train.py"))
    files = [*words[: words.index("--test")], "--preset", "tiny", "--val-limit", "20"]
    more = ["--budget", "9", "--reserve", "0", "--total", "5"]
    args = trainer["parse"]([*files, "--state", str(tmp_path / "kept"), *more, "--resume"])
    resumed, about = trainer["open_trainer"](args)
    assert resumed.step_count == step and about["pieces"][-1]["steps"] == [0, step]
    resumed.step()
    resumed.check()


def test_training_that_never_saves_is_said_and_leaves_its_log(
    words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        burst["main"]([*words, "--set", "lr=-1"])
    error = capfd.readouterr().err.splitlines()[-1]
    assert "no state was saved" in error and "1-train.log" in error
    log = (tmp_path / "out" / "1-train.log").read_text()
    assert "lr must be at least 0" in log
    assert not (tmp_path / "out" / "2-train.log").exists()  # what a user has to mend fails again


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--seconds", "70"], "a burst needs at least 81 "),
        (["--device", "cuda"], "--device cpu rehearses without one"),
        (["--test", "nowhere.csv"], "nowhere.csv does not exist"),
    ],
)
def test_what_a_burst_cannot_do_it_does_not_begin(
    words: list[str],
    tmp_path: Path,
    change: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    at = words.index("--")
    with pytest.raises(SystemExit) as stopped:
        burst["main"]([*words[:at], *change, *words[at:]])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert not (tmp_path / "out").exists()


def test_an_evaluation_takes_as_many_puzzles_at_once_as_training_could(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Four micro-batches of 32 puzzles are what the memory sufficed for."""
    run = burst["Burst"](burst["parse"](words))
    (tmp_path / "out" / "state").mkdir(parents=True)
    (tmp_path / "out" / "state" / "state.json").write_text('{"micro_batches": 4}')
    seen: list[list[str]] = []

    def script(self: Any, name: str, words: list[str], seconds: float) -> int:
        seen.append([name, *words])
        return 0

    monkeypatch.setattr(burst["Burst"], "script", script)
    burst["evaluate"](run)
    ((name, *given),) = seen
    assert name == "evaluate" and given[given.index("--batch-size") + 1] == "8"
    assert "--measure-only" in given and "--compile" not in given
    burst["train"](run)
    assert "--auto-batch" in seen[1] and seen[1][seen[1].index("--device") + 1] == "cpu"


# packing


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The folder of a state with two parts, and what a save that was cut short has left."""
    folder = tmp_path / "state"
    folder.mkdir()
    names = ["step-000020-0.safetensors", "step-000020-1.safetensors"]
    for name in [*names, "step-000030-0.safetensors", ".step-000030-1.safetensors.x.partial"]:
        (folder / name).write_bytes(name.encode())
    (folder / "state.json").write_text(json.dumps({"files": dict.fromkeys(names, "")}))
    (folder / "metrics.jsonl").write_text("{}\n")
    (tmp_path / "train.log").write_text("log")
    return folder


def test_a_packed_state_is_unpacked_as_it_was(state: Path, tmp_path: Path):
    before = {path.name: path.read_bytes() for path in state.iterdir() if "000030" not in path.name}
    remain = packing["pack"](state, [tmp_path / "train.log"])
    assert sorted(path.name for path in state.iterdir()) == sorted(path.name for path in remain)
    assert len(remain) == 3
    packing["unpack"](state, tmp_path / "there")
    after = {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()}
    assert after == {**before, "train.log": b"log"}
    with pytest.raises(UserError, match="is not empty: name a new folder"):
        packing["unpack"](state, tmp_path / "there")
    with pytest.raises(UserError, match="no state to pack"):
        packing["pack"](state)


@pytest.mark.parametrize(
    ("limit", "told"), [({"MOST_FILES": 2}, "3 files are more"), ({"MOST_BYTES": 20}, "MiB are")]
)
def test_what_does_not_fit_is_left_as_it_is(
    state: Path, limit: dict[str, int], told: str, monkeypatch: pytest.MonkeyPatch
):
    before = {path.name: path.read_bytes() for path in state.iterdir()}
    for name, value in limit.items():
        monkeypatch.setitem(packing["pack"].__globals__, name, value)
    with pytest.raises(UserError, match=told):
        packing["pack"](state)
    assert {path.name: path.read_bytes() for path in state.iterdir()} == before


@pytest.mark.parametrize("name", ["../escaped", "/tmp/absolute", "folder/file"])
def test_an_archive_that_leaves_its_folder_is_refused(tmp_path: Path, name: str):
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed" / "logs.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(UserError, match="is no log of a state"):
        packing["unpack"](tmp_path / "packed", tmp_path / "to")
    (tmp_path / "packed" / "logs.tar.gz").write_bytes(b"not an archive")
    with pytest.raises(UserError, match="damaged"):
        packing["unpack"](tmp_path / "packed", tmp_path / "to")


# smoke


def test_the_smoke_test_names_what_it_measures(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(smoke["smoke"].__globals__, "TIMED", 2)
    files = ["--train", str(data / "train.txt"), "--val", str(data / "val.txt")]
    tiny = [*files, "--preset", "tiny", "--val-limit", "20", "--set", "batch_size=8"]
    monkeypatch.setattr("sys.argv", ["smoke.py", *tiny, "--device", "cpu"])
    smoke["main"]()
    numbers = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert numbers["device"] == "cpu" and numbers["puzzles"] == 200 and not numbers["compiled"]
    assert numbers["steps per s"] > 0 and numbers["micro-batches"] == 1
    assert 0 < numbers["first loss per cell"] < 10
    assert len(numbers["files of the packed state, MB"]) == 2


def test_a_smoke_test_never_takes_the_cpu_by_itself(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    files = ["--train", str(data / "train.txt"), "--val", str(data / "val.txt")]
    for words, told in (([], "sees no CUDA device"), (["--device", "auto"], "name cuda or cpu")):
        monkeypatch.setattr("sys.argv", ["smoke.py", *files, "--preset", "tiny", *words])
        with pytest.raises(SystemExit):
            smoke["main"]()
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line


def test_too_little_memory_in_the_smoke_test_is_micro_batches(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A device that holds three puzzles at once."""
    import torch

    from trm_interp.core.models.base import RecursiveModel

    forward: Callable[..., Any] = RecursiveModel.forward

    def small(self: RecursiveModel, state: Any, *rest: Any, **more: Any) -> Any:
        if torch.is_grad_enabled() and len(state[0]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, state, *rest, **more)

    monkeypatch.setattr(RecursiveModel, "forward", small)
    monkeypatch.setitem(smoke["smoke"].__globals__, "TIMED", 2)
    files = ["--train", str(data / "train.txt"), "--val", str(data / "val.txt")]
    tiny = [*files, "--preset", "tiny", "--val-limit", "20", "--set", "batch_size=8"]
    assert smoke["smoke"]([*tiny, "--device", "cpu"])["micro-batches"] == 4
    assert "going on with 4 micro-batches" in capsys.readouterr().out
