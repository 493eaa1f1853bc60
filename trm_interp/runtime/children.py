"""Child processes that end with this one, even if it is terminated or killed."""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

PATIENCE = 10.0  # seconds that a terminated child has to save its state


class Stopped(RuntimeError):
    """No more children are started."""


class Children:
    """Runs programs from several threads, until `stop`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        """Run a program with its output in `log`; its exit status. Stopped, after `stop`."""
        with log.open("w") as to:
            with self._lock:
                if self._stopped:
                    raise Stopped
                child = subprocess.Popen(
                    tied(command),
                    stdin=subprocess.DEVNULL,
                    stdout=to,
                    stderr=subprocess.STDOUT,
                    env=environment,
                )
                self._running.add(child)
            try:
                return child.wait()
            finally:
                with self._lock:
                    self._running.discard(child)

    def stop(self) -> None:
        """Terminate all children, kill those that do not end in time, and start no more."""
        with self._lock:
            self._stopped = True
            children = list(self._running)
        for child in children:
            child.terminate()
        for child in children:
            try:
                child.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()

    def __enter__(self) -> "Children":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def tied(command: Sequence[str]) -> list[str]:
    """The command wrapped so that the kernel ends it with this process, where that is possible."""
    if not sys.platform.startswith("linux"):
        return list(command)
    wrapper = str(Path(__file__).with_name("tied.py"))
    return [sys.executable, "-I", wrapper, str(os.getpid()), *command]
