"""Which rating predicts what a TRM finds hard?

    python experiments/difficulty.py --limit 500 --out runs/difficulty.json

Exact accuracy of every shipped checkpoint on its puzzles, in groups of equal size of each rating
(Wilson 95 % intervals), and for each rating the probability that a failed puzzle is rated harder
than a solved one (AUC, ties count half; 0.5 says nothing; 95 % bootstrap interval over puzzles).
Checkpoints and puzzles that are not there are named and left out.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from trm_interp.analysis.auc import auc_with_bounds
from trm_interp.analysis.outcomes import by_rating
from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.runtime.artifacts import artifact
from trm_interp.runtime.files import write_json
from trm_interp.runtime.progress import progress
from trm_interp.subjects.evaluate import solve
from trm_interp.tasks.sudoku.dataset import load
from trm_interp.tasks.sudoku.forge.rate import rate
from trm_interp.tasks.sudoku.grid import from_tokens

RUNS = [  # checkpoint, puzzles that it may be asked
    ("trm-sudoku9", "data/sudoku9-hard/test.csv"),
    ("trm-sudoku9", "data/sudoku9/test.txt"),
    ("trm-sudoku6", "data/sudoku6-hard/test.csv"),
    ("trm-sudoku6", "data/sudoku6/test.txt"),
]
RATINGS = ("clues", "waves", "tier", "guesses_first", "guesses_all", "effort")


def measure(ckpt: Path, file: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Accuracy against every rating."""
    puzzles = load(file, args.skip_bad, limit=args.limit)
    with progress(f"{ckpt.name} on {file.parent.name}", "puzzles") as update:
        read = solve(load_checkpoint(ckpt).model, puzzles, args.steps, progress=update)
    solved = read.solved.numpy()[:, -1]
    ratings = rate(from_tokens(puzzles.inputs))
    measured: dict[str, Any] = {"n": len(puzzles), "exact": float(solved.mean()), "ratings": {}}
    for name in RATINGS:
        values = np.asarray(getattr(ratings, name), float)
        measured["ratings"][name] = {
            **auc_with_bounds(values, ~solved, args.seed),
            "groups": by_rating(values, solved, args.groups).to_dict("records"),
        }
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, default=500, help="puzzles of each file")
    parser.add_argument("--skip-bad", action="store_true", help="leave out invalid puzzles")
    parser.add_argument("--steps", type=int, default=16, help="supervision steps")
    parser.add_argument("--groups", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the numbers as JSON")
    args = parser.parse_args()
    results: dict[str, Any] = {}
    for name, file in RUNS:
        ckpt, at = artifact(name), artifact(file)
        if missing := [str(path) for path in (ckpt, at) if not path.exists()]:
            print(f"{name} on {file}: left out, {' and '.join(missing)} not there")
            continue
        measured = results[f"{name} on {file}"] = measure(ckpt, at, args)
        print(f"{name} on {file}: {measured['exact']:.1%} exact of {measured['n']}")
        for rating, row in measured["ratings"].items():
            shares = " ".join(f"{group['exact']:.0%}" for group in row["groups"])
            span = f"AUC {row['auc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
            print(f"  {rating:14} {span}; exact {shares}")
    if args.out:
        write_json(args.out, results)
        print(f"wrote {args.out}")
    else:
        print(json.dumps({key: one["exact"] for key, one in results.items()}))


if __name__ == "__main__":
    main()
