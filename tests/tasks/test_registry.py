"""Which task a file or a checkpoint is of: it is known, or it is asked about."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_task import Latin, latin_puzzles

from trm_interp.runtime.errors import UserError
from trm_interp.tasks import registry
from trm_interp.tasks.registry import family_of_file, task_named, task_of_checkpoint, task_of_shape
from trm_interp.tasks.sudoku.forge.presets import PRESETS
from trm_interp.tasks.sudoku.task import Sudoku


class Twin(Latin):
    """Another task with the shape and the files of the toy."""

    family, name, hints = "twin", "twin3", ("twin-data",)


@pytest.fixture
def twin() -> Iterator[type[Twin]]:
    yield registry.register_task(Twin)  # type: ignore[misc]
    registry.unregister("twin")


def test_older_checkpoints_name_their_task_otherwise():
    assert task_named("sudoku 6x6") == Sudoku(6) != Sudoku(9)
    with pytest.raises(UserError, match="no task 'sudoku 5x5'; there are sudoku4, "):
        task_named("sudoku 5x5")
    with pytest.raises(UserError, match="no task 'chess'; there are sudoku, maze, "):
        registry.family("chess")


@pytest.mark.parametrize(
    "card", [{"task": "sudoku6"}, {"task": "sudoku 6x6"}, {"train": {"task": "sudoku 6x6"}}]
)
def test_a_card_says_the_task(card: dict[str, object]):
    assert task_of_checkpoint(card, 36, 8) == Sudoku(6)
    with pytest.raises(UserError, match=r"runs/x: its card says sudoku6, .* weights have 16 of 6"):
        task_of_checkpoint(card, 16, 6, "runs/x")


def test_the_shape_comes_last(twin: type[Twin]):
    assert task_of_checkpoint({}, 81, 11) == Sudoku(9)
    with pytest.raises(UserError, match="x: 9 cells of 5 tokens can be latin3 or twin3: give"):
        task_of_checkpoint({}, 9, 5, "x")
    assert task_of_checkpoint({}, 9, 5, data="data/twin-data-1k") == twin()
    assert task_of_checkpoint({}, 9, 5, data="data/Latin-Square-1k") == Latin()
    assert task_of_checkpoint({"task": "twin3"}, 9, 5, data="data/latin-square") == twin()


def test_no_task_is_guessed():
    with pytest.raises(UserError, match="901 cells of 6 tokens; there are .*: give --puzzles"):
        task_of_shape(901, 6)
    with pytest.raises(UserError, match="trained on data/sudoku-5, but no sudoku has 25 cells"):
        task_of_checkpoint({}, 25, 7, data="data/sudoku-5")


def test_a_file_is_of_the_family_that_recognises_it(tmp_path: Path, grids: Path):
    file = tmp_path / "squares"
    Latin.save(file, latin_puzzles(3))
    assert family_of_file(file) is Latin and family_of_file(grids) is Sudoku
    assert family_of_file("artifacts/data/sudoku9-hard/test.csv") is Sudoku
    with pytest.raises(UserError, match="no such file"):
        family_of_file(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe"):
        family_of_file(tmp_path / "pipe")
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("what is this?\n")
    with pytest.raises(UserError, match="nonsense: 1 bad line of 1"):
        registry.load_puzzles(nonsense)


def test_a_file_of_two_families_is_asked_about(tmp_path: Path, twin: type[Twin]):
    file = tmp_path / "squares"
    Latin.save(file, latin_puzzles(3))
    with pytest.raises(UserError, match="squares: can be latin or twin"):
        family_of_file(file)
    with pytest.raises(UserError, match="the puzzle can be latin or twin"):
        registry.family_of_text("ABC|...|...")
    assert registry.family_of_text("ABC|...|...", Latin) is Latin  # of a checkpoint of that task
    assert registry.family_of_text("ABC|...|...", twin) is twin
    with pytest.raises(UserError, match="the puzzle can be latin or twin"):
        registry.family_of_text("ABC|...|...", lambda: task_named("sudoku4"))


def test_the_family_of_a_typed_puzzle():
    assert registry.family_of_text("ABC|...|...") is Latin
    assert registry.family_of_text("1..." * 4) is Sudoku
    assert registry.family_of_text("puzzles.txt") is None


def test_presets_have_the_family_that_makes_them():
    made = registry.presets()
    assert set(PRESETS) == {name for name, one in made.items() if one is Sudoku}
    assert Sudoku.is_resumable("sudoku9-hard") and not Sudoku.is_resumable("sudoku9")
    assert registry.downloads() == {"sudoku-extreme": Sudoku}
    with pytest.raises(UserError, match="latin has no generator"):
        Latin.make("any", "out")


def test_what_a_plugin_registers_is_imported_when_it_is_asked_for():
    registry.register("plugin", "toy_task:Latin")
    try:
        assert registry.family("plugin").__name__ == "Latin"
        assert "plugin" in registry.families()
    finally:
        registry.unregister("plugin")
