"""The files of a search: a table, a JSON sidecar, and blocks while the search is unfinished."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.file_run import FileRun
from trm_interp.runtime.files import replacing, require_apart, sha256_of, write_json, write_text
from trm_interp.runtime.identity import differing, require_same
from trm_interp.runtime.outputs import discard, maker
from trm_interp.runtime.provenance import git_commit, versions
from trm_interp.runtime.runs import Run, Work, read_identity
from trm_interp.runtime.schema import read_json
from trm_interp.search.results import RULES, SHARES, SearchSummary, curves_of, gained_of
from trm_interp.search.selection import share_table
from trm_interp.search.settings import SearchRun
from trm_interp.tasks.base import PuzzleSet, Task

COMMAND, IDENTITY = "search", "identity.json"
NAMES = (IDENTITY, "block-*.csv")  # of the files in the folder of blocks
COUNTS = ("right", *(f"chosen_{rule}" for rule in RULES), "trajectories", "steps_run")
COLUMNS = ("line", "step", *SHARES, "right", "q", *COUNTS[1:], "answer")
UNREADABLE = (ValueError, OSError, OverflowError)  # what pandas raises for files of all kinds


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What the numbers of a search depend on."""

    checkpoint_sha256: str
    data_sha256: dict[str, str]
    search: dict[str, Any]
    batch_size: int
    device: str
    dtype: str
    limit: int | None
    skip_bad: bool
    compile: bool


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """The JSON file of a finished table; older ones do not name the table."""

    summary: SearchSummary
    identity: Identity
    table: str | None = None
    table_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """`Sidecar` as JSON has it."""

    summary: dict[str, Any]
    identity: Identity
    table: str | None = None
    table_sha256: str | None = None


def sidecar_file(out: Path) -> Path:
    """The file with the summary, settings and versions of a table."""
    return out.with_suffix(".json")


def read_sidecar(out: Path) -> Sidecar | None:
    """The sidecar of a table; None if there is none. UserError if a search did not write it."""
    file = sidecar_file(out)
    try:
        stored = read_json(
            file, _Stored, advice="not the summary of a search, choose another --out"
        )
    except FileNotFoundError:
        return None
    summary = SearchSummary.from_json(stored.summary, f"{file}: summary", advice="search again")
    lengths = {len(part) for curve in summary.curves.values() for part in vars(curve).values()}
    least = min(summary.n, summary.evaluations_of_the_full_grid)
    if lengths != {summary.config.steps} or least < 1:
        raise UserError(f"{file}: its curves do not have one number a step: search again")
    return Sidecar(
        summary=summary,
        identity=stored.identity,
        table=stored.table,
        table_sha256=stored.table_sha256,
    )


def earlier_compiled(run: SearchRun) -> bool | None:
    """Whether the search to resume has compiled the networks; None where there is none."""
    if run.out is None or not run.resume:
        return None
    begun = read_identity(blocks_folder(run.out) / IDENTITY)
    if begun is None and (sidecar := read_sidecar(run.out)):
        begun = asdict(sidecar.identity)
    return None if begun is None else bool(begun.get("compile", False))


