"""Every command is declared by a row: its settings, its target and its help.

The options of a command are the fields of its settings: name, type, default and help text come from
there. The target, "module:function", is imported when the command runs; it is called with the
settings, `tell` for notices (standard error) and `progress`, and returns a result. Printed are the
`lines(result)` of the target's module, or with --json the result as JSON.
"""

import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, fields
from importlib import import_module
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from trm_interp.core.processes import rank_and_size
from trm_interp.runtime.errors import UserError, in_one_line
from trm_interp.runtime.settings import fields_of, in_range
from trm_interp.runtime.signals import how_to_resume

STOPPED = 130  # exit status after SIGINT, as shells have it
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object instead")]
KEYWORD = inspect.Parameter.KEYWORD_ONLY


@dataclass(frozen=True, kw_only=True)
class Command:
    """The row of one command.

    `name`: its words, such as "data make"; `title`: heading under which --help lists it. `config`:
    a dataclass of `runtime.settings` fields. `target`: "module:function"; the module also has
    `lines(result)`, which returns what is printed (text or tables of rich), and may have
    `fault(result)`, an error that is printed last and ends in exit status 2. A result whose
    `finished` is False ends in status 130 with advice on resuming. `unit`: what progress counts,
    empty for none; `label`: name of the progress. `has_json`: whether --json is offered.
    `says_out`: whether a notice names the output at the end.
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


def notify(line: str) -> None:
    """Print a notice for the user, on standard error."""
    print(line, file=sys.stderr)


def is_first_process() -> bool:
    """Whether this is the first process of a torchrun, which prints for all, or the only one."""
    return rank_and_size()[0] == 0


def add(app: typer.Typer, command: Command) -> None:
    """Register a row as a command of `app`."""
    options = [one for f in fields(command.config) for one in _parameters(command.config, f)]
    json_ = inspect.Parameter("json_", KEYWORD, default=False, annotation=AsJson)
    parameters = [*options, *([json_] if command.has_json else [])]

    def body(**given: Any) -> None:
        as_json, settings = given.pop("json_", False), None
        with errors_in_one_line(lambda: _after_stop(settings)):
            settings = settings_of(command.config, given)
            result = _run(command, settings)
            if is_first_process():
                _print(command, settings, result, as_json)
            if not getattr(result, "finished", True):
                raise typer.Exit(STOPPED)

    body.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    body.__annotations__ = {p.name: p.annotation for p in parameters}
    body.__doc__ = f"{inspect.cleandoc(command.doc)}\n\n\b\n{_examples(command)}"
    renamed = {old: new for new, olds in _renamed(command.config).items() for old in olds}
    cls = type("OurCommand", (_WithOldNames,), {"renamed": renamed})
    title = command.title if " " not in command.name else None
    app.command(command.name.split()[-1], cls=cls, rich_help_panel=title)(body)


def _examples(command: Command) -> str:
    text = inspect.cleandoc(command.examples)
    return f"Examples:\n{text}"


def _run(command: Command, settings: Any) -> Any:
    module, _, function = command.target.partition(":")
    target = getattr(import_module(module), function)
    if not command.unit:
        return target(settings, notify, lambda done, of: None)

    from trm_interp.runtime.progress import progress

    unit = getattr(settings, "unit", command.unit)
    with progress(command.label or command.name, unit) as update:
        return target(settings, notify, update)


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


def settings_of(config: type, given: Mapping[str, Any]) -> Any:
    """The settings, from the values of the options; those of groups are None if not given."""
    values = {f.name: given[f.name] for f in fields(config) if "group" not in f.metadata}
    chosen: dict[str, Any] = {}
    for f in fields(config):
        presets = f.metadata.get("presets")
        if presets is not None and (name := given[f.name]) is not None:
            if name not in presets:
                raise UserError(f"--{f.name} {name}: there are {', '.join(presets)}")
            chosen |= presets[name]
    for f in fields(config):
        if "group" in f.metadata:
            names = fields_of(f.metadata)
            own = f.metadata["defaults"] | {k: v for k, v in chosen.items() if k in names}
            own |= {name: given[name] for name in names if given[name] is not None}
            values[f.name] = own if f.metadata["partial"] else build(f.metadata["group"][0], own)
    return build(config, values)


def build(config: type, values: Mapping[str, Any]) -> Any:
    """The dataclass; UserError if a number is out of range or a check of its own fails."""
    try:
        in_range(config, values)
        return config(**values)
    except ValueError as error:
        raise UserError(_as_option(config, str(error))) from None


def _as_option(config: type, message: str) -> str:
    """The message, with the name of the option in place of the field's where they differ."""
    for f in fields(config):
        if message.startswith(f"{f.name} must ") and "flags" in f.metadata:
            return _flag(f).split("/")[0].lstrip("-").replace("-", "_") + message[len(f.name) :]
    return message


