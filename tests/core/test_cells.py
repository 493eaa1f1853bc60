"""The number of cells is read or asked for, never guessed."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published import error_of, public_state, same_weights

from trm_interp.core.checkpoints.folder import CheckpointError, load_checkpoint
from trm_interp.core.infer import run
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.recording.hooks import HookedTRM
from trm_interp.report.plan import Plan
from trm_interp.report.recipes import Request
from trm_interp.studies.settings import OnCheckpoint
from trm_interp.studies.subject import open_subject


def attention(cells: int, vocab: int) -> TRM:
    config = TRMConfig(cells=cells, vocab=vocab, d_model=64, mixer="attention", n_heads=1)
    return TRM(config, torch.Generator().manual_seed(1))


@pytest.fixture
def maze(tmp_path: Path) -> Path:
    """A public attention model of 900 cells and 6 tokens, as many as 4x4 Sudoku has."""
    torch.save(public_state(attention(900, 6)), tmp_path / "step_1")
    return tmp_path


@pytest.mark.parametrize(("cells", "vocab"), [(900, 6), (900, 12), (81, 11)])
def test_attention_alone_asks(tmp_path: Path, cells: int, vocab: int):
    model = attention(cells, vocab)
    torch.save(public_state(model), tmp_path / "step_1")
    message = error_of(tmp_path)
    assert "attention does not tell the number of cells: give --puzzles or --cells" in message
    loaded = load_checkpoint(tmp_path, cells=cells)
    assert loaded.model.config == model.config and same_weights(loaded.model, model)


DATASET = {"seq_len": 900, "vocab_size": 6, "pad_id": 0}


@pytest.mark.parametrize(
    "name", ["dataset.json", "test/dataset.json", "data/maze/train/dataset.json"]
)
def test_the_data_set_tells(maze: Path, name: str):
    (maze / name).parent.mkdir(parents=True, exist_ok=True)
    (maze / name).write_text(json.dumps(DATASET))
    (maze / "all_config.yaml").write_text("arch: {H_cycles: 2}\ndata_paths: [data/maze]")
    config = load_checkpoint(maze).model.config
    assert (config.cells, config.prefix, config.h_cycles) == (900, 16, 2)
    assert load_checkpoint(maze, cells=16).model.config.cells == 900  # the file's word counts


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1]", "holds a list"),
        ("null", "holds a NoneType"),
        ("{", "truncated or damaged"),
        ("\xff", "truncated or damaged"),
        ('{"seq_len": "abc"}', "seq_len is 'abc', not a number"),
        ('{"seq_len": 1e30}', "cells must be at most 65536"),
        ('{"seq_len": -4}', "seq_len is -4, not a count"),
        ('{"seq_len": 81, "vocab_size": 11}', "vocab_size 11, but"),
        ("{}", "give --puzzles or --cells"),
    ],
)
def test_a_data_set_that_lies(maze: Path, text: str, says: str):
    (maze / "dataset.json").write_bytes(text.encode("latin-1"))
    assert says in error_of(maze)


def test_a_data_set_that_is_a_pipe(maze: Path):
    os.mkfifo(maze / "dataset.json")
    assert "is a named pipe" in error_of(maze)


def test_token_mixing_needs_no_data_set(tmp_path: Path):
    """Where the positions leave one number of cells, or its settings say how long the prefix is."""
    for prefix, settings in ((1, "{}"), (16, "{puzzle_emb_len: 16}"), (0, "{}")):
        model = TRM(TRMConfig(cells=16, vocab=6, d_model=32, prefix=prefix))
        torch.save(public_state(model), tmp_path / "step_1")
        (tmp_path / "all_config.yaml").write_text(f"arch: {settings}")
        (tmp_path / "dataset.json").write_text("null")
        for cells in (None, 36):
            config = load_checkpoint(tmp_path, cells=cells).model.config
            assert (config.cells, config.prefix) == (16, prefix)


def test_settings_that_state_the_cells_count_most(tmp_path: Path):
    torch.save(public_state(split(81, 16)), tmp_path / "step_1")
    (tmp_path / "dataset.json").write_text("null")
    (tmp_path / "all_config.yaml").write_text("arch: {seq_len: 85}")
    config = load_checkpoint(tmp_path, cells=81).model.config
    assert (config.cells, config.prefix) == (85, 12)
    (tmp_path / "all_config.yaml").write_text("arch: {seq_len: 97}")
    assert "97 cells are stated, the weights mix 97 positions" in error_of(tmp_path)


def split(cells: int, prefix: int, vocab: int = 11) -> TRM:
    return TRM(TRMConfig(cells=cells, vocab=vocab, d_model=32, prefix=prefix))


@pytest.mark.parametrize(("cells", "prefix"), [(81, 16), (96, 1)])
def test_positions_that_can_be_two_things_ask(tmp_path: Path, cells: int, prefix: int):
    """97 positions: 81 cells after a prefix of 16, or 96 after 1; 11 tokens prove neither."""
    torch.save(public_state(split(cells, prefix)), tmp_path / "step_1")
    message = error_of(tmp_path)
    assert "its 97 positions can be 96 cells and a prefix of 1 or 81 cells and a" in message
    assert "give --puzzles or --cells" in message
    config = load_checkpoint(tmp_path, cells=cells).model.config
    assert (config.cells, config.prefix) == (cells, prefix)
    only = load_checkpoint(tmp_path, fits=lambda n, vocab: (n, vocab) == (cells, 11))
    assert only.model.config == config
    for fits in (lambda n, vocab: True, lambda n, vocab: False):
        with pytest.raises(CheckpointError, match="its 97 positions can be"):
            load_checkpoint(tmp_path, fits=fits)
    with pytest.raises(CheckpointError, match="its 97 positions can be"):
        load_checkpoint(tmp_path, cells=36)  # not one of the two
    (tmp_path / "dataset.json").write_text(json.dumps({"seq_len": cells, "vocab_size": 11}))
    assert load_checkpoint(tmp_path).model.config == config
    (tmp_path / "dataset.json").write_text("null")
    assert "holds a NoneType" in error_of(tmp_path)


def test_a_token_mixing_maze_is_no_sudoku_of_its_number_of_tokens(tmp_path: Path):
    """6 tokens are those of 4x4 Sudoku too, and 32 positions 16 cells and a prefix of 16."""
    torch.save(public_state(split(31, 1, vocab=6)), tmp_path / "step_1")
    assert "31 cells and a prefix of 1 or 16 cells and a prefix of 16" in error_of(tmp_path)
    torch.save(public_state(split(900, 16, vocab=6)), tmp_path / "step_1")
    assert "915 cells and a prefix of 1 or 900 cells" in error_of(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps(DATASET))
    config = load_checkpoint(tmp_path, cells=16).model.config
    assert (config.cells, config.prefix) == (900, 16)


def test_puzzles_tell_the_commands(tmp_path: Path, grids: Path, cli: Callable[..., Any]):
    torch.save(public_state(attention(16, 6)), tmp_path / "step_1")
    answer = cli("eval", "--ckpt", tmp_path, "--puzzles", grids, "--steps", 1, "--json")
    assert answer.code == 0 and json.loads(answer.out)["n"] == 13
    subject = open_subject(OnCheckpoint(ckpt=str(tmp_path), puzzles=grids, out=tmp_path / "out"))
    assert subject.model.config.cells == 16
    plan = Plan(Request(ckpt=str(tmp_path), puzzles=grids, out=tmp_path / "out"), [])
    assert plan.checkpoint.model.config.cells == 16
    answer = cli("collect", "--ckpt", tmp_path, "--puzzles", grids, "--out", tmp_path / "store")
    assert answer.code == 0


def test_commands_without_puzzles_take_cells(tmp_path: Path, cli: Callable[..., Any]):
    torch.save(public_state(attention(16, 6)), tmp_path / "step_1")
    for words in (["info", tmp_path], ["hooks", "--ckpt", tmp_path]):
        answer = cli(*words)
        assert answer.code == 2 and "give --puzzles or --cells" in answer.err
        assert cli(*words, "--cells", 16).code == 0
    (tmp_path / "all_config.yaml").write_text("arch: {seq_len: 16}")
    answer = cli("info", tmp_path, "--cells", 81)
    assert answer.code == 2 and "reads 16 cells, but --cells is 81" in answer.err


# tokens


def test_tokens_outside_the_vocabulary_are_refused(tiny_trm: TRM, puzzles: Any):
    inputs, labels = puzzles
    hooked = HookedTRM.of(tiny_trm, n_sup=1)
    for wrong in (inputs + 1, inputs - 2):
        with pytest.raises(ValueError, match="the model reads tokens 0 to 5, the puzzles have"):
            run(tiny_trm, wrong, labels, steps=1)
        with pytest.raises(ValueError, match="the model reads tokens 0 to 5, the puzzles have"):
            hooked(wrong)
    with pytest.raises(ValueError, match="the model reads tokens 0 to 5"):
        run(tiny_trm, inputs, labels + 1, steps=1)
    with pytest.raises(ValueError, match="the model reads 16 cells, the puzzles have 15"):
        hooked(inputs[:, :15])