@dataclass(eq=False)
class SearchWork(Work):
    """A search that may write a table: locks table, sidecar and blocks while it runs.

    `run.out` is the table, or None, and `out` the same. `finished`: the sidecar of a table that is
    already complete. UserError if a search did not write one of the three, if another process is
    writing them, or if there is earlier work and neither flag is given.
    """

    run: SearchRun = field(kw_only=True)
    identity: Identity = field(kw_only=True)
    finished: Sidecar | None = field(default=None, init=False)

    @classmethod
    def of(cls, run: SearchRun, identity: Identity, **options: Any) -> Self:
        """The work of a search with these settings. `options`: team, tell and progress."""
        return cls(
            run.out or Path(),
            COMMAND,
            run=run,
            identity=identity,
            resume=run.resume,
            overwrite=run.overwrite,
            resumable=run.out is not None,
            **options,
        )

    @property
    def blocks(self) -> Path | None:
        """The folder of the blocks of the unfinished table, if there is to be a table."""
        return None if self.run.out is None else blocks_folder(self.run.out)

    def __enter__(self) -> Self:
        super().__enter__()
        if self.team is not None:
            self.finished = self.team.objects(self.finished)[0]
        return self

    @contextmanager
    def _held(self) -> Iterator[bool]:
        if self.blocks is None:
            yield False
            return
        sidecar, choice = sidecar_file(self.out), asdict(self.existing)
        inputs = {"puzzles": self.run.puzzles, "ckpt": self.run.ckpt}
        require_apart(self.blocks, **inputs)
        with FileRun(
            self.out,
            COMMAND,
            _require_searched,
            companions=(sidecar,),
            lock=sidecar,  # which tables of the same name share
            inputs=inputs,
            **choice,
        ):
            self.finished = self._complete()
            if self.finished is not None:
                if self.blocks.exists():  # of a run that was killed at its very end
                    discard(self.blocks, COMMAND, NAMES)
                yield True
                return
            with Run(
                self.blocks,
                COMMAND,
                NAMES,
                identity=asdict(self.identity),
                identity_file=IDENTITY,
                unmarked=lambda folder: (folder / IDENTITY).is_file(),
                **choice,
            ):
                yield any(self.blocks.glob(NAMES[1]))

    def _complete(self) -> Sidecar | None:
        """The sidecar of the complete table that --resume finds; None if there is work to do."""
        sidecar, now = read_sidecar(self.out), asdict(self.identity)
        if sidecar is None or not self.resume:
            return None
        begun = read_identity(blocks_folder(self.out) / IDENTITY)
        there = asdict(sidecar.identity)
        if begun is not None and differing(begun, there) and not differing(begun, now):
            return None  # it was to replace the table, and was killed before its first block
        require_same(sidecar_file(self.out), there, now)
        if not self.out.exists():
            return None
        _require_whole(self.out, sidecar)
        return sidecar

    def n_saved(self, names: Sequence[str]) -> int:
        """How many of these blocks exist."""
        blocks = self.blocks
        return 0 if blocks is None else sum((blocks / name).exists() for name in names)

    def block(
        self, name: str, puzzles: PuzzleSet, steps: int, compute: Callable[[], pd.DataFrame]
    ) -> pd.DataFrame:
        """The finished block of this name, or one that is computed and saved now.

        The first new block removes the sidecar of an earlier table, which is replaced at the end.
        """
        if self.blocks is None:
            return compute()
        file = self.blocks / name
        table = read_block(file, puzzles, steps)
        if table is not None:
            self._reused = True
            return table
        if file.exists():
            self.tell(f"{file} is damaged: searching its puzzles again")
        table = compute()
        Path(os.path.realpath(sidecar_file(self.out))).unlink(missing_ok=True)
        write_text(file, table.to_csv(index=False))
        return read_table(file)  # as a resumed run reads it

    def finish(self, table: pd.DataFrame, summary: SearchSummary) -> None:
        """Write the table, then its sidecar, and delete the blocks."""
        if self.blocks is None or not self.is_first:
            return
        write_table(self.out, table)
        stored = _Stored(
            summary=summary.to_json(),
            identity=self.identity,
            table=self.out.name,
            table_sha256=sha256_of(self.out),
        )
        made = {"versions": versions(), "git_commit": git_commit()}
        write_json(sidecar_file(self.out), asdict(stored) | made)
        discard(self.blocks, COMMAND, NAMES)


def blocks_folder(out: Path) -> Path:
    """The folder of the blocks of an unfinished table."""
    return out.with_name(f"{out.name}.parts")


