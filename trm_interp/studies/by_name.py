"""Studies by their names, for scripts and notebooks."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.progress import Update
from trm_interp.runtime.runs import Tell, quiet
from trm_interp.studies.settings import CONFIGS


def run_study(name: str, *, tell: Tell = print, progress: Update = quiet, **settings: Any) -> Any:
    """Run a study as its command does; its result, whose numbers are also in `out`/summary.json.

    `settings`: the fields of its configuration (`studies.settings.CONFIGS`), such as
    `run_study("outcomes", out="runs/outcomes", limit=100)`. UserError names the studies that
    there are, and what is wrong with a value.
    """
    if name not in CONFIGS:
        raise UserError(f"no study {name!r}; there are {', '.join(CONFIGS)}")
    module = import_module(f"trm_interp.studies.{name}")
    return module.run(_config(CONFIGS[name], settings), tell, progress)


def _config(kind: type, settings: Mapping[str, Any]) -> Any:
    """A study's configuration; a path may be given as text. UserError names the fields that there
    are, those that are missing, and what is wrong with a value."""
    offered = {f.name: f for f in fields(kind)}
    if unknown := [name for name in settings if name not in offered]:
        raise UserError(f"no setting {unknown[0]!r}; there are {', '.join(offered)}")
    needed = [
        name
        for name, f in offered.items()
        if f.default is MISSING and f.default_factory is MISSING and name not in settings
    ]
    if needed:
        raise UserError(f"{', '.join(needed)} must be given")
    hints = get_type_hints(kind)
    is_path = {name for name in offered if Path in (hints[name], *get_args(hints[name]))}
    values = {
        name: Path(value) if name in is_path and isinstance(value, str) else value
        for name, value in settings.items()
    }
    try:
        return kind(**values)
    except ValueError as error:
        raise UserError(str(error)) from None
