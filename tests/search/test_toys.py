"""The search on an architecture and a task that the package does not have."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from toy_copier import EVALUATIONS, N_FULL, N_OPEN, save_squares, save_toy, squares, toy_copier
from toy_task import Latin

import trm_interp.search.run
from trm_interp.core.infer import run_batch
from trm_interp.runtime.errors import UserError
from trm_interp.search.engine import search
from trm_interp.search.noise import target_states
from trm_interp.search.output import SearchWork
from trm_interp.search.settings import SearchConfig
from trm_interp.search.solve import read_puzzles

Cli = Callable[..., Any]
N, STEPS = N_FULL + N_OPEN, 3


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    folder = tmp_path_factory.mktemp("toys")
    both = ["--ckpt", save_toy(folder / "toy"), "--puzzles", save_squares(folder / "squares.txt")]
    return [*both, "--steps", STEPS, "--device", "cpu"]


def test_one_trajectory_is_plain_inference_bit_for_bit():
    model, puzzles = toy_copier(), squares()
    inputs, labels = torch.from_numpy(puzzles.inputs), torch.from_numpy(puzzles.labels)
    plain = run_batch(model, inputs, labels, STEPS)
    trajectories = search(
        model, puzzles.task, inputs, SearchConfig(k=1, steps=STEPS, stop="never"), batch_size=N
    )
    assert trajectories.tokens[:, 0].tobytes() == plain.tokens.numpy().tobytes()
    assert trajectories.q[:, 0].tobytes() == plain.q_halt.numpy().tobytes()
    assert trajectories.valid[:, 0, -1].tolist() == [True] * N_FULL + [False] * N_OPEN


@pytest.mark.parametrize("target", ["slow", "fast", "answer", "latent", "all", "both"])
def test_states_are_the_models(target: str):
    model, puzzles = toy_copier(), squares()
    states = {"answer": ("slow",), "latent": ("fast",), "slow": ("slow",), "fast": ("fast",)}
    assert target_states(model, target) == states.get(target, ("slow", "fast"))
    config = SearchConfig(k=4, steps=STEPS, target=target, when="every", stop="never", seed=2)
    inputs = torch.from_numpy(puzzles.inputs)
    whole = search(model, puzzles.task, inputs, config, 64, torch.float64)
    alone = search(model, puzzles.task, inputs, config, 5, torch.float64)
    np.testing.assert_allclose(alone.q, whole.q, atol=1e-6)
    np.testing.assert_array_equal(alone.tokens, whole.tokens)
    assert len(np.unique(whole.q[0, :, -1])) == 4  # every trajectory has noise of its own


def test_a_state_that_the_model_does_not_have():
    with pytest.raises(UserError, match="give one of slow, fast, answer, latent, all, both"):
        target_states(toy_copier(), "z_H")


def test_symmetric_copies_are_undone():
    """The copier answers the copy that it is given: undone, this is the puzzle again."""
    model, puzzles = toy_copier(), squares()
    config = SearchConfig(k=3, steps=2, sigma=0.0, symmetry=True, stop="never")
    trajectories = search(model, puzzles.task, torch.from_numpy(puzzles.inputs), config)
    for k in range(3):
        np.testing.assert_array_equal(trajectories.tokens[:, k, -1], puzzles.inputs)


def test_the_command(cli: Cli, words: list[object], tmp_path: Path):
    out = tmp_path / "t.csv"
    how = ["--k", 6, "--when", "every", "--sigma", 0.5, "--stop", "rules", "--adaptive"]
    answer = cli("search", *words, *how, "--symmetry", "--json", "--out", out)
    assert answer.code == 0, answer.err
    summary, table = json.loads(answer.out), pd.read_csv(out, dtype={"answer": str})
    assert (summary["n"], summary["target"]) == (N, "slow")  # the state that is read
    last = table[table["step"] == STEPS - 1]
    assert summary["evaluations"] == last["steps_run"].sum() * EVALUATIONS
    assert summary["evaluations_of_the_full_grid"] == N * 6 * STEPS * EVALUATIONS
    # full squares are proved by their plain run, after one step
    assert (last["steps_run"].to_numpy()[:N_FULL] == 1).all() and last["verified"][:6].all()
    assert summary["baseline"] == [N_FULL / N] * STEPS
    task, puzzles = Latin(), squares()
    solutions = [task.text(row) for row in puzzles.labels]
    assert last["answer"].tolist()[:N_FULL] == solutions[:N_FULL]
    assert ((last["answer"] == solutions) == last["best_q"]).all()


def test_stopped_and_resumed_gives_the_same_bytes(
    cli: Cli, words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trm_interp.search.run, "block_puzzles", lambda *size: 4)
    how = ["--k", 3, "--target", "fast", "--when", "every", "--symmetry"]
    whole, out = tmp_path / "whole.csv", tmp_path / "stopped.csv"
    assert cli("search", *words, *how, "--out", whole).code == 0
    block = SearchWork.block
    with monkeypatch.context() as patched:

        def stopped(work: SearchWork, name: str, *more: Any) -> Any:
            if name == "block-00000008.csv":
                raise KeyboardInterrupt
            return block(work, name, *more)

        patched.setattr(SearchWork, "block", stopped)
        answer = cli("search", *words, *how, "--out", out)
        assert answer.code == 130 and "run the same command with --resume" in answer.err
    answer = cli("search", *words, *how, "--out", out, "--resume")
    assert answer.code == 0 and "resuming at block 2 (from 0) of 4" in answer.err
    assert out.read_bytes() == whole.read_bytes()
    assert {file.suffix for file in tmp_path.iterdir()} == {".csv", ".json"}


def test_solving_what_is_typed(cli: Cli, words: list[object]):
    ckpt = words[:2]
    answer = cli("solve", "ABC|BCA|CAB", *ckpt, "--steps", 2)
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[:3] == ["A B C", "B C A", "C A B"]
    assert "line 1: confirmed by the rules" in answer.out
    open_ = cli("solve", "A..|...|..B", *ckpt, "--steps", 2, "--k", 1)
    assert "no solution found; this grid breaks the rules in 7 cells" in open_.out
    assert "of its 9 cells 2 can be completed" in open_.out  # the givens
    (puzzle,) = json.loads(cli("solve", "ABC|BCA|CA.", *ckpt, "--json").out)["puzzles"]
    assert puzzle["puzzle"] == "ABC|BCA|CA." and puzzle["several"] is False


def test_standard_input_is_read_as_a_file_of_its_task_is(
    words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Neither of these is a typed puzzle: a header tells whose they are."""
    file = save_squares(tmp_path / "squares.txt")
    csv = "source,question,answer,rating\na,.234341221434321,1234341221434321,0\n"
    for text, family in ((file.read_text(), "latin"), (csv, "sudoku")):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        puzzles = read_puzzles("-")
        assert puzzles.task.family == family and puzzles.source == "standard input"
    monkeypatch.setattr(Latin, "recognises", lambda path: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(csv))
    with pytest.raises(UserError, match="^standard input: can be sudoku or latin"):
        read_puzzles("-")


