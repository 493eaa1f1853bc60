"""The commands on puzzle files."""

from trm_interp.cli.options import Command
from trm_interp.tasks.settings import (
    CheckConfig,
    DownloadConfig,
    ImportConfig,
    MakeConfig,
    RateConfig,
)

COMMANDS = [
    Command(
        name="data make",
        title="Puzzles",
        config=MakeConfig,
        target="trm_interp.tasks.making:run",
        doc="Generate training, validation and test puzzles, no two of them symmetric copies.",
        examples="""
        trm-interp data make sudoku6 --seed 0
        trm-interp data make sudoku9-hard --n-test 10000
        """,
        unit="puzzles",
        label="drawing",
    ),
    Command(
        name="data check",
        title="Puzzles",
        config=CheckConfig,
        target="trm_interp.tasks.checking:run",
        doc="""
        Prove that splits are disjoint: no copies, no one-clue-less neighbours, no lineage twice.

        Invalid and repeated puzzles, too, are listed with their lines, and end in exit status 2.
        One file is checked by itself.
        """,
        examples="""
        trm-interp data check artifacts/data/sudoku6/train.txt artifacts/data/sudoku6/test.txt
        """,
        unit="puzzles",
        label="comparing",
        has_json=True,
    ),
    Command(
        name="data import",
        title="Puzzles",
        config=ImportConfig,
        target="trm_interp.tasks.importing:run",
        doc="Check every puzzle of a file, its uniqueness included, and write plain lines.",
        examples="trm-interp data import sudoku-extreme/test.csv --out data/extreme/test.txt",
        unit="puzzles",
        label="solving",
    ),
    Command(
        name="data rate",
        title="Puzzles",
        config=RateConfig,
        target="trm_interp.tasks.rating:run",
        doc="Rate every puzzle: CSV to standard output, or with --json a list of objects.",
        examples="trm-interp data rate artifacts/data/sudoku6/test.txt > ratings.csv",
        unit="puzzles",
        label="rating",
        has_json=True,
    ),
    Command(
        name="data download",
        title="Puzzles",
        config=DownloadConfig,
        target="trm_interp.tasks.downloading:run",
        doc="Fetch a public data set, such as Sudoku-Extreme's CSV files, from where it is kept.",
        examples="trm-interp data download sudoku-extreme",
    ),
]
