"""Which tasks there are, and the task of a file, of a checkpoint, of a shape.

A family is registered by name and imported on first use. A task is never guessed: what several
tasks could be is asked about.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from trm_interp.runtime.artifacts import existing
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import require_regular
from trm_interp.tasks.base import Progress, PuzzleError, PuzzleSet, Task, no_progress
from trm_interp.tasks.puzzles import WAYS

_FAMILIES: dict[str, str | type[Task]] = {
    "sudoku": "trm_interp.tasks.sudoku.task:Sudoku",
    "maze": "trm_interp.tasks.maze.task:Maze",
    "arc": "trm_interp.tasks.arc.task:Arc",
}


def register(family: str, target: str) -> None:
    """Add a family of tasks as "module:Class", imported when it is first asked for."""
    _FAMILIES[family] = target


def register_task(cls: type[Task]) -> type[Task]:
    """Add a family of tasks whose class is at hand; a decorator."""
    _FAMILIES[cls.family] = cls
    return cls


def unregister(family: str) -> None:
    """Take a family away again, as tests do with theirs."""
    del _FAMILIES[family]


def families() -> list[str]:
    """Names of all families, in the order in which they were registered."""
    return list(_FAMILIES)


def family(name: str) -> type[Task]:
    """The class of a family. UserError for an unknown one."""
    if name not in _FAMILIES:
        raise UserError(f"no task {name!r}; there are {', '.join(_FAMILIES)}")
    target = _FAMILIES[name]
    if isinstance(target, str):
        module, _, attribute = target.partition(":")
        target = _FAMILIES[name] = getattr(import_module(module), attribute)
    return target


def _all() -> list[type[Task]]:
    return [family(name) for name in _FAMILIES]


def task_named(name: str) -> Task:
    """The task of that name, or that older checkpoints call so. UserError for an unknown one.

    >>> task_named("sudoku9"), task_named("sudoku 6x6")
    (<task sudoku9>, <task sudoku6>)
    """
    for one in _all():
        if (task := one.named(name)) is not None:
            return task
    names = ", ".join(task.name for one in _all() for task in one.sizes())
    raise UserError(f"no task {name!r}; there are {names}")


def tasks_of_shape(cells: int, vocab: int) -> list[Task]:
    """Every task with that many cells and tokens."""
    shaped = [one.shaped(cells, vocab) for one in _all()]
    return [task for task in shaped if task is not None]


def task_of_shape(cells: int, vocab: int, source: str = "") -> Task:
    """The only task with that many cells and tokens. UserError where there are several or none.

    `source` names in messages what has that shape.
    """
    tasks = tasks_of_shape(cells, vocab)
    if len(tasks) == 1:
        return tasks[0]
    what = f"{source}: " if source else ""
    shape = f"{cells} cells of {vocab} tokens"
    if tasks:
        names = " or ".join(task.name for task in tasks)
        raise UserError(f"{what}{shape} can be {names}: give --puzzles")
    names = ", ".join(task.name for one in _all() for task in one.sizes())
    raise UserError(f"{what}no task has {shape}; there are {names}: give --puzzles")


def task_of_checkpoint(
    card: Mapping[str, Any], cells: int, vocab: int, source: str = "", data: str = ""
) -> Task:
    """The task that a checkpoint was trained on, of which it reads `cells` cells of `vocab` tokens.

    What its card says comes first (`task`; in older cards `train.task`), then `data`, the names of
    its training data, then the shape. UserError where they do not agree, and where several tasks
    or none could be meant; `source` names the checkpoint there.
    """
    where = f"{source}: " if source else ""
    if (name := _name_on(card)) is not None:
        task = task_named(name)
        if (task.cells, task.vocab) != (cells, vocab):
            raise UserError(
                f"{where}its card says {task.name}, which has {task.cells} cells of {task.vocab} "
                f"tokens, but the weights have {cells} of {vocab}"
            )
        return task
    if (meant := stated_family(card, data)) is not None:
        if (task := meant.shaped(cells, vocab)) is not None:
            return task
        raise UserError(
            f"{where}trained on {data}, but no {meant.family} has {cells} cells of {vocab} "
            "tokens: give --puzzles"
        )
    return task_of_shape(cells, vocab, source)


def stated_family(card: Mapping[str, Any], data: str = "") -> type[Task] | None:
    """The family of tasks that a checkpoint says it was trained on; None where it does not say.

    By its card, else by `data`, the names of its training data, if one family alone fits these.
    """
    if (name := _name_on(card)) is not None:
        return type(task_named(name))
    meant = [one for one in _all() if any(hint in data.lower() for hint in one.hints)]
    return meant[0] if len(meant) == 1 else None


def _name_on(card: Mapping[str, Any]) -> str | None:
    train = card.get("train")
    name = card.get("task") or (train.get("task") if isinstance(train, Mapping) else None)
    return name if isinstance(name, str) else None


def family_of_file(path: str | Path, name: str = "") -> type[Task]:
    """The family that reads a file or folder. UserError where several could.

    What no family recognises is left to the first, whose reader says what is wrong with it. `name`
    is what messages call it, where that is not its path.
    """
    path = Path(path)
    classes = _all()
    if not path.exists():
        raise PuzzleError(f"{path}: no such file or folder; {WAYS}")
    if not path.is_dir():
        require_regular(path)  # one that waits for a writer is not opened
    able = [one for one in classes if one.recognises(path)] if len(classes) > 1 else classes
    if len(able) > 1:
        names = " or ".join(one.family for one in able)
        raise PuzzleError(
            f"{name or path}: can be {names}: in Python, registry.family(NAME).load reads it as "
            "the one"
        )
    return able[0] if able else classes[0]


def family_of_text(text: str, meant: Callable[[], Task] | None = None) -> type[Task] | None:
    """The family that reads a puzzle typed on the command line; None where none does.

    Where several do, that of the task which `meant` gives. PuzzleError where it is none of them.
    """
    able = [one for one in _all() if one.typed(text) is not None]
    if len(able) > 1 and meant is not None and (one := type(meant())) in able:
        return one
    if len(able) > 1:
        names = " or ".join(one.family for one in able)
        raise PuzzleError(f"the puzzle can be {names}: put it into a file of its task")
    return able[0] if able else None


def load_puzzles(
    path: str | Path,
    skip_bad: bool = False,
    limit: int | None = None,
    progress: Progress = no_progress,
    several: bool = False,
) -> PuzzleSet:
    """`Task.load` of the family that reads the file."""
    path = existing(path)
    return family_of_file(path).load(path, skip_bad, limit, progress, several)


def presets() -> dict[str, type[Task]]:
    """Data sets that can be made, of all families: name -> whose it is."""
    return {name: one for one in _all() for name in one.presets()}


def maker_of(preset: str) -> type[Task]:
    """The family that makes the data set of that name. UserError where none does."""
    able = [one for one in _all() if one.makes(preset)]
    return able[0] if able else offering(presets(), preset, "preset")


def downloads() -> dict[str, type[Task]]:
    """Public data sets that can be fetched, of all families: name -> whose it is."""
    return {name: one for one in _all() for name in one.downloads()}


def offering(named: Mapping[str, type[Task]], name: str, kind: str) -> type[Task]:
    """The family that has this preset or public data set. UserError where none has; `kind` says
    what is named."""
    if name not in named:
        raise UserError(f"no {kind} {name!r}; there are {', '.join(named)}")
    return named[name]
