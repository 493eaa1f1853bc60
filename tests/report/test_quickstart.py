"""The first look at a model whose states, clock and task are not those of a TRM on Sudoku."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from toy_copier import save_squares, save_toy

from trm_interp.recording.store import Store


def test_a_first_look_learns_states_and_task_from_the_model(
    cli: Callable[..., Any], tmp_path: Path
):
    puzzles, out = save_squares(tmp_path / "squares.txt"), tmp_path / "out"
    on = ["--ckpt", save_toy(tmp_path / "toy"), "--puzzles", puzzles, "--device", "cpu"]
    answer = cli("quickstart", *on, "--limit", 6, "--record", 4, "--out", out)
    assert answer.code == 0, answer.err
    with Store(out / "store") as store:
        assert {"slow", "fast"} <= set(store.names) and store.n_puzzles == 4
    page = (out / "trajectories.html").read_text()
    assert "displacement of fast from its first update" in page and "latent state fast" in page
