"""ARC through every command: train, eval, collect, studies, SAE, dashboard, solve.

The checkpoint is trained for seconds on pairs whose output is their input, always the same, or what
cannot be known, so that it solves some and fails others. A public checkpoint with a table of
identifiers is a file made here.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arc_puzzles import TURNED
from conftest import Answer
from published import public_state

from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.recording.store import Store
from trm_interp.subjects.identifiers import with_identifiers
from trm_interp.subjects.opening import open_both, read_for
from trm_interp.tasks.arc.augmentations import Augmentation
from trm_interp.tasks.arc.grid import encode
from trm_interp.tasks.arc.task import Arc
from trm_interp.tasks.base import PuzzleSet

Cli = Callable[..., Answer]
SIDE, STEPS = 4, 2
SMALL = ["--preset", "arc-small", "--d-model", 32, "--n-heads", 2, "--multiple", 8, "--n-layers", 1]
SMALL += ["--l-cycles", 2, "--n-sup", 2, "--batch-size", 32, "--train-steps", 100, "--ema", 0.8]
SMALL += ["--lr", 0.01, "--warmup", 0, "--prefix-lr", 0.05, "--prefix-decay", 0]
SMALL += ["--muon-lr", 0.02, "--muon-decay", 0.005, "--rope-base", 10000]
SMALL += ["--eval-every", 100, "--no-compile", "--dtype", "float32", "--device", "cpu"]


def pairs(seed: int, n: int = 4) -> PuzzleSet:
    """Of three tasks: to copy a grid of two cells, to draw the same one always, and to guess."""
    rng = np.random.default_rng(seed)
    inputs, labels, names, own = [], [], [], []
    for number, (task, augmentation) in enumerate(
        (task, augmentation)
        for task in ("copy", "same", "guess")
        for augmentation in (Augmentation(), TURNED)
    ):
        for _ in range(n):
            grid = rng.integers(1, 4, size=(1, 2)).astype(np.uint8)
            hidden = rng.integers(1, 4, size=(1, 2)).astype(np.uint8)
            output = {"copy": grid, "same": np.full((1, 2), 3, np.uint8), "guess": hidden}[task]
            inputs.append(encode(augmentation.apply(grid), SIDE))
            labels.append(encode(augmentation.apply(output), SIDE))
            names.append(augmentation.name(task))
            own.append(1 + number)
    return PuzzleSet(
        Arc(SIDE), np.stack(inputs), np.stack(labels), np.arange(len(own)) + 2, "made", {},
        given_identifiers=np.array(own), names=np.array(names),
    )  # fmt: skip


def done(answer: Answer) -> str:
    assert answer.code == 0, answer.err
    return answer.out


@pytest.fixture(scope="module")
def files(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pairs, a checkpoint trained on others of the same tasks, a store of its runs, an SAE."""
    folder = tmp_path_factory.mktemp("arc")
    names = ("train.csv", "val.csv", "run", "store", "sae")
    made = {name.partition(".")[0]: folder / name for name in names}
    Arc.save(made["train"], pairs(1, 12))
    Arc.save(made["val"], pairs(2))
    done(cli("train", "--train", made["train"], "--val", made["val"], *SMALL, "--out", made["run"]))
    done(cli("collect", *model(made), "--steps", STEPS, "--out", made["store"]))
    small = ["--train-steps", 3, "--expansion", 2, "--batch-size", 16, "--buffer-mb", 1]
    done(cli("train-sae", made["store"], "--site", "z_L", *small, "--out", made["sae"]))
    return made


def model(files: dict[str, Path]) -> list[object]:
    return ["--ckpt", files["run"], "--puzzles", files["val"]]


def summary(cli: Cli, *words: Any, out: Path) -> dict[str, Any]:
    return json.loads(done(cli(*words, "--out", out, "--json")))


