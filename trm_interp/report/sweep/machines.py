"""Where jobs run: this machine or a Slurm cluster, both through submitit."""

import getpass
import math
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from trm_interp.report.sweep.jobs import Job
from trm_interp.report.sweep.worker import Task
from trm_interp.runtime.children import PATIENCE
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.locks import Lock

FOREVER = 60 * 24 * 366 * 10  # minutes; a job of this machine may take as long as it likes
MOST_REQUEUES = 1000  # of a job that goes on where it was taken back, and comes further each time
MOST_IN_ARRAY = 1001  # jobs of an array where Slurm does not say: its own default
SETTLE = 10.0  # seconds that the end of a job without a result is waited for
GRACE = 30.0  # seconds between the signal by which a cluster takes a job back, and that
GONE = ("NODE_FAIL", "BOOT_FAIL", "FAILED", "UNKNOWN", "PREEMPTED")  # worth another try
SLURM = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "time": "time",
    "gpus": "gpus_per_node",
    "cpus": "cpus_per_task",
    "mem": "mem",
    "parallel": "array_parallelism",
    "setup": "setup",
}  # names in a table of jobs, and submitit's


class Machine(Protocol):
    """What the engine asks of a place where jobs run. A handle stands for a job there."""

    def room(self, running: int) -> int:
        """How many more jobs may be started."""
        ...

    def start(self, jobs: Sequence[tuple[Job, Task]]) -> list[tuple[Task, Any]]:
        """Start jobs; the tasks as they run, and their handles. UserError where that fails."""
        ...

    def state(self, handle: Any) -> str | None:
        """The state of a job that has ended there, in its words; None of one that goes on."""
        ...

    def again(self, task: Task, handle: Any, state: str) -> Any:
        """Start a lost job again; its handle, or None where that makes no sense."""
        ...

    def ended(self, handle: Any) -> None:
        """The engine is done with a job."""
        ...

    def placed(self, handle: Any) -> str | None:
        """Its id where a later process can find it again."""
        ...

    def find(self, id: str) -> Any:
        """The handle of a job that an earlier process has started; None where there is none."""
        ...

    def cancel(self, handle: Any) -> None:
        """End a job."""
        ...

    def stop(self, handles: Sequence[Any]) -> str:
        """End all jobs, or leave them alone; what becomes of them, in words."""
        ...


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes that start in the block are not interrupted by Ctrl-C in the terminal."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@dataclass
class LocalMachine:
    """This machine, `workers` jobs at a time, which end with this process. `hidden`: folder for
    submitit's files. `gpus`: of every job that does not ask for fewer, None where it sees all.
    UserError where there are not as many."""

    hidden: Path
    workers: int
    gpus: int | None = None
    _free: list[int] = field(init=False)
    _slots: dict[int, int] = field(default_factory=dict, init=False)
    _ending: list[Any] = field(default_factory=list, init=False)  # their commands have ended

    def __post_init__(self) -> None:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        if seen and self.gpus and len(seen.split(",")) < self.gpus * self.workers:
            raise UserError(
                f"{self.workers} workers with {self.gpus} GPUs each need {self.workers * self.gpus}"
                f", but CUDA_VISIBLE_DEVICES is {seen}: lower workers or gpus"
            )
        self._free = list(range(self.workers))
        self.hidden.mkdir(parents=True, exist_ok=True)
        self._alive = Lock(self.hidden / "alive", self.hidden)

    def room(self, running: int) -> int:
        return self.workers - running

    def start(self, jobs: Sequence[tuple[Job, Task]]) -> list[tuple[Task, Any]]:
        started: list[tuple[Task, Any]] = []
        for job, task in jobs:
            slot = self._free.pop(0)
            threads = at_most(max(1, (os.cpu_count() or 1) // self.workers))
            environment = {"OMP_NUM_THREADS": str(threads)}
            environment |= {"CUDA_VISIBLE_DEVICES": self._devices(slot, job)}  # submitit hides all
            alive = str(self._alive.file)
            task = replace(task, alive=alive, environment=tuple(environment.items()))
            handle = self._submit(task)
            self._slots[id(handle)] = slot
            started.append((task, handle))
        return started

    def _submit(self, task: Task) -> Any:
        from submitit import LocalExecutor

        executor = LocalExecutor(self.hidden / "%j")
        executor.update_parameters(timeout_min=FOREVER, stderr_to_stdout=True)
        with _without_interrupts():
            return executor.submit(task)

    def _devices(self, slot: int, job: Job) -> str | None:
        """The GPUs of a job in a slot, in the words of the variable of the environment."""
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        if self.gpus is None:
            return seen
        names = seen.split(",") if seen else [str(i) for i in range(self.gpus * self.workers)]
        first = slot * self.gpus
        return ",".join(names[first : first + min(self.gpus, job.resources.get("gpus", self.gpus))])

    def state(self, handle: Any) -> str | None:
        return handle.get_info()["jobState"].lower() if handle.done() else None

    def again(self, task: Task, handle: Any, state: str) -> Any:
        new = self._submit(task)
        self._slots[id(new)] = self._slots.pop(id(handle))
        return new

    def ended(self, handle: Any) -> None:
        self._free.append(self._slots.pop(id(handle)))
        self._ending = [one for one in (*self._ending, handle) if not one.done()]

    def placed(self, handle: Any) -> str | None:
        return None

    def find(self, id: str) -> Any:
        return None

    def cancel(self, handle: Any) -> None:
        pass

    def stop(self, handles: Sequence[Any]) -> str:
        self._alive.release()  # every job looks after this lock
        until, last = time.monotonic() + PATIENCE + 5, [*handles, *self._ending]
        while time.monotonic() < until and not all(handle.done() for handle in last):
            time.sleep(0.05)
        return ""


@dataclass
class SlurmMachine:
    """A cluster, which decides how many jobs run at a time; they go on without this process.

    `asked`: what every job asks for, by the names of `SLURM`; a job's `resources` come first.
    """

    hidden: Path
    asked: Mapping[str, Any] = field(default_factory=dict)
    _ended: dict[str, float] = field(default_factory=dict, init=False)  # when that was first seen
    _confirmed: set[str] = field(default_factory=set, init=False)
    _queue: set[str] | None = field(default=None, init=False)  # ids, as squeue said
    _asked_at: float = field(default=-math.inf, init=False)  # when
    _most: int | None = field(default=None, init=False)  # jobs of an array

    def room(self, running: int) -> int:
        return 10**6

    def start(self, jobs: Sequence[tuple[Job, Task]]) -> list[tuple[Task, Any]]:
        """Jobs that ask for the same are one array, or several of the length that Slurm takes."""
        groups: dict[str, list[Task]] = {}
        asked: dict[str, dict[str, Any]] = {}
        for job, task in jobs:
            own = dict(self.asked) | job.resources
            threads = str(own.get("cpus", 1))
            variables = (("OMP_NUM_THREADS", threads),)
            task = replace(task, alive=None, environment=variables, grace=GRACE)
            groups.setdefault(repr(sorted(own.items())), []).append(task)
            asked[repr(sorted(own.items()))] = own
        return [
            pair
            for key, tasks in groups.items()
            for part in batched(tasks, self._longest_array())
            for pair in zip(part, self._submit(part, asked[key]), strict=True)
        ]

    def _longest_array(self) -> int:
        """How many jobs Slurm takes at once; asked once."""
        if self._most is None:
            self._most = _max_array_size() or MOST_IN_ARRAY
        return self._most

    def _submit(self, tasks: Sequence[Task], asked: Mapping[str, Any]) -> list[Any]:
        from submitit import SlurmExecutor

        parameters = {SLURM[name]: value for name, value in asked.items()}
        if isinstance(memory := parameters.get("mem"), int | float):
            parameters["mem"] = f"{memory:g}GB"
        parameters |= {"job_name": "trm-interp", "additional_parameters": {"requeue": True}}
        try:
            executor = SlurmExecutor(self.hidden / "slurm" / "%j", max_num_timeout=MOST_REQUEUES)
            executor.update_parameters(**parameters)
            return executor.submit_array(tasks)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            raise UserError(f"Slurm does not take the job: {_words(error)}") from None

    def state(self, handle: Any) -> str | None:
        """Looked at twice, `SETTLE` apart: a job whose node fails ends for a moment, and what a job
        has written shows late on some file systems."""
        id = handle.job_id
        is_known = handle.state != "UNKNOWN"
        if not handle.done() and (is_known or self._is_queued(id)):
            self._ended.pop(id, None)
            return None
        if time.monotonic() < self._ended.setdefault(id, time.monotonic()) + SETTLE:
            return None
        if id not in self._confirmed:
            self._confirmed.add(id)
            handle.watcher.clear()  # it takes what has ended once for ended
            return None
        return handle.state.split()[0]  # "CANCELLED by 1000"

    def again(self, task: Task, handle: Any, state: str) -> Any:
        """Slurm does so by itself where a node fails; then this changes nothing."""
        if state not in GONE:
            return None
        with suppress(OSError):
            handle.paths.result_pickle.unlink(missing_ok=True)
        asked = subprocess.run(["scontrol", "requeue", handle.job_id], capture_output=True)
        self._asked_at = -math.inf
        if asked.returncode and not self._is_queued(handle.job_id):
            return None
        handle.watcher.clear()
        self._ended.pop(handle.job_id, None)
        self._confirmed.discard(handle.job_id)
        return self.find(handle.job_id)

    def _is_queued(self, id: str) -> bool:
        """Whether a job waits or runs, for clusters that keep no accounts, and those whose accounts
        are late; True where that is open. Slurm is asked twice in `SETTLE` at most."""
        if time.monotonic() > self._asked_at + SETTLE / 2:
            self._queue, self._asked_at = _queued(), time.monotonic()
        return self._queue is None or id in self._queue

    def ended(self, handle: Any) -> None:
        pass

    def placed(self, handle: Any) -> str | None:
        return handle.job_id

    def find(self, id: str) -> Any:
        from submitit import SlurmJob

        return SlurmJob(self.hidden / "slurm" / "%j", id)

    def cancel(self, handle: Any) -> None:
        handle.cancel(check=False)

    def stop(self, handles: Sequence[Any]) -> str:
        if not handles:
            return ""
        ids = sorted({handle.job_id.split("_")[0] for handle in handles})
        return f"the jobs in Slurm go on (scancel {' '.join(ids)} ends them)"


def _queued() -> set[str] | None:
    """Ids of the user's jobs that wait or run; None where squeue does not say."""
    command = ["squeue", "--noheader", "--array", "--format", "%i", "--user", getpass.getuser()]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return None if answer.returncode else set(answer.stdout.split())


def _max_array_size() -> int | None:
    """Slurm's MaxArraySize, above every index of an array; None where it does not say."""
    command = ["scontrol", "show", "config"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    told = re.search(r"^\s*MaxArraySize\s*=\s*(\d+)\s*$", answer.stdout, re.MULTILINE)
    return int(told[1]) or None if told else None


def batched(tasks: Sequence[Task], n: int) -> Iterator[Sequence[Task]]:
    """In order, at most n at a time."""
    for first in range(0, len(tasks), n):
        yield tasks[first : first + n]


def _words(error: BaseException) -> str:
    """The last line that an error has."""
    text = getattr(error, "stderr", None) or str(error)
    lines = [line.strip() for line in str(text).splitlines() if line.strip("- \n")]
    return lines[-1] if lines else type(error).__name__


def at_most(threads: int) -> int:
    """Threads of a job: its part of the cores, or fewer where OMP_NUM_THREADS says so."""
    own = os.environ.get("OMP_NUM_THREADS", "")
    return min(threads, int(own)) if own.isdecimal() and int(own) else threads
