"""What runs in the process of a job: one command line, and a file that says how it ended.

Imported by every job, so by the standard library alone.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trm_interp.runtime.children import PATIENCE, tied
from trm_interp.runtime.files import write_text

MOST_DEATHS = 2  # of a job, from whose first it is started again
STOPPED = 130  # exit status of a command that was interrupted and can be resumed
MOST_STUCK = 2  # times in a row that a cluster takes a job back which has come no further
SMALL = 1 << 16  # bytes of a file whose content is compared
EVERY = 0.1  # seconds between two looks at the command


@dataclass(frozen=True)
class Outcome:
    """How a job ended. `status`: exit status of its command, negative for a signal, None where its
    own process died; `deaths`: how often one of them died; `seconds` of the last start; `stuck`:
    how often in a row the cluster took it back without progress, 0 where that did not end it."""

    status: int | None
    deaths: int
    seconds: float
    stuck: int = 0


@dataclass(frozen=True)
class Task:
    """A command line for a process of its own.

    `made`: the file or folder that it fills; where that exists, `first` is added to the words at
    the first start (--overwrite, say), and `later` at others. `log`: file of its output; `files`:
    path without ending of the files that the job itself writes; `lock`: file that is locked while
    any of its processes runs. `alive`: file that the process which waits for the job has locked,
    None where the job goes on without it. `environment`: variables that are other than here, None
    for unset. `grace`: seconds in which a cluster takes a job back whose command it interrupted.
    """

    name: str
    command: tuple[str, ...]
    made: str
    first: str
    later: str
    log: str
    files: str
    lock: str
    alive: str | None
    environment: tuple[tuple[str, str | None], ...] = ()
    grace: float = 0.0

    @property
    def outcome_file(self) -> Path:
        return Path(f"{self.files}.json")

    def outcome(self) -> Outcome | None:
        """How it ended; None where it has not."""
        try:
            return Outcome(**json.loads(self.outcome_file.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def deaths(self) -> int:
        """How often its processes began and did not come to an end."""
        words = self._starts_file()
        return words.count("begun") - words.count("ended")

    def __call__(self) -> None:
        """Run it; called by submitit in the process of the job."""
        parent = os.getppid()
        with Held(Path(self.lock)) as lock:
            while self.outcome() is None:  # an earlier process may have come to an end meanwhile
                began = time.monotonic()
                if (deaths := self.deaths()) >= MOST_DEATHS:
                    self._write(Outcome(None, deaths, 0.0))
                    break
                self._note("begun")
                status = self._attempt(lock, parent, again=self._starts() > 1)
                if status == STOPPED:
                    time.sleep(self.grace)
                if status >= 0:
                    self._note("ended")
                if status >= 0 or self.deaths() >= MOST_DEATHS:
                    seconds = time.monotonic() - began
                    self._write(Outcome(status, self.deaths(), seconds))

    def checkpoint(self) -> Any:
        """Called by submitit when the cluster takes the job back: let the command save what it has,
        and start it again later. Only where the command can go on with that, and does: one that
        has come no further the second time is not started again."""
        if self.later != "--resume":
            return None
        from submitit.helpers import DelayedSubmission

        if _child is not None:
            _end_in_handler(_child.pid)
            self._note("ended")
        self._note("stuck" if contents(Path(self.made)) == _made else "moved")
        lately = [word for word in self._starts_file() if word in ("stuck", "moved")][-MOST_STUCK:]
        if lately == ["stuck"] * MOST_STUCK:
            self._write(Outcome(None, self.deaths(), 0.0, MOST_STUCK))
            return None
        return DelayedSubmission(self)

    def _attempt(self, lock: int | None, parent: int, again: bool) -> int:
        """Exit status of the command."""
        global _child, _made
        _made = contents(Path(self.made))
        words = list(self.command)
        if (word := self.later if again else self.first) and os.path.exists(self.made):
            words.append(word)
        environment = dict(os.environ)
        for name, value in self.environment:
            environment.pop(name, None)
            if value is not None:
                environment[name] = value
        Path(self.log).parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "a" if again else "w") as to:
            _child = subprocess.Popen(
                tied(words),
                stdin=subprocess.DEVNULL,
                stdout=to,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=() if lock is None else (lock,),
            )
        while True:
            with suppress(subprocess.TimeoutExpired):
                return _child.wait(EVERY)
            if self.alive is not None and (os.getppid() != parent or _is_free(Path(self.alive))):
                _end(_child)  # nobody waits for it any more
                self._note("ended")
                sys.exit(STOPPED)

    def _starts(self) -> int:
        return self._starts_file().count("begun")

    def _starts_file(self) -> list[str]:
        """What happened so far, a word each; nothing where it has not begun."""
        try:
            return Path(f"{self.files}.starts").read_text().split()
        except OSError:
            return []

    def _note(self, what: str) -> None:
        with open(f"{self.files}.starts", "a") as to:
            to.write(f"{what}\n")

    def _write(self, outcome: Outcome) -> None:
        write_text(self.outcome_file, json.dumps(asdict(outcome)))


_child: subprocess.Popen[bytes] | None = None  # of this process
_made: dict[str, tuple[int, str]] = {}  # what the command had made when it was started


def contents(made: Path) -> dict[str, tuple[int, str]]:
    """Size and content of the files of a command, by which its progress is told: of small ones a
    hash, of large ones the time of the last change. Not its rows of metrics, which also tell time.
    """
    found = {}
    files = made.rglob("*") if made.is_dir() else [made]
    for file in files:
        with suppress(OSError):
            if file.suffix in (".jsonl", ".lock") or not file.is_file() or file.name == ".lock":
                continue
            size = file.stat().st_size
            small = size <= SMALL
            told = hashlib.sha256(file.read_bytes()).hexdigest() if small else ""
            found[str(file)] = (size, told or str(file.stat().st_mtime_ns))
    return found


def _end(child: "subprocess.Popen[bytes]") -> None:
    """Terminate a command, and kill it if it does not end in time."""
    child.terminate()
    try:
        child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _end_in_handler(process: int) -> None:
    """As `_end`, in a handler of signals, which may have interrupted a `wait` of the same child."""
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(process, signal.SIGTERM)
        for _ in range(round(PATIENCE / EVERY)):
            if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return
            time.sleep(EVERY)
        os.kill(process, signal.SIGKILL)


class Held:
    """A lock that is waited for; the value of the block is its handle, which a command inherits, so
    that the lock is free when all processes of a job have ended. None where there are no locks."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __enter__(self) -> int | None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            import fcntl

            fcntl.flock(self._handle, fcntl.LOCK_EX)
        except (ImportError, OSError):
            return None
        return self._handle

    def __exit__(self, *error: object) -> None:
        os.close(self._handle)


def _is_free(file: Path) -> bool:
    """Whether nobody holds the lock of a file, or it is gone."""
    try:
        import fcntl

        handle = os.open(file, os.O_RDWR)
    except ImportError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:  # no locks here
        return False
    finally:
        os.close(handle)
