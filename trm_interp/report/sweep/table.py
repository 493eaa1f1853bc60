"""A table of jobs in YAML: rows that are multiplied over a matrix and need each other.

    out: runs/sweep
    jobs:
      train:
        matrix: {seed: [0, 1, 2]}
        run: train --train T --val V --preset sudoku6 --seed {seed}
      basins:
        matrix: {seed: [0, 1, 2]}
        needs: train
        run: basins --ckpt {train} --seed {seed}
      compare:
        needs: train
        run: compare {train}

A job is called by its row and its values, `train-0`. It needs the jobs of the row `needs` that have
the same values, and all of those where its own matrix does not have an axis. In `run`, `{seed}` is
its value, `{train}` what the jobs that it needs have written: the word is repeated for each. Values
of an axis that have names stand for several words: `{size: {small: --d-model 64}}`.
"""

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from trm_interp.report.sweep.engine import in_order
from trm_interp.report.sweep.files import identity_of
from trm_interp.report.sweep.jobs import Job, with_bases
from trm_interp.report.sweep.rows import NAME, Row, count, load, mapping, read_row, slurm_of, text
from trm_interp.runtime.errors import UserError

TOP = ("out", "executor", "workers", "gpus", "slurm", "jobs")
EXECUTORS = ("local", "slurm")
PLACE = re.compile(r"\{([^{}]*)\}")
MOST_JOBS = 10_000
DONE = {
    **{"collect": "store.h5", "train": "card.json", "train-sae": "card.json"},
    **{"compare": "compare.json", "figures": "plan.json", "data make": "card.json"},
}  # what a command writes last, where that is not summary.json
FILES = {"search": ".csv", "data import": ".txt", "sae-eval": ".json", "steer": ".json"}
FLAGS = ("--resume", "--overwrite")
SHARD = "shard.json"  # what a shard writes last
NO_JOBS = ("sweep", "explore", "quickstart")


@dataclass(frozen=True)
class Line:
    """What the command line knows of the words of a job. `command`: its name, of one or two words;
    `flags`: which of --resume and --overwrite it has; `writes`: whether it has --out; `settings`:
    its options; `shards`: whether it has --shard."""

    command: str
    flags: tuple[str, ...]
    writes: bool
    shards: bool
    settings: Any = None


class Grammar(Protocol):
    """The command line."""

    def __call__(self, words: Sequence[str], out: Path | None = None) -> Line:
        """Words, and `--out` where the command has it. UserError for a command, an option or a
        value that it does not have."""
        ...


@dataclass(frozen=True)
class Table:
    """`jobs` in the order in which they can run; `row_of`: row by name of job; `lines`: what they
    are, by name of job."""

    out: Path
    executor: str
    workers: int | None
    gpus: int | None
    slurm: Mapping[str, Any]
    jobs: list[Job]
    row_of: Mapping[str, str]
    lines: Mapping[str, Line]


def read_table(file: Path, grammar: Grammar, out: Path | None = None) -> Table:
    """The table of a file; `out` in place of the folder that it names.

    UserError, which names the row, for what is no table of jobs that can run.
    """
    raw = mapping(load(file), str(file), TOP)
    if not (rows_raw := mapping(raw.get("jobs"), f"{file}: jobs", None)):
        raise UserError(f"{file}: jobs: there are none")
    rows = {}
    for name, row in rows_raw.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(f"{file}: jobs: {name!r} is no name: letters, digits, - and _")
        rows[name] = read_row(name, row, f"{file}: {name}")
    for row in rows.values():
        for need in row.after:
            if need not in rows:
                raise UserError(f"{file}: {row.name}: needs {need!r}; there are {', '.join(rows)}")
    executor = raw.get("executor", "local")
    if executor not in EXECUTORS:
        raise UserError(f"{file}: executor: {executor!r} is not one of {', '.join(EXECUTORS)}")
    folder = out or Path(text(raw.get("out", f"runs/{file.stem}"), f"{file}: out"))
    _no_circle(rows, file)
    jobs, row_of, lines = _Expansion(file, folder, rows, grammar).jobs()
    return Table(
        out=folder,
        executor=executor,
        workers=count(raw.get("workers"), f"{file}: workers"),
        gpus=count(raw.get("gpus"), f"{file}: gpus", least=0),
        slurm=slurm_of(raw.get("slurm"), f"{file}: slurm"),
        jobs=with_bases(in_order(jobs)),
        row_of=row_of,
        lines=lines,
    )


def _no_circle(rows: Mapping[str, Row], file: Path) -> None:
    try:
        in_order([Job(row.name, row.run, Path(row.name), after=row.after) for row in rows.values()])
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None


@dataclass
class _Cell:
    """A job of a row: its values by axis, and what it writes."""

    name: str
    values: Mapping[str, str]
    out: Path = Path()
    job: str = ""  # the job by whose end it is written


