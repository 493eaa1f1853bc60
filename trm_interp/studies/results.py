"""What a study gives: a typed result, and a folder of tables and figures with the summary last."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import plotly.graph_objects as go

from trm_interp.figures.index import INDEX, Entry, index_page, of_table
from trm_interp.figures.look import Look
from trm_interp.figures.paper import caption_of
from trm_interp.figures.style import CAPTIONS, SCREEN, write_html
from trm_interp.runtime.provenance import git_commit, versions
from trm_interp.runtime.records import Record
from trm_interp.runtime.runs import Run, quiet, silent
from trm_interp.runtime.settings import command_line
from trm_interp.studies.settings import OnPuzzles, OnStore

SUMMARY = "summary.json"
PLOTLY = "plotly.min.js"  # that pages share
PARTS = "parts"  # folder of the parts of a study that can be resumed
KINDS = (".csv", ".html", ".png", ".pdf", ".tex", *CAPTIONS)
Tell = Callable[[str], None]
Progress = Callable[[int, int], None]
Figures = dict[str, tuple[go.Figure, pd.DataFrame]]  # by name, with the numbers that each plots


@dataclass(frozen=True, kw_only=True)
class StudyResult(Record):
    """The numbers of a study, as its summary.json has them.

    `written`: names of its tables and figures; `versions` and `git_commit` of what computed it.
    """

    written: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    git_commit: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What summary.json holds; how it was made comes last."""
        own = super().to_json()
        last = {name: own.pop(name) for name in ("written", "versions", "git_commit")}
        return own | last


@dataclass(frozen=True, kw_only=True)
class OnCheckpointResult(StudyResult):
    """Measured on a checkpoint and `n` puzzles; `skipped` others were not valid. `compiled`:
    whether the networks were, which moves the last digits."""

    ckpt: str
    checkpoint_sha256: str
    puzzles: str
    data_sha256: dict[str, str]
    n: int
    skipped: int = 0  # files of earlier versions do not say it: they had no puzzles to skip
    batch_size: int
    device: str
    compiled: bool = False  # earlier versions of studies did not compile

    @property
    def model_name(self) -> str:
        """Of the checkpoint, for titles."""
        return Path(self.ckpt).name


@dataclass(frozen=True, kw_only=True)
class OnStoreResult(StudyResult):
    """Measured on the `n` puzzles of a store, which was recorded with this batch and device."""

    store: str
    store_sha256: str
    checkpoint_sha256: str | None
    data_sha256: dict[str, str] | None
    n: int
    batch_size: int | None
    device: str | None


R = TypeVar("R", bound=StudyResult)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, as mappings from the names of the columns."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


@contextmanager
def results_of(
    command: str,
    config: OnPuzzles | OnStore,
    names: Sequence[str],
    *,
    identity: Mapping[str, Any] | None = None,
    tell: Tell = silent,
    progress: Progress = quiet,
    unmarked: Callable[[Path], bool] = lambda folder: False,
) -> Iterator["Results"]:
    """Lock `config.out` for a command while it writes its results there.

    `names`: patterns of all its tables and figures, without endings. `identity`: what the parts of
    a study that can be resumed depend on; `results.run.part` saves them in a folder of their own.
    Files that an earlier run wrote under these names are removed before the first table is written,
    so that no two runs are mixed and a run that fails before that costs nothing; its parts are
    removed at once with --overwrite.
    """
    files = [f"{name}{kind}" for name in names for kind in KINDS] + [SUMMARY, PLOTLY, INDEX]
    resume = getattr(config, "resume", None)
    with Run(
        config.out,
        command,
        [*files, f"{PARTS}/"] if identity else files,
        identity=identity or {},
        identity_file=f"{PARTS}/identity.json" if identity else "",
        resume=bool(resume),
        overwrite=config.overwrite,
        resumable=resume is not None,
        clears_at_once=False,
        tell=tell,
        progress=progress,
        unmarked=unmarked,
    ) as run:
        yield Results(run, names, files, Look.of(config), command_line(command, config))


class Results:
    """Writes what a study gives, in `run`. `look`: of its pictures.

    `names`: as in `results_of`; `files`: what earlier runs may have written, which is removed once,
    before anything is written.
    """

    def __init__(
        self,
        run: Run,
        names: Sequence[str],
        files: Sequence[str],
        look: Look = SCREEN,
        made_by: str = "",
    ) -> None:
        self.run, self.look, self.names = run, look, names
        self.made_by = made_by  # the command line
        self.written: list[str] = []
        self._figures: list[Entry] = []
        self._tables: list[Entry] = []
        self._commit = git_commit()  # of the code that runs; a checkout may move on meanwhile
        self._earlier = files if run.begun else ()

    def write(self, figures: Figures, tables: Mapping[str, pd.DataFrame]) -> None:
        """Figures as interactive pages NAME.html with the numbers that they plot as NAME.csv, and
        tables as NAME.csv. ValueError for a name that the command did not announce."""
        for name, (figure, numbers) in figures.items():
            self._table(name, numbers)
            self.run.note(f"(drawing {name})")
            write_html(figure, self.run.out / f"{name}.html", self.look)
            self._figures.append(Entry(f"{name}.html", caption_of(figure)))
        for name in tables.keys() - figures.keys():
            self._table(name, tables[name])

    def write_latex(self, name: str, text: str) -> None:
        """A table as LaTeX, beside its CSV file."""
        self.run.write_text(f"{name}.tex", text)

    def _table(self, name: str, table: pd.DataFrame) -> None:
        if not any(fnmatchcase(name, pattern) for pattern in self.names):
            raise ValueError(f"{name} is none of the results {', '.join(self.names)}")
        self._clear_once()
        self.written.append(name)
        self.run.write_text(f"{name}.csv", table.to_csv(index=False))
        self._tables.append(of_table(f"{name}.csv", table))

    def finish(self, result: R) -> R:
        """The study is done: writes the page of the folder, then the summary, and gives the result
        as a reader of it gets it."""
        written = sorted(set(self.written))
        done = replace(result, written=written, versions=versions(), git_commit=self._commit)
        self._clear_once()
        title = f"trm-interp {self.run.command}"
        self.run.write_text(INDEX, index_page(title, self.made_by, [], self._figures, self._tables))
        file = self.run.write_json(SUMMARY, done.to_json())
        return type(result).from_json(done.to_json(), str(file))

    def _clear_once(self) -> None:
        if self._earlier:
            self.run.clear(self._earlier)
            self._earlier = ()
