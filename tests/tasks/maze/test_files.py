"""Mazes in every form that is read, and what is refused in one line each."""

import json
from pathlib import Path

import numpy as np
import pytest
from maze_puzzles import maze_puzzles, random_mazes

from trm_interp.runtime.errors import UserError
from trm_interp.tasks.maze import making
from trm_interp.tasks.maze.grid import render, solutions, ways
from trm_interp.tasks.maze.task import Maze
from trm_interp.tasks.registry import family_of_file, load_puzzles, maker_of
from trm_interp.tasks.sudoku.task import Sudoku

GOOD = "S....#####......#...G####"
BAD = {
    ".....#####......#...G####": "no start (S)",
    "S...S#####......#...G####": "several starts (S)",
    "S....#####......#....####": "no goal (G)",
    "S....#####......#..GG####": "several goals (G)",
    "S....#####......#...G####": "no way from start to goal",
    "S....................G...": "several shortest paths",
    "S....####x......#...G####": "'x' is none of",
    "S....#####......#...G###": "not square: 24 cells",
}
OPEN = "S....####.......####....G"  # right along the first row, back along the third, and again


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A public folder of four 10x10 mazes."""
    mazes, folder = maze_puzzles(4, 10), tmp_path / "maze" / "test"
    folder.mkdir(parents=True)
    np.save(folder / "all__inputs.npy", mazes.inputs)
    np.save(folder / "all__labels.npy", mazes.labels)
    card = {"seq_len": 100, "vocab_size": 6, "pad_id": 0, "ignore_label_id": 0, "sets": ["all"]}
    (folder / "dataset.json").write_text(json.dumps(card))
    return folder


def test_a_public_csv_file(tmp_path: Path):
    mazes, file = maze_puzzles(5, 10), tmp_path / "test.csv"
    sha256 = Maze.save(file, mazes)
    lines = file.read_text().splitlines()
    assert lines[0] == "source,question,answer,rating"
    assert lines[1] == ",".join(
        [
            "made",
            render(mazes.inputs[0], " "),
            render(mazes.labels[0], " "),
            str(int(ways(mazes.inputs).length[0])),
        ]
    )
    read = load_puzzles(file)
    assert read.task == Maze(10) and read.sha256 == {"test.csv": sha256}
    np.testing.assert_array_equal(read.labels, mazes.labels)
    assert read.lines.tolist() == [2, 3, 4, 5, 6]
    remarks = Maze.remarks(file, read)["rating_in_file"]
    assert list(map(int, remarks)) == ways(mazes.inputs).length.tolist()


def test_a_public_folder(public: Path):
    mazes = maze_puzzles(4, 10)
    for path in (public, public.parent):
        read = load_puzzles(path)
        assert read.task == Maze(10) and read.lines.tolist() == [0, 1, 2, 3]
        np.testing.assert_array_equal(read.inputs, mazes.inputs)
    labels = np.load(public / "all__labels.npy")
    labels[2][labels[2] == 5] = 2
    np.save(public / "all__labels.npy", labels)
    with pytest.raises(UserError, match="row 2: the answer is no shortest path"):
        load_puzzles(public)
    labels[1, 7] = 9
    np.save(public / "all__labels.npy", labels)
    read = load_puzzles(public, skip_bad=True)
    assert len(read) == 2 and read.skipped[0] == "row 1: label token 9 at 7; 1 to 5"


def test_whose_folder_it_is(public: Path):
    assert family_of_file(public) is Maze
    (public / "dataset.json").unlink()
    assert family_of_file(public) is Maze
    for name in ("all__inputs.npy", "all__labels.npy"):
        np.save(public / name, np.full((2, 81), 5))
    assert family_of_file(public) is Sudoku
    np.save(public / "all__inputs.npy", np.full((2, 100), 8))
    assert family_of_file(public) is Sudoku  # which says that no Sudoku has 100 cells


@pytest.mark.parametrize("bad", [bad for bad in BAD if bad != GOOD])
def test_bad_mazes_are_refused_in_a_line(bad: str, tmp_path: Path):
    file = tmp_path / "mazes.txt"
    file.write_text(f"{OPEN}\n{bad}\n")
    with pytest.raises(UserError) as caught:
        load_puzzles(file)
    head, line = str(caught.value).splitlines()
    assert head == f"{file}: 1 bad line of 2; --skip-bad goes on without them"
    assert line.strip().startswith(f"line 2: {BAD[bad]}")
    read = load_puzzles(file, skip_bad=True)
    assert len(read) == 1 and read.skipped[0].startswith(f"line 2: {BAD[bad]}")


def test_a_maze_without_a_way_and_one_that_is_not_square():
    walled = "S....#####.........G#####"
    with pytest.raises(UserError, match="line 1: no way from start to goal"):
        Maze.load_text(walled, "typed")
    with pytest.raises(UserError, match="line 1: not square: 3 rows of 5 cells"):
        Maze.load_text("#####\nS...G\n#####\n", "typed")
    with pytest.raises(UserError, match="line 1: not square: 4 rows of 5 cells"):
        Maze.load_text("#####\nS...G\n#####\n##\n", "typed")
    with pytest.raises(UserError, match="line 7: 36 cells where line 1 has 25"):
        text = "\n".join([*rows(OPEN, 5), "", *rows("S....G" + "#" * 30, 6)])
        Maze.load_text(text, "typed")


def rows(line: str, side: int) -> list[str]:
    return [line[i : i + side] for i in range(0, len(line), side)]


def test_a_maze_that_a_person_types(tmp_path: Path):
    one = Maze.load_text(OPEN, "line")
    spaces = [row.replace(".", " ").rstrip() or " " for row in rows(OPEN, 5)]  # as editors cut them
    assert spaces[0] == "S"
    wide = [" ".join(row) for row in rows(OPEN, 5)]
    for text in ("\n".join(rows(OPEN, 5)), "\r\n".join(spaces), "\n\n".join(["\n".join(wide)] * 2)):
        read = Maze.load_text(text, "typed")
        np.testing.assert_array_equal(read.inputs[0], one.inputs[0])
        assert Maze.typed(text) == text
    assert read.lines.tolist() == [1, 7]
    file = tmp_path / "maze.txt"
    file.write_text("\n".join(spaces))
    assert load_puzzles(file).task == Maze(5)
    with pytest.raises(UserError, match="'o' belongs into the answer"):
        Maze.load_text(OPEN.replace(".", "o", 1), "typed")


def test_a_file_of_open_rows_is_no_sudoku(tmp_path: Path):
    file = tmp_path / "open.txt"
    file.write_text("\n".join(["." * 9] * 8 + ["....S.G.."]))
    assert family_of_file(file) is Sudoku  # as its first rows are
    file.write_text("\n".join(["....S.G..", *["." * 9] * 8]))
    assert family_of_file(file) is Maze


def test_any_size_has_a_name_and_a_data_set():
    assert Maze.named("maze12") == Maze(12) and Maze.named("maze4") is None
    assert Maze.shaped(144, 6) == Maze(12) and Maze.shaped(16, 6) is None
    assert maker_of("maze12-loops") is Maze and maker_of("sudoku6") is Sudoku
    with pytest.raises(UserError, match="no preset 'maze4'; there are sudoku4, .*maze10"):
        maker_of("maze4")


def lattice(algorithm: str, points: int, rng: np.random.Generator):
    """A comb: one row of passages, and columns that hang from it."""
    down, right = np.ones((2, points, points), bool)
    right[1:] = False
    return down, right & (rng.random() >= 0)


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lattices of the test's own, for what is done with them."""
    monkeypatch.setattr(making, "connections", lattice)


