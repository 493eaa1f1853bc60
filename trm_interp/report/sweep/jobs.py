"""Jobs: command lines of `trm-interp` that write a folder each, and what is known of them.

A job is done if its `done` file is as the job left it, and was made by the same command on the same
checkpoint, from jobs of which the same holds.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from trm_interp.report.sweep.worker import STOPPED, Outcome, Task
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import sha256_of, write_json
from trm_interp.runtime.identity import differing
from trm_interp.runtime.outputs import maker, mark
from trm_interp.runtime.schema import read_json

ASKED = "-asked.json"  # ending of the records of jobs


@dataclass(frozen=True)
class JobInputs:
    """What a job's result depends on: `identity` of checkpoint and puzzles, its words, and the
    words and files of the jobs that it needs (`basis`)."""

    identity: str
    words: list[str]
    basis: list[object]

    def changes(self, now: "JobInputs") -> str:
        """The fields in which it differs from what is asked now; empty where none does.

        A path is the same however it is spelled.
        """
        return differing(_spelled_out(asdict(self)), _spelled_out(asdict(now)))


def _spelled_out(value: Any) -> Any:
    """With the absolute path in the place of every word that has a separator.

    >>> here = os.getcwd()
    >>> _spelled_out({"words": ["lens", "a/../b/c"]}) == {"words": ["lens", f"{here}/b/c"]}
    True
    """
    if isinstance(value, dict):
        return {name: _spelled_out(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_spelled_out(part) for part in value]
    is_path = isinstance(value, str) and os.sep in value
    return os.path.abspath(value) if is_path else value


@dataclass(frozen=True)
class Placed:
    """Where a job of a cluster is: its `id` there, and the `files` of its task."""

    id: str
    files: str


@dataclass(frozen=True)
class JobRecord:
    """What a job was last run on (`question`), and whether it finished (`answered`), then with the
    `sha256` of its `done` file, the `seconds` that it took and the `bytes` of its folder; or with
    the `problem` for which it failed. The JSON file has these names."""

    question: JobInputs
    answered: bool
    sha256: str | None = None
    problem: str | None = None
    seconds: float | None = None
    bytes: int | None = None
    placed: Placed | None = None


@dataclass(frozen=True)
class Job:
    """`words` of the command line; `out`, the folder it writes; `done`, the file in it that is
    written last; `after`, names of jobs that must be done before; `flags`: which of --resume and
    --overwrite the command has; `minutes` on one CPU core and `megabytes` that it is expected
    to take, for the plan. `files`: the identity of files that its result depends on, besides what
    all jobs depend on; `resources`: what it asks of a cluster, other than all jobs do."""

    name: str
    words: Sequence[str]
    out: Path
    done: str = "summary.json"
    after: tuple[str, ...] = ()
    minutes: float = 1.0
    megabytes: float = 1.0
    flags: tuple[str, ...] = ("--overwrite",)
    is_guest: bool = False  # `out` is another job's, and only the `done` file its own
    program: tuple[str, ...] = (sys.executable, "-m", "trm_interp")
    basis: tuple[object, ...] = ()  # words, bases and files of the jobs in `after`: `with_bases`
    files: str = ""
    resources: dict[str, Any] = field(default_factory=dict)

    def is_done(self, identity: str) -> bool:
        """Whether the same job has finished on the same checkpoint, and its file is unchanged."""
        record, file = self.record, self.out / self.done
        if record is None or not record.answered or not file.is_file():
            return False
        unchanged = record.sha256 is None or record.sha256 == sha256_of(file)
        return unchanged and not record.question.changes(self._inputs(identity))

    def failed_before(self, identity: str) -> str | None:
        """Why the same job failed when it was last run; None where it did not."""
        record = self.record
        if record is None or record.question.changes(self._inputs(identity)):
            return None
        return record.problem

    def changes(self, identity: str) -> str:
        """For a job that was run on something else: which fields differ."""
        record = self.record
        changed = record.question.changes(self._inputs(identity)) if record else ""
        return f" (made before with other {changed})" if changed else ""

    @property
    def record(self) -> JobRecord | None:
        """None where the job was never run, or the record is damaged."""
        try:
            return read_json(self._record_file, JobRecord)
        except (OSError, UserError):
            return None

    @property
    def log(self) -> Path:
        """What its command prints."""
        return self.out.with_name(f"{self.name}-log.txt")

    @property
    def made(self) -> Path:
        """What it fills."""
        return self.out / self.done if self.is_guest else self.out

    @property
    def _record_file(self) -> Path:
        """Next to the folder, which the command may replace. It also says that the folder was made
        by a job."""
        return self.out.with_name(f"{self.name}{ASKED}")

    def _inputs(self, identity: str) -> JobInputs:
        words, basis = json.loads(json.dumps([self.words, self.basis]))
        return JobInputs(identity + self.files, words, basis)

    def _mark(self) -> None:
        """Mark the folder and its unfinished parts where they are from before there were markers:
        the note proves whose they are."""
        for folder in (self.out, *self.out.glob("*parts")):
            if folder.is_dir() and maker(folder) is None:
                mark(folder, self.words[0])

    def begin(self, identity: str, hidden: Path, token: str) -> Task:
        """What a process is to run, noted as begun. UserError where the folder is none of its own.

        `hidden`: folder of the files of all jobs' processes, with `token` in the names of these.
        """
        inputs, record = self._inputs(identity), self.record
        first = ""
        if self.flags and self.made.exists():
            if record is None:
                why = "is damaged" if self._record_file.exists() else "does not exist"
                name = self._record_file.name
                raise UserError(
                    f"{self.made} was not made by this job ({name} {why}): move it away"
                )
            goes_on = "--resume" in self.flags and not record.question.changes(inputs)
            first = "--resume" if goes_on else "--overwrite"
            if not self.is_guest:
                self._mark()
        self.write(JobRecord(inputs, answered=False))
        return self.task(hidden, f"{hidden / self.name}-{token}", first)

    def task(self, hidden: Path, files: str, first: str = "") -> Task:
        """Its command line, with what it needs to be followed."""
        later = next((flag for flag in ("--resume", "--overwrite") if flag in self.flags), "")
        return Task(
            name=self.name,
            command=(*self.program, *self.words),
            made=str(self.made),
            first=first,
            later=later,
            log=str(self.log),
            files=files,
            lock=str(hidden / f"{self.name}.lock"),
            alive=None,
        )

    def placed(self, identity: str, at: Placed) -> None:
        """Note where it runs."""
        self.write(JobRecord(self._inputs(identity), answered=False, placed=at))

    def is_placed(self, identity: str) -> tuple[Placed, bool] | None:
        """Where it was left running, and whether it is asked for the same now."""
        record = self.record
        if record is None or record.placed is None:
            return None
        return record.placed, not record.question.changes(self._inputs(identity))

    def end(self, identity: str, outcome: Outcome) -> str | None:
        """Note how it ended; why it failed, with the command's last line, None where it did not."""
        inputs, file = self._inputs(identity), self.out / self.done
        if outcome.status == 0 and file.is_file():
            finished = JobRecord(inputs, answered=True, sha256=sha256_of(file))
            size = file.stat().st_size if self.is_guest else size_of(self.out)
            self.write(replace(finished, seconds=round(outcome.seconds, 3), bytes=size))
            return None
        problem = f"it wrote no {file} ({self.log})" if outcome.status == 0 else self._why(outcome)
        if outcome.status != STOPPED:  # one that was stopped goes on
            self.write(JobRecord(inputs, answered=False, problem=problem))
        return problem

    def lost(self, identity: str, problem: str) -> str:
        """Note that it failed without an end of its own; why."""
        self.write(JobRecord(self._inputs(identity), answered=False, problem=problem))
        return problem

    def write(self, record: JobRecord) -> None:
        """Keep the record, without the fields that say nothing."""
        plain = {name: value for name, value in asdict(record).items() if value is not None}
        write_json(self._record_file, plain)

    def _why(self, outcome: Outcome) -> str:
        if outcome.stuck:
            return (
                f"the cluster took it back {outcome.stuck} times and it came no further: ask for "
                f"more time; {last_line(self.log)} ({self.log})"
            )
        if outcome.status is None or outcome.status < 0:
            by = f", the last time by signal {-outcome.status}" if outcome.status else ""
            why = f"its process died {outcome.deaths} times{by}"
        else:
            why = f"exit status {outcome.status}"
        return f"{why}: {last_line(self.log)} ({self.log})"


def last_line(log: Path) -> str:
    """The last line of a log that is not empty."""
    try:
        output = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        output = []
    return next((line for line in reversed(output) if line.strip()), "no output")


def any_placed(folder: Path) -> bool:
    """Whether a cluster still has a job of this folder, of whichever table or part of it."""
    for file in folder.glob(f"*{ASKED}"):
        try:
            if read_json(file, JobRecord).placed is not None:
                return True
        except (OSError, UserError):  # not of a job, or damaged
            continue
    return False


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())


def with_bases(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, each with what those are of that it needs, which must come before it."""
    complete: dict[str, Job] = {}
    for job in jobs:
        needed = [complete[need] for need in job.after]
        basis = tuple((one.words, one.basis, *([one.files] * bool(one.files))) for one in needed)
        complete[job.name] = replace(job, basis=basis)
    return list(complete.values())
