"""A whole in parts: shards of every command merge to what one process writes, byte for byte."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import trm_interp.recording.collect
import trm_interp.studies.lens
import trm_interp.studies.trajectories
from trm_interp.core.checkpoints.folder import load_checkpoint, save_checkpoint
from trm_interp.core.models.trm import TRM
from trm_interp.recording.manifest import Manifest

Cli = Callable[..., Any]

SMALL: dict[str, list[object]] = {
    "eval": ["--limit", 10, "--batch-size", 2, "--steps", 2],
    "search": ["--limit", 10, "--batch-size", 1, "--steps", 2, "--k", 3],
    "collect": ["--limit", 10, "--batch-size", 2, "--steps", 1],
    "basins": [
        *["--limit", 4, "--n-puzzles", 2, "--starts", 12, "--batch-size", 4, "--steps", 2],
        *["--neighbours", 2, "--shuffles", 3, "--slice", 2, "--shown", 2],
    ],
    "losses": ["--limit", 10, "--batch-size", 2, "--steps", 1],
    "origins": [
        *["--limit", 3, "--batch-size", 2, "--copies", 2, "--starts", 2, "--steps", 1],
    ],
    "trace": [
        *["--starts", 3, "--steps", 4, "--then", 2, "--sigma", 4],
        *["--pairs", 3, "--exact", 1, "--batch-size", 4],
    ],
    "used": ["--limit", 8, "--steps", 2, "--random", 1, "--batch-size", 4],
    "spread": ["--steps", 1, "--n-cells", 1, "--batch-size", 4, "--limit", 8],
    "settling": ["--limit", 6, "--steps", 5, "--long", 6, "--batch-size", 2],
    "stability": [
        *["--limit", 6, "--steps", 5, "--fixed", 1, "--exponents", 1, "--batch-size", 2],
    ],
    "robustness": [
        *["--limit", 6, "--steps", 1, "--then", 2, "--epsilons", 1, "--batch-size", 2],
        *["--draws", 1, "--starts", 1, "--iterations", 1],
    ],
    "internalisation": ["--limit", 6, "--steps", 1, "--caps", "0,1", "--batch-size", 2],
    "outcomes": ["--limit", 10, "--batch-size", 3, "--steps", 2],
}
SMALL_SAE = ["--train-steps", 3, "--expansion", 2, "--batch-size", 16, "--buffer-mb", 1]
TABLE = {"eval": "t.csv", "search": "t.csv"}  # what is written where it is no folder


def words(name: str, copier: Path, grids: Path) -> list[object]:
    return [name, "--ckpt", copier, "--puzzles", grids, "--device", "cpu", *SMALL[name]]


def done(cli: Cli, *words: object) -> str:
    answer = cli(*words)
    assert answer.code == 0, answer.err
    return answer.out


def refused(cli: Cli, *words: object) -> str:
    answer = cli(*words)
    assert answer.code == 2 and answer.err.count("error:") == 1, answer
    return answer.err.splitlines()[-1]


def in_shards(cli: Cli, line: list[object], folder: Path, of: int = 3) -> list[Path]:
    places = [folder / f"part-{i}" for i in range(1, of + 1)]
    for i, place in enumerate(places, 1):
        assert f"shard {i}/{of}" in done(cli, *line, "--shard", f"{i}/{of}", "--out", place)
    return places


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


FAST = ("eval", "search", "collect", "basins", "losses", "origins")


@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in SMALL],
)
def test_three_shards_merge_to_the_bytes_of_one_process(
    cli: Cli, copier: Path, grids: Path, name: str, tmp_path: Path, monkeypatch: Any
):
    monkeypatch.setattr(trm_interp.recording.collect, "plan_shards", lambda *sizes: 2)
    line = words(name, copier, grids)
    whole, merged = tmp_path / "a", tmp_path / "b"
    places = in_shards(cli, line, tmp_path)
    to = TABLE.get(name, "out")
    option = "--csv" if name == "eval" else "--out"
    outputs = []
    for folder, command in (
        (whole, [*line, option, to]),
        (merged, ["merge", *reversed(places), "--out", to]),
    ):
        folder.mkdir()
        monkeypatch.chdir(folder)  # so that what is recorded of the place is the same
        outputs.append(done(cli, *command))
    assert outputs[0] == outputs[1]
    assert files(whole) == files(merged) and len(files(whole)) > 0


@pytest.fixture(scope="module")
def recorded(
    cli: Cli, copier: Path, grids: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A store of ten puzzles, and an SAE of three training steps on it."""
    folder = tmp_path_factory.mktemp("recorded")
    store, sae = folder / "store", folder / "sae"
    words_of = words("collect", copier, grids)
    done(cli, *words_of, "--steps", 2, "--out", store)
    done(cli, "train-sae", store, "--site", "z_H", "--out", sae, "--device", "cpu", *SMALL_SAE)
    return {"STORE": store, "SAE": sae, "CKPT": copier, "GRIDS": grids}


