"""`trm-interp data make`: generate a data set of a preset."""

from dataclasses import dataclass
from pathlib import Path

from trm_interp.runtime.progress import Update
from trm_interp.runtime.runs import Tell, quiet
from trm_interp.tasks.registry import offering, presets
from trm_interp.tasks.settings import MakeConfig


@dataclass(frozen=True)
class Made:
    """A data set. `files`: number of puzzles of every split's file, in order."""

    files: dict[Path, int]
    card: Path


def run(config: MakeConfig, tell: Tell = print, progress: Update = quiet) -> Made:
    """Generate the data set in `config.folder`. UserError where there is no such preset."""
    card = offering(presets(), config.preset, "preset").make(
        config.preset,
        config.folder,
        config.seed,
        config.overwrite,
        progress,
        config.sizes,
        config.resume,
        config.workers,
    )
    splits = card["splits"].items()
    files = {config.folder / entry["file"]: int(card[split]) for split, entry in splits}
    return Made(files, config.folder / "card.json")


def lines(made: Made) -> list[str]:
    """Which files there are."""
    return [
        *(f"wrote {file} ({n} puzzles)" for file, n in made.files.items()),
        f"wrote {made.card}",
    ]
