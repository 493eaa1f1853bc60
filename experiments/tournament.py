"""How near to forum-hardest do own puzzles come? Races with cloning, then a family of each winner.

    python experiments/tournament.py --races 4 --out runs/tournament
    python experiments/tournament.py --spread runs/tournament/winners.csv --family-lists 3000

For each race: core seconds, E, ratings and minisat conflicts (which no energy knows) of the winner,
and how many distinct puzzles a walk 10 below its E finds. Winners go to `winners.csv`. `--spread`
runs no race: families of the winners in a file, at several distances below their E.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from heldout import conflicts

from trm_interp.runtime.files import write_json, write_text
from trm_interp.runtime.progress import progress
from trm_interp.tasks.sudoku.dataset import load
from trm_interp.tasks.sudoku.forge.generate import stream
from trm_interp.tasks.sudoku.forge.rate import rate
from trm_interp.tasks.sudoku.forge.tournament import TOURNAMENT, Race, family, race
from trm_interp.tasks.sudoku.forge.walk import Walker, roam
from trm_interp.tasks.sudoku.grid import from_tokens, render

BELOW = 10  # how far a family may fall below the E of its start
DISTANCES = (10, 20, 40, 80)  # the same, of --spread
LOOKED_AT = 20  # puzzles of a family whose conflicts are counted


def measure(seed: int, rules: Race, lists: int, workers: int | None) -> dict[str, Any]:
    """One race and its family, with their cost."""
    began = time.process_time()
    with progress(f"race {seed}", "heats") as update:
        walks = race(seed, rules, workers=workers, progress=update)
    raced = time.process_time()
    best = walks[0]
    puzzles, _ = family(best, best.energy - BELOW, lists, seed)
    spread = time.process_time()
    winner = rate(best.puzzle[None])
    row: dict[str, Any] = {
        "seed": seed,
        "race_core_s": round(raced - began, 1),
        "E": round(best.energy, 1),
        "E_of_last_walks": [round(one.energy, 1) for one in walks],
        "effort": int(winner.effort[0]),
        "guesses_all": float(winner.guesses_all[0]),
        "clues": int(winner.clues[0]),
        "conflicts": int(conflicts(best.puzzle[None])[0]),
        "puzzle": render(best.puzzle),
        "solution": render(best.solution),
        "family": len(puzzles),
        "family_core_s": round(spread - raced, 1),
    }
    if len(puzzles):
        ratings = rate(puzzles[:200])
        row["family_effort_median"] = float(np.median(ratings.effort))
        row["family_conflicts_mean"] = round(float(conflicts(puzzles[:40]).mean()), 1)
    return row


def spread(file: Path, lists: int) -> None:
    """Families of all winners, one line a distance."""
    winners = load(file)
    for below in DISTANCES:
        began, sizes, efforts, counts = time.process_time(), [], [], []
        for seed, (puzzle, answer) in enumerate(
            zip(from_tokens(winners.inputs), from_tokens(winners.labels), strict=True)
        ):
            start = Walker(puzzle.copy(), answer.copy(), stream(np.uint64(seed), 0))
            roam(TOURNAMENT, start, lists=0)  # its E
            puzzles, _ = family(start, start.energy - below, lists, seed)
            sizes.append(len(puzzles))
            if len(puzzles):
                shown = puzzles[:: max(1, len(puzzles) // LOOKED_AT)][:LOOKED_AT]
                efforts += rate(shown).effort.tolist()
                counts += conflicts(shown).tolist()
        row = {
            "below": below,
            "winners": len(sizes),
            "core_s": round(time.process_time() - began, 1),
            "puzzles": int(np.sum(sizes)),
            "median_family": float(np.median(sizes)),
            "without": int((np.array(sizes) == 0).sum()),
            "effort_mean": round(float(np.mean(efforts)), 1) if efforts else None,
            "conflicts_mean": round(float(np.mean(counts)), 1) if counts else None,
        }
        print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--races", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=Race.heats[0], help="walks at the start")
    parser.add_argument("--lists", type=int, default=Race.lists, help="lists of a heat")
    parser.add_argument("--rounds", type=int, default=Race.rounds, help="rounds with cloning")
    parser.add_argument("--family-lists", type=int, default=300, help="lists of a family's walk")
    parser.add_argument("--workers", type=int, help="threads (default: all cores)")
    parser.add_argument("--out", type=Path, help="folder for races.json and winners.csv")
    parser.add_argument("--spread", type=Path, help="winners.csv of an earlier run: its families")
    args = parser.parse_args()
    if args.spread:
        spread(args.spread, args.family_lists)
        return
    rules = Race(heats=(args.start, *Race.heats[1:]), lists=args.lists, rounds=args.rounds)
    races = []
    for seed in range(args.first_seed, args.first_seed + args.races):
        races.append(measure(seed, rules, args.family_lists, args.workers))
        print(json.dumps(races[-1]), flush=True)
        if args.out:
            write_json(args.out / "races.json", races)
            lines = [f"{one['puzzle']},{one['solution']}" for one in races]
            write_text(args.out / "winners.csv", "\n".join(["question,answer", *lines]) + "\n")


if __name__ == "__main__":
    main()
