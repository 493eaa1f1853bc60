"""`trm-interp collect` in processes that are stopped at chosen moments (test_collect_kills.py).

`collect_child.py SIGNAL MOMENTS collect --out ...`: for each of the comma-separated moments the
command is started again (with --resume) in a forked process, which sends itself that signal when it
has made that number of writes of a step, ends of a batch, file syncs and renames. Prints the exit
statuses and the lines on standard error as one JSON list. `collect_child.py TEAM collect ...` just
runs the command.

The toy architecture and the toy task of the tests are registered.
"""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
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
    with tempfile.TemporaryFile("w+") as stderr:
        child = os.fork()  # before any work, so that torch is imported once
        if child == 0:
            os.dup2(stderr.fileno(), 2)
            stop_at(moment, number)
            try:
                main()
            except SystemExit as end:
                sys.stderr.flush()
                os._exit(int(end.code or 0))
            os._exit(99)
        _, status = os.waitpid(child, 0)
        stderr.seek(0)
        return {"status": os.waitstatus_to_exitcode(status), "stderr": stderr.read().splitlines()}


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))
    for plugin in ("toy_architecture", "toy_task"):
        import_module(plugin)
    torch.set_num_threads(1)
    collecting.plan_shards = small_shards()
    if sys.argv[1] == "TEAM":  # a process of torchrun, which nobody stops
        sys.argv[1:] = sys.argv[2:]
        main()
    number, moments = signal.Signals[sys.argv[1]], sys.argv[2].split(",")
    sys.argv[1:] = [*sys.argv[3:], "--resume"]
    print(json.dumps([life(int(moment), number) for moment in moments]))
