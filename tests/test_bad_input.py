"""What a user can mend: exit status 2, one line that names the file and the problem, no output."""

import json
import os
import pickle
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trm_interp.core.checkpoints.folder import load_checkpoint, save_checkpoint
from trm_interp.tasks.sudoku.forge import importing

Cli = Callable[..., Any]


@pytest.fixture
def refused(cli: Cli) -> Callable[..., str]:
    """The one line that a command says, which must name `words`; exit status 2, empty output."""

    def run(command: list[object], *words: object) -> str:
        answer = cli(*command)
        assert (answer.code, answer.out) == (2, ""), answer
        assert answer.err.count("\n") == 1 and answer.err.startswith("error: ")
        for word in words:
            assert str(word) in answer.err
        return answer.err

    return run


@pytest.fixture
def commands(copier: Path, grids: Path, tmp_path: Path) -> list[list[object]]:
    """Every command that takes a checkpoint and puzzles, without those two."""
    out = tmp_path / "out"
    return [
        ["eval", "--steps", 1, "--csv", out / "table.csv"],
        ["collect", "--steps", 1, "--out", out],
        ["quickstart", "--out", out],
        ["search", "--steps", 1, "--out", out / "table.csv"],
    ]


# checkpoints


def missing(folder: Path) -> tuple[Path, str]:
    return folder / "nowhere", "no such checkpoint"


def without_weights(folder: Path) -> tuple[Path, str]:
    (folder / "model.safetensors").unlink()
    return folder, "model.safetensors: missing"


def truncated_weights(folder: Path) -> tuple[Path, str]:
    os.truncate(folder / "model.safetensors", 3000)
    return folder, "model.safetensors: truncated or damaged"


def truncated_config(folder: Path) -> tuple[Path, str]:
    os.truncate(folder / "config.json", 40)
    return folder, "config.json: truncated or damaged"


def another_shape(folder: Path) -> tuple[Path, str]:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"d_model": 24}))
    return folder, "the configuration gives"


class Bait:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def pickle_with_code(folder: Path) -> tuple[Path, str]:
    (folder / "step_1").write_bytes(pickle.dumps(Bait(folder / "was_run")))
    return folder / "step_1", "a pickle that is not plain weights; it was not run"


def saved_list(folder: Path) -> tuple[Path, str]:
    torch.save([1, 2], folder / "step_1")
    return folder / "step_1", "holds a list, not weights"


def plain_text(folder: Path) -> tuple[Path, str]:
    (folder / "notes.txt").write_text("12.4,1234\n")
    return folder / "notes.txt", "no weights"


def empty_folder(folder: Path) -> tuple[Path, str]:
    (folder / "new").mkdir()
    return folder / "new", "no config.json"


@pytest.mark.parametrize(
    "damage",
    [
        *(missing, without_weights, truncated_weights, truncated_config, another_shape),
        *(pickle_with_code, saved_list, plain_text, empty_folder),
    ],
)
def test_bad_checkpoints(refused, commands, copier: Path, grids: Path, tmp_path: Path, damage: Any):
    folder = tmp_path / "checkpoint"
    shutil.copytree(copier, folder)
    path, problem = damage(folder)
    for command in commands:
        refused([*command, "--ckpt", path, "--puzzles", grids], folder, problem)
    refused(["info", path], path, "no such file" if damage is missing else problem)
    refused(["hooks", "--ckpt", path], path, problem)
    assert not (tmp_path / "out").exists() and not (folder / "was_run").exists()


def test_a_checkpoint_for_other_puzzles(refused, commands, copier: Path, tmp_path: Path):
    file = tmp_path / "six.txt"
    file.write_text("123456456123231564564231312645645312\n")
    for command in commands:
        refused([*command, "--ckpt", copier, "--puzzles", file], file, copier, "6x6", "16 cells")
    assert not (tmp_path / "out").exists()


# puzzles

