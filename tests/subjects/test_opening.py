"""A checkpoint and puzzles of its task: what the card says, what a file says, what is asked for."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from published import public_state
from toy_task import Latin, latin_puzzles
from toy_two_networks import Duo, DuoConfig

from trm_interp.core.checkpoints.folder import load_checkpoint, save_checkpoint
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.runtime.errors import UserError
from trm_interp.subjects.opening import open_both, open_checkpoint, task_of
from trm_interp.subjects.settings import default_checkpoint, first_look, shipped_checkpoint
from trm_interp.tasks import registry
from trm_interp.tasks.base import Task
from trm_interp.tasks.sudoku.task import Sudoku

CPU = torch.device("cpu")
FOUR = "1234341221434321,1234341221434321\n"


class Maze(Latin):
    """A task that shares the vocabulary of 4x4 Sudoku, as mazes of 900 cells do."""

    family, name, hints = "maze", "maze30", ("maze",)
    cells, vocab, grid = 900, 6, (30, 30)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return False

    @classmethod
    def typed(cls, text: str) -> str | None:
        return None


@pytest.fixture
def maze() -> Iterator[type[Task]]:
    ours = registry.family("maze")
    yield registry.register_task(Maze)
    registry.register_task(ours)


@pytest.fixture
def four(tmp_path: Path) -> Path:
    file = tmp_path / "four.txt"
    file.write_text(FOUR)
    return file


def latin_checkpoint(folder: Path, **card: object) -> Path:
    save_checkpoint(folder, TRM(TRMConfig(cells=9, vocab=5, d_model=8, prefix=1)), dict(card))
    return folder


def public_attention(folder: Path, data: str = "") -> Path:
    """A public checkpoint of 6 tokens, which does not say how many cells it reads."""
    folder.mkdir()
    config = TRMConfig(cells=16, vocab=6, d_model=32, mixer="attention", n_heads=4, prefix=1)
    torch.save(public_state(TRM(config)), folder / "step_1")
    named = f"data_paths: [{data}]\n" if data else ""
    (folder / "all_config.yaml").write_text(f"arch: {{puzzle_emb_len: 1, num_heads: 4}}\n{named}")
    return folder


def test_puzzles_of_any_task_open_with_a_checkpoint_of_it(tmp_path: Path, four: Path):
    squares = tmp_path / "squares"
    Latin.save(squares, latin_puzzles(3))
    ckpt = latin_checkpoint(tmp_path / "ckpt", task="latin3")
    checkpoint, puzzles = open_both(ckpt, squares, CPU)
    assert puzzles.task == Latin() == task_of(checkpoint) and len(puzzles) == 3
    with pytest.raises(UserError, match=r"four.txt: 4x4 Sudoku puzzles, but .*ckpt reads 9 cells"):
        open_both(ckpt, four, CPU)
    with pytest.raises(UserError, match=r"ckpt: no 3x3 Latin square test puzzles ship; give --puz"):
        open_both(ckpt, None, CPU)


def test_puzzles_with_identifiers_that_the_checkpoint_does_not_know_are_refused(tmp_path: Path):
    """Lines 2, 3 and 4 are identifiers 2, 0 and 1 of this task."""
    squares = tmp_path / "squares"
    Latin.save(squares, latin_puzzles(3))
    for known, refused in ((3, False), (2, True)):
        model = Duo(DuoConfig(cells=9, vocab=5, n_identifiers=known), torch.Generator())
        save_checkpoint(tmp_path / "ckpt", model, {"task": "latin3"})
        if not refused:
            open_both(tmp_path / "ckpt", squares, CPU)
            continue
        says = r"squares: not for .*ckpt: the model knows puzzle identifiers 0 to 1, .* 0 to 2"
        with pytest.raises(UserError, match=says):
            open_both(tmp_path / "ckpt", squares, CPU)


def test_the_card_counts_more_than_the_shape(tmp_path: Path, maze: type[Task]):
    squares = tmp_path / "squares"
    Latin.save(squares, latin_puzzles(3))
    ckpt = latin_checkpoint(tmp_path / "ckpt")
    assert task_of(load_checkpoint(ckpt)) == Latin()
    ckpt = latin_checkpoint(tmp_path / "ckpt", task="maze30")
    with pytest.raises(UserError, match="ckpt: its card says maze30, which has 900 cells of 6"):
        open_both(ckpt, None, CPU)
    with pytest.raises(UserError, match=r"squares: 3x3 Latin square puzzles, but .* on maze puzz"):
        open_both(ckpt, squares, CPU)
    ckpt = latin_checkpoint(tmp_path / "ckpt", task="chess8")
    with pytest.raises(UserError, match="no task 'chess8'; there are sudoku4, "):
        open_both(ckpt, None, CPU)


def test_six_tokens_and_unknown_cells_are_asked_about(tmp_path: Path, four: Path):
    ckpt = public_attention(tmp_path / "public")
    with pytest.raises(UserError, match="does not tell the number of cells: give --puzzles"):
        open_both(ckpt, None, CPU)
    assert open_both(ckpt, four, CPU)[0].model.config.cells == 16  # as the puzzles say


def test_a_checkpoint_trained_on_mazes_reads_no_sudoku(
    tmp_path: Path, four: Path, maze: type[Task]
):
    ckpt = public_attention(tmp_path / "public", "data/maze-30x30-hard-1k")
    with pytest.raises(UserError, match=r"4x4 Sudoku puzzles, but .*step_1 was trained on maze"):
        open_both(ckpt, four, CPU)
    assert task_of(load_checkpoint(ckpt, cells=900)).name == "maze30"
    with pytest.raises(UserError, match="hard-1k, but no maze has 16 cells of 6 tokens: give --p"):
        task_of(load_checkpoint(ckpt, cells=16))
    ckpt = public_attention(tmp_path / "sudoku", "data/sudoku-4x4-aug-1000")
    assert task_of(load_checkpoint(ckpt, cells=16)) == Sudoku(4)


def test_what_ships_comes_from_the_task():
    assert default_checkpoint().name == "trm-sudoku6" and first_look().name == "trm-sudoku9-extreme"
    assert first_look("sudoku6").name == first_look("sudoku").name == "trm-sudoku6"
    assert first_look("maze").name == first_look("maze10").name == "trm-maze10"
    assert first_look("arc").name == "trm-arc-small"
    with pytest.raises(UserError, match="no checkpoint for 30x30 maze puzzles ships"):
        first_look("maze30")
    with pytest.raises(UserError, match="no checkpoint for 4x4 Sudoku puzzles ships; name one"):
        shipped_checkpoint("sudoku4")
    checkpoint, puzzles = open_both("", None, CPU, limit=2, tell=lambda line: None)
    assert task_of(checkpoint) == puzzles.task == Sudoku(6) and len(puzzles) == 2
    assert puzzles.source.endswith("artifacts/data/sudoku6/test.txt")


def test_a_task_of_that_shape_decides_between_prefixes(tmp_path: Path, four: Path):
    """32 positions of 6 tokens: 4x4 Sudoku after a prefix of 16, for no task has 31 cells."""
    torch.save(
        public_state(TRM(TRMConfig(cells=16, vocab=6, d_model=32, prefix=16))), tmp_path / "step_1"
    )
    with pytest.raises(UserError, match="31 cells and a prefix of 1 or 16 cells and a prefix"):
        load_checkpoint(tmp_path)
    for checkpoint in (open_checkpoint(tmp_path), open_both(tmp_path, four, CPU)[0]):
        assert (checkpoint.model.config.cells, checkpoint.model.config.prefix) == (16, 16)
