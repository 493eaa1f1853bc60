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
from scipy.stats import rankdata

from trm_interp.analysis.outcomes import wilson
from trm_interp.core.checkpoint import load_checkpoint
from trm_interp.evaluate import solve
from trm_interp.files import write_json
from trm_interp.progress import progress
from trm_interp.settings import artifact
from trm_interp.tasks.sudoku.dataset import load
from trm_interp.tasks.sudoku.rate import rate

RUNS = [  # checkpoint, puzzles that it may be asked
    ("trm-sudoku9", "data/sudoku9-hard/test.csv"),
    ("trm-sudoku9", "data/sudoku9/test.txt"),
    ("trm-sudoku6", "data/sudoku6-hard/test.csv"),
    ("trm-sudoku6", "data/sudoku6/test.txt"),
]
RATINGS = ("clues", "waves", "tier", "guesses_first", "guesses_all", "effort")


def auc(rating: np.ndarray, failed: np.ndarray) -> float:
    """Probability that a failed puzzle is rated above a solved one (Mann & Whitney 1947).

    NaN where all failed or none did.
    """
    n, m = int(failed.sum()), int((~failed).sum())
    if n == 0 or m == 0:
        return float("nan")
    return float((rankdata(rating)[failed].sum() - n * (n + 1) / 2) / (n * m))


def interval(rating: np.ndarray, failed: np.ndarray, seed: int, draws: int) -> list[float]:
    """95 % bootstrap interval of `auc` over puzzles."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(failed), (draws, len(failed)))
    return np.nanquantile([auc(rating[at], failed[at]) for at in picks], [0.025, 0.975]).tolist()


def groups(rating: np.ndarray, solved: np.ndarray, n: int) -> list[dict[str, Any]]:
    """Accuracy by rating: about n groups of equal size, equal ratings in one group."""
    edges = np.unique(np.quantile(rating, np.linspace(0, 1, n + 1)[1:-1]))
    group = np.searchsorted(edges, rating, side="left")
    rows = []
    for value in np.unique(group):
        inside = group == value
        hits, of = int(solved[inside].sum()), int(inside.sum())
        low, high = wilson(hits, of)
        span = [float(rating[inside].min()), float(rating[inside].max())]
        rows.append({"rating": span, "n": of, "exact": hits / of, "low": low, "high": high})
    return rows


def measure(ckpt: Path, file: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Accuracy against every rating."""
    puzzles = load(file, limit=args.limit)
    with progress(f"{ckpt.name} on {file.parent.name}", "puzzles") as update:
        read = solve(load_checkpoint(ckpt).model, puzzles, args.steps, progress=update)
    solved = read.solved.numpy()[:, -1]
    ratings = rate(puzzles.puzzles)
    found: dict[str, Any] = {"n": len(puzzles), "exact": float(solved.mean()), "ratings": {}}
    for name in RATINGS:
        values = np.asarray(getattr(ratings, name), float)
        found["ratings"][name] = {
            "auc": auc(values, ~solved),
            "auc_interval": interval(values, ~solved, args.seed, args.draws),
            "groups": groups(values, solved, args.groups),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, default=500, help="puzzles of each file")
    parser.add_argument("--steps", type=int, default=16, help="supervision steps")
    parser.add_argument("--groups", type=int, default=5)
    parser.add_argument("--draws", type=int, default=500, help="bootstrap samples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the numbers as JSON")
    args = parser.parse_args()
    known: dict[str, Any] = {}
    for name, file in RUNS:
        ckpt, at = artifact(name), artifact(file)
        if missing := [str(path) for path in (ckpt, at) if not path.exists()]:
            print(f"{name} on {file}: left out, {' and '.join(missing)} not there")
            continue
        found = known[f"{name} on {file}"] = measure(ckpt, at, args)
        print(f"{name} on {file}: {found['exact']:.1%} exact of {found['n']}")
        for rating, row in found["ratings"].items():
            low, high = row["auc_interval"]
            shares = " ".join(f"{group['exact']:.0%}" for group in row["groups"])
            print(f"  {rating:14} AUC {row['auc']:.3f} [{low:.3f}, {high:.3f}]; exact {shares}")
    if args.out:
        write_json(args.out, known)
        print(f"wrote {args.out}")
    else:
        print(json.dumps({key: found["exact"] for key, found in known.items()}))


if __name__ == "__main__":
    main()
