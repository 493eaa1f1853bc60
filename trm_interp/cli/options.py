"""Turns a settings dataclass into command-line options: default, help and type are read from it."""

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Annotated, Any, get_type_hints

import typer

from trm_interp.core.config import in_range
from trm_interp.core.processes import rank_and_size
from trm_interp.runtime.errors import UserError, in_one_line

AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object instead")]
Cells = Annotated[
    int | None, typer.Option(help="cells of a puzzle, for a checkpoint that does not say", min=1)
]


def say(line: str) -> None:
    """For the user, beside the result: standard error."""
    print(line, file=sys.stderr)


def is_first_process() -> bool:
    """Of those that torchrun started; the first one speaks for all."""
    return rank_and_size()[0] == 0


def command(
    app: typer.Typer,
    name: str,
    config: type,
    examples: str,
    overrides: tuple[type, ...] = (),
    hide: tuple[str, ...] = (),
    defaults: dict[str, Any] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register `body(config, **its own options)` with the options of a settings dataclass.

    Fields without a default become required options. With `overrides`, the body's second argument
    is a dictionary of the options of those dataclasses that were given (those in `hide` are not
    offered; `defaults` are those to tell of where they are not the dataclass's). What a user can
    mend ends as one line on standard error and exit status 2.
    """

    def register(body: Callable[..., Any]) -> Callable[..., Any]:
        own = list(inspect.signature(body).parameters.values())[1 + bool(overrides) :]
        made = [_parameter(config, f) for f in fields(config)]
        extra = [
            _parameter(other, f, optional=True, told=(defaults or {}).get(f.name))
            for other in overrides
            for f in fields(other)
            if f.name not in hide
        ]

        @functools.wraps(body)
        def run(**given: Any) -> None:
            def call() -> None:
                settings = {f.name: given.pop(f.name) for f in fields(config)}
                chosen = {p.name: given.pop(p.name) for p in extra}
                chosen = {k: v for k, v in chosen.items() if v is not None}
                body(build(config, settings), *([chosen] if overrides else []), **given)

            resumable = any(f.name == "resume" for f in fields(config))
            replaces = bool(given.get("overwrite"))  # not to be given again
            with_errors_in_one_line(call, how_to_go_on(replaces) if resumable else "")

        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*made, *extra, *own)]
        )
        run.__annotations__ = {p.name: p.annotation for p in (*made, *extra, *own)}
        run.__doc__ = f"{inspect.getdoc(body)}\n\n\b\nExamples:\n{inspect.cleandoc(examples)}"
        app.command(name)(run)
        return body

    return register


def build(config: type, values: dict[str, Any]) -> Any:
    """The dataclass; a number out of range or a failed check of its own is a UserError."""
    try:
        in_range(config, values)
        return config(**values)
    except ValueError as error:
        raise UserError(str(error)) from None


def _parameter(
    config: type, f: Field[Any], optional: bool = False, told: Any = None
) -> inspect.Parameter:
    """One field as an option; with `optional` it is None where it is not given, and its help tells
    of the default, or of `told`."""
    kind = get_type_hints(config)[f.name]
    default = ... if f.default is MISSING else f.default
    if f.metadata.get("argument"):
        place = typer.Argument(help=f.metadata["help"], show_default=False)
        return inspect.Parameter(
            f.name, inspect.Parameter.KEYWORD_ONLY, default=place, annotation=kind
        )
    flag = f.metadata.get("flags", f"--{f.name.replace('_', '-')}")
    if "flags" not in f.metadata and (default is True or (optional and isinstance(default, bool))):
        flag = f"{flag}/--no-{flag[2:]}"
    help_text = f.metadata["help"]
    if "most" in f.metadata:
        help_text += f" (at most {f.metadata['most']})"
    if optional:
        if default is not None:
            help_text += f" (default {default if told is None else told})"
        default, kind = None, kind | None
    known = {k: f.metadata[k] for k in ("parser", "metavar") if k in f.metadata}
    return inspect.Parameter(
        f.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=typer.Option(default, flag, help=help_text, **known),
        annotation=kind,
    )


def how_to_go_on(overwrite: bool = False) -> str:
    """After a stop: --resume takes the place of --overwrite, which would start anew."""
    return f"the same command with --resume{' for --overwrite' if overwrite else ''} goes on"


def with_errors_in_one_line(body: Callable[[], Any], after_stop: str = "") -> None:
    """Run; what a user can mend ends in one line and exit status 2, Ctrl-C in 130."""
    try:
        with in_one_line():
            body()
    except KeyboardInterrupt:
        print("; ".join(["stopped", *filter(None, [after_stop])]), file=sys.stderr)
        raise typer.Exit(130) from None
