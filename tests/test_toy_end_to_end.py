"""An architecture and a task that only the tests have go through the commands as ours do.

Neither is named anywhere in the package: what a command needs of them, it asks of the two seams.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy_architecture  # noqa: F401  registers "toy"
from conftest import Answer
from toy_task import BLANK, HEADER, SQUARES, Latin

from trm_interp.tasks.base import PuzzleSet

CELLS = 9


def write_puzzles(path: Path, blanks: list[list[int]]) -> Path:
    """A file of Latin squares, the n-th with these cells blank."""
    task = Latin()
    labels = SQUARES[np.arange(len(blanks)) % len(SQUARES)]
    inputs = labels.copy()
    for row, cells in enumerate(blanks):
        inputs[row, cells] = BLANK
    lines = np.arange(len(blanks))
    Latin.save(path, PuzzleSet(task, inputs, labels, lines, str(path), {}))
    return path


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, cli: Callable[..., Answer]
) -> Iterator[dict[str, Path]]:
    """A toy that was trained on toy puzzles, and a store of its runs."""
    folder = tmp_path_factory.mktemp("toy")
    train = write_puzzles(folder / "train.txt", [[i % CELLS] for i in range(12)])
    val = write_puzzles(folder / "val.txt", [[i % CELLS, (i + 4) % CELLS] for i in range(12)])
    files = {"train": train, "val": val, "ckpt": folder / "run", "store": folder / "store"}
    done(
        cli(
            "train",
            "--architecture",
            "toy",
            "--d-model",
            16,
            "--train",
            train,
            "--val",
            val,
            "--out",
            files["ckpt"],
            "--train-steps",
            60,
            "--batch-size",
            12,
            "--n-sup",
            3,
            "--lr",
            0.01,
            "--warmup",
            0,
            "--weight-decay",
            0,
            "--ema",
            0.5,
            "--eval-every",
            30,
            "--save-every",
            30,
        )
    )
    done(
        cli(
            "collect",
            *model(files),
            "--out",
            files["store"],
            "--steps",
            3,
            "--sites",
            "slow,fast,embed,logits,inner.hook_mixed",
        )
    )
    yield files


def model(world: dict[str, Path]) -> list[object]:
    return ["--ckpt", world["ckpt"], "--puzzles", world["val"]]


def done(answer: Answer) -> str:
    assert answer.code == 0, answer.err
    return answer.out


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_train_and_eval(world, cli):
    card = json.loads((world["ckpt"] / "card.json").read_text())
    assert card["task"] == "latin3" or card["train"]["task"] == "latin3"
    table = json.loads(done(cli("eval", *model(world), "--steps", 3, "--json")))
    assert table["n"] == 12 and len(table["exact_at_step"]) == 3
    assert (world["val"].read_text().splitlines()[0]) == HEADER


def test_info_names_architecture_and_task(world, cli):
    for path in (world["ckpt"], world["store"]):
        known = json.loads(done(cli("info", path, "--json")))
        text = json.dumps(known)
        assert "toy" in text and "latin3" in text and "fast" in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("outcomes", ["--steps", 3]),
        ("losses", ["--steps", 3]),
        ("settling", ["--steps", 5, "--long", 0]),
        ("stability", ["--steps", 5, "--exponents", 2, "--sample", 2, "--fixed", 1]),
        (
            "basins",
            [
                "--starts",
                8,
                "--neighbours",
                2,
                "--slice",
                3,
                "--steps",
                3,
                "--n-puzzles",
                1,
                "--shuffles",
                9,
            ],
        ),
    ],
)
def test_studies_of_a_checkpoint(world, cli, tmp_path, name, words):
    done(cli(name, *model(world), *words, "--out", tmp_path / "out"))
    assert summary(tmp_path / "out")["written"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("trajectories", []),
        ("trajectories", ["--site", "fast"]),
        ("lens", []),
        ("probes", ["--cycles", "0,3"]),
    ],
)
def test_studies_of_a_store(world, cli, tmp_path, name, words):
    done(cli(name, world["store"], *words, "--out", tmp_path / "out"))
    assert summary(tmp_path / "out")["written"]


def test_search(world, cli, tmp_path):
    out = tmp_path / "t.csv"
    words = ["--k", 3, "--steps", 3, "--sigma", 0.5, "--target", "fast", "--symmetry"]
    done(cli("search", *model(world), *words, "--out", out))
    assert len(pd.read_csv(out)) > 0
    assert json.loads((tmp_path / "t.json").read_text())["summary"]["n"] == 12


def test_solve(world, cli):
    answer = json.loads(
        done(cli("solve", ".BC|BCA|CAB", "--ckpt", world["ckpt"], "--steps", 2, "--k", 4, "--json"))
    )
    assert answer["n"] == 1


def test_sae(world, cli, tmp_path):
    sae = tmp_path / "sae"
    done(
        cli(
            "train-sae",
            world["store"],
            "--site",
            "fast",
            "--out",
            sae,
            "--train-steps",
            3,
            "--expansion",
            2,
            "--batch-size",
            16,
            "--buffer-mb",
            1,
        )
    )
    done(cli("sae-eval", sae, world["store"], "--limit", 4))