@dataclass
class _Expansion:
    """Rows to jobs."""

    file: Path
    out: Path
    rows: Mapping[str, Row]
    grammar: Grammar
    cells: dict[str, list[_Cell]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)  # of files and folders that jobs share

    def jobs(self) -> tuple[list[Job], dict[str, str], dict[str, Line]]:
        jobs: list[Job] = []
        row_of: dict[str, str] = {}
        lines: dict[str, Line] = {}
        for row in self._in_order():
            self.cells[row.name] = [
                _Cell(self._name(row, values), dict(zip(row.values, values, strict=True)))
                for values in itertools.product(*row.values.values())
            ]
            for cell in self.cells[row.name]:
                for job, line in self._of(row, cell):
                    if job.name in row_of:
                        raise UserError(
                            f"{self.file}: {row.name} and {row_of[job.name]} both make a job "
                            f"{job.name}: give one of the rows another name"
                        )
                    jobs.append(job)
                    row_of[job.name], lines[job.name] = row.name, line
            if len(jobs) > MOST_JOBS:
                raise UserError(f"{self.file}: more than {MOST_JOBS} jobs")
        return jobs, row_of, lines

    def _in_order(self) -> list[Row]:
        rows = [Job(row.name, (), Path(), after=row.after) for row in self.rows.values()]
        return [self.rows[one.name] for one in in_order(rows)]

    def _name(self, row: Row, values: Sequence[str]) -> str:
        return "-".join([row.name, *(re.sub(r"[^\w.+=-]+", "_", value) for value in values)])

    def _of(self, row: Row, cell: _Cell) -> Iterator[tuple[Job, Line]]:
        """The job of a cell, or its shards and what joins them."""
        where = f"{self.file}: {cell.name}"
        needed = {need: self._needed(need, cell) for need in row.after}
        words = [one for word in row.run for one in self._filled(word, row, cell, needed, where)]
        line = self._line(words, cell, where)
        after = tuple(one.job for cells in needed.values() for one in cells)
        cell.job, cell.out = cell.name, self._written(line, cell.name)
        if row.shards > 1 and not line.shards:
            raise UserError(f"{where}: shards: {line.command} has no --shard")
        if row.shards == 1:
            to = ["--out", str(cell.out)] if line.writes else []
            yield self._job(cell.name, [*words, *to], line, after, row), line
            return
        names = [f"{cell.name}-shard-{i}" for i in range(1, row.shards + 1)]
        for i, name in enumerate(names, 1):
            own = [*words, "--shard", f"{i}/{row.shards}", "--out", str(self.out / name)]
            job = self._job(name, own, line, after, row, SHARD)
            yield replace(job, done=SHARD, is_guest=False, flags=FLAGS), line
        to = ["--out", str(cell.out)] if line.writes else []
        merge = ["merge", *(str(self.out / name) for name in names), *to]
        joined = self.grammar(merge)
        # it can go on, and write at all, where the command itself can
        own = replace(joined, flags=line.flags, writes=line.writes)
        yield self._job(cell.name, merge, own, tuple(names), row, "", line.command), joined

    def _needed(self, need: str, cell: _Cell) -> list[_Cell]:
        """The jobs of a row with the same values."""
        shared = [
            one
            for one in self.cells[need]
            if all(cell.values.get(axis, value) == value for axis, value in one.values.items())
        ]
        if not shared:
            raise UserError(f"{self.file}: {cell.name}: needs {need!r}, but none has its values")
        return shared

    def _filled(
        self, word: str, row: Row, cell: _Cell, needed: Mapping[str, list[_Cell]], where: str
    ) -> list[str]:
        """A word with its places filled, which may make it several."""
        names = PLACE.findall(word)
        known = [*row.values, *needed]
        for name in names:
            if name not in known:
                there = ", ".join(known) or "none"
                raise UserError(f"{where}: run: no value {{{name}}}; there are {there}")
        if word[1:-1] in row.values and word == f"{{{word[1:-1]}}}":
            return list(row.values[word[1:-1]][cell.values[word[1:-1]]])
        options = [
            [str(one.out) for one in needed[name]]
            if name in needed
            else [" ".join(row.values[name][cell.values[name]])]
            for name in dict.fromkeys(names)
        ]
        filled = []
        for chosen in itertools.product(*options):
            given = dict(zip(dict.fromkeys(names), chosen, strict=True))
            filled.append(PLACE.sub(lambda match, given=given: given[match.group(1)], word))
        return filled

    def _line(self, words: Sequence[str], cell: _Cell, where: str) -> Line:
        words = words[1:] if words[0] == "trm-interp" else words
        for option in ("--out", "--shard", "--resume", "--overwrite"):
            if any(word.partition("=")[0] == option for word in words):
                raise UserError(f"{where}: run: {option} is the table's to give: leave it out")
        name = words[0] if words else ""
        if name in NO_JOBS:
            raise UserError(f"{where}: run: {name} cannot be a job")
        ending = FILES.get(name) or FILES.get(" ".join(words[:2])) or ""
        try:
            return self.grammar(words, self.out / f"{cell.name}{ending}")
        except UserError as error:
            raise UserError(f"{where}: run: {error}") from None

    def _written(self, line: Line, name: str) -> Path:
        """What a job writes, as its dependents name it."""
        if not line.writes:
            return self.out / f"{name}-log.txt"
        if line.command in FILES:
            return self.out / name / f"{name}{FILES[line.command]}"
        return self.out / name

    def _job(
        self,
        name: str,
        words: Sequence[str],
        line: Line,
        after: tuple[str, ...],
        row: Row,
        done: str = "",
        command: str = "",
    ) -> Job:
        words = words[1:] if words[0] == "trm-interp" else words
        command, own = command or line.command, {"after": after, "resources": dict(row.slurm)}
        files = identity_of(words, self.out, self.digests)
        own |= {"files": files, "flags": line.flags}
        if not line.writes:  # its output is what it prints
            own |= {"flags": (), "done": os.path.abspath(self.out / f"{name}-log.txt")}
            return Job(name, words, self.out / name, is_guest=True, **own)
        if command in FILES:
            end = ".json" if command == "search" else FILES[command]
            return Job(name, words, self.out / name, done or f"{name}{end}", **own)
        return Job(name, words, self.out / name, done or DONE.get(command, "summary.json"), **own)