BAD_LINES = {
    "12341234123412": "14 cells",
    "12x4............": "character 'x' at 2",
    "1234............,12": "solution has 2 cells",
    "5...............": "character '5' at 0",
    "11..............": "contradictory givens",
    "1234............": "several solutions",
    "123....4........": "no solution",  # cell 3 must be 4, which its column already has
    "1.2.,1,2": "3 fields",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_named(
    refused, cli: Cli, commands, copier: Path, grids: Path, tmp_path: Path, line: str
):
    reason = BAD_LINES[line]
    good = grids.read_text().splitlines()
    file = tmp_path / "puzzles.txt"
    file.write_text(f"# by hand\n{good[0]}\n{line}\n{good[1]}\n")
    for command in commands:
        error = refused([*command, "--ckpt", copier, "--puzzles", file], file, "1 bad line of 3")
        assert f"line 3: {reason}" in error
    assert not (tmp_path / "out").exists()
    refused(["data", "rate", file], file, f"line 3: {reason}")
    refused(["data", "import", file, "--out", tmp_path / "new.txt"], file, f"line 3: {reason}")
    assert not list(tmp_path.glob("new*"))
    words = ["--ckpt", copier, "--puzzles", file, "--steps", 1, "--skip-bad"]
    answer = cli("collect", *words, "--out", tmp_path / "out")
    assert answer.code == 0 and f"skipped line 3: {reason}" in answer.err


@pytest.mark.parametrize(
    ("content", "problem"),
    [("", "no puzzle in it"), ("\n\n", "no puzzle in it"), (None, "no such file or folder")],
)
def test_files_without_puzzles(
    refused, commands, copier: Path, tmp_path: Path, content: str | None, problem: str
):
    file = tmp_path / "puzzles.txt"
    if content is not None:
        file.write_text(content)
    for command in commands:
        refused([*command, "--ckpt", copier, "--puzzles", file], file, problem)


def test_many_bad_lines_are_counted(refused, copier: Path, tmp_path: Path):
    file = tmp_path / "puzzles.txt"
    file.write_text("11..............\n" * 9)
    words = ["eval", "--ckpt", copier, "--puzzles", file]
    error = refused(words, "9 bad lines of 9", "line 5: contradictory givens", "and 4 more")
    assert "line 6" not in error
    refused([*words, "--skip-bad"], file, "no good line among 9")


# stores


@pytest.fixture
def collect(copier: Path, grids: Path) -> list[object]:
    return ["collect", "--ckpt", copier, "--puzzles", grids, "--steps", 2]


@pytest.fixture
def store(cli: Cli, collect: list[object], tmp_path: Path) -> Path:
    assert cli(*collect, "--out", tmp_path / "store").code == 0
    return tmp_path / "store"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_existing_outputs(refused, collect: list[object], store: Path, tmp_path: Path):
    before = contents(store)
    refused([*collect, "--out", store], store, "--resume", "--overwrite")
    refused([*collect, "--out", store, "--resume", "--overwrite"], "one of --resume and")
    assert contents(store) == before
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("mine")
    refused([*collect, "--out", foreign, "--overwrite"], foreign, "holds no store")
    refused([*collect, "--out", foreign / "thesis.tex", "--overwrite"], "is a file")
    assert contents(foreign) == {"thesis.tex": b"mine"}


def test_resume_of_something_else(
    refused, collect: list[object], copier: Path, grids: Path, store: Path, tmp_path: Path
):
    before = contents(store)
    other = load_checkpoint(copier).model
    with torch.no_grad():
        other.q_head.bias += 1
    save_checkpoint(tmp_path / "other", other, {})
    fewer = tmp_path / "fewer.txt"
    fewer.write_text("".join(grids.read_text().splitlines(keepends=True)[:12]))
    for words, key in {
        ("--ckpt", tmp_path / "other"): "checkpoint_sha256",
        ("--puzzles", fewer): "data_sha256",
        ("--sites", "z_H"): "site z_L",
        ("--steps", "3"): "n_steps",
        ("--steps", "1"): "steps",
        ("--positions", "3"): "positions",
        ("--limit", 4): "limit",
        ("--batch-size", 3): "batch_size",
        ("--dtype", "bfloat16"): "dtype",
    }.items():
        refused([*collect, *words, "--out", store, "--resume"], store, key, "there", "now")
    assert contents(store) == before


def test_damaged_stores_are_named(refused, cli: Cli, collect: list[object], store: Path):
    [shard] = store.glob("shard-*.h5")
    content = shard.read_bytes()

    def report(*how: str) -> str:
        answer = cli("info", store, "--json", *how)
        [problem, *_] = json.loads(answer.out)["problems"]
        assert answer.code == 2 and answer.err.count("\n") == 1
        assert str(shard) in problem and problem in answer.err
        return problem

    def mended() -> bool:
        """Recording keeps intact shards and records the others again."""
        answer = cli(*collect, "--out", store, "--resume")
        assert answer.code == 0, answer.err
        assert f"{shard} is missing or damaged: recording its puzzles again" in answer.err
        return cli("info", store, "--validate").code == 0

    shard.write_bytes(content[:-100])
    assert "bytes instead of" in report()
    assert mended()
    content = shard.read_bytes()
    middle = len(content) // 2
    shard.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    assert cli("info", store).code == 0  # a quick look does not read all of it
    assert "was altered" in report("--validate")
    shard.unlink()
    assert "is missing" in report()
    assert mended()
    (store / "manifest.json").write_text('{"format"')
    refused(["info", store], store / "manifest.json", "is damaged")


def test_a_full_disk_is_noticed_first(
    refused, collect: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = namedtuple("usage", "total used free")
    # 2 steps of 4 z_L and 2 z_H states of 18 x 16 float16: 6912 bytes for each of 13 puzzles
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 13 * 6912 - 1))
    refused([*collect, "--out", tmp_path / "new" / "store"], tmp_path, "needs", "free")
    assert not (tmp_path / "new" / "store").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 0))
    refused(["collect", *collect[1:], "--out", tmp_path / "other"], "free")


