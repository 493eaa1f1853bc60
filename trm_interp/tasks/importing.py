"""`trm-interp data import`: puzzles of another origin as plain lines."""

from dataclasses import dataclass
from pathlib import Path

from trm_interp.runtime.limits import counted
from trm_interp.runtime.progress import Update
from trm_interp.runtime.runs import Tell, quiet
from trm_interp.tasks.registry import family_of_file
from trm_interp.tasks.settings import ImportConfig


@dataclass(frozen=True)
class Imported:
    """`n` puzzles in `file`, and the card next to it."""

    n: int
    file: Path
    card: Path


def run(config: ImportConfig, tell: Tell = print, progress: Update = quiet) -> Imported:
    """Check the puzzles of a file, uniqueness included, and write them."""
    card = family_of_file(config.source).import_file(
        config.source, config.out, config.skip_bad, config.overwrite, progress
    )
    for line in card["skipped"]:
        tell(f"skipped {line}")
    return Imported(int(card["n"]), config.out, config.out.with_suffix(".json"))


def lines(imported: Imported) -> list[str]:
    """Which files there are."""
    return [f"wrote {imported.file} ({counted(imported.n, 'puzzle')}) and {imported.card}"]
