"""Every command is declared by a row: its settings, its target and its help.

The options of a command are the fields of its settings: name, type, default and help text come from
there. The target, "module:function", is imported when the command runs; it is called with the
settings, `tell` for notices (standard error) and `progress`, and returns a result. Printed are the
`lines(result)` of the target's module, or with --json the result as JSON.
"""

import inspect
import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, fields
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from trm_interp.cli import sharding
from trm_interp.cli.wording import (
    as_typed,
    default_of,
    flag_of,
    notices,
    option_fields,
    usage_error,
)
from trm_interp.core.processes import rank_and_size
from trm_interp.report.settings import PushAtEnd
from trm_interp.runtime.errors import UserError, in_one_line
from trm_interp.runtime.settings import fields_of, in_range
from trm_interp.runtime.shard_options import ShardOptions
from trm_interp.runtime.signals import how_to_resume

STOPPED = 130  # exit status after SIGINT, as shells have it
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object instead")]
KEYWORD = inspect.Parameter.KEYWORD_ONLY
CONTEXT = "context_"
MOST_TOLD = 10**6  # limits from here on are far above any use, and left out of --help
TYPED = ("COMMANDLINE", "ENVIRONMENT", "PROMPT")  # sources of values that the user gave


@dataclass(frozen=True, kw_only=True)
class Command:
    """The row of one command.

    `name`: its words, such as "data make"; `title`: heading under which --help lists it. `config`:
    a dataclass of `runtime.settings` fields. `target`: "module:function"; the module also has
    `lines(result)`, which returns what is printed (text or tables of rich), and may have
    `fault(result)`, an error that is printed last and ends in exit status 2. A result whose
    `finished` is False ends in status 130 with advice on resuming. `unit`: what progress counts,
    empty for none; `label`: name of the progress. `has_json`: whether --json is offered.
    `says_out`: whether a notice names the output at the end. `pushes`: whether --push shares the
    output when it is finished. `shards`: whether --shard does a part of it. `team`: whether the
    command itself shares its work among the processes of a torchrun. `writes`: the option that
    names the output.
    """

    name: str
    title: str
    config: type
    target: str
    doc: str
    examples: str
    unit: str = ""
    label: str = ""
    has_json: bool = False
    says_out: bool = False
    pushes: bool = False
    shards: bool = False
    team: bool = False
    writes: str = "out"


def notify(line: str) -> None:
    """Print a notice for the user, on standard error."""
    print(line, file=sys.stderr)


def is_first_process() -> bool:
    """Whether this is the first process of a torchrun, which prints for all, or the only one."""
    return rank_and_size()[0] == 0


def add(app: typer.Typer, command: Command) -> None:
    """Register a row as a command of `app`."""
    pushing = fields(PushAtEnd) if command.pushes else ()
    options = [one for f in fields(command.config) for one in _parameters(command.config, f)]
    options += [one for f in pushing for one in _parameters(PushAtEnd, f)]
    parts = sharding.shard_fields(command)
    options += [one for f in parts for one in _parameters(ShardOptions, f)]
    json_ = inspect.Parameter("json_", KEYWORD, default=False, annotation=AsJson)
    context_ = inspect.Parameter(CONTEXT, KEYWORD, annotation=typer.Context)
    parameters = [*options, *([json_] if command.has_json else []), context_]

    def body(**given: Any) -> None:
        as_json, settings = given.pop("json_", False), None
        push = {f.name: given.pop(f.name) for f in pushing}
        part = {f.name: given.pop(f.name) for f in parts}
        context = given.pop(CONTEXT)
        typed = [name for name in given if context.get_parameter_source(name).name in TYPED]
        without = [name for name in part if context.get_parameter_source(name).name in TYPED]
        with errors_in_one_line(command.config, lambda: _after_stop(settings)):
            if sharding.is_divided(command, shard := build(ShardOptions, part)):
                if push.get("push"):
                    raise UserError("--push shares what is whole: merge the shards, then push that")
                _run_divided(command, given, typed, shard, as_json)
                return
            for notice in notices(ShardOptions, part, without):
                notify(notice)
            settings = settings_of(command.config, given, typed)
            share = build(PushAtEnd, push)  # what is wrong with it shows before the work
            result = run_command(command, settings)
            if is_first_process():
                _print(command, settings, result, as_json)
            if not getattr(result, "finished", True):
                raise typer.Exit(STOPPED)
            if share.push and is_first_process():
                _push(settings.out, share)

    body.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    body.__annotations__ = {p.name: p.annotation for p in parameters}
    body.__doc__ = f"{inspect.cleandoc(command.doc)}\n\n\b\n{_examples(command)}"
    earlier = {"renamed": _renamed(command.config), "switches": _switches(command.config)}
    cls = type("OurCommand", (_WithOldNames,), earlier)
    title = command.title if " " not in command.name else None
    app.command(command.name.split()[-1], cls=cls, rich_help_panel=title)(body)


