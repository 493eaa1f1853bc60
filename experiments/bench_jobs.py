"""Section `jobs` of bench.py: what the engine of sweep, figures and compare adds to a job."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

N = 4  # jobs of a table


def jobs(repeats: int) -> dict[str, float]:
    """Seconds a job of tables whose commands do nothing: medians of wall time and of the CPU time
    of all processes, one job at a time and two, and the same commands without an engine."""
    from statistics import median

    took: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name, once in (("plain", _plain), ("1", _table), ("2", _two_at_a_time)):
            with tempfile.TemporaryDirectory() as folder:
                began, cpu = time.perf_counter(), _cpu()
                once(Path(folder))
                _wait_for_all()  # a job counts as done when its command is
                took.setdefault(f"wall_{name}", []).append((time.perf_counter() - began) / N)
                took.setdefault(f"cpu_{name}", []).append((_cpu() - cpu) / N)
    seconds = {name: median(values) for name, values in took.items()}
    return {
        "wall_s_a_job": seconds["wall_1"],
        "wall_s_a_job_two_at_a_time": seconds["wall_2"],
        "cpu_s_a_job": seconds["cpu_1"],
        "wall_s_without_engine": seconds["wall_plain"],
        "cpu_s_without_engine": seconds["cpu_plain"],
        "load_after": os.getloadavg()[0],
    }


def _command(out: Path) -> list[str]:
    code = "import os, sys; os.mkdir(sys.argv[1]); open(sys.argv[1] + '/summary.json', 'w').close()"
    return [sys.executable, "-c", code, str(out)]


def _plain(folder: Path) -> None:
    for i in range(N):
        subprocess.run(_command(folder / str(i)), check=True)


def _table(folder: Path, workers: int = 1) -> None:
    from trm_interp.report.sweep.engine import run_jobs
    from trm_interp.report.sweep.jobs import Job

    table = [
        Job(str(i), words[3:], out, program=tuple(words[:3]), flags=())
        for i in range(N)
        for out in [folder / str(i)]
        for words in [_command(out)]
    ]
    failed = run_jobs(table, "", lambda line: None, lambda done, of: None, workers)
    if failed:
        raise RuntimeError(failed)


def _wait_for_all() -> None:
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def _two_at_a_time(folder: Path) -> None:
    _table(folder, 2)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
