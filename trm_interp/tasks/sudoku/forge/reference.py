"""Ratings of well-known puzzle lists, to compare with those of our own puzzles on a card.

The lists belong to their collectors and are not here; only these numbers are, measured with
`experiments/heldout.py FILE --by source --limit 700` on puzzles that a random symmetry scrambled.
`conflicts` are minisat's, which no energy and no rating knows.
"""

from typing import Any

LISTS: dict[str, dict[str, Any]] = {
    "clue17": {
        "n": 200,
        "clues": {"mean": 17, "p10": 17, "p50": 17, "p90": 17, "p95": 17, "p99": 17},
        "guesses_first": {"mean": 0.41, "p10": 0, "p50": 0, "p90": 1, "p95": 2, "p99": 3.01},
        "guesses_all": {"mean": 0.6, "p10": 0, "p50": 0, "p90": 1.38, "p95": 2.27, "p99": 4.5},
        "effort": {"mean": 0.2, "p10": 0, "p50": 0, "p90": 1, "p95": 1, "p99": 2},
        "conflicts": {"mean": 2.53, "p10": 0, "p50": 1, "p90": 7, "p95": 9, "p99": 13},
    },
    "random_minimal": {
        "n": 700,
        "clues": {"mean": 24.32, "p10": 23, "p50": 24, "p90": 26, "p95": 26, "p99": 27},
        "guesses_first": {"mean": 0.81, "p10": 0, "p50": 0, "p90": 2, "p95": 3.05, "p99": 6},
        "guesses_all": {"mean": 0.96, "p10": 0, "p50": 0, "p90": 2.88, "p95": 4.38, "p99": 7.5},
        "effort": {"mean": 0.54, "p10": 0, "p50": 0, "p90": 2, "p95": 2, "p99": 3},
        "conflicts": {"mean": 2.59, "p10": 0, "p50": 2, "p90": 7, "p95": 8.05, "p99": 15},
    },
    "magictour_top1465": {
        "n": 700,
        "clues": {"mean": 22.11, "p10": 18, "p50": 23, "p90": 25, "p95": 25, "p99": 26},
        "guesses_first": {"mean": 5.88, "p10": 1, "p50": 4, "p90": 12, "p95": 16, "p99": 33},
        "guesses_all": {"mean": 9.16, "p10": 1, "p50": 6.5, "p90": 16.9, "p95": 24.51, "p99": 47.9},
        "effort": {"mean": 3.01, "p10": 1, "p50": 3, "p90": 6, "p95": 7, "p99": 9},
        "conflicts": {"mean": 18.49, "p10": 8, "p50": 17, "p90": 29, "p95": 37, "p99": 53.02},
    },
    "forum_hardest_11plus": {
        "n": 700,
        "clues": {"mean": 23.62, "p10": 22, "p50": 24, "p90": 25, "p95": 26, "p99": 26},
        "guesses_first": {
            "mean": 33.25,
            "p10": 8.9,
            "p50": 28,
            "p90": 65,
            "p95": 77,
            "p99": 114.05,
        },
        "guesses_all": {
            "mean": 60.64,
            "p10": 32.99,
            "p50": 54.44,
            "p90": 93.88,
            "p95": 109.43,
            "p99": 158.29,
        },
        "effort": {"mean": 40.55, "p10": 24, "p50": 38, "p90": 61, "p95": 67.05, "p99": 90.01},
        "conflicts": {"mean": 85.67, "p10": 48, "p50": 81, "p90": 132, "p95": 147.05, "p99": 177},
    },
}

# guesses until the first solution, single run: comparable to `guesses_first`
PUBLISHED: dict[str, Any] = {
    "what": "rating of the test split of Sudoku-Extreme as published, about (sources differ)",
    "mean": 22,
    "p90": [49, 51],
    "p95": 64,
    "p99": [100, 104],
}
