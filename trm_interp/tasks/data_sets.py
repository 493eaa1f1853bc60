"""Folders of data sets and imported files, whatever their task: what tells them from others."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.outputs import entries
from trm_interp.runtime.schema import read_json
from trm_interp.tasks.puzzles import PuzzleError

COMMAND = "data make"
CARD = "card.json"
SPLITS = "train", "val", "test"
FILES = {CARD, *(f"{split}.{kind}" for split in SPLITS for kind in ("txt", "csv"))}


@dataclass(frozen=True)
class MadeCard:
    """What tells the card of a data set that was made here."""

    preset: str
    trm_interp: str
    splits: dict[str, Any]


@dataclass(frozen=True)
class ImportedCard:
    """What tells the card of an imported file; `file` is its name."""

    source: dict[str, Any]
    trm_interp: str
    file: str


def card_of(path: Path, kind: type[Any]) -> Any:
    """A card of that kind; None where there is none."""
    try:
        return read_json(path, kind) if path.is_file() else None
    except UserError:
        return None


def require_data_set(place: Path) -> None:
    """UserError unless it is a data set: a folder with its card that holds nothing but `FILES`."""
    if not place.is_dir():
        raise PuzzleError(f"{place} is a file: not a data set, so not replaced")
    strange = {
        path.name
        for path in entries(place)
        if path.name not in FILES or path.is_symlink() or not path.is_file()
    }
    if strange:
        raise PuzzleError(f"{place} holds {min(strange)}: not a data set, so not replaced")
    if card_of(place / CARD, MadeCard) is None:
        raise PuzzleError(f"{place} has no {CARD} of `{COMMAND}`: not a data set, so not replaced")


def require_output(out: Path, source: str | os.PathLike[str], name: str) -> Path:
    """Where the card of an imported file goes. UserError for an output that cannot be one.

    `name`: a file name as an example of one.
    """
    if out.is_dir():
        raise PuzzleError(f"{out} is a folder: name a file in it, such as {out / name}")
    card_path = out.with_suffix(".json")
    if out == card_path:
        suffix = Path(name).suffix
        raise PuzzleError(f"{out}: puzzles are lines of text; name it {suffix}")
    if os.path.realpath(out) == os.path.realpath(source):
        raise PuzzleError(f"{out} is what is imported: choose another output")
    return card_path


def require_import(out: Path) -> None:
    """UserError unless a file and its card are an import."""
    card_path = out.with_suffix(".json")
    card = card_of(card_path, ImportedCard)
    if card is None or card.file != out.name:
        there = out if out.exists() else card_path
        raise PuzzleError(
            f"{there} has no card of `data import` next to it, so it is not replaced: "
            "choose another output, or delete it"
        )


def require_root_free(out: str | os.PathLike[str]) -> None:
    """UserError for the root folder."""
    if not Path(os.path.realpath(out)).name:
        raise PuzzleError(f"{out} is the root folder: choose another output")
