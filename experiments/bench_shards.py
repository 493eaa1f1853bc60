"""Section `shards` of bench.py: two processes, each with its part, against one with the whole."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

Numbers = dict[str, float]
CHILD = """
import json, resource, sys, time
import torch
torch.set_num_threads(1)
from trm_interp.cli.app import app
import trm_interp.recording.collect, trm_interp.search.run, trm_interp.studies.basins
began = time.perf_counter()
try:
    app(sys.argv[1:], standalone_mode=False)
except SystemExit as end:
    assert not end.code, end.code
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print(json.dumps({"seconds": seconds, "peak_MB": peak}))
"""
WORK = {  # in pieces that two processes share evenly: collect in two files of 48
    "collect": "--limit 96 --batch-size 16",
    "search": "--limit 32 --batch-size 4 --k 4 --steps 8",
    "basins": "--index 3 --starts 499 --steps 4 --slice 0 --shown 0 --neighbours 5 --shuffles 19",
}


def shards(repeats: int) -> dict[str, Numbers]:
    """Efficiency: seconds of one process with all pieces (shard 1/1) over two times the slower of
    two that run at the same time, one thread each; 1 is perfect, and a machine of two cores that
    does other work is below. Imports are left out, and so is the merge, which has a ratio of its
    own. Peak memory of a shard of `basins` at 250 and at 2 500 starts, and of one process that
    keeps the rows of all."""
    numbers: dict[str, Numbers] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, words in WORK.items():
            line, efficiencies, merging = [name, *words.split(), "--device", "cpu"], [], []
            for i in range(repeats):
                at = Path(folder) / f"{name}-{i}"
                (one,) = _together([[*line, "--shard", "1/1", "--out", f"{at}-1-1"]])
                parts = [f"{at}-{k}-2" for k in (1, 2)]
                both = _together(
                    [[*line, "--shard", f"{k}/2", "--out", parts[k - 1]] for k in (1, 2)]
                )
                slower = max(child["seconds"] for child in both)
                out = f"{at}.csv" if name == "search" else f"{at}-merged"
                (merged,) = _together([["merge", *parts, "--out", out]])
                efficiencies.append(one["seconds"] / (2 * slower))
                merging.append(merged["seconds"] / one["seconds"])
            numbers[name] = {
                "efficiency": sorted(efficiencies)[repeats // 2],
                "merge_over_one_process": sorted(merging)[repeats // 2],
            }
        numbers["memory_of_basins"] = _memory(Path(folder))
    return numbers


def _memory(folder: Path) -> Numbers:
    peaks = {}
    more = "--index 3 --steps 1 --slice 0 --shown 0 --neighbours 5 --shuffles 3 --device cpu"
    for n in (250, 2500):
        line = ["basins", *more.split(), "--starts", str(n)]
        for kind, words in (("shard", ["--shard", "1/1"]), ("whole", [])):
            (child,) = _together([[*line, *words, "--out", str(folder / f"{kind}-{n}")]])
            peaks[f"peak_MB_of_a_{kind}_at_{n}_starts"] = child["peak_MB"]
    return peaks


def _together(lines: list[list[str]]) -> list[dict[str, Any]]:
    """What processes report that run these commands at the same time."""
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD, *line], stdout=subprocess.PIPE, text=True)
        for line in lines
    ]
    told = [child.communicate()[0] for child in children]
    assert not any(child.returncode for child in children), lines
    return [json.loads(text.splitlines()[-1]) for text in told]
