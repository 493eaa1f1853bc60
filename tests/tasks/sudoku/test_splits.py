from pathlib import Path

import numpy as np
import pytest

from trm_interp.tasks.sudoku.canonical import class_keys
from trm_interp.tasks.sudoku.dataset import save_lines
from trm_interp.tasks.sudoku.forge.generate import generate
from trm_interp.tasks.sudoku.forge.presets import make_preset
from trm_interp.tasks.sudoku.forge.rate import random_images
from trm_interp.tasks.sudoku.forge.solver import solve_batch
from trm_interp.tasks.sudoku.grid import SHAPES, render
from trm_interp.tasks.sudoku.splits import assign, check, kin


def neighbour_of(puzzle, solution):
    """A puzzle of another class that shares all clues but one, scrambled by a symmetry."""
    for gone in puzzle.nonzero()[0]:
        for cell in np.flatnonzero(puzzle == 0):
            moved = puzzle.copy()
            moved[gone], moved[cell] = 0, solution[cell]
            if solve_batch(moved[None]).counts[0] == 1:
                return random_images(moved[None], 1, seed=9)[0, 0]
    raise AssertionError("no neighbour")


@pytest.fixture(scope="module", params=[6, 9])
def two_files(request, tmp_path_factory):
    """Two files without kin, and the puzzles and solutions of the first."""
    folder = tmp_path_factory.mktemp(f"splits{request.param}")
    puzzles, solutions = generate(SHAPES[request.param], 24, seed=11)
    for name, part in (("train.txt", slice(0, 12)), ("test.txt", slice(12, 24))):
        save_lines(folder / name, puzzles[part], solutions[part])
    return folder / "train.txt", folder / "test.txt", puzzles, solutions


def plant(tmp_path, file, *lines):
    planted = tmp_path / "planted.txt"
    planted.write_text(file.read_text() + "".join(f"{line}\n" for line in lines))
    return planted


def test_clean_files_pass(two_files, cli):
    train, test, *_ = two_files
    report = check([train, test])
    assert report["clean"] and report["pairs"][0]["copies"] == report["pairs"][0]["neighbours"] == 0
    answer = cli("data", "check", train, test)
    assert answer.code == 0 and "0 copies, 0 neighbours, lineages unknown\n" in answer.out


def test_files_of_two_sizes_are_refused(two_files, tmp_path, cli):
    train, *_ = two_files
    small = tmp_path / "small.txt"
    small.write_text("......2..3..2.4.\n")
    answer = cli("data", "check", train, small)
    assert answer.code == 2 and answer.out == ""
    assert f"{small} 4x4: check one size at a time" in answer.err


def test_a_planted_symmetric_copy_is_caught(two_files, tmp_path, cli):
    train, test, puzzles, _ = two_files
    copy = random_images(puzzles[4:5], 1, seed=8)[0, 0]
    assert render(copy) != render(puzzles[4])
    planted = plant(tmp_path, test, render(copy))
    answer = cli("data", "check", train, planted)
    assert answer.code == 2
    assert f"line 13: the class of {train} line 5" in answer.err
    assert ": 1 copy, 0 neighbours" in answer.out


def test_a_planted_neighbour_is_caught(two_files, tmp_path):
    train, test, puzzles, solutions = two_files
    moved = neighbour_of(puzzles[6], solutions[6])
    assert class_keys(moved[None])[0] not in class_keys(puzzles)
    notices = []
    report = check([train, plant(tmp_path, test, render(moved))], notices.append)
    assert report["pairs"][0]["neighbours"] == 1 and report["pairs"][0]["copies"] == 0
    assert not report["clean"] and any("line 13: one clue away from" in line for line in notices)


def test_a_clue_more_is_a_neighbour(two_files, tmp_path):
    train, test, puzzles, solutions = two_files
    more = puzzles[2].copy()
    at = np.flatnonzero(more == 0)[0]
    more[at] = solutions[2][at]
    report = check([train, plant(tmp_path, test, render(more))], lambda line: None)
    assert report["pairs"][0]["neighbours"] == 1


