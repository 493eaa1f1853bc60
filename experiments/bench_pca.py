"""Section `pca` of bench.py: streamed components against reading the same store, and the memory."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from bench_sae import write_random_store

Numbers = dict[str, float]
Medians = Callable[[dict[str, Callable[[], object]], int], Numbers]
WIDTH, POSITIONS = 512, 97  # of the published model: 28.6 MB of z_L a puzzle
PUZZLES = 16
PEAK = """
import sys
from trm_interp.analysis.trajectories import trajectories
from trm_interp.store import Store
with Store(sys.argv[1]) as store:
    trajectories(store, "z_L")
status = open("/proc/self/status").read().splitlines()
print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


def pca(repeats: int, medians: Medians) -> Numbers:
    """Bytes a second through all passes of three components, over those of reading alone.

    Every pass reads the whole store; the file cache holds it, so the disk is not what is measured.
    """
    from trm_interp.analysis.pca import ITERATIONS, streamed_pca
    from trm_interp.analysis.trajectories import states_of
    from trm_interp.store import Store

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
        passes = ITERATIONS + 1
        return {
            "read_GB_per_s": size / took["read"] / 1e9,
            "pca_GB_per_s": passes * size / took["pca"] / 1e9,
            "pca_over_read": passes * took["read"] / took["pca"],
            "pca_peak_MB_1x": _peak(folder / "small"),
            "pca_peak_MB_4x": _peak(folder / "store"),
            "threads": float(torch.get_num_threads()),
        }


def _peak(store: Path) -> float:
    """Peak memory of a process of its own, MB."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(store)], capture_output=True, text=True, check=True
    )
    return float(done.stdout) * 1024 / 1e6
