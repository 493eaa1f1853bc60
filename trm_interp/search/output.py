"""The files of a search: a table, a summary beside it, and blocks until both are there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, make_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import (
    remove_leftovers,
    replacing,
    require_apart,
    sha256_of,
    write_json,
    write_text,
)
from trm_interp.runtime.locks import locked_beside
from trm_interp.runtime.outputs import discard, maker, mark, remove_own
from trm_interp.runtime.provenance import git_commit, versions
from trm_interp.runtime.schema import convert, read_json
from trm_interp.search.config import SearchRun
from trm_interp.search.selection import RULES, SHARES, share_table
from trm_interp.tasks.base import PuzzleSet

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
class Beside:
    """The file beside a finished table; older ones do not say of which table."""

    summary: dict[str, Any]
    identity: Identity
    table: str | None = None
    table_sha256: str | None = None


CURVES = [f"{name}{end}" for name in SHARES for end in ("", "_low", "_high")]
Summary = make_dataclass(
    "Summary",
    [
        *((name, str) for name in ("ckpt", "checkpoint_sha256", "puzzles", "target")),
        *((name, int) for name in ("n", "k", "steps", "evaluations")),
        ("evaluations_of_the_full_grid", int),
        ("sigma", float),
        *((name, list[float]) for name in CURVES),
    ],
    kw_only=True,
)


class Opened(NamedTuple):
    """`parts`: the folder of finished blocks where there is work to do, None without an output.
    `done`: what is beside a table that is complete."""

    parts: Path | None = None
    done: Beside | None = None


def beside(out: Path) -> Path:
    """Summary, settings and versions of a table."""
    return out.with_suffix(".json")


def read_beside(out: Path) -> Beside | None:
    """What is beside a table; None where nothing is. UserError where it is not a search's."""
    file = beside(out)
    try:
        found = read_json(file, Beside, advice="not the summary of a search, choose another --out")
    except FileNotFoundError:
        return None
    summary: Any = convert(found.summary, Summary, f"{file}: summary")
    sizes = {len(getattr(summary, name)) for name in CURVES}
    least = min(summary.n, summary.k, summary.steps, summary.evaluations_of_the_full_grid)
    if sizes != {summary.steps} or least < 1:
        raise UserError(f"{file}: its curves do not have one number a step: search again")
    return found


@contextmanager
def output(run: SearchRun, identity: Identity) -> Iterator[Opened]:
    """Hold table, summary and blocks while the block runs; yields what is there already.

    UserError where one of the three is not a search's, where another process writes them, or where
    there is earlier work and neither flag is given.
    """
    if run.out is None:
        yield Opened()
        return
    for path in (run.out, beside(run.out), _parts(run.out)):
        require_apart(path, puzzles=run.puzzles, ckpt=run.ckpt)
    with locked_beside(beside(run.out)):  # which tables of the same name share
        yield _open(run, run.out, identity)


def write_block(out: Path, file: Path, table: pd.DataFrame) -> None:
    """One block is done. From then on an earlier table, which goes at the end, has no summary."""
    Path(os.path.realpath(beside(out))).unlink(missing_ok=True)
    write_text(file, table.to_csv(index=False))


def finish(out: Path, table: pd.DataFrame, summary: dict[str, Any], identity: Identity) -> None:
    """Write the table, then what is beside it; the blocks go."""
    write_table(out, table)
    made = {"versions": versions(), "git_commit": git_commit()}
    known = Beside(summary=summary, identity=identity, table=out.name, table_sha256=sha256_of(out))
    write_json(beside(out), asdict(known) | made)
    discard(_parts(out), COMMAND, NAMES)


def _open(run: SearchRun, out: Path, identity: Identity) -> Opened:
    """All is looked at before anything is removed."""
    parts = _parts(out)
    known, begun = read_beside(out), _begun(parts, run.overwrite)
    other = out.with_suffix(".csv" if out.suffix == ".parquet" else ".parquet")
    if known and known.table == other.name and other.exists():
        raise UserError(f"{beside(out)} is of {other.name}: choose another name for --out")
    # a search with other settings than those of the table, killed before its first block
    is_newer = known and begun and known.identity != begun and not _difference(begun, identity)
    if run.resume and known and out.exists() and not is_newer:
        _require_same(beside(out), known.identity, identity)
        _require_whole(out, known)
        if parts.exists():  # of a run that was killed at its very end
            discard(parts, COMMAND, NAMES)
        return Opened(done=known)
    ours = maker(parts) == COMMAND
    if out.exists() and not (known or begun or ours):
        raise UserError(
            f"{out} has no summary of a search beside it, so `search` leaves it alone: choose "
            "another --out, or delete it"
        )
    if run.resume and begun:
        _require_same(parts, begun, identity)
    elif run.resume and known:  # the table is gone
        _require_same(beside(out), known.identity, identity)
    elif not run.overwrite and (out.exists() or known or begun):
        place = out if out.exists() else parts if begun else beside(out)
        anew = " or --overwrite to start anew" if ours or not begun else ""
        raise UserError(f"{place} exists: use --resume to go on{anew}")
    if not (run.resume and begun) and parts.exists() and ours:
        remove_own(parts, COMMAND, NAMES)
    mark(parts, COMMAND)
    write_json(parts / IDENTITY, asdict(identity))
    return Opened(parts)


