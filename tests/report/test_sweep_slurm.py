"""The path through Slurm, on a cluster of one machine that stands for one."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import fake_slurm
import pytest

from trm_interp.report.sweep import machines, worker
from trm_interp.report.sweep.engine import Engine, run_jobs
from trm_interp.report.sweep.jobs import Job, with_bases
from trm_interp.report.sweep.machines import SlurmMachine

# Does what the first word says at its first start, or at all of them; then writes its result.
PROGRAM = """
import os, sys, time
from pathlib import Path

what, out, *flags = sys.argv[1:]
Path(out).mkdir(exist_ok=True)
with (Path(out) / "calls").open("a") as calls:
    print(*flags, os.environ["OMP_NUM_THREADS"], file=calls)
print("at work", flush=True)
state = Path(os.environ["FAKE_SLURM"])
if what == "always" or (what in ("once", "lost") and not flags):
    if what == "lost":
        (state / (os.environ["FAKE_JOB"] + ".lost")).touch()
    (state / (os.environ["FAKE_JOB"] + ".dies")).touch()
    time.sleep(60)
while what == "wait" and not (state / "go").exists():
    time.sleep(0.05)
(Path(out) / "summary.json").write_text(what)
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of its state."""
    fake_slurm.install(tmp_path / "bin")
    state = tmp_path / "slurm"
    state.mkdir()
    monkeypatch.setenv("FAKE_SLURM", str(state))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setattr(machines, "SETTLE", 0.1)
    (tmp_path / "program.py").write_text(PROGRAM)
    return state


def job(tmp_path: Path, name: str, what: str = "", after: tuple[str, ...] = (), **more) -> Job:
    out = tmp_path / "out" / name
    program = (sys.executable, str(tmp_path / "program.py"))
    how = {"after": after, "program": program, "flags": ("--resume", "--overwrite")}
    return Job(name, [what or "write", str(out)], out, **(how | more))


def go(jobs: list[Job], asked: dict, tell=None) -> tuple[dict[str, str], list[str]]:
    lines: list[str] = []
    jobs[0].out.parent.mkdir(exist_ok=True)

    def machine(hidden: Path) -> SlurmMachine:
        return SlurmMachine(hidden, asked)

    told = tell or lines.append
    failed = run_jobs(with_bases(jobs), "a", told, lambda *done: None, machine=machine)
    return failed, lines


def calls(state: Path, command: str) -> list[str]:
    lines = (state / "calls").read_text().splitlines()
    return [line for line in lines if line.split()[0] == command]


def test_an_array_whose_nodes_die(cluster: Path, tmp_path: Path):
    jobs = [job(tmp_path, "fine"), job(tmp_path, "once", "once"), job(tmp_path, "lost", "lost")]
    jobs += [job(tmp_path, "always", "always"), job(tmp_path, "child", after=("always",))]
    jobs += [job(tmp_path, "all", after=("fine", "once"), resources={"gpus": 0, "cpus": 1})]
    asked = {"partition": "gpu", "gpus": 2, "cpus": 3, "mem": 16, "time": 60, "parallel": 2}
    failed, lines = go(jobs, asked)
    assert set(failed) == {"always", "child"}, failed
    assert failed["always"].startswith("its process died 2 times: at work")
    assert any(line.startswith("lost: its process died (NODE_FAIL), starting") for line in lines)
    done = {name: (tmp_path / "out" / name / "calls").read_text() for name in ("fine", "once")}
    assert done == {"fine": "3\n", "once": "3\n--resume 3\n"}
    assert (tmp_path / "out" / "all" / "calls").read_text() == "1\n"

    assert len(calls(cluster, "sbatch")) == 2  # an array, and what needs it
    assert [line.split()[1] for line in calls(cluster, "scontrol")].count("requeue") == 1
    script = (cluster / "1.sh").read_text()
    for option in ("array=0-3%2", "requeue", "partition=gpu", "gpus-per-node=2", "mem=16GB"):
        assert re.search(rf"^#SBATCH --'?{re.escape(option)}", script, re.M), script
    assert "--gpus-per-node=0" in (cluster / "2.sh").read_text()

    _, lines = go(jobs[:2], asked)
    assert lines == ["fine: done before", "once: done before"]


def test_jobs_go_on_without_the_sweep_and_are_found_again(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Ctrl-C while a job runs; and a job that is asked otherwise now is cancelled."""
    one, other = job(tmp_path, "one", "wait"), job(tmp_path, "other", "wait")
    told: list[str] = []
    collect = Engine._collect

    def interrupted(self: Engine) -> bool:
        if (tmp_path / "out/one/calls").exists() and (tmp_path / "out/other/calls").exists():
            raise KeyboardInterrupt
        return collect(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Engine, "_collect", interrupted)
        go([one, other], {}, told.append)
    assert told[-1] == "the jobs in Slurm go on (scancel 1 ends them)"
    (cluster / "go").touch()
    changed = job(tmp_path, "other", "write")
    failed, lines = go([one, changed], {})
    assert failed == {} and lines[0] == "one: under way as 1_0"
    assert calls(cluster, "scancel") == ["scancel 1_1"] and len(calls(cluster, "sbatch")) == 2
    assert (tmp_path / "out/other/summary.json").read_text() == "write"