def test_a_task_without_symmetries(
    cli: Cli, words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Latin, "symmetry", lambda task, keys: None)
    out = tmp_path / "t.csv"
    answer = cli("search", *words, "--symmetry", "--out", out)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "3x3 Latin square has no symmetries here: search without --symmetry" in answer.err
    assert not list(tmp_path.iterdir())
    assert cli("search", *words, "--k", 2, "--out", out).code == 0
    answer = cli("solve", "ABC|BCA|CAB", *words[:2])
    assert answer.code == 0 and "searching without symmetric copies" in answer.err


def test_rules_that_prove_nothing(
    cli: Cli, words: list[object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Without a proof `search --stop rules` is refused, and `solve` says how it goes on."""
    monkeypatch.setattr(Latin, "can_prove", False)
    answer = cli("search", *words, "--stop", "rules", "--out", tmp_path / "t.csv")
    assert answer.code == 2
    assert answer.err.splitlines()[-1] == (
        "error: the rules of 3x3 Latin square prove no answer: give --stop never or q"
    )
    ckpt, steps = words[1], words[5]
    answer = cli("solve", "ABC|BCA|CAB", "--ckpt", ckpt, "--steps", steps, "--k", 2, "--json")
    assert answer.code == 0 and "running every trajectory to its end" in answer.err
