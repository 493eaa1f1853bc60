"""Runs many commands of this package, some at a time, each at most once.

A job is a command line of `trm-interp` that writes a folder and its `done` file last. A job that is
done is skipped: that file is as the job left it, and was made by the same command on the same
checkpoint, from jobs of which the same holds. If a job fails, only its dependents are skipped. The
commands end with the process that runs them.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trm_interp.runtime.children import Children
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import sha256_of, write_json
from trm_interp.runtime.identity import differing
from trm_interp.runtime.outputs import maker, mark
from trm_interp.runtime.schema import read_json
from trm_interp.runtime.signals import terminated_as_interrupted


@dataclass(frozen=True)
class JobInputs:
    """What a job's result depends on: `identity` of checkpoint and puzzles, its words, and the
    words of the jobs that it needs (`basis`)."""

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
class JobRecord:
    """What a job was last run on (`question`), and whether it finished (`answered`), then with the
    `sha256` of its `done` file. The JSON file has these names."""

    question: JobInputs
    answered: bool
    sha256: str | None = None


@dataclass(frozen=True)
class Job:
    """`words` of the command line; `out`, the folder it writes; `done`, the file in it that is
    written last; `after`, names of jobs that must be done before; `flags`: which of --resume and
    --overwrite the command has; `minutes` on one CPU core and `megabytes` that it is expected
    to take, for the plan."""

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
    basis: tuple[object, ...] = ()  # words of the jobs in `after`, and their bases: `with_bases`

    def is_done(self, identity: str) -> bool:
        """Whether the same job has finished on the same checkpoint, and its file is unchanged."""
        record, file = self._record(), self.out / self.done
        if record is None or not record.answered or not file.is_file():
            return False
        unchanged = record.sha256 is None or record.sha256 == sha256_of(file)
        return unchanged and not record.question.changes(self._inputs(identity))

    def changes(self, identity: str) -> str:
        """For a job that was run on something else: which fields differ."""
        record = self._record()
        changed = record.question.changes(self._inputs(identity)) if record else ""
        return f" (made before with other {changed})" if changed else ""

    @property
    def _record_file(self) -> Path:
        """Next to the folder, which the command may replace. It also says that the folder was made
        by a job."""
        return self.out.with_name(f"{self.name}-asked.json")

    def _inputs(self, identity: str) -> JobInputs:
        words, basis = json.loads(json.dumps([self.words, self.basis]))
        return JobInputs(identity, words, basis)

    def _record(self) -> JobRecord | None:
        """None where the job was never run, or the record is damaged."""
        try:
            return read_json(self._record_file, JobRecord)
        except (OSError, UserError):
            return None

    def _mark(self) -> None:
        """Mark the folder and its unfinished parts where they are from before there were markers:
        the note proves whose they are."""
        for folder in (self.out, *self.out.glob("*parts")):
            if folder.is_dir() and maker(folder) is None:
                mark(folder, self.words[0])

    def run(self, identity: str, threads: int, children: Children) -> str | None:
        """Why it failed, with the command's last line; None where it did not."""
        words, inputs, record = list(self.words), self._inputs(identity), self._record()
        made = self.out / self.done if self.is_guest else self.out
        if self.flags and made.exists():
            if record is None:
                why = "is damaged" if self._record_file.exists() else "does not exist"
                name = self._record_file.name
                return f"{made} was not made by this job ({name} {why}): move it away"
            goes_on = "--resume" in self.flags and not record.question.changes(inputs)
            words.append("--resume" if goes_on else "--overwrite")
            if not self.is_guest:
                self._mark()
        write_json(self._record_file, asdict(JobRecord(inputs, answered=False)))
        log = self.out.with_name(f"{self.name}-log.txt")
        environment = os.environ | {"OMP_NUM_THREADS": str(at_most(threads))}
        status = children.run([*self.program, *words], log, environment)
        if status == 0:
            if not (self.out / self.done).is_file():
                return f"it wrote no {self.out / self.done} ({log})"
            finished = JobRecord(inputs, answered=True, sha256=sha256_of(self.out / self.done))
            write_json(self._record_file, asdict(finished))
            return None
        output = log.read_text(encoding="utf-8", errors="replace").splitlines()
        lines = [line for line in output if line.strip()]
        return f"exit status {status}: {lines[-1] if lines else 'no output'} ({log})"


def at_most(threads: int) -> int:
    """Threads of a job: its part of the cores, or fewer where OMP_NUM_THREADS says so."""
    own = os.environ.get("OMP_NUM_THREADS", "")
    return min(threads, int(own)) if own.isdecimal() and int(own) else threads


def with_bases(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, each with the words of those that it needs, which must come before it."""
    complete: dict[str, Job] = {}
    for job in jobs:
        basis = tuple((complete[need].words, complete[need].basis) for need in job.after)
        complete[job.name] = replace(job, basis=basis)
    return list(complete.values())


def run_jobs(
    jobs: Sequence[Job],
    identity: str,
    tell: Callable[[str], None],
    progress: Callable[[int, int], None],
    workers: int = 2,
) -> dict[str, str]:
    """Why each job that failed did, by name. `identity`: what the jobs' results depend on besides
    their words, such as the checkpoint's sha256.

    `progress` counts expected seconds. ValueError where a job needs one that is not there.
    """
    names = [job.name for job in jobs]
    if missing := [need for job in jobs for need in job.after if need not in names]:
        raise ValueError(f"no job {missing[0]}; there are {', '.join(names)}")
    threads = max(1, (os.cpu_count() or 1) // workers)
    total = round(60 * sum(job.minutes for job in jobs))
    done = {job.name for job in jobs if job.is_done(identity)}
    # rerun the dependents of jobs that are run again
    for job in jobs:
        if job.name in done and not set(job.after) <= done:
            done.discard(job.name)
    for job in jobs:
        if job.name in done:
            tell(f"{job.name}: done before")
    failed: dict[str, str] = {}
    running: dict[Future[str | None], tuple[Job, float]] = {}
    with terminated_as_interrupted(), ThreadPoolExecutor(workers) as pool, Children() as children:
        while True:
            spent = round(60 * sum(job.minutes for job in jobs if job.name in {*done, *failed}))
            progress(spent, total)
            under_way = {job.name for job, _ in running.values()}
            for job in jobs:
                if job.name in done or job.name in failed or job.name in under_way:
                    continue
                if lost := [need for need in job.after if need in failed]:
                    failed[job.name] = f"needs {lost[0]}, which failed"
                    tell(f"{job.name}: {failed[job.name]}")
                elif set(job.after) <= done and len(running) < workers:
                    again = job.changes(identity)
                    tell(f"{job.name}: trm-interp {' '.join(job.words)}{again}")
                    future = pool.submit(job.run, identity, threads, children)
                    running[future] = (job, time.monotonic())
                    under_way.add(job.name)
            if not running:
                if len(done) + len(failed) == len(jobs):
                    return failed
                continue
            finished, _ = wait(running, timeout=30, return_when=FIRST_COMPLETED)
            for future in finished:
                job, began = running.pop(future)
                problem = future.result()
                took = f"{time.monotonic() - began:.0f} s"
                if problem is None:
                    done.add(job.name)
                    tell(f"{job.name}: done in {took}")
                else:
                    failed[job.name] = problem
                    tell(f"{job.name}: failed after {took}, {problem}")
