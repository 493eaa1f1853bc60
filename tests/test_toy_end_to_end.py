"""Every architecture goes through the commands, with a task that only the tests have.

Two of them only the tests have, too, and are named nowhere in the package: what a command needs, it
asks of the two seams. The second has halting, losses, identifiers and sites of its own. Those that
ship are trained for a few steps.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import toy_architecture  # noqa: F401  registers "toy"
import toy_two_networks  # noqa: F401  registers "duo"
from conftest import Answer
from toy_task import BLANK, HEADER, SQUARES, Latin

from trm_interp.core.models.registry import architecture, config_class, names
from trm_interp.recording.store import Store
from trm_interp.tasks.base import PuzzleSet

CELLS = 9
TOYS = ("toy", "duo")
SITES = {
    "toy": "slow,fast,embed,logits,inner.hook_mixed",
    "duo": "states,embed,logits,inner.hook_mixed,hook_out",
}
SMALLEST = {"d_model": 16, "n_heads": 2, "multiple": 8, "n_layers": 1, "prefix": 1}
SMALLEST |= {"h_cycles": 2, "l_cycles": 2}


def latent(name: str) -> str:
    return architecture(name).latent


def inner_site(name: str) -> str:
    """A place inside the evaluations of an architecture."""
    return "inner.hook_mixed" if name in TOYS else "blocks.0.hook_mlp_out"


def smallest(name: str) -> list[object]:
    """Options of a small model: `SMALLEST`, as far as the architecture has these settings."""
    if name in TOYS:
        return ["--d-model", 16]
    kind: Any = config_class(name)
    own = [f.name for f in fields(kind) if f.name in SMALLEST]
    return [word for of in own for word in (f"--{of.replace('_', '-')}", SMALLEST[of])]


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


@pytest.fixture(scope="module", params=names())
def name(request: pytest.FixtureRequest) -> str:
    """Of the architecture."""
    return request.param


@pytest.fixture(scope="module")
def world(
    name: str, tmp_path_factory: pytest.TempPathFactory, cli: Callable[..., Answer]
) -> Iterator[dict[str, Path]]:
    """A toy that was trained on toy puzzles, stopped half way and resumed; a store of its runs."""
    folder = tmp_path_factory.mktemp(name)
    train = write_puzzles(folder / "train.txt", [[i % CELLS] for i in range(12)])
    val = write_puzzles(folder / "val.txt", [[i % CELLS, (i + 4) % CELLS] for i in range(12)])
    files = {"train": train, "val": val, "ckpt": folder / "run", "store": folder / "store"}
    words = ["--architecture", name, *smallest(name), "--train", train, "--val", val]
    words += ["--batch-size", 12, "--n-sup", 3, "--lr", 0.01, "--warmup", 0, "--weight-decay", 0]
    half = 30 if name in TOYS else 2
    words += ["--ema", 0.5, "--eval-every", half, "--save-every", half, "--out", files["ckpt"]]
    words += ["--log-every", 2]
    done(cli("train", *words, "--train-steps", half))
    done(cli("train", *words, "--train-steps", 2 * half, "--resume"))
    done(
        cli(
            "collect",
            *model(files),
            "--out",
            files["store"],
            "--steps",
            3,
            "--sites",
            SITES.get(name, f"states,embed,logits,{inner_site(name)}"),
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


def test_what_an_architecture_has_of_its_own_is_kept(name, world):
    config = json.loads((world["ckpt"] / "config.json").read_text())
    has_identifiers = "n_identifiers" in {f.name for f in fields(config_class(name))}  # type: ignore
    assert config.get("n_identifiers") == (3 if has_identifiers else None)
    rows = [json.loads(row) for row in (world["ckpt"] / "metrics.jsonl").read_text().splitlines()]
    assert any("size_loss" in row for row in rows) == (name == "duo")
    with Store(world["store"]) as store:
        assert ("q_continue" in store.names) == architecture(name).has_q_continue
        assert ("identifier" in store.names) == has_identifiers
        if not (has_identifiers and architecture(name).has_q_continue):
            return
        assert store["identifier"][:].tolist() == (store["puzzle_id"][:] % 3).tolist()
        halts = store["q_halt"][:] > store["q_continue"][:]
        first = np.where(halts.any(1), halts.argmax(1), -1)
        np.testing.assert_array_equal(store["halt_step"][:], first)
        assert "q_continue" in store.frame().columns
        if name != "duo":
            return
        # work is written twice a cycle and listened at in two places, plan once and in one
        assert store["inner.hook_mixed"].shape == (12, 3, 2, 2, CELLS, 16)
        assert store["hook_out"].shape == (12, 3, 2, 3, CELLS, 16)
        written = np.tanh(store["hook_out"][:, :, :, 1].astype(np.float64))
        np.testing.assert_allclose(written, store["work"][:, :, :, 1], atol=2e-3)
        written = np.tanh(store["hook_out"][:, :, :, 2].astype(np.float64))
        np.testing.assert_allclose(written, store["plan"][:], atol=2e-3)


def test_info_names_architecture_and_task(name, world, cli):
    for path in (world["ckpt"], world["store"]):
        description = json.loads(done(cli("info", path, "--json")))
        text = json.dumps(description)
        assert name in text and "latin3" in text and latent(name) in text


@pytest.mark.parametrize(
    ("study", "words"),
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
def test_studies_of_a_checkpoint(world, cli, tmp_path, study, words):
    done(cli(study, *model(world), *words, "--out", tmp_path / "out"))
    assert summary(tmp_path / "out")["written"]


@pytest.mark.parametrize(
    ("study", "words"),
    [
        ("trajectories", []),
        ("trajectories", ["--site", "latent"]),
        ("trajectories", ["--site", "inner"]),
        ("lens", []),
        ("probes", ["--cycles", "0,2"]),
    ],
)
def test_studies_of_a_store(name, world, cli, tmp_path, study, words):
    words = [inner_site(name) if word == "inner" else word for word in words]
    done(cli(study, world["store"], *words, "--out", tmp_path / "out"))
    assert summary(tmp_path / "out")["written"]


def test_search(name, world, cli, tmp_path):
    out = tmp_path / "t.csv"
    words = ["--k", 3, "--steps", 3, "--sigma", 0.5, "--target", latent(name)]
    words += ["--symmetry", "--stop", "q"]
    done(cli("search", *model(world), *words, "--out", out))
    assert len(pd.read_csv(out)) > 0
    assert json.loads((tmp_path / "t.json").read_text())["summary"]["n"] == 12


def test_solve(world, cli):
    answer = json.loads(
        done(cli("solve", ".BC|BCA|CAB", "--ckpt", world["ckpt"], "--steps", 2, "--k", 4, "--json"))
    )
    assert answer["n"] == 1


def test_sae(name, world, cli, tmp_path):
    sae = tmp_path / "sae"
    done(
        cli(
            "train-sae",
            world["store"],
            "--site",
            latent(name),
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
