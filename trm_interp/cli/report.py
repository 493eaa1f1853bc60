"""The command that makes all figures and tables of the seed paper."""

from trm_interp.cli.options import Command
from trm_interp.report.settings import FiguresConfig

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
]
