"""What CONTRIBUTING.md names is there: files, tests, functions and lists."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trm_interp.tasks.base import PuzzleError
from trm_interp.tasks.registry import unregister

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
NAMED = re.findall(r"`([^`\n]+)`", TEXT)
PYTHON = [*ROOT.glob("trm_interp/**/*.py"), *ROOT.glob("tests/**/*.py")]
SOURCE = "\n".join(path.read_text() for path in PYTHON)
PLACES = (ROOT, ROOT / "trm_interp")  # rooms are named from the package on
PLACEHOLDER = re.compile(r"NAME|FAMILY|ROOM")  # what the reader fills in


def test_files_and_folders_exist():
    paths = [name for name in NAMED if "/" in name and " " not in name]
    # an environment is where its reader made it
    paths = [n for n in paths if not PLACEHOLDER.search(n) and not n.startswith(".venv/")]
    assert len(paths) > 20
    missing = [name for name in paths if not any((at / name).exists() for at in PLACES)]
    assert not missing


def test_tests_and_names_exist():
    tests = [name for name in NAMED if re.fullmatch(r"test(_[a-z]+){3,}", name)]
    lists = [name for name in NAMED if re.fullmatch(r"_?[A-Z][A-Z]+", name)]
    classes = [name for name in NAMED if re.fullmatch(r"[A-Z]\w*[a-z]\w*", name)]
    assert len(tests) >= 2 and len(lists) > 8 and len(classes) > 6
    assert [name for name in tests if f"def {name}(" not in SOURCE] == []
    assert [n for n in lists if not re.search(rf"^{n}\b[^\n]*=", SOURCE, re.M)] == []
    defined = r"^(class {0}\b|{0} = )"
    assert [n for n in classes if not re.search(defined.format(n), SOURCE, re.M)] == []


def test_every_command_names_a_file_that_exists():
    commands = re.findall(r"^\.venv/bin/(?:python -m pytest|python) .*", TEXT, re.M)
    words = [word for line in commands for word in line.split("#")[0].split()[1:]]
    paths = [word for word in words if word.startswith("tests/")]
    assert paths and all((ROOT / path).exists() for path in paths)


@pytest.fixture
def latin() -> Iterator[dict[str, Any]]:
    """The names of the smallest task, which is registered for this test alone."""
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, Any] = {"__name__": "latin"}
    exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    yield names
    unregister("latin-square")


def test_the_smallest_task_goes_through_the_commands(latin: Any, tmp_path: Path, cli: Any):
    rng, task = np.random.default_rng(0), latin["LatinSquare"]()
    cyclic = (np.add.outer(np.arange(5), np.arange(5)) % 5 + 2).astype(np.uint8)
    squares = [cyclic[rng.permutation(5)][:, rng.permutation(5)].ravel() for _ in range(8)]
    file, run = tmp_path / "some.latin", tmp_path / "run"
    lines = [task.text(np.where(np.arange(25) % 7 == at % 7, 1, s)) for at, s in enumerate(squares)]
    file.write_text("\n".join(lines))

    open_rows = np.where(np.arange(25) < 10, 1, cyclic.ravel())  # its first two rows can be swapped
    for text, problem in ((task.text(open_rows), "line 1: 2 solutions"), ("123", "no square")):
        with pytest.raises(PuzzleError, match=problem):
            task.load_text(text, "here")

    small = ["--d-model", 16, "--multiple", 8, "--h-cycles", 1, "--l-cycles", 1, "--n-sup", 2]
    on = ["--puzzles", file, "--ckpt", run, "--steps", 2]
    trained = cli("train", "--train", file, "--val", file, *small, "--train-steps", 2, "--out", run)
    assert trained.code == 0, trained.err
    assert json.loads(cli("eval", *on, "--json").out)["n"] == 8
    assert cli("collect", *on, "--out", tmp_path / "store").code == 0
    # a Sudoku, too, is typed as digits: here the checkpoint decides
    solved = cli("solve", lines[0], "--ckpt", run, "--k", 1, "--steps", 1, "--json")
    assert json.loads(solved.out)["puzzles"][0]["puzzle"] == lines[0]
    ambiguous = cli("solve", lines[0])
    assert ambiguous.code == 2 and "can be sudoku or latin-square" in ambiguous.err
