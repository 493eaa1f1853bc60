"""Section `grids` of bench.py: what mazes and ARC cost, whose boards have 900 cells.

Evaluation and memory are of the published shape with attention (width 512, 8 heads) on 30x30, with
random weights, whose cost is that of trained ones.
"""

import subprocess
import sys
from collections.abc import Callable

import torch

from trm_interp.core.infer import run_batch
from trm_interp.core.memory import keep_freed_memory, peak_memory
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.recording.schema import estimate_bytes
from trm_interp.recording.sites import sites_of
from trm_interp.tasks.base import Task
from trm_interp.tasks.maze.making import draw, preset_named
from trm_interp.tasks.registry import task_named

Numbers = dict[str, float]
Medians = Callable[[dict[str, Callable[[], object]], int], Numbers]
SUPERVISION_STEPS = 16


def grids(repeats: int, medians: Medians) -> dict[str, Numbers]:
    return {
        "maze_making_per_s": _making(repeats, medians),
        "augmentation": _augmentation(repeats, medians),
        "evaluation_900_cells": _evaluation(repeats, medians),
        "recording_MB_a_puzzle": _recording(),
    }


def _making(repeats: int, medians: Medians) -> Numbers:
    """Mazes a second, on one thread; those with loops are drawn until one way is the shortest."""
    sizes = {"maze10": 300, "maze10-loops": 100, "maze30": 40}
    runs: dict[str, Callable[[], object]] = {}
    for name, n in sizes.items():
        preset = preset_named(name)
        assert preset is not None
        runs[name] = lambda preset=preset, n=n: draw(preset, 0, n)
    return {name: sizes[name] / seconds for name, seconds in medians(runs, repeats).items()}


def _augmentation(repeats: int, medians: Medians, n: int = 256) -> Numbers:
    """Puzzles a second, and seconds over those of copying the same tokens."""
    numbers: Numbers = {}
    for name in ("maze30", "sudoku9"):
        task: Task = task_named(name)
        tokens = torch.randint(1, task.vocab, (n, task.cells), dtype=torch.int32)
        keys = torch.arange(n)
        took = medians(
            {
                "augment": lambda task=task, x=tokens, k=keys: task.augment(x, x, k),
                "copy": lambda x=tokens: (x.clone(), x.clone()),
            },
            repeats,
        )
        numbers[f"{name}_per_s"] = n / took["augment"]
        numbers[f"{name}_over_copying"] = took["augment"] / took["copy"]
    return numbers


def _model() -> TRM:
    config = TRMConfig(cells=900, vocab=6, mixer="attention", prefix=0)
    return TRM(config, torch.Generator().manual_seed(0)).eval()


def _evaluation(repeats: int, medians: Medians) -> Numbers:
    """Puzzles a second of a whole run, from one supervision step of it, and memory by puzzle."""
    model = _model()
    inputs = torch.randint(1, 6, (2, 900))
    took = medians(
        {
            kind: lambda dtype=dtype: run_batch(model, inputs, inputs, 1, dtype=dtype)
            for kind, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
        },
        repeats,
    )
    peaks = [_peak_of_child(n) for n in (1, 9)]
    return {
        **{f"puzzles_per_s_{k}": 2 / (s * SUPERVISION_STEPS) for k, s in took.items()},
        "MB_a_puzzle_float32": (peaks[1] - peaks[0]) / 8,
    }


def _recording() -> Numbers:
    """Of a whole run, before a byte is written: all cells, and what fewer of them leave."""
    config = _model().config
    numbers: Numbers = {}
    for site in ("z_L", "z_H"):
        [whole] = sites_of(config, site, SUPERVISION_STEPS)
        kinds = {"all": whole, "64_cells": whole.select(positions=range(64))}
        kinds["64_cells_at_4_steps"] = whole.select(steps=range(4), positions=range(64))
        for kind, kept in kinds.items():
            numbers[f"{site}_{kind}"] = estimate_bytes([kept], 1) / 1e6
    return numbers


def _peak_of_child(n: int) -> float:
    """Peak resident memory in MB of a process that runs one supervision step of n puzzles."""
    command = [sys.executable, __file__, str(n)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _only_evaluate(n: int) -> None:
    keep_freed_memory()
    tokens = torch.randint(1, 6, (n, 900))
    run_batch(_model(), tokens, tokens, 1)
    print(peak_memory() / 1e6)


if __name__ == "__main__":
    _only_evaluate(int(sys.argv[1]))
