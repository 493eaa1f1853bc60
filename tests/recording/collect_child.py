"""`trm-interp collect` in processes that are stopped at chosen moments (test_collect_kills.py).

`collect_child.py SIGNAL MOMENTS collect --out ...`: for each of the comma-separated moments the
command is started anew (with --resume) in a forked process, which sends itself that signal at its
so-manieth write of a step, end of a batch, file sync or rename. Prints the exit statuses, and what
each said on standard error, as one JSON list. `collect_child.py TEAM collect ...` just runs it.
"""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import trm_interp.recording.collect as collecting
from trm_interp.cli import main
from trm_interp.recording.schema import plan_shards
from trm_interp.recording.writer import StoreWriter

SHARD_BYTES = 30e3  # two puzzles of the tests' checkpoint


def small_shards() -> Callable[..., int]:
    return partial(plan_shards, target=SHARD_BYTES)


def stop_at(moment: int, number: int) -> None:
    """Send this process the signal at its `moment`-th (from 0) write, batch, sync or rename."""
    left = moment

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == -1:
                os.kill(os.getpid(), number)
            return function(*args, **kwargs)

        return call

    StoreWriter.write = counted(StoreWriter.write)
    StoreWriter.end_batch = counted(StoreWriter.end_batch)
    os.fsync, os.replace = counted(os.fsync), counted(os.replace)


def life(moment: int, number: int) -> dict[str, Any]:
    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()  # before any work, so that torch is imported once
        if child == 0:
            os.dup2(said.fileno(), 2)
            stop_at(moment, number)
            try:
                main()
            except SystemExit as end:
                sys.stderr.flush()
                os._exit(int(end.code or 0))
            os._exit(99)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        return {"status": os.waitstatus_to_exitcode(status), "said": said.read().splitlines()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    collecting.plan_shards = small_shards()
    if sys.argv[1] == "TEAM":  # a process of torchrun, which nobody stops
        sys.argv[1:] = sys.argv[2:]
        main()
    number, moments = signal.Signals[sys.argv[1]], sys.argv[2].split(",")
    sys.argv[1:] = [*sys.argv[3:], "--resume"]
    print(json.dumps([life(int(moment), number) for moment in moments]))
