"""A cluster of one machine for tests: `sbatch`, `srun`, `squeue`, `sacct`, `scancel`, `scontrol`.

    python fake_slurm.py COMMAND WORDS...

The state is a folder, $FAKE_SLURM: a file STATE/ID with the state of every job, and `calls`. A job
that writes the file $FAKE_SLURM/ID.dies loses its node: all of its processes are killed, and it is
queued again where the script says --requeue, unless there is a file $FAKE_SLURM/ID.lost.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol")


def install(folder: Path) -> None:
    """Write the commands into a folder, for PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COMMANDS:
        file = folder / name
        file.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n')
        file.chmod(0o755)


def state_of(job: str) -> str:
    file = STATE / job
    return file.read_text() if file.exists() else ""


def set_state(job: str, state: str) -> None:
    half = STATE / f".{job}"
    half.write_text(state)
    half.rename(STATE / job)


def sbatch(script: str) -> None:
    text = Path(script).read_text()
    options = dict(re.findall(r"#SBATCH --([\w-]+)=?(.*)", text))
    number = 1 + len(list(STATE.glob("*.sh")))
    (STATE / f"{number}.sh").write_text(text)
    array = options.get("array", "").strip("'")
    indices = range(int(array.split("-")[1].split("%")[0]) + 1) if array else [None]
    for index in indices:
        job = str(number) if index is None else f"{number}_{index}"
        set_state(job, "PENDING")
        run_apart(job)
    print(f"Submitted batch job {number}")


def run_apart(job: str) -> None:
    subprocess.Popen(
        [sys.executable, __file__, "node", job],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def node(job: str) -> None:
    """Run a job, again after its node has failed."""
    number, _, index = job.partition("_")
    script = STATE / f"{number}.sh"
    while True:
        environment = dict(os.environ) | {"SLURM_JOB_ID": number, "SLURM_NTASKS": "1"}
        environment |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
        environment |= {"FAKE_JOB": job}
        if index:
            environment |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": index}
        process = subprocess.Popen(["bash", str(script)], env=environment, start_new_session=True)
        (STATE / f"{job}.pid").write_text(str(process.pid))
        set_state(job, "RUNNING")
        dies = STATE / f"{job}.dies"
        while process.poll() is None and not dies.exists():
            time.sleep(0.05)
        if not dies.exists():
            if state_of(job) == "RUNNING":
                set_state(job, "FAILED" if process.returncode else "COMPLETED")
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        dies.unlink()
        set_state(job, "NODE_FAIL")
        if "--requeue" not in script.read_text() or (STATE / f"{job}.lost").exists():
            return
        time.sleep(0.3)
        set_state(job, "REQUEUED")


def srun(*words: str) -> None:
    """Its own options, then the command."""
    own, words_ = {}, list(words)
    while words_ and words_[0].startswith("--"):
        name = words_.pop(0)
        if name in ("--output", "--error"):
            own[name] = words_.pop(0)
    names = {"%A": "SLURM_ARRAY_JOB_ID", "%a": "SLURM_ARRAY_TASK_ID", "%j": "SLURM_JOB_ID"}
    for sign, name in (names | {"%t": "SLURM_PROCID"}).items():
        own = {k: v.replace(sign, os.environ.get(name, "0")) for k, v in own.items()}
    for descriptor, name in ((1, "--output"), (2, "--error")):
        if name in own:
            Path(own[name]).parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(own[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(handle, descriptor)
    os.execvp(words_[0], words_)


def jobs() -> list[str]:
    return sorted(f.name for f in STATE.iterdir() if re.fullmatch(r"\d+(_\d+)?", f.name))


def squeue(*words: str) -> None:
    for job in jobs():
        if state_of(job) in ("PENDING", "RUNNING", "REQUEUED"):
            print(job)


def sacct(*words: str) -> None:
    if (STATE / "no-accounts").exists():
        sys.exit("Slurm accounting storage is disabled")
    wanted = {words[i + 1] for i, word in enumerate(words) if word == "-j"}
    print("JobID|State|NodeList")
    for job in jobs():
        if job.split("_")[0] in wanted:
            print(f"{job}|{state_of(job)}|here")


def scancel(*words: str) -> None:
    for job in jobs():
        if job in words or job.split("_")[0] in words:
            set_state(job, "CANCELLED by 0")
            with suppress(ProcessLookupError, FileNotFoundError):
                os.killpg(int((STATE / f"{job}.pid").read_text()), signal.SIGKILL)


def scontrol(what: str, job: str) -> None:
    if (what, job) == ("show", "config"):
        most = STATE / "max-array-size"
        print("Configuration data as of now\nMaxArraySize            = ", end="")
        return print(most.read_text() if most.exists() else 1001)
    if what != "requeue":
        sys.exit(f"no {what}")
    if state_of(job) in ("PENDING", "RUNNING", "REQUEUED"):
        sys.exit("Job is pending execution")
    set_state(job, "PENDING")
    run_apart(job)


if __name__ == "__main__":
    STATE = Path(os.environ["FAKE_SLURM"])
    name, *words = sys.argv[1:]
    with (STATE / "calls").open("a") as calls:
        calls.write(shlex.join([name, *words]) + "\n")
    {"node": node, **{name: globals()[name] for name in COMMANDS}}[name](*words)
