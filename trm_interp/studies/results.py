"""The folder of one part: tables, figures with their plotted numbers, and the summary last."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from trm_interp.figures.style import write_html
from trm_interp.runtime.files import plain, write_json, write_text
from trm_interp.runtime.outputs import remove_own, writing
from trm_interp.runtime.provenance import git_commit, versions
from trm_interp.studies.config import OnCheckpoint, OnStore

SUMMARY = "summary.json"
PLOTLY = "plotly.min.js"  # that pages share
KINDS = (".csv", ".html", ".png", ".pdf")
Tell = Callable[[str], None]
Progress = Callable[[int, int], None]


@contextmanager
def results_of(
    command: str,
    config: OnCheckpoint | OnStore,
    names: Sequence[str],
    folders: Sequence[str] = (),
    unmarked: Callable[[Path], bool] = lambda folder: False,
) -> Iterator["Results"]:
    """Hold `config.out` for a command while it writes its results there.

    `names`: patterns of all its tables and figures, without endings; `folders`: names of its own
    folders inside, which a resumed run finds again; `unmarked` as in `writing`. What an earlier
    run wrote under these names is removed before the first table is written, so that no two are
    mixed and a run that fails before costs nothing; with --overwrite, its folders go at once.
    """
    files = [f"{name}{kind}" for name in names for kind in KINDS] + [SUMMARY, PLOTLY]
    resume = getattr(config, "resume", None)
    with writing(
        config.out,
        command,
        [*files, *(f"{folder}/" for folder in folders)],
        resume=bool(resume),
        overwrite=config.overwrite,
        resumable=resume is not None,
        clear=False,
        unmarked=unmarked,
    ) as begun:
        if config.overwrite and begun:
            remove_own(config.out, command, [f"{folder}/" for folder in folders])
        clear = partial(remove_own, config.out, command, files) if begun else None
        yield Results(config.out, names, config.static, clear)


class Results:
    """Writes what a part found. `static`: also PNG and PDF, where kaleido and a browser are.

    `names`: as in `results_of`; `clear` is called once, before anything is written.
    """

    def __init__(
        self,
        out: Path,
        names: Sequence[str],
        static: bool = False,
        clear: Callable[[], None] | None = None,
    ) -> None:
        self.out, self.static, self.known, self.names = out, static, names, []
        self._clear = clear

    def table(self, name: str, table: pd.DataFrame) -> Path:
        if not any(fnmatchcase(name, known) for known in self.known):
            raise ValueError(f"{name} is none of the results {', '.join(self.known)}")
        self._clear_once()
        self.names.append(name)
        write_text(self.out / f"{name}.csv", table.to_csv(index=False))
        return self.out / f"{name}.csv"

    def figure(self, name: str, figure: go.Figure, numbers: pd.DataFrame) -> Path:
        """An interactive page, and the numbers it plots beside it."""
        self.table(name, numbers)
        return write_html(figure, self.out / f"{name}.html", self.static)

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """The part is done: its numbers, with what computed them. Numbers as JSON has them."""
        summary = summary | {"written": sorted(set(self.names))}
        done = plain(summary | {"versions": versions(), "git_commit": git_commit()})
        self._clear_once()
        write_json(self.out / SUMMARY, done)
        return done

    def _clear_once(self) -> None:
        if self._clear:
            self._clear()
            self._clear = None