def _require_searched(out: Path) -> None:
    """UserError unless a table, its sidecar and its blocks are a search's."""
    sidecar, blocks = read_sidecar(out), blocks_folder(out)
    other = out.with_suffix(".csv" if out.suffix == ".parquet" else ".parquet")
    if sidecar and sidecar.table == other.name and other.exists():
        raise UserError(
            f"{sidecar_file(out)} describes {other.name}: choose another name for --out"
        )
    if out.exists() and not (sidecar or maker(blocks) == COMMAND or (blocks / IDENTITY).is_file()):
        raise UserError(
            f"{out} has no summary of a search next to it, so `search` leaves it alone: choose "
            "another --out, or delete it"
        )


def _require_whole(out: Path, sidecar: Sidecar) -> None:
    """UserError if a table is not the one that its sidecar describes."""
    try:
        same = sidecar.table_sha256 in (None, sha256_of(out)) and _agree(read_table(out), sidecar)
    except (*UNREADABLE, LookupError, TypeError):
        same = False
    if not same:
        raise UserError(
            f"{out} is not the table that {sidecar_file(out)} describes: use --overwrite"
        )


def _agree(table: pd.DataFrame, sidecar: Sidecar) -> bool:
    """Whether a summary agrees with its table and its settings."""
    summary, settings = sidecar.summary, asdict(sidecar.summary.config)
    n, steps = summary.n, summary.config.steps
    if set(table.columns) != set(COLUMNS) or len(table) != n * steps:
        return False
    if not np.array_equal(table["step"], np.tile(np.arange(steps), n)):
        return False
    drawn = curves_of(share_table(table))
    steps_run = int(table["steps_run"].to_numpy()[table["step"].to_numpy() == 0].sum())
    return (
        all(
            np.allclose(getattr(drawn[name], part), numbers, rtol=0, atol=1e-9)
            for name, curve in summary.curves.items()
            for part, numbers in vars(curve).items()
        )
        and summary.gained in (None, gained_of(table))
        and all(settings.get(name) == value for name, value in sidecar.identity.search.items())
        # network evaluations a step are the model's, and the same in both numbers
        and summary.evaluations * n * summary.config.k * steps
        == summary.evaluations_of_the_full_grid * steps_run
    )


# tables


def write_table(out: Path, table: pd.DataFrame) -> None:
    with replacing(out) as to:
        if out.suffix == ".csv":
            table.to_csv(to, index=False)
            return
        try:
            table.to_parquet(to, index=False)
        except ImportError:
            raise UserError(
                f"{out}: parquet needs 'pip install pyarrow'; then the same command with --resume"
            ) from None


def read_table(out: Path) -> pd.DataFrame:
    if out.suffix == ".parquet":
        return pd.read_parquet(out)
    return pd.read_csv(out, dtype={"answer": str})


def read_block(file: Path, puzzles: PuzzleSet, steps: int) -> pd.DataFrame | None:
    """The finished block of these puzzles; None if it is missing or incomplete."""
    if not file.is_file():
        return None
    try:
        table = read_table(file)
    except UNREADABLE:
        return None
    n = len(puzzles)
    if tuple(table.columns) != COLUMNS or len(table) != n * steps:
        return None
    kinds = {name: table[name].to_numpy().dtype.kind for name in COLUMNS}
    right = (
        all(kinds[name] == "b" for name in SHARES)
        and all(kinds[name] == "i" for name in COUNTS)
        and (kinds["q"], kinds["line"], kinds["step"]) == ("f", "i", "i")
        and table[list(COUNTS)].to_numpy().min() >= 0
        and bool(np.isfinite(table["q"].to_numpy()).all())
        and np.array_equal(table["line"], np.repeat(puzzles.lines, steps))
        and np.array_equal(table["step"], np.tile(np.arange(steps), n))
        and _are_boards(table["answer"].astype(str).tolist(), puzzles.task)
    )
    return table if right else None


def _are_boards(answers: Sequence[str], task: Task) -> bool:
    """Whether every text can be a board of the task: by its characters, and by its length."""
    boards = [task.text(np.full(task.cells, token, np.uint8)) for token in range(task.vocab)]
    shortest, longest = min(map(len, boards)), max(map(len, boards))
    characters = set("".join(boards))
    return all(shortest <= len(text) <= longest and set(text) <= characters for text in answers)
