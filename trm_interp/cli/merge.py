"""The command that joins the shards of another one."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from trm_interp.cli.options import Command, json_of, run_command, settings_of
from trm_interp.cli.sharding import run_merged, values_of
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.settings import argument, setting


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """Shards of one whole."""

    folders: list[Path] = argument("folders of all shards, in any order")
    out: Path | None = setting(
        None, "what the command's own --out is, or --csv of eval", otherwise="not written"
    )
    move: bool = setting(False, "move the files of a store instead of linking or copying them")
    resume: bool = setting(False, "go on with a merge that was stopped")
    overwrite: bool = setting(False, "replace what the same command has written there")

    def __post_init__(self) -> None:
        if not self.folders:
            raise ValueError("folders: name those of all shards")


@dataclass(frozen=True)
class Merged:
    """The result of the command whose shards were merged."""

    command: Command
    out: Path | None
    result: Any

    def to_json(self) -> Any:
        return json_of(self.result)


def run(
    config: MergeConfig, tell: Callable[[str], None], progress: Callable[[int, int], None]
) -> Merged:
    """Check that the shards are those of one whole, and finish it."""
    from trm_interp.cli.app import COMMANDS
    from trm_interp.runtime.provenance import versions
    from trm_interp.runtime.shards import mixed_versions, read_shards

    found = read_shards(config.folders)
    if warning := mixed_versions(found, versions()):
        tell(warning)
    record = found[0].record
    command = next((one for one in COMMANDS if one.name == record.command), None)
    if command is None:
        raise UserError(f"{found[0].folder} is of a command that does not exist: {record.command}")
    required = {f.name for f in fields(command.config) if f.default is not None}
    if config.out is None and command.writes in required:
        raise UserError(f"--out is missing: where `{command.name}` writes")
    values = values_of(command, record.options)
    flags = {"resume": config.resume, "overwrite": config.overwrite}
    own = {f.name for f in fields(command.config)}
    values |= {name: flag for name, flag in flags.items() if name in own}
    values[command.writes] = config.out
    if config.out is None:
        values |= {name: False for name in flags if name in own}
    typed = [name for name in record.typed if name in values]
    settings = settings_of(command.config, values, typed)
    result = run_merged(found, config.move, lambda: run_command(command, settings))
    if command.says_out and config.out is not None:
        tell(f"wrote {config.out}")
    return Merged(command, config.out, result)


def lines(merged: Merged) -> list[Any]:
    """What the command itself prints."""
    module: Any = import_module(merged.command.target.partition(":")[0])
    return module.lines(merged.result)


COMMANDS = [
    Command(
        name="merge",
        title="Models",
        config=MergeConfig,
        target="trm_interp.cli.merge:run",
        doc="""
        Join what `--shard 1/n` to `--shard n/n` of a command wrote: the same tables, figures and
        states as by one process.

        Shards of other settings, checkpoints or puzzles, missing ones and those that are there
        twice are refused by name. Shards of a store are linked, not copied, where that can be.
        """,
        examples="""
        trm-interp outcomes --shard 1/2 --out runs/one    # on one machine
        trm-interp outcomes --shard 2/2 --out runs/two    # at the same time on another
        trm-interp merge runs/one runs/two --out runs/outcomes
        """,
        has_json=True,
    )
]
