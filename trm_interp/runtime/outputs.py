"""Output folders: each belongs to one command, has one writer, and nothing foreign is deleted.

A folder that a command fills carries a marker, `.trm-interp.json`, that names the command. Only in
a folder with the marker of the same command does `--overwrite` delete anything, and only regular
files directly inside it under names that this command writes. These names come from the code, never
from a file.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol, TypeVar

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import require_regular, write_json
from trm_interp.runtime.locks import LOCK

MARKER = ".trm-interp.json"
# files that file managers and git users leave in folders
IGNORED = {".DS_Store", "Thumbs.db", "desktop.ini", ".gitkeep"}
T = TypeVar("T")


class Team(Protocol):
    """The processes of a torchrun (`core.ranks.Ranks`)."""

    rank: int

    def objects(self, mine: Any) -> list[Any]: ...


@contextmanager
def by_the_first(team: Team, opened: AbstractContextManager[T]) -> Iterator[T]:
    """Let the first process of a team enter a context; all of them get its value, or its error.

    The others enter nothing: one process locks and deletes on behalf of all.
    """
    with ExitStack() as stack:
        mine: Any = None
        if team.rank == 0:
            try:
                mine = stack.enter_context(opened)
            except (UserError, OSError) as error:
                mine = error
        answer = team.objects(mine)[0]
        if isinstance(answer, UserError | OSError):
            raise answer
        yield answer


def entries(folder: Path) -> list[Path]:
    """The entries of a folder, except the files in `IGNORED`."""
    return [path for path in folder.iterdir() if path.name not in IGNORED or path.is_dir()]


def holds_only(folder: Path, name: str) -> bool:
    """Whether a folder contains one file of this name and at most a lock besides."""
    return {entry.name for entry in entries(folder)} - {LOCK} == {name}


def maker(folder: Path) -> str | None:
    """The command that the folder's marker names; None if there is no readable marker."""
    from trm_interp.runtime.schema import read_json

    file = folder / MARKER
    if not file.is_file() or file.is_symlink():
        return None
    try:
        return read_json(file, dict[str, str]).get("command")
    except UserError:
        return None


def mark(folder: Path, command: str) -> None:
    """Write the marker that says which command fills the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if maker(folder) != command:
        write_json(folder / MARKER, {"command": command})


def remove_own(folder: Path, command: str, names: Sequence[str]) -> None:
    """Delete what `command` made in a folder that carries its marker, and nothing else.

    UserError if the folder belongs to another command or to none.
    """
    if (made_by := maker(folder)) != command:
        raise UserError(foreign(folder, command, made_by))
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            if matches(f"{entry.name}/", names) and maker(entry) == command:
                shutil.rmtree(entry)
        elif matches(entry.name, names):
            entry.unlink()


def own_table(*columns: Sequence[str]) -> Callable[[Path], None]:
    """For `file_run.FileRun`: a check that a file is a CSV table with exactly the columns of one of
    these versions."""

    def check(file: Path) -> None:
        require_regular(file)
        with file.open("rb") as opened:
            header = opened.readline(10_000).decode(errors="replace").strip()
        if header not in map(",".join, columns):
            raise UserError(
                f"{file} is no table of this command: choose another output, or delete it"
            )

    return check


def own_json(kind: type, command: str) -> Callable[[Path], None]:
    """For `file_run.FileRun`: a check that a file is JSON with the schema `kind`."""
    from trm_interp.runtime.schema import read_json

    def check(file: Path) -> None:
        read_json(file, kind, advice=f"no result of `{command}`: choose another output")

    return check


def discard(folder: Path, command: str, names: Sequence[str]) -> None:
    """`remove_own`, and remove the folder itself unless it contains anything else."""
    remove_own(folder, command, names)
    drop_if_empty(folder)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name is one of a command's, a folder's with `/` at its end."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def foreign(folder: Path, command: str, made_by: str | None) -> str:
    """Why `command` leaves a folder alone that `made_by`, or nobody it can name, has filled."""
    what = f"was written by `{made_by}`" if made_by else "is not empty and has no marker"
    return f"{folder} {what}, so `{command}` leaves it alone: choose another output, or delete it"


def drop_if_empty(folder: Path) -> None:
    """Remove a folder that contains nothing but a lock and a marker."""
    with suppress(OSError):
        if {entry.name for entry in folder.iterdir()} <= {LOCK, MARKER}:
            (folder / MARKER).unlink(missing_ok=True)
            (folder / LOCK).unlink(missing_ok=True)
            os.rmdir(folder)
