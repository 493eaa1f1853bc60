"""How far changes reach through mixers that are planted, and what is chosen."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from toy_architecture import Toy, ToyConfig
from toy_copier import save_squares
from toy_task import Latin
from unchanged import copier

from trm_interp.analysis.reach import by_relation
from trm_interp.core.checkpoints.folder import save_checkpoint
from trm_interp.studies.causal_settings import SpreadConfig
from trm_interp.studies.changed import PREFIX, Changes, choose
from trm_interp.studies.subject import open_subject
from trm_interp.tasks.maze.grid import parse
from trm_interp.tasks.maze.task import Maze
from trm_interp.tasks.sudoku.task import Sudoku

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_squares(tmp_path_factory.mktemp("squares") / "squares.txt")


def local_toy() -> Toy:
    """Both mixers pass a cell on to itself, and half of it to the others of its row."""
    toy = Toy(ToyConfig(cells=9, vocab=5, d_model=6), torch.Generator().manual_seed(0))
    row = Latin().places()["row"]
    with torch.no_grad():
        toy.start.zero_()
        for tokens in (toy.embedding, toy.head):
            tokens.copy_(torch.eye(5, 6))
        for net in (toy.quick, toy.calm):
            net.mix.copy_(torch.from_numpy(0.5 * (row[:, None] == row) + 0.5 * np.eye(9)))
            net.map.copy_(0.3 * torch.eye(6))
    return toy.eval()


def test_a_planted_local_mixer(cli: Cli, squares: Path, tmp_path: Path):
    """A letter that becomes a blank moves two of six channels by 1, an RMS of sqrt(2 / 6).

    With M e = (1, .5, .5) in the row the first write of fast moves by .3 M e; the second one by
    .5 x that + .3 M (.3 M e + e), where M M e = (1.5, 1.25, 1.25): .15 + .135 + .3 at the cell, and
    .075 + .1125 + .15 beside it.
    """
    save_checkpoint(tmp_path / "toy", local_toy(), {"task": Latin().name})
    on = ["--ckpt", tmp_path / "toy", "--puzzles", squares, "--device", "cpu", "--steps", 1]
    answer = cli("spread", *on, "--n-cells", 2, "--out", tmp_path / "out", "--json")
    assert answer.code == 0, answer.err
    summary = json.loads(answer.out)
    assert (summary["n"], summary["changes"], summary["mixers"]) == (13, 14, [])  # 7 have blanks
    assert summary["relations"] == ["itself", "same row", "same column", "unrelated"]
    table = pd.read_csv(tmp_path / "out" / "spread.csv").set_index(["site", "evaluations_done"])
    unit = (2 / 6) ** 0.5
    for at, moved in ((1, [0.3, 0.15]), (2, [0.585, 0.3375])):
        read = table.loc[("fast", at)].set_index("relation")["influence"]
        np.testing.assert_allclose(read / unit, [*moved, 0, 0], rtol=1e-5)
    assert (table.query("relation in ['same column', 'unrelated']")["influence"] == 0).all()
    assert table.loc["slow"].index.unique().tolist() == [3, 5, 8, 10]
    first = pd.read_csv(tmp_path / "out" / "locality.csv")
    assert first["ratio"].isna().all()  # unrelated cells do not move at all


def test_a_planted_local_mixer_alone(cli: Cli, grids: Path, tmp_path: Path):
    """The mixer of a TRM whose hidden units read one cell and write its row."""
    model = copier()
    row = np.r_[-1, -2, np.arange(16) // 4]  # two prefix positions before 16 cells
    with torch.no_grad():
        for block in model.net.blocks:
            read, write = block.mixer.gate_up.weight, block.mixer.down.weight  # type: ignore[union-attr]
            width = write.shape[1]
            read.zero_()
            write.zero_()
            for cell in range(2, 18):
                read[cell, cell] = read[width + cell, cell] = 1.0
                write[torch.from_numpy(row == row[cell]), cell] = 0.5
    save_checkpoint(tmp_path / "local", model, {"note": "for tests"})
    on = ["--ckpt", tmp_path / "local", "--puzzles", grids, "--device", "cpu", "--steps", 1]
    words = ["--kind", "state", "--after", 1, "--n-cells", 3, "--limit", 4]
    answer = cli("spread", *on, *words, "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    gains = pd.read_csv(tmp_path / "out" / "mixers.csv")
    assert gains["mixer"].unique().tolist() == [
        "blocks.0.hook_resid_pre",
        "blocks.1.hook_resid_pre",
    ]
    by_relation = gains.groupby("relation")["gain"].agg(["min", "max"])
    assert (by_relation.loc[["itself", "same row"], "min"] > 0.01).all()
    far = by_relation.loc[["same column", "unrelated", "prefix"], "max"]
    assert far.tolist() == [0, 0, 0]
    np.testing.assert_allclose(by_relation.loc["itself"], by_relation.loc["same row"], rtol=1e-4)


def test_which_cells_are_changed(squares: Path, tmp_path: Path):
    """Givens of puzzles that ask for something; any cell where states are changed; each once."""
    save_checkpoint(tmp_path / "toy", local_toy(), {"task": Latin().name})
    how: dict[str, Any] = {"out": tmp_path, "ckpt": str(tmp_path / "toy"), "puzzles": squares}
    config = SpreadConfig(**how, n_cells=99, device="cpu")
    subject = open_subject(config, lambda line: None)
    changes = choose(subject, config)
    asked = subject.task.asked(subject.puzzles.inputs)
    assert not asked[changes.puzzle, changes.cell].any() and set(changes.puzzle) == set(
        range(6, 13)
    )
    assert len(changes) == (~asked[6:]).sum() == len(set(zip(*changes[:2], strict=True)))
    every = choose(subject, SpreadConfig(**how, n_cells=99, kind="state"))
    assert len(every) == asked.size and every.relations.shape == (asked.size, 4, 9)


def test_a_cell_with_two_relations_counts_once():
    """The first cell of a 4x4 Sudoku has three others in its row, three in its column and one more
    in its box, seven related ones; of them the two that are in its box twice move by 8."""
    of = Sudoku(4).related(np.ones(16, np.uint8), 0)
    relations = np.stack([*of.values(), np.zeros(16, bool)])[None]
    changes = Changes(np.zeros(1, int), np.zeros(1, int), relations, [*of, PREFIX])
    assert changes.names[changes.unrelated] == "unrelated" and changes.related.sum() == 7
    moved = np.ones((1, 16))
    moved[0, [1, 4]] = 8
    assert by_relation(moved, changes.related).tolist() == [[21 / 7]]  # 2 x 8 + 5 x 1


def test_distances_in_a_maze():
    """The only way from the first cell to the last goes down, right and up: seven steps. The wall
    between them has its neighbours one step away."""
    maze = parse("S#G..#.#.#.#....")
    task = Maze(4)
    of = task.related(maze, 0)
    assert [name for name, mask in of.items() if mask[2]] == ["up to 8 steps"]
    assert np.flatnonzero(of["1 step"]).tolist() == [4] and of["unrelated"].sum() == 5  # walls
    wall = task.related(maze, 1)
    assert np.flatnonzero(wall["itself"]).tolist() == [1]
    assert np.flatnonzero(wall["1 step"]).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--n-cells", "0"], "n-cells must be at least 1, got 0"),
        (["--after", "-1", "--kind", "state"], "after must be from 0 to"),
        (["--limit", "3"], "squares.txt has a given beside cells that are asked: try --kind state"),
        (["--after", "2"], "--after"),
    ],
)
def test_bad_input(cli: Cli, squares: Path, tmp_path: Path, words: list[str], message: str):
    save_checkpoint(tmp_path / "toy", local_toy(), {"task": Latin().name})
    on = ["--ckpt", tmp_path / "toy", "--puzzles", squares, "--device", "cpu", "--steps", "1"]
    answer = cli("spread", *on, *words, "--out", tmp_path / "out")
    assert message in answer.err and "Traceback" not in answer.err
