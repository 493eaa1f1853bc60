"""How hard puzzles are for a solver that no energy and no rating here knows: SAT conflicts.

    python experiments/heldout.py artifacts/data/sudoku9-hard          # a made data set
    python experiments/heldout.py puzzles.csv --by source --limit 500  # a file, by a column of it

Prints distributions of the ratings and, for the first so many puzzles of each group, of minisat's
conflicts (python-sat, of the `test` extra) until a solution is reached and proved the only one.
With `--card` they are written to the data set's card as `held_out`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from trm_interp.runtime.files import write_json
from trm_interp.runtime.progress import progress
from trm_interp.tasks.sudoku.dataset import load
from trm_interp.tasks.sudoku.forge.hard import distribution, distributions
from trm_interp.tasks.sudoku.forge.rate import rate
from trm_interp.tasks.sudoku.forge.walk import is_plain
from trm_interp.tasks.sudoku.formats import column
from trm_interp.tasks.sudoku.grid import Grid, Shape, from_tokens, shape_of


def variables(shape: Shape) -> np.ndarray:
    """int [cell, digit] number of the variable "this digit is in this cell"."""
    return np.arange(1, shape.cells * shape.side + 1).reshape(shape.cells, shape.side)


def clauses(shape: Shape) -> list[list[int]]:
    """The rules: every cell has one digit, every unit each digit once."""
    name = variables(shape)
    exactly_one = [*name, *name[shape.units].swapaxes(1, 2).reshape(-1, shape.side)]
    at_least = [line.tolist() for line in exactly_one]
    return at_least + [
        [-int(a), -int(b)] for line in exactly_one for a in line for b in line if a < b
    ]


def conflicts(puzzles: Grid, solver: str = "minisat22") -> np.ndarray:
    """int [puzzle] conflicts of a fresh solver that finds the solution and proves it the only one.

    ValueError for a puzzle with none or several.
    """
    from pysat.solvers import Solver

    shape = shape_of(puzzles.shape[1])
    rules, name = clauses(shape), variables(shape)
    counts = []
    for puzzle in puzzles:
        with Solver(solver, bootstrap_with=rules) as sat:
            for cell in puzzle.nonzero()[0]:
                sat.add_clause([int(name[cell, puzzle[cell] - 1])])
            if not sat.solve():
                raise ValueError("no solution")
            sat.add_clause([-literal for literal in sat.get_model() or [] if literal > 0])
            if sat.solve():
                raise ValueError("several solutions")
            counts.append((sat.accum_stats() or {})["conflicts"])
    return np.array(counts)


def described(puzzles: Grid, limit: int) -> dict[str, Any]:
    """Distributions of ratings and conflicts of the first so many puzzles."""
    some = puzzles[:limit]
    return {**distributions(rate(some)), "conflicts": distribution(conflicts(some)), "n": len(some)}


def groups(path: Path, by: str | None, skip_bad: bool = False) -> dict[str, Grid]:
    """The puzzles of a data set's parts, or of a file by the values of a column."""
    if path.is_dir():
        card = json.loads((path / "card.json").read_text())
        plain_every = card["walk"]["plain_every"]
        parts = {}
        for split, entry in card["splits"].items():
            file = path / entry["file"]
            puzzles = load(file, skip_bad)
            seeds = np.array(column(file, "lineage", puzzles.lines), np.int64)
            plain = is_plain(seeds, plain_every)
            parts[f"{split} hard"] = from_tokens(puzzles.inputs[~plain])
            parts[f"{split} plain"] = from_tokens(puzzles.inputs[plain])
        return parts
    puzzles = load(path, skip_bad)
    names = column(path, by, puzzles.lines) if by else None
    if by and names is None:
        raise SystemExit(f"{path} has no column {by}")
    values = np.array(names or ["all"] * len(puzzles))
    return {str(value): from_tokens(puzzles.inputs[values == value]) for value in np.unique(values)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, help="puzzle file, or folder of a made data set")
    parser.add_argument("--by", help="column of the file that says the group")
    parser.add_argument("--limit", type=int, default=300, help="puzzles of each group")
    parser.add_argument("--skip-bad", action="store_true", help="leave out invalid puzzles")
    parser.add_argument("--card", action="store_true", help="write to the data set's card")
    args = parser.parse_args()
    parts = groups(args.path, args.by, args.skip_bad)
    held_out = {}
    with progress("rating", "groups") as update:
        for name, puzzles in parts.items():
            update(len(held_out), len(parts))
            held_out[name] = described(puzzles, args.limit)
    print(json.dumps(held_out, indent=1))
    if args.card:
        card = args.path / "card.json"
        write_json(card, {**json.loads(card.read_text()), "held_out": held_out})


if __name__ == "__main__":
    main()