def _examples(command: Command) -> str:
    text = inspect.cleandoc(command.examples)
    return f"Examples:\n{text}"


def run_command(command: Command, settings: Any) -> Any:
    """What the target of a command returns."""
    from trm_interp.runtime.progress import progress, waiting

    module, _, function = command.target.partition(":")
    with waiting("loading libraries"):
        target = getattr(import_module(module), function)
    if not command.unit:
        return target(settings, notify, lambda done, of: None)

    unit = getattr(settings, "unit", command.unit)
    with progress(command.label or command.name, unit) as update:
        return target(settings, notify, update)


def _run_divided(
    command: Command, given: dict[str, Any], typed: list[str], part: ShardOptions, as_json: bool
) -> None:
    """Run a shard, or the shards of a torchrun, and print what came of it."""
    latest: Any = None

    def execute(values: Mapping[str, Any]) -> Any:
        nonlocal latest
        latest = settings_of(command.config, values, [n for n in typed if n not in sharding.APART])
        return run_command(command, latest)

    result = sharding.run_divided(command, given, typed, part, execute, notify)
    if not isinstance(result, sharding.Finished):
        if is_first_process():
            _print(command, latest, result, as_json)
    elif as_json:
        print(json.dumps(json_of(result)))
    else:
        print(result.line)


def _print(command: Command, settings: Any, result: Any, as_json: bool) -> None:
    module: Any = import_module(command.target.partition(":")[0])
    if as_json:
        print(json.dumps(json_of(result)))
    else:
        for part in module.lines(result):
            show(part)
    if not getattr(result, "finished", True):
        notify(f"stopped before the end; {how_to_resume(settings.overwrite)}")
    if command.says_out and settings.out:
        notify(f"wrote {settings.out}")
    if hasattr(module, "fault") and (fault := module.fault(result)):
        raise UserError(fault)


def _push(out: Path, share: PushAtEnd) -> None:
    """Share what a command wrote."""
    from trm_interp.report import push

    for line in push.lines(push.push(out, share.push, share.licence)):
        notify(line)


def json_of(result: Any) -> Any:
    """The result as JSON, by its own `to_json` if it has one; NaN and infinity become null."""
    from trm_interp.runtime.files import plain

    return plain(result.to_json() if hasattr(result, "to_json") else result)


def show(part: Any) -> None:
    """Print a line of text, a table of rich, or an object with a method `show_on(console)`.

    Tables are at least 100 columns wide, also where that is no terminal. Titles and cells are
    text, not markup: a folder may be called `a[/b]`.
    """
    if isinstance(part, str):
        print(part)
        return

    from rich.console import Console

    console = Console(markup=False, emoji=False)
    console.width = max(console.width, 100)
    if hasattr(part, "show_on"):
        part.show_on(console)
    else:
        console.print(part)


# settings


def settings_of(
    config: type, given: Mapping[str, Any], typed: Collection[str] | None = None
) -> Any:
    """The settings, from the values of all options.

    `typed`: names of those that the user gave, by default all; the others have their defaults,
    which in a group give way to a preset. UserError for a preset that does not exist and for values
    that cannot be; options without effect are told.
    """
    typed = given.keys() if typed is None else typed
    values = {f.name: given[f.name] for f in fields(config) if "group" not in f.metadata}
    chosen: dict[str, Any] = {}
    for f in fields(config):
        presets = f.metadata.get("presets")
        if presets is not None and (name := given[f.name]) is not None:
            if name not in presets:
                raise UserError(f"--{f.name} {name}: there are {', '.join(presets)}")
            chosen |= presets[name]
    effective = {**given, **{k: v for k, v in chosen.items() if k not in typed}}
    for f in fields(config):
        if "group" in f.metadata:
            names = fields_of(f.metadata)
            own = f.metadata["defaults"] | {k: v for k, v in chosen.items() if k in names}
            own |= {name: given[name] for name in names if name in typed}
            values[f.name] = own if f.metadata["partial"] else build(f.metadata["group"][0], own)
    settings = build(config, values)
    for notice in notices(config, effective, typed):
        notify(notice)
    return settings


def build(config: type, values: Mapping[str, Any]) -> Any:
    """The dataclass; UserError if a number is out of range or a check of its own fails."""
    try:
        in_range(config, values)
        return config(**values)
    except ValueError as error:
        raise UserError(as_typed(config, str(error))) from None


# options