# options


def _parameters(config: type, f: Field[Any]) -> Iterator[inspect.Parameter]:
    """The options of a field: one, or those of a group."""
    if "group" not in f.metadata:
        yield _parameter(config, f)
        return
    for name, one in fields_of(f.metadata).items():
        kind = next(kind for kind in f.metadata["group"] if one in fields(kind))
        default = f.metadata["defaults"].get(name, one.default)
        yield _parameter(kind, one, f.metadata["title"], default)


def _parameter(
    config: type, f: Field[Any], title: str | None = None, default: Any = None
) -> inspect.Parameter:
    """A field as an option or argument. An option of a group, which has a title, is None if it is
    not given; its help names the default."""
    of_group = title is not None
    kind = get_type_hints(config)[f.name]
    default = default if of_group else ... if f.default is MISSING else f.default
    if f.metadata.get("argument"):
        place = typer.Argument(default, help=f.metadata["help"], show_default=default is not ...)
        return inspect.Parameter(f.name, KEYWORD, default=place, annotation=kind)
    flag = _flag(f)
    if "flags" not in f.metadata and (default is True or (of_group and isinstance(default, bool))):
        flag = f"{flag}/--no-{flag[2:]}"
    help_text = f.metadata["help"]
    if "most" in f.metadata:
        help_text += f" (at most {f.metadata['most']})"
    if of_group:
        if default is not None:
            help_text += f" (default {default})"
        default, kind = None, kind | None
    how = {k: f.metadata[k] for k in ("parser", "metavar") if k in f.metadata}
    option = typer.Option(default, flag, help=help_text, rich_help_panel=title, **how)
    return inspect.Parameter(f.name, KEYWORD, default=option, annotation=kind)


def _flag(f: Field[Any]) -> str:
    return f.metadata.get("flags", f"--{f.name.replace('_', '-')}")


def _renamed(config: type) -> dict[str, tuple[str, ...]]:
    """Earlier names of options, including those of groups, by their present name."""
    renamed: dict[str, tuple[str, ...]] = {}
    for f in fields(config):
        for kind in f.metadata.get("group", ()):
            renamed |= _renamed(kind)
        if old := f.metadata.get("old"):
            renamed[_flag(f).split("/")[0]] = (old,) if isinstance(old, str) else old
    return renamed


class _WithOldNames(TyperCommand):
    """A command that also accepts earlier names of its options, with a notice."""

    renamed: Mapping[str, str] = {}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(self._translated(args)))

    def _translated(self, args: Iterable[str]) -> Iterator[str]:
        options = True
        for word in args:
            options = options and word != "--"
            name, equals, value = word.partition("=")
            if options and name in self.renamed:
                notify(f"{name} is now called {self.renamed[name]}")
                word = f"{self.renamed[name]}{equals}{value}"
            yield word


# errors


def _after_stop(settings: Any) -> str:
    """Advice after Ctrl-C if the work can be resumed; settings may decide it by `resumable`."""
    resumable = getattr(settings, "resumable", hasattr(settings, "resume"))
    return how_to_resume(settings.overwrite) if resumable else ""


@contextmanager
def errors_in_one_line(after_stop: Callable[[], str]) -> Iterator[None]:
    """Errors that users can fix end in one line and exit status 2, Ctrl-C in status 130."""
    try:
        with in_one_line():
            yield
    except KeyboardInterrupt as error:
        advice = str(error) or after_stop()
        print("; ".join(["stopped", *filter(None, [advice])]), file=sys.stderr)
        raise typer.Exit(STOPPED) from None
