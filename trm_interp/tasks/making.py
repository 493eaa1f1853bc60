"""`trm-interp data make`: generate a data set of a preset."""

from dataclasses import dataclass
from pathlib import Path

from trm_interp.runtime.limits import counted
from trm_interp.runtime.progress import Update
from trm_interp.runtime.runs import Tell, quiet
from trm_interp.tasks.registry import maker_of
from trm_interp.tasks.settings import MakeConfig


@dataclass(frozen=True)
class Made:
    """A data set. `files`: number of puzzles of every split's file, in order; `is_new`: whether it
    was made now, and not found complete with --resume."""

    files: dict[Path, int]
    card: Path
    is_new: bool = True


def run(config: MakeConfig, tell: Tell = print, progress: Update = quiet) -> Made:
    """Generate the data set in `config.folder`. UserError where there is no such preset."""
    family = maker_of(config.preset)
    if not family.is_resumable(config.preset):
        for name, given in (("--resume", config.resume), ("--workers", config.workers)):
            if given:
                tell(f"{name} has no effect with {config.preset}; it is for hard puzzles")
    options = config.options
    for name in sorted(options.keys() - family.making_options(config.preset)):
        tell(f"--{name} has no effect with {config.preset}; it is for ARC tasks")
        del options[name]
    if beforehand := family.before_making():
        tell(beforehand)
    complete: list[str] = []
    card = family.make(
        config.preset,
        config.folder,
        config.seed,
        config.overwrite,
        progress,
        config.sizes,
        config.resume,
        config.workers,
        complete.append,
        **options,
    )
    if too_large := card.get("too_large"):
        tell(f"{counted(len(too_large), 'task')} left out: above the frame of {card['frame']} rows")
    splits = card["splits"].items()
    files = {config.folder / entry["file"]: int(card[split]) for split, entry in splits}
    return Made(files, config.folder / "card.json", not complete)


def lines(made: Made) -> list[str]:
    """Which files there are."""
    if not made.is_new:
        return [f"{made.card.parent} is complete"]
    return [
        *(f"wrote {file} ({counted(n, 'puzzle')})" for file, n in made.files.items()),
        f"wrote {made.card}",
    ]
