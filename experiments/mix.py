"""One training file of many puzzles: a file as it stands, and symmetric copies of others.

    trm-interp data make sudoku9 --seed 7 --n-train 60000 --n-val 10 --n-test 10 --out data/base9
    python experiments/mix.py data/base9/train.txt data/extreme/train.csv \\
        artifacts/data/sudoku9-hard/train.csv --copies 10 --out data/mix9/train.txt

Training draws a fresh symmetric copy of every puzzle anyway; copies in the file only say how often
a harder puzzle is drawn. The order is shuffled. Prints what a card needs: shares and SHA-256.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import sha256_of, write_text
from trm_interp.subjects.opening import load_puzzles

BLOCK = 10**6  # numbers of the symmetries of one set of copies; no file has as many puzzles


def line(puzzle: list[int], solution: list[int]) -> str:
    """A puzzle and its solution as the text format has them, from tokens (1 is a blank).

    >>> line([1, 2, 3, 4], [5, 2, 3, 4])
    '.123,4123'
    """
    return ",".join(
        "".join("." if token == 1 else str(token - 1) for token in tokens)
        for tokens in (puzzle, solution)
    )


def copied(path: Path, copies: int, first: int, skip_bad: bool = False) -> list[str]:
    """Lines of symmetric copies of each puzzle, by the symmetries from number `first` on."""
    puzzles = load_puzzles(path, skip_bad)
    inputs, labels = torch.from_numpy(puzzles.inputs), torch.from_numpy(puzzles.labels)
    lines = []
    for copy in range(copies):
        keys = torch.arange(len(inputs)) + first + copy * BLOCK
        both = puzzles.task.augment(inputs, labels, keys)
        lines += [line(*pair) for pair in zip(*(one.tolist() for one in both), strict=True)]
    return lines


def mix(base: Path, others: list[Path], copies: int) -> dict[str, list[str]]:
    """Lines by file, the base first."""
    parts = {str(base): base.read_text(encoding="utf-8").split()}
    for i, path in enumerate(others):
        parts[str(path)] = copied(path, copies, (i * copies + 1) * BLOCK)
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", type=Path, help="puzzles that go in as they stand, .txt")
    parser.add_argument("others", type=Path, nargs="+", help="puzzles that go in as copies")
    parser.add_argument("--copies", type=int, default=10, help="of each puzzle of the others")
    parser.add_argument("--seed", type=int, default=0, help="of the order")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .txt")
    args = parser.parse_args()
    if args.out.exists():
        raise SystemExit(f"{args.out} exists: move it away, or name another --out")
    try:
        parts = mix(args.base, args.others, args.copies)
    except (OSError, UserError) as problem:
        raise SystemExit(str(problem)) from None
    lines = [one for part in parts.values() for one in part]
    np.random.default_rng(args.seed).shuffle(lines)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.out, "\n".join(lines) + "\n")
    for name, part in parts.items():
        print(f"{name}: {len(part)} lines, {len(part) / len(lines):.1%}")
    print(f"wrote {args.out}: {len(lines)} lines, SHA-256 {sha256_of(args.out)}")


if __name__ == "__main__":
    main()
