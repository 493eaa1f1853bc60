"""Runs many commands of this package, some at a time, each at most once, none losing another.

A job is a command line of `trm-interp` that writes a folder and its `done` file last. What is done
is not done again: a job is skipped where that file is there and was made by the same command on the
same checkpoint, from jobs of which the same holds. A job that fails takes with it only those that
need it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from trm_interp.files import write_json


@dataclass(frozen=True)
class Job:
    """`words` of the command line; `out`, the folder it writes; `done`, the file in it that is
    written last; `after`, names of jobs that must be done before; `minutes` on one CPU core and
    `megabytes` that it is expected to take, for the plan."""

    name: str
    words: Sequence[str]
    out: Path
    done: str = "summary.json"
    after: tuple[str, ...] = ()
    minutes: float = 1.0
    megabytes: float = 1.0
    resumable: bool = False  # has --resume and --overwrite
    program: tuple[str, ...] = (sys.executable, "-m", "trm_interp")
    basis: tuple[object, ...] = ()  # questions of the jobs in `after`: see `resting`

    def is_done(self, identity: str) -> bool:
        """Was exactly this asked of the same checkpoint, and answered?"""
        known = {"question": self._question(identity), "answered": True}
        return self._known() == known and (self.out / self.done).exists()

    @property
    def _asked(self) -> Path:
        """Beside the folder, which the command may replace: what was asked last."""
        return self.out.with_name(f"{self.name}-asked.json")

    def _question(self, identity: str) -> dict[str, object]:
        said = {"identity": identity, "words": self.words, "basis": self.basis}
        return json.loads(json.dumps(said))

    def _known(self) -> dict[str, object]:
        try:
            return json.loads(self._asked.read_text())
        except (OSError, ValueError):
            return {}

    def run(self, identity: str, threads: int) -> str | None:
        """The last line that it had to say where it failed, else None."""
        words, question = list(self.words), self._question(identity)
        if self.resumable:
            begun = self._known().get("question") == question
            words.append("--resume" if begun else "--overwrite")
        elif self.out.exists():
            (self.out / self.done).unlink(missing_ok=True)
        write_json(self._asked, {"question": question, "answered": False})
        log = self.out.with_name(f"{self.name}-log.txt")
        command = [*self.program, *words]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        with log.open("w") as to:
            done = subprocess.run(command, stdout=to, stderr=subprocess.STDOUT, env=environment)
        if done.returncode == 0:
            write_json(self._asked, {"question": question, "answered": True})
            return None
        said = [line for line in log.read_text().splitlines() if line.strip()]
        return f"exit status {done.returncode}: {said[-1] if said else 'no word'} ({log})"


def resting(jobs: Sequence[Job]) -> list[Job]:
    """The jobs with what each rests on in its question; those that are needed come first."""
    known: dict[str, Job] = {}
    for job in jobs:
        basis = tuple((known[need].words, known[need].basis) for need in job.after)
        known[job.name] = replace(job, basis=basis)
    return list(known.values())


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
    # what rests on something that is made anew is made anew
    for job in jobs:
        if job.name in done and not set(job.after) <= done:
            done.discard(job.name)
    for job in jobs:
        if job.name in done:
            tell(f"{job.name}: done before")
    failed: dict[str, str] = {}
    running: dict[Future[str | None], tuple[Job, float]] = {}
    with ThreadPoolExecutor(workers) as pool:
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
                    tell(f"{job.name}: trm-interp {' '.join(job.words)}")
                    future = pool.submit(job.run, identity, threads)
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