READING: dict[str, str] = {  # of a store, an SAE or two checkpoints
    "lens": "STORE --ckpt CKPT",
    "trajectories": "STORE",
    "divergence": "STORE --ckpt CKPT --starts 24 --tries 4 --control-puzzles 2",
    "probes": "STORE --ckpt CKPT --cycles 0-3",
    "stitch": "CKPT CKPT --puzzles GRIDS --limit 2 --fit 2 --steps 1 --link-steps 2 --batch-size 2",
    "steer": "SAE STORE --ckpt CKPT --feature 1 --controls 3 --all-puzzles",
    "circuits": "SAE STORE --ckpt CKPT --all-puzzles --top 2 --controls 1 --batch-size 4",
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name == "lens" else name for name in READING],
)
def test_shards_of_recorded_runs_merge_to_the_bytes_of_one_process(
    cli: Cli, recorded: dict[str, Path], name: str, tmp_path: Path, monkeypatch: Any
):
    monkeypatch.setattr(trm_interp.studies.lens, "TOGETHER", 3)
    monkeypatch.setattr(trm_interp.studies.trajectories, "TOGETHER", 3)
    line = [name, *(recorded.get(word, word) for word in READING[name].split()), "--device", "cpu"]
    if name == "trajectories":
        line = line[:-2]
    places = in_shards(cli, line, tmp_path)
    own = [json.loads((place / "shard.json").read_text())["pieces"] for place in places]
    assert sum(map(len, own)) >= 3 and min(map(len, own)) > 0
    whole, merged = tmp_path / "a", tmp_path / "b"
    outputs = []
    for folder, command in ((whole, line), (merged, ["merge", *places])):
        folder.mkdir()
        monkeypatch.chdir(folder)
        outputs.append(done(cli, *command, "--out", "out.json" if name == "steer" else "out"))
    assert outputs[0] == outputs[1]
    assert files(whole) == files(merged) and len(files(whole)) > 0


