"""The rules of the house: who imports whom, who asks which model it is, how long code may be."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from trm_interp.core.models.registry import architecture, names
from trm_interp.tasks.registry import families, family

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "trm_interp"
FLOORS = ("runtime", "core", "tasks", "subjects", "recording", "analysis", "figures")
FLOORS += ("patch", "sae search", "studies", "report", "explore", "cli")  # from the lowest one up
OURS = re.compile(r"(trm_interp(\.\w+)+)(:[\w.]+)?")
TOKENS = re.compile(r"\b(inputs|tokens)\b(?!\.)")  # `tokens.ndim` is of any task
SEAMS = ("trm_interp/core/models/", "trm_interp/core/checkpoints/")
LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 400, 60

# Functions above the limit, each with why it is better whole.
LONG_FUNCTIONS: dict[str, str] = {}
# Files outside SEAMS that may name a state of the TRM.
NAMING_STATES = {
    "trm_interp/core/clock.py": "the TRM's schedule by its own name, as other code imports it",
    "trm_interp/recording/schema.py": "stores from before they named their states are of a TRM",
}


@cache
def sources(*folders: str) -> dict[str, ast.Module]:
    """The parsed files below some folders, by their path in the project."""
    paths = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in paths}


def test_imports_go_downwards():
    """The contracts of pyproject.toml, with import-linter."""
    program = "from importlinter.cli import lint_imports_command as lint; lint()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache", "--no-logo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Contracts: \d+ kept, 0 broken", done.stdout), done.stdout


def contracts() -> dict[str, dict[str, Any]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return {contract["id"]: contract for contract in settings["contracts"]}


def test_the_contracts_know_every_floor():
    layers = contracts()["floors"]["layers"]
    assert [" ".join(sorted(layer.split(" | "))) for layer in layers] == list(FLOORS[::-1])
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == {floor for floors in FLOORS for floor in floors.split()}


def test_the_contracts_know_every_task_and_architecture():
    tasks = {family(name).__module__.rpartition(".")[0] for name in families()}
    models = {architecture(name).__module__ for name in names()}
    for modules, contract in ((tasks, "task-families"), (models, "architectures")):
        ours = {module for module in modules if module.startswith("trm_interp.")}
        assert ours <= set(contracts()[contract]["protected_modules"]), contract


def by_name(tree: ast.Module) -> Iterator[str]:
    """Modules of ours that a string names, as registries and lazy imports do: "a.b:attribute"."""
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and (match := OURS.fullmatch(text)):
            yield match[1]


def floor_of(module: str) -> int:
    name = module.split(".")[1]
    return next(at for at, floors in enumerate(FLOORS) if name in floors.split())


def test_imports_by_name_go_downwards_too():
    """import-linter sees import statements alone."""
    upward = [
        f"{path}: {module}"
        for path, tree in sources("trm_interp").items()
        if path.count("/") > 1  # the package itself offers what all floors have
        for module in by_name(tree)
        if (PACKAGE / module.split(".")[1]).is_dir()
        and floor_of(module) > floor_of(path.replace("/", "."))
    ]
    assert not upward


def test_only_tasks_speak_of_a_family_of_tasks():
    """Not even in words: what is said of Sudoku elsewhere has to hold for every task."""
    speak = [
        path.relative_to(PACKAGE).as_posix()
        for path in sorted(PACKAGE.rglob("*.py"))
        if "tasks.sudoku" in path.read_text()
    ]
    assert not [path for path in speak if not path.startswith("tasks/")]


def test_only_models_and_checkpoints_ask_which_architecture_it_is():
    """Elsewhere states are reached by the names that the model gives, and no class is asked for."""
    asking = set()
    for path, tree in sources("trm_interp").items():
        if path.startswith(SEAMS):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                asks = node.attr in ("z_H", "z_L")
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
                asks = re.search(r"\b(Hooked)?TRM\b", ast.unparse(node.args[1])) is not None
            else:
                continue
            if asks:
                asking.add(path)
    assert sorted(asking) == []


def test_names_of_states_come_from_the_model():
    naming = {
        path
        for path, tree in sources("trm_interp").items()
        if not path.startswith(SEAMS)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in ("z_H", "z_L")
    }
    assert sorted(naming) == sorted(NAMING_STATES)


def assumes_a_task(node: ast.AST) -> bool:
    """`inputs == 1` for blank cells, or the side of a square board from its number of cells."""
    if isinstance(node, ast.Compare):
        numbers = [type(getattr(of, "value", None)) is int for of in node.comparators]
        return any(numbers) and TOKENS.search(ast.unparse(node.left)) is not None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return "cells" in ast.unparse(node.left) and ast.unparse(node.right) in ("0.5", "1 / 2")
    if isinstance(node, ast.Call):
        return ast.unparse(node).startswith(("math.isqrt(", "math.sqrt(", "np.sqrt(")) and (
            "cells" in ast.unparse(node)
        )
    return False


def test_only_tasks_know_what_a_token_means_and_which_shape_a_board_has():
    """And formats of checkpoints, which have to tell some of them apart by their sizes."""
    assuming = {
        path
        for path, tree in sources("trm_interp").items()
        if not path.startswith(("trm_interp/tasks/", "trm_interp/core/checkpoints/"))
        if any(assumes_a_task(node) for node in ast.walk(tree))
    }
    assert sorted(assuming) == []


@pytest.mark.parametrize(
    ("text", "assumes"),
    [
        ("store['inputs'][0] == 1", True),
        ("batch.tokens > 1", True),
        ("side = config.cells ** 0.5", True),
        ("math.isqrt(cells)", True),
        ("inputs.shape[1] != model.config.cells", False),
        ("tokens.ndim != 2", False),
        ("tokens == labels", False),
        ("dim ** 0.5", False),
    ],
)
def test_what_assumes_a_task(text: str, assumes: bool):
    assert any(assumes_a_task(node) for node in ast.walk(ast.parse(text))) == assumes


def test_no_file_is_too_long():
    every = [path for folder in ("trm_interp", "experiments", "tests") for path in sources(folder)]
    long = {path: len((ROOT / path).read_text().splitlines()) for path in every}
    assert not {path: n for path, n in long.items() if n > LINES_OF_A_FILE}


def test_long_functions_are_the_exception():
    long = {
        f"{path}: {node.name}"
        for path, tree in sources("trm_interp", "experiments", "tests").items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.lineno + 1 > LINES_OF_A_FUNCTION
    }
    assert sorted(long) == sorted(LONG_FUNCTIONS)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("at('trm_interp.tasks.sudoku.task:Sudoku')", ["trm_interp.tasks.sudoku.task"]),
        ("at('trm_interp.studies')", ["trm_interp.studies"]),
        ("'in words: trm_interp.studies is a room'", []),
        ("from trm_interp import studies", []),
    ],
)
def test_a_name_in_a_string_counts_as_an_import(text: str, named: list[str]):
    assert list(by_name(ast.parse(text))) == named
