"""Children end with their parent, whatever ends it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from trm_interp.runtime.children import Children, Stopped
from trm_interp.runtime.signals import terminated_as_interrupted

CHILD = """
import os, pathlib, sys, time
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(60)
"""
PARENT = """
import os, signal, sys
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell's children ignore it
from trm_interp.runtime.children import Children
from trm_interp.runtime.signals import terminated_as_interrupted
out = Path(sys.argv[1])
try:
    with terminated_as_interrupted(), ThreadPoolExecutor() as pool, Children() as children:
        command = [sys.executable, "-c", sys.argv[2], str(out / "pid")]
        pool.submit(children.run, command, out / "log", os.environ).result()
except KeyboardInterrupt:
    raise SystemExit(130)
"""


def ends(pid: int) -> bool:
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":  # nobody asked for its status yet
            return True
        time.sleep(0.05)
    return False


def read_pid(file: Path) -> int:
    for _ in range(600):
        if file.exists() and file.read_text():
            return int(file.read_text())
        time.sleep(0.05)
    raise AssertionError("the child did not start")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's part is Linux's")
@pytest.mark.parametrize(
    ("number", "status"), [("SIGTERM", 130), ("SIGINT", 130), ("SIGKILL", -signal.SIGKILL)]
)
def test_a_child_ends_with_its_parent(tmp_path: Path, number: str, status: int):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), CHILD])
    child = read_pid(tmp_path / "pid")
    parent.send_signal(getattr(signal, number))
    assert parent.wait(30) == status
    assert ends(child)


def test_status_and_output_are_the_programs(tmp_path: Path):
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    with Children() as children:
        done = children.run([sys.executable, "-c", code], tmp_path / "log", os.environ)
    assert done == 3 and sorted((tmp_path / "log").read_text().split()) == ["err", "out"]
    with pytest.raises(Stopped):
        children.run([sys.executable, "-c", code], tmp_path / "log", os.environ)


def test_one_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("trm_interp.runtime.children.PATIENCE", 0.2)
    code = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{CHILD}"
    statuses: list[int] = []
    with Children() as children:
        command = [sys.executable, "-c", code, str(tmp_path / "pid")]
        thread = threading.Thread(
            target=lambda: statuses.append(children.run(command, tmp_path / "log", os.environ))
        )
        thread.start()
        read_pid(tmp_path / "pid")
    thread.join(10)
    assert statuses == [-signal.SIGKILL]


def test_a_termination_is_an_interrupt_and_only_in_the_block():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminated_as_interrupted():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert signal.getsignal(signal.SIGTERM) is before
