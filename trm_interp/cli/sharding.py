"""`--shard i/n` of every command that offers it, torchrun for those, and what `merge` runs.

A shard runs the command itself, whose work is divided by `runtime.shards`; what the command would
write goes to a folder `work` inside the shard's, and is kept only where it is a part of the output
(shards of a store).
"""

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import Field, dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from trm_interp.core.processes import rank_and_size
from trm_interp.runtime.errors import UserError, one_line
from trm_interp.runtime.shard_options import Shard, ShardOptions

if TYPE_CHECKING:
    from trm_interp.cli.options import Command
    from trm_interp.runtime.shards import Found

APART = ("out", "resume", "overwrite")  # options that shards of a whole need not share
LONGEST = timedelta(days=30)  # that one process of a torchrun waits for the others
Execute = Callable[[Mapping[str, Any]], Any]  # runs the command with these values of its options


@dataclass(frozen=True)
class Finished:
    """A shard is done: `pieces` of the `planned` ones are its own."""

    command: str
    out: Path
    shard: Shard
    pieces: int
    planned: int

    def to_json(self) -> dict[str, Any]:
        own = {"command": self.command, "shard": str(self.shard), "out": str(self.out)}
        return own | {"pieces": self.pieces, "of_pieces": self.planned}

    @property
    def line(self) -> str:
        return (
            f"shard {self.shard} of {self.command}: {self.pieces} of {self.planned} pieces in "
            f"{self.out} (join the shards: trm-interp merge)"
        )


def shard_fields(command: "Command") -> list[Field[Any]]:
    """The options of a shard, less those that the command has itself."""
    if not command.shards:
        return []
    own = {f.name for f in fields(command.config)}
    return [f for f in fields(ShardOptions) if f.name not in own]


def is_divided(command: "Command", part: ShardOptions) -> bool:
    """Whether the command runs as a shard, or as several that are merged; or would, if it could."""
    return part.shard is not None or (
        command.shards and not command.team and rank_and_size()[1] > 1
    )


def run_divided(
    command: "Command",
    given: dict[str, Any],
    typed: list[str],
    part: ShardOptions,
    execute: Execute,
    tell: Callable[[str], None],
) -> Any:
    """A `Finished` shard, or the result of all, which only the first process of a torchrun has."""
    own = vars(part) | {f.name: given[f.name] for f in fields(part) if f.name in given}
    out = own.pop("out")
    options = ShardOptions(**own)
    if part.shard is None:
        return _run_in_ranks(command, given, typed, options, out, execute, tell)
    if rank_and_size()[1] > 1:
        raise UserError("--shard and torchrun both divide the work: give one of them")
    if out is None:
        raise UserError("--shard needs --out, the folder of the shard")
    return _run_shard(command, given, typed, options, Path(out), execute, tell)


def _run_shard(
    command: "Command",
    given: dict[str, Any],
    typed: list[str],
    part: ShardOptions,
    out: Path,
    execute: Execute,
    tell: Callable[[str], None],
) -> Finished:
    from trm_interp.runtime import shards
    from trm_interp.runtime.runs import Interrupted, Run
    from trm_interp.runtime.signals import how_to_resume

    shard = Shard.parse(part.shard or "")
    if command.writes != "out" and given.get(command.writes) is not None:
        raise UserError(
            f"--{command.writes} is of the whole, not of a shard: leave it out, and give it to "
            f"`merge` as --out"
        )
    apart = {*APART, command.writes}
    options = {k: _plain(v) for k, v in given.items() if k not in apart}
    with Run(
        out,
        f"{command.name} --shard",
        [shards.RECORD, f"{shards.PIECES}/", f"{shards.WORK}/"],
        identity={"shard": str(shard), **options},
        identity_file=f"{shards.PIECES}/{shards.IDENTITY}",
        resume=part.resume,
        overwrite=part.overwrite,
        tell=tell,
    ) as run:
        (out / shards.RECORD).unlink(missing_ok=True)
        work = out / shards.WORK
        goes_on = _inner(command, given, work, part.resume)
        if not goes_on.get("resume"):
            shutil.rmtree(work, ignore_errors=True)
        one = shards.OneShard(out, shard, tell)
        try:
            with shards.dividing(one):
                execute(goes_on)
            raise RuntimeError(f"{command.name} did not divide its work")
        except shards.ShardDone:
            pass
        except Interrupted:
            raise Interrupted(how_to_resume(part.overwrite)) from None
        if not one.keeps_work:
            shutil.rmtree(work, ignore_errors=True)
        record = shards.Record(
            command=command.name,
            number=shard.number,
            of=shard.of,
            options=options,
            typed=[name for name in typed if name in options],
            facts=one.facts,
            planned=one.planned,
            pieces=one.done,
        )
        run.finish(vars(record), shards.RECORD)
    return Finished(command.name, out, shard, len(one.done), len(one.planned))


