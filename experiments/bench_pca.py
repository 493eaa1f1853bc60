"""Section `pca` of bench.py: streamed components against reading the same store, and the memory."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from bench_sae import write_random_store

Numbers = dict[str, float]
Medians = Callable[[dict[str, Callable[[], object]], int], Numbers]
WIDTH, POSITIONS = 512, 97  # of the published model: 28.6 MB of z_L a puzzle
PUZZLES = 16
PEAK = """
import sys
from trm_interp.analysis.trajectories import trajectories
from trm_interp.recording.states import states_of
from trm_interp.recording.store import Store
with Store(sys.argv[1]) as store:
    trajectories(states_of(store, "z_L"))
status = open("/proc/self/status").read().splitlines()
print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


def pca(repeats: int, medians: Medians) -> Numbers:
    """Bytes a second through all passes of three components, over those of reading alone.

    Every pass reads the whole store: from the disk (`cold`: before each pass the file cache is
    told to forget it), as of a store that does not fit in memory, and from the file cache.
    """
    from trm_interp.analysis.pca import ITERATIONS, streamed_pca
    from trm_interp.recording.states import states_of
    from trm_interp.recording.store import Store

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_store(folder / "store", PUZZLES, WIDTH, POSITIONS)
        write_random_store(folder / "small", PUZZLES // 4, WIDTH, POSITIONS)
        with Store(folder / "store") as store:
            read = states_of(store, "z_L")
            size = float(store["z_L"].dtype.itemsize)
            for length in store["z_L"].shape:
                size *= length

            def plain() -> None:
                for _ in read():
                    pass

            took = medians({"read": plain, "pca": lambda: streamed_pca(read, 3)}, repeats)
            forgotten = Forgotten(folder / "store", read)
            cold_read, cold_pca = [], []
            for _ in range(repeats):
                cold_read.append(forgotten.seconds(lambda: [len(one) for one in forgotten()]))
                cold_pca.append(forgotten.seconds(lambda: streamed_pca(forgotten, 3)))
        passes = ITERATIONS + 1
        cold = statistics.median(cold_read), statistics.median(cold_pca)
        return {
            "cold_read_GB_per_s": size / cold[0] / 1e9,
            "cold_pca_GB_per_s": passes * size / cold[1] / 1e9,
            "cold_pca_over_read": passes * cold[0] / cold[1],
            "read_GB_per_s": size / took["read"] / 1e9,
            "pca_GB_per_s": passes * size / took["pca"] / 1e9,
            "pca_over_read": passes * took["read"] / took["pca"],
            "pca_peak_MB_1x": _peak(folder / "small"),
            "pca_peak_MB_4x": _peak(folder / "store"),
            "threads": float(torch.get_num_threads()),
        }


class Forgotten:
    """`read` with a file cache that has forgotten the store, whose time is not counted."""

    def __init__(self, store: Path, read: Callable[[], Iterator[np.ndarray]]) -> None:
        self.files, self.read, self.spent = sorted(store.glob("*.h5")), read, 0.0

    def __call__(self) -> Iterator[np.ndarray]:
        began = time.perf_counter()
        for file in self.files:
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self.spent += time.perf_counter() - began
        yield from self.read()

    def seconds(self, run: Callable[[], object]) -> float:
        """Seconds of a run, less those of forgetting."""
        self.spent, began = 0.0, time.perf_counter()
        run()
        return time.perf_counter() - began - self.spent


def _peak(store: Path) -> float:
    """Peak memory of a process of its own, MB."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(store)], capture_output=True, text=True, check=True
    )
    return float(done.stdout) * 1024 / 1e6
