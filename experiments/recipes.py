"""Which training recipe learns the most from the same compute? Cells of settings, three seeds each.

    python experiments/recipes.py --out runs/recipes --workers 2
    python experiments/recipes.py --out runs/recipes --table

Every run trains a model of width 96 on the 1 000 puzzles of `artifacts/data/sudoku6`, on one
thread, and is validated after half and after all of its steps. A cell differs from `base` in what
its row says; it has as many steps as the compute of `base` pays for, an evaluation with a gradient
counted as three, so that all cells cost the same. Runs that are there are not run again; an
interrupted one goes on.
"""

import argparse
import json
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from children import STOPPED, end_together, finished

DATA = Path(__file__).parent.parent / "artifacts/data/sudoku6"
BATCH, STEPS = 96, 320  # of `base`, at full depth
BASE = {
    **{"d-model": 96, "multiple": 32, "prefix": 0, "normalised-swiglu": True},
    **{"optimizer": "muon", "muon-lr": 0.02, "lr": 1e-4, "muon-decay": 0.005},
    **{"weight-decay": 1.0, "decay": "cosine", "warmup": 0.0, "n-sup": 16},
    **{"n-sup-warm": 1, "n-sup-warm-until": 0.25, "loss": "softmax", "smoothing": 0.2},
    **{"halt-weight": 0.05, "ema": 0.9, "dtype": "bfloat16", "compile": True},
}
ADAMW = {"optimizer": "adamw", "lr": 1e-3, "weight-decay": 0.1, "warmup": 0.1}
NOT_ADAMW = ("muon-lr", "muon-decay")  # options without effect are refused


@dataclass(frozen=True)
class Cell:
    """What a recipe changes in `base`."""

    says: str
    changed: dict[str, object] = field(default_factory=dict)
    batch: int = BATCH

    def steps(self) -> int:
        """Optimizer steps that cost as much as those of `base`."""
        share = curriculum_share() if self.changed.get("curriculum") else 1.0
        return round(STEPS * BATCH / self.batch / share)


def cost(h: int, l: int) -> int:
    """Evaluations of a supervision step, one with a gradient counted three times.

    >>> cost(3, 6)
    35
    """
    return h * (l + 1) + 2 * (l + 1)


def curriculum_share() -> float:
    """Mean cost of a step under the depth curriculum, of one at full depth."""
    return (0.3 * cost(1, 2) + 0.3 * cost(2, 4) + 0.4 * cost(3, 6)) / cost(3, 6)


CELLS = {
    "base": Cell("Muon, batch 96, one supervision step per puzzle in the first quarter"),
    "n_sup-16": Cell("16 supervision steps from the start", {"n-sup-warm": 0}),
    "warm-half": Cell("one supervision step in the first half", {"n-sup-warm-until": 0.5}),
    "warm-all": Cell("one supervision step throughout", {"n-sup-warm-until": 1.0}),
    "adamw": Cell("AdamW in the place of Muon", ADAMW),
    "curriculum": Cell("depth curriculum", {"curriculum": True}),
    "batch-48": Cell("batch 48", batch=48),
    "batch-192": Cell("batch 192", batch=192),
    "batch-384": Cell("batch 384", batch=384),
    "rest-1e-3": Cell("learning rate 1e-3 for embeddings and heads", {"lr": 1e-3}),
    "late-decay": Cell("constant rate, down in the last fifth", {"decay": "late"}),
    "easy-first": Cell("easy puzzles first, in the first half", {"easy-until": 0.5}),
    "stagger": Cell("slots do not go in step", {"stagger": True}),
    "early-weight": Cell("the first step's loss counts twice the last's", {"early-weight": 2.0}),
    "late-weight": Cell("the first step's loss counts half the last's", {"early-weight": 0.5}),
}


def command(cell: Cell, seed: int, out: Path) -> list[str]:
    """The training command of a run."""
    steps = cell.steps()
    options = BASE | cell.changed | {"batch-size": cell.batch, "train-steps": steps, "seed": seed}
    if options["optimizer"] == "adamw":
        options = {name: value for name, value in options.items() if name not in NOT_ADAMW}
    if not options["n-sup-warm"]:
        options.pop("n-sup-warm-until")
    words = ["train", "--out", str(out)]
    words += ["--train", str(DATA / "train.txt"), "--val", str(DATA / "val.txt")]
    words += ["--val-limit", "192", "--eval-every", str(steps // 2), "--save-every", "100"]
    for name, value in options.items():
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return words


def validations(out: Path) -> list[dict]:
    """Rows of the validations of a run."""
    file = out / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [row for row in rows if "val_exact" in row]


def run(cell: Cell, seed: int, out: Path) -> None:
    """Train it, on one thread, unless it is there."""
    if any(row["step"] == cell.steps() for row in validations(out)):
        return
    words = command(cell, seed, out) + (["--resume"] if out.exists() else [])
    log = out.parent / f"{out.name}.log"
    code = 130 if STOPPED.is_set() else finished(words, log)[0]
    if code in (130, -signal.SIGINT):
        STOPPED.set()
    if code:
        raise SystemExit(f"{out.name} is not done ({code}): see {log}")
    print(f"{out.name}: {validations(out)[-1]['val_exact'][-1]:.1%}", flush=True)


def table(cells: list[str], seeds: list[int], out: Path) -> str:
    """Mean and range over seeds of the share solved, in Markdown."""
    head = "| cell | batch x steps | seeds | exact % half-way | at the end, step 1 | step 16 |"
    lines = [head, "|---|---|---|---|---|---|"]
    for name in cells:
        cell, curves = CELLS[name], []
        for seed in seeds:
            rows = validations(out / f"{name}-seed{seed}")
            if any(row["step"] == cell.steps() for row in rows):
                curves.append(
                    (rows[0]["val_exact"][-1], *(rows[-1]["val_exact"][i] for i in (0, -1)))
                )
        if curves:
            shown = [spread(100 * column) for column in np.array(curves).T]
            size = f"{cell.batch} x {cell.steps()}"
            lines.append(" | ".join([f"| {cell.says}", size, str(len(curves)), *shown]) + " |")
    return "\n".join(lines)


def spread(values: np.ndarray) -> str:
    """Mean and all values in order."""
    each = ", ".join(f"{value:.1f}" for value in sorted(values))
    return f"{values.mean():.1f} ({each})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--cells", nargs="*", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, a thread each")
    parser.add_argument("--table", action="store_true", help="print the table of what is there")
    args = parser.parse_args()
    if not args.table:
        args.out.mkdir(parents=True, exist_ok=True)
        jobs = [(CELLS[c], s, args.out / f"{c}-seed{s}") for s in args.seeds for c in args.cells]
        end_together()
        with ThreadPoolExecutor(args.workers) as pool:
            try:
                list(pool.map(lambda job: run(*job), jobs))
            except KeyboardInterrupt:
                STOPPED.set()
                raise
    print(table(args.cells, args.seeds, args.out))


if __name__ == "__main__":
    main()