def _inner(command: "Command", given: dict[str, Any], work: Path, resume: bool) -> dict[str, Any]:
    """The values with which a shard runs its command."""
    optional = next(f for f in fields(command.config) if f.name == command.writes).default is None
    inner = given | {command.writes: None if optional else work}
    flags = {"resume": resume and not optional, "overwrite": False}
    return inner | {name: flag for name, flag in flags.items() if name in given}


def _plain(value: Any) -> Any:
    from trm_interp.runtime.files import plain

    return plain(value)


def _run_in_ranks(
    command: "Command",
    given: dict[str, Any],
    typed: list[str],
    part: ShardOptions,
    out: Path,
    execute: Execute,
    tell: Callable[[str], None],
) -> Any:
    """Rank r of a torchrun is shard r + 1; the first one merges them, and removes their folders."""
    import torch

    from trm_interp.core.ranks import Ranks
    from trm_interp.runtime.existing import Existing
    from trm_interp.runtime.shards import read_shards

    rank, size = rank_and_size()
    if out.is_dir() and any(out.iterdir()):
        Existing(part.resume, part.overwrite).require_choice(out)
    folder = out.with_name(f"{out.name}.shards")
    places = [folder / f"{i}-of-{size}" for i in range(1, size + 1)]
    ranks = Ranks(torch.device("cpu"), LONGEST)
    own = ShardOptions(shard=f"{rank + 1}/{size}", resume=part.resume, overwrite=part.overwrite)
    result = None
    try:
        with _alike(ranks):
            quiet = tell if rank == 0 else (lambda line: None)
            _run_shard(command, given, typed, own, places[rank], execute, quiet)
        with _alike(ranks):
            if rank == 0:
                result = run_merged(read_shards(places), False, lambda: execute(given))
                for place in places:
                    shutil.rmtree(place)
                with suppress(OSError):  # it may hold what is not ours
                    folder.rmdir()
    finally:
        ranks.close()
    return result


class _alike:
    """All processes leave the block together; where one fails, the others name it."""

    def __init__(self, ranks: Any) -> None:
        self.ranks = ranks

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        told = self.ranks.objects(None if error is None else one_line(error))
        failed = [f"process {i}: {line}" for i, line in enumerate(told) if line is not None]
        if failed and error is None:
            raise UserError(f"{failed[0]}; what is done is kept, go on with --resume")


def run_merged(found: "list[Found]", move: bool, run: Callable[[], Any]) -> Any:
    """What a command gives with the pieces of these shards."""
    from trm_interp.runtime.shards import Merging, dividing

    with dividing(Merging(found, move)):
        return run()


def values_of(command: "Command", options: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a command's options from the JSON of a record."""
    hints = get_type_hints(command.config)
    paths = {name for name, hint in hints.items() if Path in (hint, *get_args(hint))}
    return {k: Path(v) if k in paths and v is not None else v for k, v in options.items()}
