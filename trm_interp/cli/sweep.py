"""The command that runs tables of other commands, which it checks by their options."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from trm_interp.cli.options import settings_of
from trm_interp.cli.wording import option_fields, usage_error
from trm_interp.report.sweep.run import Swept, fault, lines
from trm_interp.report.sweep.settings import SweepConfig
from trm_interp.report.sweep.table import Line
from trm_interp.runtime.errors import UserError

__all__ = ["fault", "lines", "read_line", "run"]


def run(
    config: SweepConfig, tell: Callable[[str], None], progress: Callable[[int, int], None]
) -> Swept:
    """Run a table of jobs."""
    from trm_interp.report.sweep import run as sweep

    return sweep.run(config, read_line, tell, progress)


def read_line(words: Sequence[str], out: Path | None = None) -> Line:
    """A command line without `trm-interp`, checked as it is when it runs; nothing is run.

    `out`: value of --out, for commands that have one. UserError for a command, an option or a
    value that there is not.
    """
    from trm_interp.cli.app import COMMANDS, app
    from trm_interp.cli.options import TYPED

    rows = {command.name: command for command in COMMANDS}
    name = next((n for n in (" ".join(words[:2]), " ".join(words[:1])) if n in rows), None)
    if name is None:
        raise UserError(f"no command {' '.join(words[:1])!r}; see trm-interp --help")
    found: Any = typer.main.get_command(app)
    for part in name.split():
        found = found.commands[part]
    row, n = rows[name], len(name.split())
    fields = row.config.__dataclass_fields__
    more = ["--out", str(out)] if out is not None and "out" in fields else []
    try:
        context = found.make_context(f"trm-interp {name}", [*words[n:], *more])
    except Exception as error:
        if hasattr(error, "format_message"):  # of click
            raise UserError(usage_error(error)) from None
        if type(error).__name__ == "Exit":
            raise UserError(f"{name} --help runs nothing") from None
        raise
    known = {*fields, *option_fields(row.config)}
    given = {name: value for name, value in context.params.items() if name in known}
    typed = [name for name in given if context.get_parameter_source(name).name in TYPED]
    return Line(
        command=name,
        flags=tuple(f"--{flag}" for flag in ("resume", "overwrite") if flag in fields),
        writes="out" in fields,
        shards=row.shards,
        settings=settings_of(row.config, given, typed),
    )
