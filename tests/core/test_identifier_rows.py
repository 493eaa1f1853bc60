"""Some rows of a table of puzzle embeddings: the same numbers, and no memory for the others."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from published import public_state
from safetensors.torch import save_file

from trm_interp.core.checkpoints.folder import CheckpointError, load_checkpoint, save_checkpoint
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig

SHAPE: dict[str, Any] = {"cells": 9, "vocab": 5, "d_model": 32, "n_heads": 4, "prefix": 16}
CONFIG = TRMConfig(**SHAPE, mixer="attention", n_identifiers=6)
ROWS = [4, 1]


@pytest.fixture
def model() -> TRM:
    model = TRM(CONFIG, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(model.get_parameter("prefix_embedding"))
    return model


@pytest.fixture(params=["ours", "step_1", "model.safetensors"])
def file(request: pytest.FixtureRequest, model: TRM, tmp_path: Path) -> Path:
    """A checkpoint with six puzzle embeddings in each format that may hold many."""
    if request.param == "ours":
        save_checkpoint(tmp_path, model, {})
        return tmp_path
    path = tmp_path / request.param
    (torch.save if request.param == "step_1" else save_file)(state_of(model), path)
    (tmp_path / "all_config.yaml").write_text("arch: {num_heads: 4, seq_len: 9}")
    return path


def state_of(model: TRM) -> dict[str, torch.Tensor]:
    state = public_state(model, "model.inner.")
    table = "model.inner.puzzle_emb.weights"
    return state | {table: model.get_parameter("prefix_embedding").detach()}


def test_some_rows_are_those_of_the_whole(file: Path, model: TRM):
    tokens, theirs = torch.ones(3, 9, dtype=torch.int64), torch.tensor([1, 4, 1])
    whole, some = load_checkpoint(file), load_checkpoint(file, identifiers=ROWS)
    assert whole.model.config.n_identifiers == 6 and some.model.config.n_identifiers == 2
    assert some.identifiers == (4, 1) and whole.identifiers is None
    assert some.rows_of(theirs).tolist() == [1, 0, 1] and torch.equal(whole.rows_of(theirs), theirs)
    expected = model.embed(tokens, identifiers=theirs)
    assert torch.equal(whole.model.embed(tokens, identifiers=theirs), expected)
    assert torch.equal(some.model.embed(tokens, identifiers=some.rows_of(theirs)), expected)
    assert some.sha256 == whole.sha256
    with pytest.raises(ValueError, match="row of puzzle identifier 2 was not read"):
        some.rows_of(torch.tensor([2]))
    assert load_checkpoint(file, identifiers=[5]).model.config.n_identifiers == 1


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([0, 6], "no puzzle identifier 6; its table has 0 to 5"),
        ([-1], "no puzzle identifier -1; its table has 0 to 5"),
        ([], "no puzzle identifiers were given"),
    ],
)
def test_rows_that_are_not_there(file: Path, rows: list[int], says: str):
    with pytest.raises(CheckpointError, match=says):
        load_checkpoint(file, identifiers=rows)


def test_a_model_without_a_table(tmp_path: Path, tiny_mlp: TRM):
    save_checkpoint(tmp_path, tiny_mlp, {})
    with pytest.raises(CheckpointError, match="no table of puzzle embeddings"):
        load_checkpoint(tmp_path, identifiers=[0])


LOAD = """
import sys
from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.core.memory import peak_memory
small, large = sys.argv[1:]
load_checkpoint(small, identifiers=[0, 1])  # imports and the model itself
before = peak_memory()
load_checkpoint(large, identifiers=[7, 199_999])
print(peak_memory() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
@pytest.mark.parametrize("name", ["step_1", "model.safetensors"])
def test_the_other_rows_take_no_memory(name: str, tmp_path: Path):
    """A table of 102 MB, of which two rows are read, in a process of its own."""
    save = torch.save if name == "step_1" else save_file
    state = state_of(TRM(TRMConfig(**{**SHAPE, "d_model": 128}, mixer="attention")))
    for folder, rows in (("small", 2), ("large", 200_000)):
        (tmp_path / folder).mkdir()
        table = {"model.inner.puzzle_emb.weights": torch.ones(rows, 128)}
        save(state | table, tmp_path / folder / name)
        (tmp_path / folder / "all_config.yaml").write_text("arch: {num_heads: 4, seq_len: 9}")
    files = [str(tmp_path / folder / name) for folder in ("small", "large")]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *files],
        capture_output=True, text=True, check=True, env=os.environ,
    )  # fmt: skip
    assert int(done.stdout) < 30e6, done.stdout