# options


@pytest.mark.parametrize("value", [0, -1])
def test_sizes_start_at_1(refused, cli: Cli, copier: Path, grids: Path, tmp_path: Path, value: int):
    both, out = ["--ckpt", copier, "--puzzles", grids], tmp_path / "out"
    for command, options in {
        ("eval",): ("steps", "batch-size", "limit"),
        ("collect", "--out", out): ("steps", "batch-size", "limit"),
        ("quickstart", "--out", out): ("limit", "record"),
        ("search", "--out", out / "t.csv"): ("k", "steps", "batch-size", "limit"),
    }.items():
        for option in options:
            error = refused([*command, *both, f"--{option}", value])
            assert f"error: --{option}" in error and str(value) in error
    assert cli("hooks", "--ckpt", copier, "--steps", value).code == 2
    assert not out.exists()


@pytest.mark.parametrize("text", ["", "x", "1,,2", "3-1", "0-", "-", "1.5", "0..3"])
def test_bad_steps_and_positions(refused, collect: list[object], tmp_path: Path, text: str):
    for option in ("steps", "positions"):
        refused([*collect, f"--{option}", text, "--out", tmp_path / "out"], f"{option}: ")
    assert not (tmp_path / "out").exists()


def test_what_the_model_does_not_have(refused, collect: list[object], tmp_path: Path):
    out = ["--out", tmp_path / "out"]
    expected = "no site 'z_Q'", "such as blocks.1.", "hook_mlp_out"
    refused([*collect, *out, "--sites", "z_L,z_Q"], *expected)
    refused([*collect, *out, "--sites", "blocks.2.hook_mlp_out"], "no site")
    refused([*collect, *out, "--positions", "0,18"], "0..17", "18")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_cuda(refused, commands, copier: Path, grids: Path, tmp_path: Path):
    train = ["train", "--train", grids, "--val", grids, "--out", tmp_path / "out"]
    for command in (*([*c, "--ckpt", copier, "--puzzles", grids] for c in commands), train):
        refused([*command, "--device", "cuda"], "--device cuda", "--device cpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["eval", "--ckpt", "a", "--puzzles", "b", "--stepz", "3"],
        ["collect", "--ckpt", "a"],
        ["eval", "--ckpt", "a", "--puzzles", "b", "--steps", "three"],
        ["collect", "--ckpt", "a", "--puzzles", "b", "--out", "c", "--device", "tpu"],
        ["colect"],
        ["data", "mak"],
    ],
)
def test_typos_end_in_one_line(cli: Cli, words: list[str]):
    answer = cli(*words)
    assert answer.code == 2 and answer.out == ""
    assert answer.err.startswith("error: ") and answer.err.count("\n") == 1


# data


def test_data_commands(refused, cli: Cli, grids: Path, tmp_path: Path):
    refused(["data", "make", "sudoku5", "--out", tmp_path / "a"], "sudoku5", "sudoku4, sudoku6")
    refused(["data", "download", "sudoku-easy"], "sudoku-easy")
    refused(["data", "rate", tmp_path / "none.txt"], tmp_path / "none.txt", "no such file")
    out = tmp_path / "made.txt"
    assert cli("data", "import", grids, "--out", out).code == 0
    refused(["data", "import", grids, "--out", out], out, "--overwrite")
    assert not (tmp_path / "a").exists()


def test_download_without_a_network(refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    def offline(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("Name or service not known\nmore that nobody needs")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    words = ["data", "download", "sudoku-extreme", "--out", tmp_path / "data"]
    refused(words, importing.HUB, "Name or service not known")
    refused(["info", "hf://owner/repo"], "hf://owner/repo", "Name or service not known")
