"""A whole in parts: shards of every command merge to what one process writes, byte for byte."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trm_interp.recording.collect

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


@pytest.mark.parametrize("name", list(SMALL))
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
