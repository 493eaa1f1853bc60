"""The commands that make figures, tables and verdicts of the seed paper's claims."""

from trm_interp.cli.options import Command
from trm_interp.report.settings import CompareConfig, FiguresConfig

COMMANDS = [
    Command(
        name="figures",
        title="Studies",
        config=FiguresConfig,
        target="trm_interp.report.paper:run",
        doc="""
        Tables 1 and 2, figures 1 to 5 and the claims table: HTML and numbers, PNG, PDF.

        Every job is a command of its own, run in a folder of its own; the same command again goes
        on with what is missing.
        """,
        examples="""
        trm-interp figures --out runs/figures --plan
        trm-interp figures --ckpt artifacts/trm-sudoku9 --out runs/figures9
        trm-interp figures --out runs/figures --only fig3,table2 --scale 0.1
        """,
        unit="s",
        label="expected work",
    ),
    Command(
        name="compare",
        title="Studies",
        config=CompareConfig,
        target="trm_interp.report.compare:run",
        doc="""
        The claims of the seed paper on several checkpoints: effects, verdicts, and over all.

        Every study is a command of its own, run in a folder a subject; the same command again goes
        on with what is missing. Snapshots of one training run count as one checkpoint.
        """,
        examples="""
        trm-interp compare artifacts/trm-sudoku6 artifacts/trm-sudoku6-seed2 --out runs/compare
        trm-interp compare artifacts/trm-sudoku9 \\
            artifacts/trm-sudoku9@artifacts/data/sudoku9-hard/test.csv --out runs/nine --scale 0.1
        trm-interp compare runs/mine/kept/* --out runs/along --only F2,W1,W2
        """,
        unit="s",
        label="expected work",
    ),
]
