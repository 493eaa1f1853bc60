"""`collect` in processes that are stopped at chosen moments, and stores compared."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trm_interp.recording.store import Store, validate

CHILD = Path(__file__).parent / "recording" / "collect_child.py"


def small_shards() -> Callable[..., int]:
    """The planner of shards that the child has, to be set in its parent as well."""
    return runpy.run_path(str(CHILD))["small_shards"]()


def lives(number: str, moments: list[int], words: list[object], out: Path) -> list[dict[str, Any]]:
    """Exit statuses and standard error of processes that got a signal at these moments."""
    command = [sys.executable, CHILD, number, ",".join(map(str, moments))]
    done = subprocess.run(
        [str(word) for word in (*command, "collect", *words, "--out", out)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_same_store(one: Path, other: Path) -> None:
    """Complete, intact, the same files and, bit for bit, the same arrays."""
    assert validate(one) == []
    with Store(one) as a, Store(other) as b:
        assert a.complete and a.names == b.names
        for name in b.names:
            assert a[name][:].tobytes() == b[name][:].tobytes(), name
    assert {file.name for file in one.iterdir()} == {file.name for file in other.iterdir()}