@pytest.fixture(scope="module")
def parts(
    cli: Cli, copier: Path, grids: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """Both shards of an evaluation."""
    return in_shards(cli, words("eval", copier, grids), tmp_path_factory.mktemp("parts"), 2)


def test_merge_refuses_what_is_not_one_whole(
    cli: Cli, copier: Path, grids: Path, parts: list[Path], tmp_path: Path
):
    first, second = parts
    line = words("eval", copier, grids)
    assert "shard 2/2 is missing" in refused(cli, "merge", first)
    twin, seeded, third = (tmp_path / name for name in ("twin", "seeded", "third"))
    shutil.copytree(first, twin)
    message = refused(cli, "merge", first, twin, second)
    assert message == f"error: {first} and {twin} are both shard 1/2"
    done(cli, *line, "--steps", 1, "--shard", "2/2", "--out", seeded)
    message = refused(cli, "merge", first, seeded)
    assert "is of another whole" in message and "steps (2 there, 1 now)" in message
    done(cli, *line, "--shard", "3/3", "--out", third)
    assert "shards (2 there, 3 now)" in refused(cli, "merge", first, third)
    (twin / "shard.json").unlink()
    assert f"{twin} is unfinished" in refused(cli, "merge", twin, second)
    assert "several versions" not in cli("merge", first, second).err
    record = json.loads((first / "shard.json").read_text())
    record["versions"]["torch"] = "1.0"
    other = tmp_path / "other"
    shutil.copytree(first, other)
    (other / "shard.json").write_text(json.dumps(record))
    answer = cli("merge", other, second)  # is told, and merged
    assert answer.code == 0 and f"(torch 1.0, {torch.__version__}): last bits" in answer.err
    message = refused(cli, *line, "--shard", "1/2", "--csv", "t.csv", "--out", tmp_path / "table")
    assert "--csv is of the whole, not of a shard" in message and "`merge` as --out" in message
    assert "is no folder of a shard" in refused(cli, "merge", grids.parent, second)
    assert "is no folder of a shard" in refused(cli, "merge", tmp_path / "nowhere")


def test_merge_refuses_other_weights_and_damaged_pieces(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path
):
    own = tmp_path / "ckpt"
    shutil.copytree(copier, own)
    line = words("eval", own, grids)
    first, second = in_shards(cli, line, tmp_path, 2)
    (piece, *_) = sorted((first / "pieces").glob("*.npz"))
    whole = piece.read_bytes()
    piece.write_bytes(whole[:-9])
    message = refused(cli, "merge", first, second)
    assert f"{piece} was altered" in message and "--resume" in message
    done(cli, *line, "--shard", "1/2", "--out", first, "--resume")
    assert piece.read_bytes() == whole
    model = load_checkpoint(own).model
    other = TRM(replace(model.config, h_cycles=model.config.h_cycles + 1))
    other.load_state_dict(model.state_dict())
    save_checkpoint(own, other, {})  # the weights are the same, and their sha256
    assert f"settings of {own}.h_cycles (" in refused(cli, "merge", first, second)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    save_checkpoint(own, model, {})
    message = refused(cli, "merge", first, second)
    assert f"checkpoint {own}" in message and "merge with what the shards were made with" in message
    message = refused(cli, *line, "--shard", "1/2", "--out", first, "--resume")
    assert f"checkpoint {own}" in message


@pytest.mark.parametrize("text", ["0/4", "5/4", "a/b", "1/0", "2"])
def test_a_shard_that_cannot_be(cli: Cli, copier: Path, grids: Path, text: str, tmp_path: Path):
    line = words("outcomes", copier, grids)
    message = refused(cli, *line, "--shard", text, "--out", tmp_path / "a")
    assert "--shard must be i/n" in message and repr(text) in message
    assert not (tmp_path / "a").exists()


def test_a_shard_of_divergence_without_starts_has_nothing_to_divide(
    cli: Cli, recorded: dict[str, Path], tmp_path: Path
):
    on = ["divergence", recorded["STORE"], "--starts", 0, "--out", tmp_path / "a"]
    assert "--starts 0 has none" in refused(cli, *on, "--shard", "1/2")


def test_a_full_disk_is_one_line_and_the_shard_goes_on(
    cli: Cli, copier: Path, grids: Path, parts: list[Path], tmp_path: Path, monkeypatch: Any
):
    line = [*words("eval", copier, grids), "--shard", "1/2", "--out", tmp_path / "full"]
    saved, calls = np.savez, []

    def full(stream: Any, **arrays: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        saved(stream, **arrays)

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        assert "the disk is full" in refused(cli, *line)
    assert "exists: use --resume" in refused(cli, *line)
    done(cli, *line, "--resume")
    assert files(tmp_path / "full" / "pieces").keys() == files(parts[0] / "pieces").keys()
    done(cli, "merge", tmp_path / "full", parts[1])


def test_files_are_moved_only_once_they_are_listed(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path, monkeypatch: Any
):
    """A merge that is killed between a file and the manifest has lost none of them."""
    monkeypatch.setattr(trm_interp.recording.collect, "plan_shards", lambda *sizes: 2)
    places = in_shards(cli, words("collect", copier, grids), tmp_path, 2)
    states = {p.name: p.read_bytes() for at in places for p in at.glob("work/shard-*.h5")}
    merge, write = ["merge", *places, "--move", "--out", tmp_path / "whole"], Manifest.write

    def killed(self: Manifest, path: Path) -> None:
        if len(self.shards) == 3:
            raise KeyboardInterrupt
        write(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "write", killed)
        # links need no room
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
        assert cli(*merge).code == 130
    done(cli, *merge, "--resume")
    moved = {p.name: p.read_bytes() for p in (tmp_path / "whole").glob("shard-*.h5")}
    assert moved == states and len(moved) == 5
    assert not [file for at in places for file in at.glob("work/shard-*.h5")]


def test_a_shard_of_a_store_says_where_it_goes_on(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path, monkeypatch: Any
):
    monkeypatch.setattr(trm_interp.recording.collect, "plan_shards", lambda *sizes: 2)
    line = [*words("collect", copier, grids), "--shard", "2/2", "--out", tmp_path / "a"]
    assert "resuming" not in cli(*line).err
    (tmp_path / "a" / "work" / "shard-00003.h5").unlink()
    assert "resuming at puzzle 6 (from 0) of 10" in cli(*line, "--resume").err


def test_what_is_pushed_is_whole(cli: Cli, copier: Path, grids: Path, tmp_path: Path):
    line = [*words("collect", copier, grids), "--shard", "1/2", "--out", tmp_path / "a"]
    to = ["--push", f"file://{tmp_path}/hub", "--licence", "mit"]
    assert "--push shares what is whole" in refused(cli, *line, *to)
    assert not (tmp_path / "a").exists()


def test_two_processes_of_torchrun_are_two_shards(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path, monkeypatch: Any
):
    monkeypatch.chdir(tmp_path)
    line = words("outcomes", copier, grids)
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*run, "-m", "trm_interp", *map(str, line), "--out", "two"]
    answer = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == done(cli, *line, "--out", "one")
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert one.keys() == two.keys() and not (tmp_path / "two.shards").exists()
    # the name of the folder is in the command line of the index
    assert [name for name in one if one[name] != two[name]] == ["index.html"]
