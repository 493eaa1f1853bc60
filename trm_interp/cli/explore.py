"""The command that opens the explorer."""

from trm_interp.cli.options import Command
from trm_interp.explore.settings import ExploreConfig

COMMANDS = [
    Command(
        name="explore",
        title="Models",
        config=ExploreConfig,
        target="trm_interp.explore.serving:run",
        doc="""
        Watch a model think in the browser, reach in, and see what changes.

        A local page with the board at every evaluation, curves, paths and forks. Nothing is
        fetched from a network; Ctrl-C ends it.
        """,
        examples="""
        trm-interp explore
        trm-interp explore --ckpt artifacts/trm-sudoku9 \\
            --puzzles artifacts/data/sudoku9/test.txt --limit 200 --port 8060
        """,
    ),
]
