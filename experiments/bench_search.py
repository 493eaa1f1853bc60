"""Section `search` of bench.py: evaluations saved at equal accuracy, speed of the engine."""

from collections.abc import Callable
from typing import Any

import torch

from trm_interp.analysis.outcomes import wilson
from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.core.infer import run_batch
from trm_interp.search.engine import search
from trm_interp.search.selection import choose
from trm_interp.search.settings import SearchConfig
from trm_interp.subjects.opening import test_puzzles
from trm_interp.subjects.settings import default_checkpoint
from trm_interp.tasks.base import PuzzleSet
from trm_interp.tasks.registry import load_puzzles

Medians = Callable[[dict[str, Callable[[], object]], int], dict[str, float]]
PUZZLES, K, STEPS = 48, 16, 12
BATCH = 128


def search_section(repeats: int, medians: Medians) -> dict[str, Any]:
    """Default checkpoint, bfloat16: the default search with and without early ends, and speed."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checkpoint = load_checkpoint(default_checkpoint(), device)
    model, puzzles = checkpoint.model, load_puzzles(test_puzzles(checkpoint), limit=PUZZLES)
    inputs = torch.from_numpy(puzzles.inputs)
    numbers: dict[str, Any] = {"n": PUZZLES, "k": K, "steps": STEPS}
    kinds = {"grid": {"stop": "never"}, "retired": {}, "adaptive": {"adaptive": True}}
    for name, settings in kinds.items():
        config = SearchConfig(k=K, steps=STEPS, **settings)  # type: ignore[arg-type]
        result = search(model, puzzles.task, inputs, config, BATCH, torch.bfloat16)
        at = choose(result)["best_q"][:, -1]
        right = result.solved(puzzles.labels)[range(PUZZLES), at, -1]
        numbers[f"best_q_{name}"] = float(right.mean())
        numbers[f"supervision_steps_{name}"] = int(result.steps_run.sum())
        if name == "grid":
            numbers["best_q_grid_low"], numbers["best_q_grid_high"] = wilson(
                int(right.sum()), PUZZLES
            )
        else:
            saved = numbers["supervision_steps_grid"] / numbers[f"supervision_steps_{name}"]
            numbers[f"evaluations_grid_over_{name}"] = saved
            inside = (
                numbers["best_q_grid_low"] <= right.mean() <= numbers["best_q_grid_high"] + 1e-9
            )
            numbers[f"best_q_{name}_inside_interval"] = bool(inside)
    return {**numbers, **_speed(model, puzzles.subset(range(32)), repeats, medians)}


def _speed(model: Any, puzzles: PuzzleSet, repeats: int, medians: Medians) -> dict[str, float]:
    """Trajectories a second, all run to the end, against plain inference of as many rows."""
    k, steps = 8, 4
    inputs = torch.from_numpy(puzzles.inputs)
    rows = inputs.repeat_interleave(k, 0)
    runs: dict[str, Callable[[], object]] = {}

    def plain() -> None:
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            run_batch(model, part, part, steps, dtype=torch.bfloat16)

    runs["plain"] = plain
    for when in ("init", "every"):
        config = SearchConfig(k=k, steps=steps, when=when, stop="never")  # type: ignore[arg-type]
        runs[when] = lambda config=config: search(
            model, puzzles.task, inputs, config, BATCH, torch.bfloat16
        )
    took = medians(runs, repeats)
    return {
        "trajectories_per_s": len(rows) / took["init"],
        "search_over_plain_inference_init": took["plain"] / took["init"],
        "search_over_plain_inference_every": took["plain"] / took["every"],
    }
