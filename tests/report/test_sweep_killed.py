"""Four jobs on this machine, whose processes are killed at random: nothing is lost or mixed up."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from trm_interp.runtime.outputs import MARKER

KILLS = 10
# A command that goes on where it was stopped: 8 numbers, one at a time; or all numbers of others.
PROGRAM = """
import sys, time
from pathlib import Path

seed, out, *others = sys.argv[1:]
goes_on = "--resume" in others
out, others = Path(out), [Path(one) for one in others if not one.startswith("--")]
out.mkdir(exist_ok=True)
parts = out / "parts.txt"
if not goes_on:
    parts.unlink(missing_ok=True)
done = parts.read_text().splitlines() if parts.exists() else []
for i in range(len(done), 8):
    time.sleep(0.1)
    done.append(str(int(seed) * i * i))
    half = out / "half.txt"
    half.write_text("\\n".join(done) + "\\n")
    half.rename(parts)
lines = [one.joinpath("summary.json").read_text() for one in others]
(out / "summary.json").write_text("".join([*lines, *parts.read_text()]))
"""
SWEEP = """
import sys
from pathlib import Path
from trm_interp.report.sweep.engine import run_jobs
from trm_interp.report.sweep.jobs import Job, with_bases

out, program = Path(sys.argv[1]), sys.argv[2]
both = ("--resume", "--overwrite")
how = {"flags": both, "program": (sys.executable, program)}
jobs = [Job(f"job-{i}", [str(i), str(out / f"job-{i}")], out / f"job-{i}", **how) for i in "123"]
words = ["4", str(out / "all"), *(str(job.out) for job in jobs)]
jobs.append(Job("all", words, out / "all", after=tuple(job.name for job in jobs), **how))
say = lambda line: print(line, flush=True)
failed = run_jobs(with_bases(jobs), "a", say, lambda done, of: None)
sys.exit(bool(failed))
"""


@pytest.fixture
def scripts(tmp_path: Path) -> list[str]:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "sweep.py").write_text(SWEEP)
    return [sys.executable, str(tmp_path / "sweep.py"), "", str(tmp_path / "program.py")]


def start(scripts: list[str], out: Path) -> subprocess.Popen[bytes]:
    out.mkdir(exist_ok=True)
    with (out.parent / f"{out.name}.log").open("ab") as log:
        words = [word or str(out) for word in scripts]
        return subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)


def processes_of(session: int) -> list[int]:
    """All that live of a session: the engine, submitit's, and the commands."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(folder.name))
    return found


def results(out: Path) -> dict[str, str]:
    return {file.parent.name: file.read_text() for file in out.glob("*/summary.json")}


def written(folder: Path) -> dict[str, str]:
    """All files but the mark that a folder which was begun again has."""
    return {one.name: one.read_text() for one in folder.iterdir() if one.name != MARKER}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="lists processes by /proc")
def test_killed_ten_times_it_gives_the_same(scripts: list[str], tmp_path: Path):
    whole = tmp_path / "whole"
    assert start(scripts, whole).wait() == 0
    expected = results(whole)
    assert set(expected) == {"job-1", "job-2", "job-3", "all"}
    assert not (whole / ".jobs").exists()

    draw, kills, engines, n = random.Random(0), 0, 0, 0
    while kills < KILLS:
        n += 1
        out = tmp_path / f"killed-{n}"
        while results(out) != expected:
            process = start(scripts, out)
            while process.poll() is None:
                if kills < KILLS:
                    time.sleep(draw.uniform(0.1, 0.8))
                    living = processes_of(process.pid)
                    if living:
                        is_engine = kills % 3 == 2 and process.pid in living
                        victim = process.pid if is_engine else draw.choice(living)
                        engines += victim == process.pid
                        with suppress(ProcessLookupError):
                            os.kill(victim, signal.SIGKILL)
                            kills += 1
                else:
                    time.sleep(0.05)
            deadline = time.monotonic() + 60
            while processes_of(process.pid) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert processes_of(process.pid) == []  # none outlives its engine
        assert written(out / "all") == written(whole / "all")  # no half files, nothing twice
    assert engines >= 1


def test_a_job_that_is_stopped_with_the_sweep_goes_on(scripts: list[str], tmp_path: Path):
    out = tmp_path / "out"
    process = start(scripts, out)
    deadline = time.monotonic() + 60
    while not list(out.glob("job-*/parts.txt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    began = next(out.glob("job-*/parts.txt"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) != 0 and processes_of(process.pid) == []
    assert len(began.read_text().splitlines()) < 8
    assert start(scripts, out).wait() == 0
    log = (out.parent / "out.log").read_text()
    assert ": failed" not in log and len(results(out)) == 4
