"""The commands that search."""

from trm_interp.cli.options import Command
from trm_interp.search.settings import SearchRun, SolveConfig

COMMANDS = [
    Command(
        name="search",
        title="Search",
        config=SearchRun,
        target="trm_interp.search.run:run",
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
        shards=True,
        team=True,
    ),
    Command(
        name="solve",
        title="Search",
        config=SolveConfig,
        target="trm_interp.search.solve:run",
        doc="""
        Solve puzzles: the board, the confidence, the cost, and whether the rules confirm it.

        Searches symmetric copies with noise until a grid obeys the rules, 32 trajectories unless
        --k says otherwise.
        """,
        examples="""
        trm-interp solve ".....5.1......1.26..35.1.6....5.2..."
        trm-interp solve puzzles.txt --json
        cat puzzles.txt | trm-interp solve - --trace
        """,
        unit="puzzles",
        label="solving",
        has_json=True,
    ),
]
