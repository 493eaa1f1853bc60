"""The page of an output folder: its figures and tables, a sentence each, and what made them."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import pandas as pd

INDEX = "index.html"
# columns that number: all from 0, as in code; their first and last number is told
NUMBERS = ("step", "h_cycle", "l_cycle", "cycle", "tick", "update")
# those that count what is done, of which 0 is the start
DONE = ("steps_done", "h_cycles_done", "evaluations_done", "moment")
STYLE = """
body { font: 15px/1.5 Helvetica, Arial, sans-serif; margin: 2rem auto; padding: 0 1.5rem;
  max-width: 60rem; color: #1c1c1c; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
li { margin: .5rem 0; } code { font-size: .88rem; overflow-wrap: anywhere; }
"""


class Entry(NamedTuple):
    """One file, or folder, of the output and the sentence about it."""

    name: str
    sentence: str


def of_table(name: str, table: pd.DataFrame) -> Entry:
    """A table by its size and its columns.

    >>> of_table("a.csv", pd.DataFrame({"step": [0, 15], "loss": 0.5})).sentence
    '2 rows: step (0 to 15, from 0), loss.'
    >>> of_table("b.csv", pd.DataFrame({"step": ["first", "last"]})).sentence
    '2 rows: step.'
    """
    rows = f"{len(table):,} row{'s' * (len(table) != 1)}".replace(",", " ")
    return Entry(name, f"{rows}: {', '.join(_column(of) for _, of in table.items())}.")


def _column(values: pd.Series) -> str:
    numbers = pd.api.types.is_numeric_dtype(values) and values.notna().any()
    if values.name not in NUMBERS + DONE or not numbers:
        return str(values.name)
    counted = ", from 0" if values.name in NUMBERS else ""
    return f"{values.name} ({values.min():g} to {values.max():g}{counted})"


def index_page(
    title: str,
    command: str,
    lines: Sequence[str],
    figures: Sequence[Entry],
    tables: Sequence[Entry],
    shown: str = "Figures",
) -> str:
    """HTML without scripts. `command`: what made the folder; `lines`: the result in words;
    `shown`: what `figures` are."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        f"<p>Made by <code>{escape(command)}</code></p>",
        *(f"<p>{escape(line)}</p>" for line in lines),
    ]
    for heading, entries in ((shown, figures), ("Tables", tables)):
        if entries:
            rows = (
                f'<li><a href="{escape(one.name)}">{escape(one.name)}</a>: {escape(one.sentence)}'
                for one in entries
            )
            parts += [f"<h2>{heading}</h2><ul>", *(f"{row}</li>" for row in rows), "</ul>"]
    return "\n".join([*parts, "</body></html>"]) + "\n"