def test_train_and_eval(cli: Cli, files: dict[str, Path]):
    rows = [json.loads(row) for row in (files["run"] / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.7 * losses[0]
    assert json.loads((files["run"] / "card.json").read_text())["task"] == "arc4"
    assert json.loads((files["run"] / "config.json").read_text())["n_identifiers"] == 7
    table = json.loads(done(cli("eval", *model(files), "--steps", STEPS, "--json")))
    assert 0.4 <= table["exact_at_step"][-1] < 1  # what is copied, little of what is guessed
    shares = table["further_scores_at_step"]
    assert set(shares) == {"pass@1", "pass@2", "right shape"}
    assert all(len(of) == STEPS and all(0 <= x <= 1 for x in of) for of in shares.values())
    drawn = done(cli("eval", *model(files), "--steps", STEPS))
    assert "pass@1 %" in drawn and "as the task's benchmark counts" in drawn


def test_the_controls_of_identifiers(cli: Cli, files: dict[str, Path], tmp_path: Path):
    checkpoint, puzzles = open_both(str(files["run"]), files["val"], torch.device("cpu"))
    config, own = checkpoint.model.config, puzzles.identifiers
    assert own is not None and own.tolist() == np.repeat([1, 2, 3, 4, 5, 6], 4).tolist()
    blank, swapped = (
        with_identifiers(puzzles, w, config).identifiers for w in ("blank", "swapped")
    )
    assert blank is not None and not blank.any()
    assert swapped is not None and swapped.tolist() == np.repeat([4, 5, 6, 1, 2, 3], 4).tolist()
    curves = {}
    for which in ("true", "blank", "swapped"):
        words = ["eval", *model(files), "--steps", STEPS, "--identifiers", which, "--json"]
        curves[which] = json.loads(done(cli(*words)))
        assert curves[which].get("identifiers", "true") == which
    exact = {which: curve["exact_at_step"][-1] for which, curve in curves.items()}
    assert exact["true"] > exact["swapped"] + 0.2
    # what the option does is what another file of pairs does
    for which, identifiers in (("blank", blank), ("swapped", swapped)):
        file = tmp_path / f"{which}.csv"
        Arc.save(file, replace(puzzles, rows=None, given_identifiers=identifiers))
        words = ["eval", "--ckpt", files["run"], "--puzzles", file, "--steps", STEPS, "--json"]
        table = json.loads(done(cli(*words)))
        assert table["exact_at_step"] == curves[which]["exact_at_step"]
        assert table["further_scores_at_step"] == curves[which]["further_scores_at_step"]


@pytest.mark.parametrize(
    ("puzzles", "says"),
    [
        (lambda: replace(pairs(2), given_identifiers=None), "has no identifiers of puzzles"),
        (
            lambda: replace(pairs(2), given_identifiers=np.ones(24, np.int64)),
            "share one identifier",
        ),
        (lambda: replace(pairs(2), given_identifiers=np.arange(24) + 1), "no puzzle identifier 7"),
    ],
)
def test_identifiers_that_cannot_be_swapped(cli: Cli, files, tmp_path: Path, puzzles, says: str):
    file = tmp_path / "pairs.csv"
    Arc.save(file, puzzles())
    words = ["eval", "--ckpt", files["run"], "--puzzles", file, "--identifiers", "swapped"]
    answer = cli(*words)
    assert answer.code == 2 and answer.err.count("\n") == 1 and says in answer.err


def test_puzzles_of_another_task_or_frame_are_refused(cli: Cli, files, tmp_path: Path, copier):
    sudoku, larger = tmp_path / "sudoku.txt", tmp_path / "larger.csv"
    sudoku.write_text("1234341221434321\n")
    tokens = encode(np.array([[1]], np.uint8), 5)[None]
    Arc.save(larger, PuzzleSet(Arc(5), tokens, tokens, np.arange(1) + 2, "made", {}))
    for ckpt, puzzles, title, reads in (
        (files["run"], sudoku, "4x4 Sudoku", "16 cells of 12 tokens"),
        (files["run"], larger, "5x5 ARC", "16 cells of 12 tokens"),
        (copier, files["val"], "4x4 ARC", "16 cells of 6 tokens"),
    ):
        answer = cli("eval", "--ckpt", ckpt, "--puzzles", puzzles)
        assert answer.code == 2 and len(answer.err.splitlines()) == 1
        assert f"{title} puzzles, but {ckpt} reads {reads}" in answer.err


def public_arc(folder: Path, n_identifiers: int = 50) -> TRM:
    """A public TRM file with a table of identifiers, of which tests use a few, and its model."""
    config = TRMConfig(
        cells=SIDE**2, vocab=12, d_model=32, n_heads=4, prefix=2, mixer="attention",
        n_identifiers=n_identifiers,
    )  # fmt: skip
    model = TRM(config, torch.Generator().manual_seed(0)).eval()
    torch.nn.init.normal_(model.get_parameter("prefix_embedding"), generator=None)
    state = public_state(model, "model.inner.")
    state["model.inner.puzzle_emb.weights"] = model.get_parameter("prefix_embedding").detach()
    torch.save(state, folder / "step_7")
    arch = f"arch: {{num_heads: 4, seq_len: {SIDE**2}, puzzle_emb_len: 2}}"
    (folder / "all_config.yaml").write_text(f"{arch}\ndata_paths: [data/arc1concept-aug-1000]")
    return model


def test_a_public_checkpoint_is_read_with_the_rows_that_are_needed(cli: Cli, tmp_path: Path):
    whole = public_arc(tmp_path)
    puzzles = replace(pairs(2), given_identifiers=np.repeat([40, 7, 31, 8, 9, 2], 4))
    Arc.save(tmp_path / "pairs.csv", puzzles)
    checkpoint, renumbered = read_for(tmp_path / "step_7", puzzles)
    assert checkpoint.identifiers == (0, 2, 7, 8, 9, 31, 40)
    assert checkpoint.model.config.n_identifiers == 7
    assert renumbered.identifiers is not None
    assert renumbered.identifiers.tolist() == np.repeat([6, 2, 5, 3, 4, 1], 4).tolist()
    inputs, _, own = renumbered.tensors
    theirs = torch.from_numpy(puzzles.given_identifiers)
    expected = whole.embed(inputs, identifiers=theirs)
    assert torch.equal(checkpoint.model.embed(inputs, identifiers=own), expected)
    table = json.loads(
        done(cli("eval", "--ckpt", tmp_path / "step_7", "--puzzles", tmp_path / "pairs.csv",
                 "--steps", 2, "--json"))
    )  # fmt: skip
    assert table["n"] == 24 and "pass@1" in table["further_scores_at_step"]
    words = ["--ckpt", tmp_path / "step_7", "--puzzles", tmp_path / "pairs.csv", "--steps", 1]
    done(cli("collect", *words, "--out", tmp_path / "store"))
    with Store(tmp_path / "store") as store:  # under the file's own numbers
        assert store["identifier"][:].tolist() == puzzles.given_identifiers.tolist()
    blank = read_for(tmp_path / "step_7", puzzles)
    none = with_identifiers(blank[1], "blank", blank[0].model.config).tensors.identifiers
    zero = whole.embed(inputs, identifiers=torch.zeros(24, dtype=torch.int64))
    assert torch.equal(blank[0].model.embed(inputs, identifiers=none), zero)
    unknown = replace(puzzles, given_identifiers=np.full(24, 50))
    Arc.save(tmp_path / "unknown.csv", unknown)
    answer = cli("eval", "--ckpt", tmp_path / "step_7", "--puzzles", tmp_path / "unknown.csv")
    assert answer.code == 2 and "no puzzle identifier 50; its table has 0 to 49" in answer.err


def test_a_model_without_embeddings_reads_such_pairs_too(tmp_path: Path, cli: Cli):
    config = TRMConfig(cells=SIDE**2, vocab=12, d_model=32, n_heads=4, prefix=0, mixer="attention")
    torch.save(public_state(TRM(config), "model.inner."), tmp_path / "step_1")
    (tmp_path / "all_config.yaml").write_text(f"arch: {{num_heads: 4, seq_len: {SIDE**2}}}")
    checkpoint, puzzles = read_for(tmp_path / "step_1", pairs(2))
    assert checkpoint.identifiers is None and puzzles.identifiers is not None
    Arc.save(tmp_path / "pairs.csv", puzzles)
    words = ["eval", "--ckpt", tmp_path / "step_1", "--puzzles", tmp_path / "pairs.csv"]
    answer = cli(*words, "--identifiers", "blank")
    assert answer.code == 2 and "has no embeddings of puzzles" in answer.err


def test_studies(cli: Cli, files: dict[str, Path], tmp_path: Path):
    outcomes = summary(cli, "outcomes", *model(files), "--steps", STEPS, out=tmp_path / "outcomes")
    assert set(outcomes["ratings_tell_failed"]) == {"changed", "colours"}  # the others are equal
    probes = ["probes", files["store"], "--cycles", 3, "--ckpt", files["run"]]
    rows = summary(cli, *probes, out=tmp_path / "probes")["auc"]
    labels = {row["label"] for row in rows}
    assert {"facts", "fact in the grid", "fact in the output"} <= labels
    basins = ["basins", *model(files), "--starts", 4, "--neighbours", 2, "--slice", 2]
    basins += ["--steps", 2, "--n-puzzles", 1, "--shuffles", 3]
    assert summary(cli, *basins, out=tmp_path / "basins")["written"]


def test_features_with_a_dashboard_of_arc(cli: Cli, files: dict[str, Path], tmp_path: Path):
    words = ["features", files["sae"], files["store"], "--surrogates", 19, "--limit", 4]
    done(cli(*words, "--all-puzzles", "--out", tmp_path / "features"))
    page = "".join(path.read_text() for path in (tmp_path / "features").glob("*.html"))
    assert json.dumps(list(Arc(SIDE).colours()), separators=(",", ":")) in page
    names = set(json.loads(page.partition('"fact_names":')[2].partition("]")[0] + "]"))
    assert {"in an object", "changed", "background", "wrong", "guess end", "solution red"} <= names


def test_solve_draws_pairs_of_a_file_and_refuses_tasks_without_identifiers(
    cli: Cli, files: dict[str, Path], tmp_path: Path
):
    words = ["--ckpt", files["run"], "--steps", STEPS, "--k", 2]
    answer = cli("solve", files["val"], *words)
    assert answer.code == 0, answer.err
    assert "no symmetries" not in answer.err  # the file holds copies
    assert "prove no answer" in answer.err
    task = tmp_path / "task.json"
    task.write_text('{"train": [{"input": [[1]], "output": [[2]]}], "test": []}')
    refused = cli("solve", task, *words)
    assert refused.code == 2 and refused.err.count("\n") == 1
    assert "models know ARC tasks by the identifiers" in refused.err
