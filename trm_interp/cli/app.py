"""The `trm-interp` command: all rows are registered here."""

import sys
from io import TextIOWrapper

import typer

from trm_interp.cli import data, report, running, sae, search, studies
from trm_interp.cli.options import Command, add

COMMANDS: tuple[Command, ...] = (
    *running.COMMANDS,
    *data.COMMANDS,
    *sae.COMMANDS,
    *studies.COMMANDS,
    *search.COMMANDS,
    *report.COMMANDS,
)
GROUPS = {"data": ("Puzzles", "Make, import, rate, check and download puzzles.")}


def make_app() -> typer.Typer:
    """The app with all commands; a name of two words is a command in the group of the first."""
    top = typer.Typer(
        help="Open up recursive reasoning models: train, run, record and look inside.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    groups: dict[str, typer.Typer] = {}
    for name, (title, help) in GROUPS.items():
        groups[name] = typer.Typer(help=help, no_args_is_help=True)
        top.add_typer(groups[name], name=name, rich_help_panel=title)
    for command in COMMANDS:
        add(groups.get(command.name.split()[0], top), command)
    return top


app = make_app()


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names of files need not be in its encoding
            stream.reconfigure(errors="backslashreplace")
    app()
