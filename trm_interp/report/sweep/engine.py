"""Runs many commands of this package, some at a time, each at most once.

A job that is done is skipped. If a job fails, only its dependents are skipped. A job whose process
dies is started again, once. The commands end with the process that runs them, except on a cluster.
"""

import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trm_interp.report.sweep.jobs import Job, Placed, any_placed
from trm_interp.report.sweep.machines import LocalMachine, Machine
from trm_interp.report.sweep.worker import MOST_DEATHS, Task
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.signals import terminated_as_interrupted

HIDDEN = ".jobs"  # folder of the processes' own files, next to the jobs' folders
AGAIN = "the same command with --retry-failed tries again"  # where jobs have failed
EVERY = 0.05  # seconds between two looks at the jobs

Tell = Callable[[str], None]


@dataclass
class Running:
    """A job under way, since `began`; `lost`: how often its process ended without a result."""

    job: Job
    task: Task
    handle: Any
    began: float
    lost: int = 0


def run_jobs(
    jobs: Sequence[Job],
    identity: str,
    tell: Tell,
    progress: Callable[[int, int], None],
    workers: int = 2,
    machine: Callable[[Path], Machine] | None = None,
    retry_failed: bool = True,
) -> dict[str, str]:
    """Why each job that failed did, by name. `identity`: what the jobs' results depend on besides
    their words, such as the checkpoint's sha256.

    `progress` counts expected seconds. `machine`: makes the place where they run, of a folder for
    its files; by default this machine. `retry_failed`: False leaves alone what failed before.
    ValueError where a job needs one that is not there, or jobs need each other.
    """
    if not (jobs := in_order(jobs)):
        return {}
    hidden = jobs[0].out.parent / HIDDEN
    where = (machine or (lambda hidden: LocalMachine(hidden, workers)))(hidden)
    return Engine(jobs, identity, tell, progress, where, hidden, retry_failed).run()


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, each after those that it needs, and otherwise as they are. ValueError where there
    is no such order."""
    by_name, ordered, within = {job.name: job for job in jobs}, dict[str, Job](), list[str]()

    def add(job: Job) -> None:
        if job.name in within:
            circle = [*within[within.index(job.name) :], job.name]
            raise ValueError(f"jobs need each other: {' needs '.join(circle)}")
        if job.name in ordered:
            return
        within.append(job.name)
        for need in job.after:
            if need not in by_name:
                raise ValueError(f"no job {need}; there are {', '.join(by_name)}")
            add(by_name[need])
        within.pop()
        ordered[job.name] = job

    for job in jobs:
        add(job)
    return list(ordered.values())


class Engine:
    """The jobs of a table on a machine. `failed`: why each job that failed did."""

    def __init__(
        self,
        jobs: Sequence[Job],
        identity: str,
        tell: Tell,
        progress: Callable[[int, int], None],
        machine: Machine,
        hidden: Path,
        retry_failed: bool,
    ) -> None:
        self.jobs, self.identity = jobs, identity
        self.tell, self.progress = tell, progress
        self.machine, self.hidden, self.retry_failed = machine, hidden, retry_failed
        self.token = secrets.token_hex(4)
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        self.running: dict[str, Running] = {}

    def run(self) -> dict[str, str]:
        self._look_back()
        with terminated_as_interrupted():
            try:
                while len(self.done) + len(self.failed) < len(self.jobs):
                    self._report()
                    while ready := self._ready():
                        self._start(ready)
                    while self.running and not self._collect():
                        time.sleep(EVERY)
            finally:
                self._stop()
        self._report()
        return self.failed

    def _stop(self) -> None:
        handles = [one.handle for one in self.running.values()]
        if told := self.machine.stop(handles):
            self.tell(told)
        elif not any_placed(self.hidden.parent) and all(
            self.machine.state(handle) is not None for handle in handles
        ):
            shutil.rmtree(self.hidden, ignore_errors=True)

    def _look_back(self) -> None:
        """What is done, failed or under way from before."""
        self.done = {job.name for job in self.jobs if job.is_done(self.identity)}
        for job in self.jobs:
            # rerun the dependents of jobs that are run again
            if job.name in self.done and not set(job.after) <= self.done:
                self.done.discard(job.name)
        for job in self.jobs:
            if job.name in self.done:
                self.tell(f"{job.name}: done before")
            elif not self.retry_failed and (why := job.failed_before(self.identity)):
                self.failed[job.name] = why
                self.tell(f"{job.name}: failed before, {why}; --retry-failed tries it again")
            elif placed := job.is_placed(self.identity):
                self._adopt(job, *placed)

    def _adopt(self, job: Job, at: Placed, is_same: bool) -> None:
        """Go on waiting for a job of an earlier process, or end one that is asked otherwise now."""
        handle = self.machine.find(at.id)
        if handle is None:
            return
        if not is_same or not set(job.after) <= self.done:
            self.machine.cancel(handle)
            return
        self.tell(f"{job.name}: under way as {at.id}")
        task = job.task(self.hidden, at.files)
        self.running[job.name] = Running(job, task, handle, time.monotonic())

    def _report(self) -> None:
        ended = {*self.done, *self.failed}
        spent = round(60 * sum(job.minutes for job in self.jobs if job.name in ended))
        self.progress(spent, round(60 * sum(job.minutes for job in self.jobs)))

    def _ready(self) -> list[Job]:
        """Jobs that can be started now, as many as there is room for; those that need a failed one
        are failed."""
        ready = []
        for job in self.jobs:
            if job.name in self.done or job.name in self.failed or job.name in self.running:
                continue
            if lost := [need for need in job.after if need in self.failed]:
                self.failed[job.name] = f"needs {lost[0]}, which failed"
                self.tell(f"{job.name}: {self.failed[job.name]}")
            elif set(job.after) <= self.done:
                ready.append(job)
        return ready[: max(0, self.machine.room(len(self.running)))]

    def _start(self, jobs: Sequence[Job]) -> None:
        begun: list[tuple[Job, Task]] = []
        for job in jobs:
            again = job.changes(self.identity)
            try:
                begun.append((job, job.begin(self.identity, self.hidden, self.token)))
            except (UserError, OSError) as error:
                self._fail(job, str(error), "")
            else:
                line = shlex.join(["trm-interp", *job.words])
                self.tell(f"{job.name}: {line}{again}")
        try:
            started = self.machine.start(begun) if begun else []
        except UserError as error:
            for job, _ in begun:
                self._fail(job, str(error), "")
            return
        of = {job.name: job for job, _ in begun}
        for task, handle in started:
            job = of[task.name]
            self.running[job.name] = Running(job, task, handle, time.monotonic())
            if id := self.machine.placed(handle):
                with suppress(OSError):
                    job.placed(self.identity, Placed(id, task.files))

    def _collect(self) -> bool:
        """Whether any job has ended."""
        ended = False
        for one in list(self.running.values()):
            outcome, state = one.task.outcome(), None
            if outcome is None:
                state = self.machine.state(one.handle)
                outcome = one.task.outcome()  # it may have come in between
            if outcome is None and (state is None or self._again(one, state)):
                continue
            ended, job = True, self.running.pop(one.job.name).job
            self.machine.ended(one.handle)
            try:
                problem = (
                    job.end(self.identity, outcome)
                    if outcome
                    else job.lost(self.identity, self._why(one, state))
                )
            except OSError as error:  # such as a full disk
                problem = str(error)
            took = f"{outcome.seconds if outcome else time.monotonic() - one.began:.0f} s"
            if problem is None:
                self.done.add(job.name)
                self.tell(f"{job.name}: done in {took}")
            else:
                self._fail(job, problem, f" after {took}")
        return ended

    def _again(self, one: Running, state: str) -> bool:
        """Whether a job that ended without a result is started again."""
        one.lost += 1
        if one.lost >= MOST_DEATHS:
            return False
        handle = self.machine.again(one.task, one.handle, state)
        if handle is None:
            return False
        one.handle = handle
        self.tell(f"{one.job.name}: its process died ({state}), starting it again")
        return True

    def _why(self, one: Running, state: str | None) -> str:
        """Of a job that left no result."""
        times = f"its process died {one.lost} times" if one.lost > 1 else "its process died"
        with suppress(OSError, AttributeError):
            output = (one.handle.stdout() or "") + (one.handle.stderr() or "")
            lines = [line for line in output.splitlines() if line.strip()]
            if lines and "submitit" not in lines[-1]:
                return f"{times} ({state}): {lines[-1]} ({one.job.log})"
        return f"{times} ({state}; {one.job.log})"

    def _fail(self, job: Job, problem: str, when: str) -> None:
        self.failed[job.name] = problem
        self.tell(f"{job.name}: failed{when}, {problem}")
