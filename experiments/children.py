"""Commands that an experiment runs, several at once: they end when it is told to end."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

STOPPED = threading.Event()  # no further command is to begin
RUNNING: set[int] = set()  # process ids


def finished(words: list[str], log: Path) -> tuple[int, float]:
    """Run a command of trm-interp on one thread: its exit code, and the seconds of a core that it
    took. What it prints goes to the end of `log`."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "trm_interp", *words]
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | threads)
        RUNNING.add(process.pid)
        _, status, used = os.wait4(process.pid, 0)
        RUNNING.discard(process.pid)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used.ru_utime + used.ru_stime


def end_together() -> None:
    """From now on SIGTERM does what Ctrl-C does, which a terminal sends to the commands as well:
    they save what they have, and end."""

    def end(*_: Any) -> None:
        for process in tuple(RUNNING):
            os.kill(process, signal.SIGINT)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
