"""How long a table of jobs would take with more workers than there are."""

import heapq
from collections.abc import Mapping, Sequence

from trm_interp.report.sweep.engine import in_order
from trm_interp.report.sweep.jobs import Job


def simulate(
    table: Sequence[Job], durations: Mapping[str, float], workers: int, overhead: float = 0.0
) -> float:
    """Seconds until the last job of a table has ended.

    Jobs are started as the engine does: in the order of the table, when all that they need has
    ended and one of the `workers` is free. `durations`: seconds by name of job, measured alone;
    `overhead`: seconds that the engine adds to each. Assumed is that a job takes as long beside
    others as alone (no shared memory bandwidth, disk or GPU), that none fails, and that no queue
    of a cluster is waited for.

    >>> from pathlib import Path
    >>> jobs = [Job(name, [], Path(name)) for name in "abc"]
    >>> jobs.append(Job("d", [], Path("d"), after=("a", "b", "c")))
    >>> [simulate(jobs, {"a": 3, "b": 2, "c": 2, "d": 1}, workers) for workers in (1, 2, 3)]
    [8.0, 5.0, 4.0]
    """
    jobs, done, now = in_order(table), set[str](), 0.0
    waiting = list(jobs)
    running: list[tuple[float, int, str]] = []
    while waiting or running:
        for job in list(waiting):
            if len(running) < workers and set(job.after) <= done:
                end = now + durations[job.name] + overhead
                heapq.heappush(running, (end, jobs.index(job), job.name))
                waiting.remove(job)
        now, _, name = heapq.heappop(running)
        done.add(name)
    return float(now)
