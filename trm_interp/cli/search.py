"""The commands that search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trm_interp.cli.options import Command, Shown
from trm_interp.search.settings import SearchRun, SolveConfig

if TYPE_CHECKING:
    from trm_interp.runtime.progress import Update
    from trm_interp.runtime.runs import Tell
    from trm_interp.search.solve import Solution

COMMANDS = [
    Command(
        name="search",
        title="Search",
        config=SearchRun,
        target="trm_interp.cli.search:search",
        doc="K trajectories a puzzle: best by Q, votes, pass@K and rule check, after every step.",
        examples="""
        trm-interp search --ckpt artifacts/trm-sudoku6 \\
            --puzzles artifacts/data/sudoku6/test.txt --limit 100 --out runs/search.csv
        trm-interp search --ckpt CKPT --puzzles FILE --preset paper --json
        trm-interp search --ckpt CKPT --puzzles FILE --preset ptrm --stop q --adaptive --json
        torchrun --nproc-per-node 8 -m trm_interp search --ckpt CKPT --puzzles FILE --out t.csv
        """,
        unit="puzzles",
        label="searching",
        has_json=True,
        says_out=True,
    ),
    Command(
        name="solve",
        title="Search",
        config=SolveConfig,
        target="trm_interp.cli.search:solve",
        doc="""
        Solve puzzles: the board, the confidence, the cost, and whether the rules confirm it.

        Searches symmetric copies with noise until a grid obeys the rules, 32 trajectories unless
        told otherwise.
        """,
        examples="""
        trm-interp solve ".....5.1......1.26..35.1.6....5.2..."
        trm-interp solve puzzles.txt --json
        cat puzzles.txt | trm-interp solve - --trace
        """,
        has_json=True,
    ),
]


def search(config: SearchRun, tell: Tell, progress: Update) -> Shown:
    """Search a file of puzzles."""
    from trm_interp.search.run import search_file
    from trm_interp.search.show import cost_line, search_table

    _, summary = search_file(config, config.search, tell, progress)
    return Shown(parts=[search_table(summary), cost_line(summary)], json=summary.to_json())


class _Board:
    """A solution as it is drawn."""

    def __init__(self, solution: Solution) -> None:
        self.solution = solution

    def show_on(self, console: Any) -> None:
        from trm_interp.search.show import show_solution

        show_solution(self.solution, console)


def solve(config: SolveConfig, tell: Tell, progress: Update) -> Shown:
    """Solve puzzles for a person."""
    from trm_interp.search.solve import solve as solutions_of

    solutions = solutions_of(config, config.search, tell)
    rows = [solution.to_json() for solution in solutions]
    return Shown(parts=list(map(_Board, solutions)), json={"n": len(rows), "puzzles": rows})