def _parts(out: Path) -> Path:
    """The blocks of a table that is not finished."""
    return out.with_name(f"{out.name}.parts")


def _begun(parts: Path, overwrite: bool) -> Identity | None:
    """What the blocks are of; None where there are none. UserError where they are not a search's.

    Blocks from before there were markers can be gone on with, not overwritten.
    """
    if not parts.exists():
        return None
    if not parts.is_dir():
        raise UserError(f"{parts} is a file: choose another --out")
    remove_leftovers(parts)
    made_by = maker(parts)
    if made_by is None and not any(parts.iterdir()):
        return None
    if made_by not in (None, COMMAND) or (made_by is None and overwrite):
        raise UserError(f"{parts} was not made by `search`: choose another --out, or delete it")
    try:
        if not overwrite:
            return read_json(parts / IDENTITY, Identity, advice="start anew with --overwrite")
    except FileNotFoundError:
        if made_by is None:
            raise UserError(f"{parts} was not made by `search`: choose another --out") from None
    return None


def _require_same(place: Path, there: Identity, now: Identity) -> None:
    """UserError that names the first setting in which the runs differ."""
    if found := _difference(there, now):
        name, was, value = found
        raise UserError(
            f"{place}: {name} is {str(was)[:100]} there and {value} now; "
            "give the same settings, or --overwrite to start anew"
        )


def _difference(there: Identity, now: Identity) -> tuple[str, Any, Any] | None:
    """The first setting in which two searches differ, and what it is in either."""
    flat_there, flat_now = ({**asdict(i), **i.search} for i in (there, now))
    for name, value in flat_now.items():
        if name != "search" and flat_there.get(name) != value:
            return name, flat_there.get(name), value
    return None


def _require_whole(out: Path, known: Beside) -> None:
    """UserError where a table is not the one that its summary is of."""
    try:
        same = known.table_sha256 in (None, sha256_of(out)) and _agree(read_table(out), known)
    except (*UNREADABLE, LookupError, TypeError):
        same = False
    if not same:
        raise UserError(f"{out} is not the table that {beside(out)} is of: use --overwrite")


def _agree(table: pd.DataFrame, known: Beside) -> bool:
    """Whether a summary says what its table and its settings say."""
    said, steps = known.summary, known.summary["steps"]
    if set(table.columns) != set(COLUMNS) or len(table) != said["n"] * steps:
        return False
    if not np.array_equal(table["step"], np.tile(np.arange(steps), said["n"])):
        return False
    shares = share_table(table)
    steps_run = int(table["steps_run"].to_numpy()[table["step"].to_numpy() == 0].sum())
    return (
        all(shares[name].tolist() == said[name] for name in CURVES)
        and all(said.get(name) == value for name, value in known.identity.search.items())
        # network evaluations a step are the model's, and the same in both numbers
        and said["evaluations"] * said["n"] * said["k"] * steps
        == said["evaluations_of_the_full_grid"] * steps_run
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
    """The finished block of these puzzles; None where there is none, or not a whole one."""
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
    counts = table[list(COUNTS)].to_numpy()
    answers = table["answer"].astype(str).str
    right = (
        all(kinds[name] == "b" for name in SHARES)
        and all(kinds[name] == "i" for name in COUNTS)
        and (kinds["q"], kinds["line"], kinds["step"]) == ("f", "i", "i")
        and counts.min() >= 0
        and bool(np.isfinite(table["q"].to_numpy()).all())
        and np.array_equal(table["line"], np.repeat(puzzles.lines, steps))
        and np.array_equal(table["step"], np.tile(np.arange(steps), n))
        and bool((answers.fullmatch(r"[0-9.]+") & (answers.len() == puzzles.task.cells)).all())
    )
    return table if right else None