def test_drawn_mazes_have_one_path_and_are_no_copies_of_each_other(without_package):
    preset = making.Preset(side=10, train=20, val=5, test=5, least=6, loops=0.3)
    mazes = making.draw(preset, 3, 30)
    between = ways(mazes)
    assert between.length.min() >= 6 and not between.several.any()
    np.testing.assert_array_equal(mazes, making.draw(preset, 3, 30))
    keys = Maze(10).class_keys(mazes)
    assert len(set(keys.tolist())) == 30
    labels = solutions(mazes, between)
    assert Maze(10).proves(mazes, labels).all()
    assert not (making.draw(preset, 4, 30) == mazes).all(1).any()


def test_mazes_of_the_package(tmp_path: Path):
    pytest.importorskip("maze_dataset")
    state = np.random.get_state()[1].copy()
    card = Maze.make("maze7", tmp_path / "a", seed=1, sizes={"train": 12, "val": 3, "test": 3})
    assert (np.random.get_state()[1] == state).all()
    Maze.make("maze7", tmp_path / "b", seed=1, sizes={"train": 12, "val": 3, "test": 3})
    files = [tmp_path / "a" / card["splits"][name]["file"] for name in ("train", "val", "test")]
    assert [len(load_puzzles(file)) for file in files] == [12, 3, 3]
    assert files[0].read_bytes() == (tmp_path / "b" / "train.csv").read_bytes()
    assert Maze.check_splits(files, print)["clean"]


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "maze_dataset.generation", None)
    with pytest.raises(UserError, match=r"maze-dataset .*: pip install 'trm-interp\[maze\]'"):
        Maze.make("maze7", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_symmetric_copies_in_two_splits_are_told(tmp_path: Path):
    mazes = maze_puzzles(6, 10)
    turned = np.rot90(mazes.inputs[:2].reshape(-1, 10, 10), axes=(1, 2)).reshape(2, 100)
    others = random_mazes(2, 10, seed=5)
    inputs = np.concatenate([others, turned])
    files = [tmp_path / "a.csv", tmp_path / "b.csv"]
    Maze.save(files[0], mazes)
    copied = mazes.subset([0, 1, 2, 3])
    labels = solutions(inputs, ways(inputs))
    Maze.save(files[1], type(mazes)(Maze(10), inputs, labels, copied.lines, "b", {}))
    told: list[str] = []
    report = Maze.check_splits(files, told.append)
    assert report["pairs"] == [{"files": [str(f) for f in files], "copies": 2}]
    assert told == [
        f"{files[1]}: line 4: a symmetric copy of {files[0]} line 2",
        f"{files[1]}: line 5: a symmetric copy of {files[0]} line 3",
    ]
    assert not report["clean"] and Maze.check_splits(files[:1], told.append)["clean"]


def test_public_mazes_are_imported_with_a_card(public: Path, tmp_path: Path):
    out = tmp_path / "mazes.csv"
    card = Maze.import_file(public, out)
    assert card["n"] == 4 and json.loads((tmp_path / "mazes.json").read_text())["file"] == out.name
    np.testing.assert_array_equal(load_puzzles(out).labels, maze_puzzles(4, 10).labels)
    with pytest.raises(UserError, match="--overwrite"):
        Maze.import_file(public, out)


def test_a_file_of_something_else_is_no_maze(tmp_path: Path):
    (tmp_path / "weights").write_bytes(b'\x10\x00{"a": 1}\r2\rpuzzle,solution\n')
    assert not Maze.recognises(tmp_path / "weights")
