"""Execute a program that is terminated when the process that started it ends (Linux).

    python tied.py PARENT PROGRAM WORDS...

PARENT: process id of the starting process. The kernel sends SIGTERM when that process ends. It is
left to that process what happens on SIGUSR2, by which a cluster announces that it ends a job.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, *command = sys.argv[1:]
    with suppress(OSError, AttributeError):  # no such library or call: the program runs on its own
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    with suppress(AttributeError, ValueError):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if os.getppid() != int(parent):  # the parent ended before the kernel was told
        raise SystemExit(128 + signal.SIGTERM)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