def test_repeated_and_invalid_puzzles_are_listed_with_their_lines(two_files, tmp_path, cli):
    train, test, puzzles, _ = two_files
    bad = "11" + "." * (puzzles.shape[1] - 2)
    planted = plant(tmp_path, test, render(puzzles[13]), bad)
    answer = cli("data", "check", train, planted, "--json")
    assert answer.code == 2
    assert "line 13: the class of line 2" in answer.err
    assert "line 14: contradictory givens" in answer.err
    again = cli("data", "check", train, train)
    assert again.code == 2 and "named twice" in again.err


def test_lineages_in_two_files_are_counted(two_files, tmp_path):
    _, _, puzzles, solutions = two_files
    files = []
    for name, at, seeds in (("a.csv", (0, 1), (5, 6)), ("b.csv", (2, 3), (6, 7))):
        lines = [
            f"{render(puzzles[i])},{render(solutions[i])},{s}"
            for i, s in zip(at, seeds, strict=True)
        ]
        (tmp_path / name).write_text("\n".join(["question,answer,lineage", *lines]) + "\n")
        files.append(tmp_path / name)
    report = check(files, lambda line: None)
    assert report["pairs"][0]["lineages"] == 1 and not report["clean"]


def test_kin_has_a_key_for_each_clue_less():
    puzzles = generate(SHAPES[6], 5, seed=1)[0]
    keyed = kin(puzzles)
    assert (keyed.own == class_keys(puzzles)).all()
    assert np.bincount(keyed.owner).tolist() == [1 + np.count_nonzero(p) for p in puzzles]
    assert kin(puzzles[:0]).own.shape == (0,)


def test_assign_keeps_kin_together_and_shares_kinds_out():
    puzzles, solutions = generate(SHAPES[6], 40, seed=2)
    copy = random_images(puzzles[:1], 1, seed=3)[0]
    near = neighbour_of(puzzles[1], solutions[1])[None]
    all_of = np.concatenate([puzzles[:20], copy, near, puzzles[20:]])
    plain = [i % 4 == 3 for i in range(len(all_of))]
    chosen = assign(all_of, plain, {"train": 16, "test": 8}, plain_every=4)
    taken = {i for numbers in chosen.values() for i in numbers}
    assert 20 not in taken  # the copy
    home = {i: split for split, numbers in chosen.items() for i in numbers}
    assert 21 not in home or home[21] == home.get(1)
    assert {split: len(numbers) for split, numbers in chosen.items()} == {"train": 16, "test": 8}
    assert [sum(plain[i] for i in chosen[split]) for split in chosen] == [4, 2]
    assert all(numbers == sorted(numbers) for numbers in chosen.values())
    # more puzzles only add
    fewer = assign(all_of[:24], plain[:24], {"train": 16, "test": 8}, plain_every=4)
    assert all(chosen[split][: len(numbers)] == numbers for split, numbers in fewer.items())


def test_one_file_is_checked_by_itself(two_files, cli):
    train, *_ = two_files
    answer = cli("data", "check", train)
    assert answer.code == 0 and "0 repeated" in answer.out
    assert f"{train}: checked by itself; name two files or more to compare splits" in answer.err


def test_empty_lineages_are_in_no_two_files(two_files, tmp_path):
    _, _, puzzles, solutions = two_files
    files = []
    for i in (0, 1):
        files.append(tmp_path / f"{i}.csv")
        row = f"{render(puzzles[i])},{render(solutions[i])},"
        files[-1].write_text(f"question,answer,lineage\n{row}\n")
    assert check(files, lambda line: None)["pairs"][0]["lineages"] == 0


def test_data_check_finds_the_splits_of_sudoku4_clean(tmp_path: Path):
    """Of so few classes many are one clue apart: the preset keeps those in one split."""
    make_preset("sudoku4", tmp_path / "made", seed=1)
    told: list[str] = []
    files = [tmp_path / "made" / f"{split}.txt" for split in ("train", "val", "test")]
    assert check(files, told.append)["clean"] and told == []
