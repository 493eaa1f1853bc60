"""Paths, rules and facts of small mazes, worked out by hand."""

import numpy as np
import pytest
import torch
from maze_puzzles import random_mazes

from trm_interp.tasks.maze.grid import OPEN, PATH, WALL, fill_rounds, parse, render, ways
from trm_interp.tasks.maze.symmetries import cells_of, class_keys, random_symmetry
from trm_interp.tasks.maze.task import Maze

MAZE = """\
S.#..
#.#.#
#....
#.#.#
#.#.G"""
SOLVED = """\
So#..
#o#.#
#ooo.
#.#o#
#.#oG"""
LOOP = """\
S...#
.##.#
....#
#.###
#..G#"""  # a ring of ten cells, whose lower way is the shorter one


def tokens(drawn: str) -> np.ndarray:
    return parse(drawn.replace("\n", ""))


def test_tokens_are_those_of_the_public_code():
    assert parse("# SGo").tolist() == [1, 2, 3, 4, 5]
    assert render(parse("# SGo"), " ") == "# SGo"
    assert Maze(30).vocab == 6 and Maze(30).cells == 900
    with pytest.raises(ValueError, match="'x' is none of '#', ' ', 'S', 'G', 'o', '.'"):
        parse("#x")


def test_the_shortest_path_by_hand():
    # 1 right, 2 down, 2 right, 2 down, 1 right
    inputs = tokens(MAZE)[None]
    between = ways(inputs)
    assert between.length.tolist() == [8] and not between.several.any()
    task = Maze(5)
    read = task.load_text(MAZE, "typed")
    assert task.text(read.labels[0]) == SOLVED.replace("\n", "")
    assert between.from_start[0, 2 * 5 + 4] == 6 and between.to_goal[0, 0] == 8
    assert between.from_start[0, 2] == -1  # a wall


def test_a_loop_has_one_shortest_path_or_is_said_to_have_several():
    # down 2, right 1, down 2, right 2
    assert ways(tokens(LOOP)[None]).length.tolist() == [7]
    assert not Maze(5).has_several_solutions(tokens(LOOP)[None]).any()
    ring = tokens("S..##" + ".#.##" + "..G##" + "#" * 10)[None]
    assert Maze(5).has_several_solutions(ring).all()


def test_wrong_paths_are_caught():
    task, inputs = Maze(5), tokens(MAZE)[None]
    right = tokens(SOLVED)
    assert task.proves(inputs, right[None]).all()

    def broken(**cells: str) -> list[int]:
        answer = right.copy()
        for name, char in cells.items():
            answer[int(name[1:])] = parse(char)[0]
        verdict = task.verify(inputs, answer[None])
        assert not verdict.proved.any() and not task.proves(inputs, answer[None]).any()
        return np.flatnonzero(verdict.broken[0]).tolist()

    assert broken(c6=".") == [6, 11]  # a gap, and the cell after it
    assert broken(c14="o") == [14]  # a cell off the path
    assert broken(c2="o") == [2]  # through a wall
    assert broken(c0=".") == [0]  # the start is gone
    assert broken(c9="G") == [9]  # a wall became a goal
    assert broken(c3="o", c4="o", c8="o") == [3, 4, 8]  # a piece of its own


def test_a_longer_way_is_no_solution():
    task, inputs = Maze(5), tokens(LOOP)[None]
    around = tokens(LOOP)
    around[[1, 2, 3, 8, 13, 12, 11, 16, 21, 22]] = PATH
    path = around == PATH
    assert not task.proves(inputs, around[None]).any()
    shortest = task.load_text(LOOP, "typed").labels
    assert task.proves(inputs, shortest).all() and path.sum() > (shortest == PATH).sum()


def test_of_several_shortest_paths_each_is_proved_and_no_mixture():
    task = Maze(5)
    inputs = np.repeat(tokens("S....#" + "." * 18 + "G").reshape(1, 25), 4, axis=0)
    answers = inputs.copy()
    answers[0, [1, 2, 3, 4, 9, 14, 19]] = PATH  # along the upper right border
    answers[0, 5] = inputs[0, 5]
    answers[1, [6, 7, 12, 13, 18, 19]] = PATH  # without its first cell
    answers[2, [1, 6, 7, 12, 13, 18, 19]] = PATH  # a staircase
    answers[3, [1, 6, 7, 12, 13, 18, 19, 23]] = PATH  # and one cell more
    assert task.proves(inputs, answers).tolist() == [True, False, True, False]
    broken = task.verify(inputs, answers).broken
    assert np.flatnonzero(broken[3]).tolist() == [19, 23]  # both seven steps from the start
    assert task.load_text(render(inputs[0]), "typed", several=True).labels.shape == (1, 25)


def test_rules_of_an_answer_that_lost_its_ends():
    task, answer = Maze(5), tokens(SOLVED)
    assert not any(rule.any() for rule in task.violations(answer).values())
    two = answer.copy()
    two[3] = answer[0]
    ends, path = task.violations(two).values()
    assert np.flatnonzero(ends).tolist() == [0, 3] and not path.any()
    none = np.where(answer == answer[0], OPEN, answer).astype(np.uint8)
    assert task.violations(none)["one start, one goal"].all()
    puzzle = np.where(answer == PATH, OPEN, answer).astype(np.uint8)
    assert np.flatnonzero(~task.keeps_givens(puzzle, none)).tolist() == [0]
    assert not task.proves(puzzle[None], none[None])[0]


def test_facts_of_cells_by_hand():
    inputs, labels = tokens(MAZE), tokens(SOLVED)
    facts = Maze(5).board_facts(inputs, labels)
    where = {name: np.flatnonzero(values).tolist() for name, values in facts.items()}
    assert where["on the path"] == [1, 6, 11, 12, 13, 18, 23]
    assert where["dead end"] == [4, 14, 21]
    assert where["junction"] == [11, 13]
    assert where["start within 4"] == [1, 6, 11, 12, 16]
    assert where["goal within 4"] == [8, 12, 13, 14, 18, 23]
    # round 1: the ends 4, 14, 21; round 2: 3 and 16; round 3: 8
    assert where["filled by round 1"] == [4, 14, 21]
    assert where["filled"] == [3, 4, 8, 14, 16, 21]
    assert fill_rounds(inputs[None])[0, [4, 3, 8, 16]].tolist() == [1, 2, 3, 2]
    puzzles = Maze(5).load_text(MAZE, "typed")
    rated = {name: int(values[0]) for name, values in Maze(5).rate(puzzles).items()}
    assert rated == {"path": 8, "junctions": 2, "dead_ends": 3, "fill_rounds": 3, "open": 15}


def test_filling_dead_ends_leaves_the_path_of_a_tree():
    mazes = random_mazes(8, 11)
    between, rounds = ways(mazes), fill_rounds(mazes)
    np.testing.assert_array_equal((rounds == 0) & (mazes != WALL), between.on)


def test_the_eight_symmetries_are_a_group_and_undo_each_other():
    cells = cells_of(6)
    rows = {tuple(one) for one in cells.tolist()}
    assert len(rows) == 8
    assert {tuple(one[other]) for one in cells for other in cells} == rows
    keys = torch.arange(64)
    symmetry = random_symmetry(keys, 6)
    assert {tuple(one) for one in symmetry.cells.tolist()} == rows
    maze = torch.from_numpy(random_mazes(1, 6)).expand(64, -1)
    assert torch.equal(symmetry.invert().apply(symmetry.apply(maze)), maze)
    images = class_keys(symmetry.apply(maze).numpy())
    assert len(set(images.tolist())) == 1 != len(set(class_keys(random_mazes(5, 6)).tolist()))
