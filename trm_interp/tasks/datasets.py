"""Data sets of any task: made by its generator, imported, rated, compared, downloaded."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trm_interp.runtime.errors import UserError
from trm_interp.tasks.base import Progress, PuzzleError, no_progress
from trm_interp.tasks.registry import downloads, family_of_file, presets


def is_resumable(preset: str) -> bool:
    """Whether making that data set takes so long that it can be stopped and resumed."""
    makers = presets()
    return preset in makers and makers[preset].is_resumable(preset)


def make(
    preset: str,
    out: str | Path,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
    sizes: dict[str, int] | None = None,
    resume: bool = False,
    workers: int | None = None,
) -> dict[str, Any]:
    """Generate the data set `preset` into the folder `out`; its card. See `Task.make`."""
    makers = presets()
    if preset not in makers:
        raise PuzzleError(f"no preset {preset!r}; there are {', '.join(makers)}")
    return makers[preset].make(preset, out, seed, overwrite, progress, sizes, resume, workers)


def import_file(
    source: str | Path,
    out: str | Path,
    skip_bad: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Check every puzzle of a file or folder and write them to `out`; its card."""
    return family_of_file(source).import_file(source, out, skip_bad, overwrite, progress)


def check_splits(
    files: Sequence[Path],
    tell: Callable[[str], None] = print,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """What is wrong with files as splits of one data set. See `Task.check_splits`.

    UserError where they are of different tasks.
    """
    kinds = [family_of_file(path) for path in files]
    for path, kind in zip(files, kinds, strict=True):
        if kind is not kinds[0]:
            raise PuzzleError(
                f"{files[0]} holds {kinds[0].family} puzzles, {path} {kind.family}: "
                "check one task at a time"
            )
    return kinds[0].check_splits(files, tell, progress)


def download(name: str, out: str | Path) -> list[Path]:
    """Fetch a public data set into the folder `out`; the files that were written."""
    available = downloads()
    if name not in available:
        raise UserError(f"{name}: only {', '.join(available)} can be downloaded")
    return available[name].download(name, out)
