"""`trm-interp search` in a process that kills itself: `search_child.py MOMENT search ...`.

SIGKILL at the MOMENT-th (from 0) file sync or rename.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import torch

from trm_interp.cli import main


def counted(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        global left
        left -= 1
        if left == -1:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return call


if __name__ == "__main__":
    torch.set_num_threads(1)
    left = int(sys.argv.pop(1))
    os.fsync, os.replace = counted(os.fsync), counted(os.replace)
    main()
