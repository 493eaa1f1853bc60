"""Rows of a table of jobs, as YAML has them; every error is one line that names the row."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trm_interp.report.sweep.machines import SLURM
from trm_interp.runtime.errors import UserError, first_line

ROW = ("run", "matrix", "needs", "shards", "slurm")
NAME = re.compile(r"[A-Za-z][\w.-]*")
LARGEST = 10**6  # bytes of a table


@dataclass(frozen=True)
class Row:
    """`values`: the matrix, by axis and the value's name; `after`: rows that it needs."""

    name: str
    run: tuple[str, ...]
    values: Mapping[str, Mapping[str, tuple[str, ...]]]
    after: tuple[str, ...]
    shards: int
    slurm: Mapping[str, Any]


class _Loader(yaml.SafeLoader):
    """Refuses a name that is there twice, of which YAML would take the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: {key.value!r} is there twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(file: Path) -> Any:
    try:
        if file.stat().st_size > LARGEST:
            raise UserError(f"{file} is too large for a table of jobs")
        return yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "is not text"
        raise UserError(f"{file} cannot be read: {why}") from None
    except RecursionError:
        raise UserError(f"{file} is no table of jobs: it is nested too deep") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        why = getattr(error, "problem", None) or first_line(error)
        raise UserError(f"{file} is no YAML: {where}{why}") from None


def mapping(raw: Any, where: str, names: Sequence[str] | None) -> dict[str, Any]:
    """A mapping with no other names than these."""
    if not isinstance(raw, dict):
        raise UserError(f"{where}: must be names with values, got {_shown(raw)}")
    for name in raw:
        if names is not None and name not in names:
            raise UserError(f"{where}: unknown {name!r}; there are {', '.join(names)}")
    return raw


def _shown(raw: Any) -> str:
    return "nothing" if raw is None else repr(raw)[:60]


def text(raw: Any, where: str) -> str:
    if not isinstance(raw, str) or not raw or "\0" in raw:
        raise UserError(f"{where}: must be text, got {_shown(raw)}")
    return raw


def count(raw: Any, where: str, least: int = 1, most: int = 1024) -> int | None:
    if raw is None:
        return None
    if not isinstance(raw, int) or isinstance(raw, bool) or not least <= raw <= most:
        raise UserError(f"{where}: must be {least} to {most}, got {_shown(raw)}")
    return raw


def slurm_of(raw: Any, where: str) -> dict[str, Any]:
    """What is asked of Slurm: minutes in `time`, GB in `mem`."""
    asked = mapping({} if raw is None else raw, where, tuple(SLURM))
    for name, value in asked.items():
        if name in ("time", "gpus", "cpus", "parallel"):
            count(value, f"{where}: {name}", 0 if name == "gpus" else 1, 10**6)
        elif name == "setup":
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                raise UserError(f"{where}: setup: must be a list of commands, got {_shown(value)}")
        elif name != "mem" or not isinstance(value, int | float) or isinstance(value, bool):
            text(value, f"{where}: {name}")
    return asked


def read_row(name: str, raw: Any, where: str) -> Row:
    row = mapping(raw, where, ROW)
    run, needs = row.get("run"), row.get("needs", [])
    try:
        words = shlex.split(run) if isinstance(run, str) else [str(word) for word in run or []]
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: run: {error}, in {_shown(run)}") from None
    if not words:
        raise UserError(f"{where}: run: the command line is missing")
    needs = [needs] if isinstance(needs, str) else needs
    if not isinstance(needs, list) or not all(isinstance(need, str) for need in needs):
        raise UserError(f"{where}: needs: must be names of jobs, got {_shown(needs)}")
    axes = mapping(row.get("matrix") or {}, f"{where}: matrix", None)
    return Row(
        name,
        tuple(words),
        {axis: _axis(axis, values, f"{where}: matrix") for axis, values in axes.items()},
        tuple(dict.fromkeys(needs)),
        count(row.get("shards"), f"{where}: shards") or 1,
        slurm_of(row.get("slurm"), f"{where}: slurm"),
    )


def _axis(axis: Any, raw: Any, where: str) -> dict[str, tuple[str, ...]]:
    """The words of every value, by its name."""
    if not isinstance(axis, str) or not NAME.fullmatch(axis):
        raise UserError(f"{where}: {axis!r} is no name: letters, digits, - and _")
    if isinstance(raw, dict):
        try:
            values = {str(name): tuple(shlex.split(str(words))) for name, words in raw.items()}
        except ValueError as error:
            raise UserError(f"{where}: {axis}: {error}") from None
    elif isinstance(raw, list) and all(isinstance(one, str | int | float) for one in raw):
        values = {str(one): (str(one),) for one in raw}
        if len(values) < len(raw):
            raise UserError(f"{where}: {axis}: a value is there twice")
    else:
        raise UserError(f"{where}: {axis}: must be a list of values, got {_shown(raw)}")
    if not values:
        raise UserError(f"{where}: {axis}: there are no values")
    return values
