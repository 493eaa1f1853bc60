"""Settings of the commands on puzzle files. Read by the command line; needs no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trm_interp.runtime.settings import argument, required, setting

MOST_PUZZLES, MOST_WORKERS = 10**7, 256  # of a split; threads
SKIP_BAD_HELP = "leave out puzzles that are not valid, and say which"


def _split(name: str) -> dict[str, Any]:
    """Of the option for the size of a split; `train` alone names the file that is trained on."""
    how = {"flags": f"--n-{name}", "old": f"--{name}", "most": MOST_PUZZLES}
    return how | {"otherwise": "as the preset has it"}


@dataclass(frozen=True, kw_only=True)
class MakeConfig:
    """Generate a data set."""

    preset: str = argument(
        "sudoku4, sudoku6, sudoku9, sudoku6-hard, sudoku9-hard, maze10, maze10-loops, maze30, "
        "arc1, arc2, arc-small, a JSON file of ARC tasks, or of another task"
    )
    seed: int = setting(0, "same seed, same puzzles")
    out: Path | None = setting(None, "folder", otherwise="data/PRESET")
    train: int | None = setting(None, "training puzzles", **_split("train"))
    val: int | None = setting(None, "validation puzzles", **_split("val"))
    test: int | None = setting(None, "test puzzles", **_split("test"))
    workers: int | None = setting(
        None, "threads for hard puzzles", most=MOST_WORKERS, otherwise="all cores"
    )
    augmentations: int | None = setting(
        None, "of every ARC task, besides itself", otherwise="as the preset has it"
    )
    only: str | None = setting(None, "comma-separated names of ARC tasks", otherwise="all")
    frame: int | None = setting(
        None, "rows of the frame that ARC grids lie in", otherwise="as the preset has it"
    )
    resume: bool = setting(False, "go on with hard puzzles where a run was stopped")
    overwrite: bool = setting(False, "replace the folder")

    def __post_init__(self) -> None:
        if self.augmentations is not None and self.augmentations < 0:
            raise ValueError(f"augmentations must be at least 0, got {self.augmentations}")

    @property
    def folder(self) -> Path:
        """Where the data set goes."""
        return self.out or Path("data") / Path(self.preset).name.removesuffix(".json")

    @property
    def options(self) -> dict[str, Any]:
        """Of the settings that only some families have those that were given, for `Task.make`."""
        only = None if self.only is None else tuple(name.strip() for name in self.only.split(","))
        given = {"augmentations": self.augmentations, "only": only, "frame": self.frame}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def sizes(self) -> dict[str, int]:
        """Puzzles of the splits whose number was given."""
        given = {"train": self.train, "val": self.val, "test": self.test}
        return {split: n for split, n in given.items() if n is not None}

    @property
    def resumable(self) -> bool:
        """Whether making it takes so long that it can be stopped and resumed."""
        from trm_interp.runtime.errors import UserError
        from trm_interp.tasks.registry import maker_of

        try:
            return maker_of(self.preset).is_resumable(self.preset)
        except UserError:
            return False


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Compare the splits of a data set."""

    files: list[Path] = argument("training, test, ... puzzles")


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Bring puzzles of another origin into plain lines."""

    source: Path = argument("lines, grids, CSV, or a public folder")
    out: Path = required("file of puzzle,solution lines")
    skip_bad: bool = setting(False, SKIP_BAD_HELP)
    overwrite: bool = setting(False, "replace the file")


@dataclass(frozen=True, kw_only=True)
class RateConfig:
    """Rate puzzles."""

    source: Path = argument("puzzles in any form that can be read")
    seed: int = setting(0, "of the relabelings that are averaged")
    skip_bad: bool = setting(False, SKIP_BAD_HELP)


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """Fetch a public data set."""

    name: str = argument("sudoku-extreme")
    out: Path | None = setting(None, "folder", otherwise="data/NAME")

    @property
    def folder(self) -> Path:
        """Where the data set goes."""
        return self.out or Path("data") / self.name
