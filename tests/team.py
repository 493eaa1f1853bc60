"""Two processes of a torchrun, forked from one, so that libraries are imported once.

`team.py IMPORTS FILE.py|MODULE WORDS...`: what the file or module imports, and the comma-separated
modules besides, are there before the processes part. They find the variables that torchrun sets;
output goes where that of this process does, and its exit status is the larger of theirs.
"""

import os
import runpy
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from importlib import import_module


def two(target: object, *words: object, imports: str = "") -> subprocess.CompletedProcess[str]:
    """Both at the end of a command line, which has to succeed."""
    command = [sys.executable, __file__, imports, target, *words]
    done = subprocess.run(
        [str(word) for word in command],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def in_two(act: Callable[[], object]) -> list[int]:
    """Exit statuses of two processes that do it together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    team = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = []
    for rank in "01":
        child = os.fork()
        if child == 0:
            os.environ.update(team, RANK=rank, LOCAL_RANK=rank)
            try:
                act()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _start(target: str, name: str) -> None:
    runpy.run_path(target, run_name=name) if target.endswith(".py") else runpy.run_module(
        target, run_name=name, alter_sys=True
    )


def _fork(target: str, rank: int, port: int) -> int:
    if child := os.fork():
        return child
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    code = 1
    try:
        _start(target, "__main__")
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    imports, target, *words = sys.argv[1:]
    sys.argv = [target, *words]
    for name in filter(None, imports.split(",")):
        import_module(name)
    if target.endswith(".py"):
        _start(target, "imported")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [_fork(target, rank, port) for rank in (0, 1)]
    sys.exit(max(abs(os.waitstatus_to_exitcode(os.waitpid(one, 0)[1])) for one in children))
