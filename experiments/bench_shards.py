"""Section `shards` of bench.py: two processes, each with its part, against one with the whole."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from bench_sae import write_random_store

Numbers = dict[str, float]
CHILD = """
import json, resource, sys, time
import torch
torch.set_num_threads(1)
from trm_interp.cli.app import app
import trm_interp.recording.collect, trm_interp.search.run, trm_interp.studies.basins
if sys.argv[1] == "train-sae":
    import trm_interp.sae.train
began, cpu = time.perf_counter(), time.process_time()
try:
    app(sys.argv[1:], standalone_mode=False)
except SystemExit as end:
    assert not end.code, end.code
seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_MB": peak}))
"""
WORK = {  # in pieces that two processes share evenly: collect in two files of 48
    "collect": "--limit 96 --batch-size 16",
    "search": "--limit 32 --batch-size 4 --k 4 --steps 8",
    "basins": "--index 3 --starts 499 --steps 4 --slice 0 --shown 0 --neighbours 5 --shuffles 19",
}


SAE = "--site z_L --expansion 16 --train-steps 60 --batch-size 1024 --buffer-mb 64 --log-every 60"


def shards(repeats: int) -> dict[str, Numbers]:
    """Efficiency: seconds of one process with all pieces (shard 1/1) over two times the slower of
    two that run at the same time, one thread each; 1 is perfect, and a machine of two cores that
    does other work is below. By CPU time: that of one over that of both, which other work hardly
    touches; it sees what is done twice, not what is waited for. Imports are left out, and so is the
    merge, which has a ratio of its own; an SAE needs none. Peak memory of a shard of `basins` at
    250 and at 2 500 starts, and of one process that keeps the rows of all."""
    numbers: dict[str, Numbers] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_store(folder / "store", 24)
        for command in WORK:
            numbers[command] = _medians([_divided(command, folder, i) for i in range(repeats)])
        numbers["train-sae"] = _medians([_trained(folder, i) for i in range(repeats)])
        numbers["memory_of_basins"] = _memory(folder)
    return numbers


def _medians(runs: list[Numbers]) -> Numbers:
    return {name: median(run[name] for run in runs) for name in runs[0]}


def _divided(name: str, folder: Path, i: int) -> Numbers:
    line, at = [name, *WORK[name].split(), "--device", "cpu"], folder / f"{name}-{i}"
    one = _together([[*line, "--shard", "1/1", "--out", f"{at}-1-1"]])
    parts = [f"{at}-{k}-2" for k in (1, 2)]
    two = _together([[*line, "--shard", f"{k}/2", "--out", parts[k - 1]] for k in (1, 2)])
    out = f"{at}.csv" if name == "search" else f"{at}-merged"
    (merged,) = _together([["merge", *parts, "--out", out]])
    return {**_efficiency(one, two), "merge_over_one_process": merged["cpu"] / one[0]["cpu"]}


def _trained(folder: Path, i: int) -> Numbers:
    """An SAE of two processes that share its batches, as under torchrun."""
    line = ["train-sae", str(folder / "store"), *SAE.split(), "--device", "cpu", "--out"]
    one = _together([[*line, str(folder / f"sae-{i}-1")]])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    team = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [team | {"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    return _efficiency(one, _together([[*line, str(folder / f"sae-{i}-2")]] * 2, ranks))


def _efficiency(one: list[dict[str, Any]], two: list[dict[str, Any]]) -> Numbers:
    slower = max(child["seconds"] for child in two)
    return {
        "efficiency": one[0]["seconds"] / (2 * slower),
        "efficiency_by_cpu_time": one[0]["cpu"] / sum(child["cpu"] for child in two),
        "cpu_s_of_one": one[0]["cpu"],
    }


def _memory(folder: Path) -> Numbers:
    peaks = {}
    more = "--index 3 --steps 1 --slice 0 --shown 0 --neighbours 5 --shuffles 3 --device cpu"
    for n in (250, 2500):
        line = ["basins", *more.split(), "--starts", str(n)]
        for kind, words in (("shard", ["--shard", "1/1"]), ("whole", [])):
            (child,) = _together([[*line, *words, "--out", str(folder / f"{kind}-{n}")]])
            peaks[f"peak_MB_of_a_{kind}_at_{n}_starts"] = child["peak_MB"]
    return peaks


def _together(
    lines: list[list[str]], environments: list[dict[str, str]] | None = None
) -> list[dict[str, Any]]:
    """What processes report that run these commands at the same time."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, *line],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | more | {"OMP_NUM_THREADS": "1"},
        )
        for line, more in zip(lines, environments or [{}] * len(lines), strict=True)
    ]
    told = [child.communicate()[0] for child in children]
    assert not any(child.returncode for child in children), lines
    return [json.loads(text.splitlines()[-1]) for text in told]