def _parameters(config: type, f: Field[Any]) -> Iterator[inspect.Parameter]:
    """The options of a field: one, or those of a group."""
    if "group" not in f.metadata:
        yield _parameter(config, f, default_of(f))
        return
    for name, one in fields_of(f.metadata).items():
        kind = next(kind for kind in f.metadata["group"] if one in fields(kind))
        default = f.metadata["defaults"].get(name, one.default)
        default = None if default is MISSING else default
        yield _parameter(kind, one, default, f.metadata["title"])


def _parameter(
    config: type, f: Field[Any], default: Any, title: str | None = None
) -> inspect.Parameter:
    """A field as an option or argument; `title`: of the group that it belongs to."""
    kind = get_type_hints(config)[f.name]
    if f.metadata.get("argument"):
        place = typer.Argument(default, help=f.metadata["help"], show_default=default is not ...)
        return inspect.Parameter(f.name, KEYWORD, default=place, annotation=kind)
    flag = flag_of(f)
    if "flags" not in f.metadata and (default is True or (title and isinstance(default, bool))):
        flag = f"{flag}/--no-{flag[2:]}"
    help_text = f.metadata["help"]
    if f.metadata.get("most", MOST_TOLD) < MOST_TOLD:
        help_text += f" (at most {f.metadata['most']})"
    how = {k: f.metadata[k] for k in ("parser", "metavar") if k in f.metadata}
    how["show_default"] = f.metadata.get("otherwise", True)
    if title and default is None:
        kind |= None
    option = typer.Option(default, flag, help=help_text, rich_help_panel=title, **how)
    return inspect.Parameter(f.name, KEYWORD, default=option, annotation=kind)


def _renamed(config: type) -> dict[str, str]:
    """Earlier names of options, with their present names."""
    return {
        old: flag_of(f).split("/")[0]
        for f in option_fields(config).values()
        for old in f.metadata.get("old", ())
    }


def _switches(config: type) -> dict[str, tuple[str, str]]:
    """Options that had no value in earlier versions: the option of now and its value."""
    return {
        old: (flag_of(f), value)
        for f in option_fields(config).values()
        for old, value in f.metadata.get("switches", {}).items()
    }


class _OneLineErrors:
    """What the parser of options refuses is one line, like all other errors."""

    def main(self, *args: Any, standalone_mode: bool = True, **more: Any) -> Any:
        run: Any = super()
        if not standalone_mode:
            return run.main(*args, standalone_mode=False, **more)
        try:
            code = run.main(*args, standalone_mode=False, **more)
        except Exception as error:
            if not hasattr(error, "format_message"):  # of click
                raise
            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()  # type: ignore[attr-defined]
            else:
                print(f"error: {usage_error(error)}", file=sys.stderr)
            sys.exit(2)
        sys.exit(code if isinstance(code, int) else 0)


class Group(_OneLineErrors, TyperGroup):
    """A group of commands, such as the whole app."""


class _WithOldNames(_OneLineErrors, TyperCommand):
    """A command that also accepts earlier names of its options, with a notice.

    `switches`: an option that had no value before and has one now is the earlier one at the end of
    the line and before another option.
    """

    renamed: Mapping[str, str] = {}
    switches: Mapping[str, tuple[str, str]] = {}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(self._translated(args)))

    def _translated(self, args: Iterable[str]) -> Iterator[str]:
        options, words = True, list(args)
        for word, following in pairwise([*words, "--"]):
            options = options and word != "--"
            name, equals, value = word.partition("=")
            if options and name in self.renamed:
                notify(f"{name} is now called {self.renamed[name]}")
                word = f"{self.renamed[name]}{equals}{value}"
            now = self.switches.get(word) if options else None
            if now is None or (word == now[0] and not following.startswith("-")):
                yield word
            else:
                notify(f"{word} is now called {' '.join(now)}")
                yield from now


# errors


def _after_stop(settings: Any) -> str:
    """Advice after Ctrl-C if the work can be resumed; settings may decide it by `resumable`."""
    resumable = getattr(settings, "resumable", hasattr(settings, "resume"))
    return how_to_resume(settings.overwrite) if resumable else ""


@contextmanager
def errors_in_one_line(config: type, after_stop: Callable[[], str]) -> Iterator[None]:
    """Errors that users can fix end in one line and exit status 2, Ctrl-C in status 130.

    `config`: the command's settings, by whose options errors name them.
    """
    try:
        with in_one_line(lambda message: as_typed(config, message, of_settings=False)):
            yield
    except KeyboardInterrupt as error:
        advice = str(error) or after_stop()
        print("; ".join(["stopped", *filter(None, [advice])]), file=sys.stderr)
        raise typer.Exit(STOPPED) from None