def test_the_queue_is_asked_once_for_all_jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    asked: list[int] = []
    monkeypatch.setattr(machines, "_queued", lambda: (asked.append(1), {"1_0", "1_1"})[1])
    machine = SlurmMachine(tmp_path)
    jobs = [SimpleNamespace(job_id=f"1_{i}", state="UNKNOWN", done=lambda: False) for i in (0, 1)]
    assert [machine.state(one) for one in jobs * 50] == [None] * 100 and len(asked) == 1


def test_a_cluster_that_takes_no_job(tmp_path: Path, cluster: Path):
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\necho no such partition >&2\nexit 1\n")
    failed, _ = go([job(tmp_path, "one"), job(tmp_path, "two", after=("one",))], {})
    assert "Slurm does not take the job: " in failed["one"] and "partition" in failed["one"]
    assert failed["two"] == "needs one, which failed"


def test_more_jobs_than_an_array_may_have(cluster: Path, tmp_path: Path):
    (cluster / "max-array-size").write_text("2")
    failed, _ = go([job(tmp_path, f"job-{i}") for i in range(3)], {})
    assert failed == {} and len(calls(cluster, "sbatch")) == 2
    found = [re.search(r"array='?([\d-]+)", (cluster / f"{i}.sh").read_text()) for i in (1, 2)]
    assert [one and one[1] for one in found] == ["0-1", None]  # a lone one is no array
    assert calls(cluster, "scontrol") == ["scontrol show config"]


def test_a_job_that_comes_no_further_is_started_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    one = job(tmp_path, "one")
    one.out.mkdir(parents=True)
    task = one.task(tmp_path, str(tmp_path / "files"))
    monkeypatch.setattr(worker, "_child", None)

    def goes_on(state: str) -> bool:
        """Whether it is started again where the cluster takes it back with this state."""
        monkeypatch.setattr(worker, "_made", worker.contents(one.out))
        (one.out / "metrics.jsonl").write_text(f"another row {state}")
        (one.out / "state.pt").write_text(state)
        return task.checkpoint() is not None

    assert [goes_on(state) for state in ("1", "1", "2", "2", "3")] == [True] * 5
    assert task.outcome() is None
    assert [goes_on("3"), goes_on("3")] == [True, False]
    outcome = task.outcome()
    assert outcome is not None and outcome.stuck == 2
    why = one.end("a", outcome)
    assert why is not None and why.startswith("the cluster took it back 2 times and it came no")
    assert one.failed_before("a") == why
