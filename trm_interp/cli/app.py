"""The `trm-interp` command: all rows are registered here."""

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from trm_interp.cli import data, explore, merge, report, running, sae, search, studies
from trm_interp.cli.options import Command, Group, add
from trm_interp.runtime.version import __version__

COMMANDS: tuple[Command, ...] = (
    *running.COMMANDS,
    *explore.COMMANDS,
    *data.COMMANDS,
    *sae.COMMANDS,
    *studies.COMMANDS,
    *search.COMMANDS,
    *report.COMMANDS,
    *merge.COMMANDS,
)
GROUPS = {"data": ("Puzzles", "Make, import, rate, check and download puzzles.")}


def make_app() -> typer.Typer:
    """The app with all commands; a name of two words is a command in the group of the first."""
    top = typer.Typer(
        cls=Group,
        help="Open up recursive reasoning models: train, run, record and look inside.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    top.callback()(_top)
    groups: dict[str, typer.Typer] = {}
    for name, (title, help) in GROUPS.items():
        groups[name] = typer.Typer(help=help, no_args_is_help=True)
        top.add_typer(groups[name], name=name, rich_help_panel=title)
    for command in COMMANDS:
        add(groups.get(command.name.split()[0], top), command)
    return top


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"trm-interp {__version__}")
        raise typer.Exit


def _top(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="print the version and exit"
        ),
    ] = False,
) -> None:
    pass


app = make_app()


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names of files need not be in its encoding
            stream.reconfigure(errors="backslashreplace")
    app()
