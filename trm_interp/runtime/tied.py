"""Becomes another program, which ends with the process that started it, however that ends (Linux).

    python tied.py PARENT PROGRAM WORDS...

PARENT: the number of the starting process. The kernel sends SIGTERM when that one is gone.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, *command = sys.argv[1:]
    with suppress(OSError, AttributeError):  # no such library or call: it is not tied
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it ended before the kernel knew
        raise SystemExit(128 + signal.SIGTERM)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
