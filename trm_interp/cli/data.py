"""The commands on puzzle files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trm_interp.cli.options import Command, Shown
from trm_interp.runtime.errors import UserError
from trm_interp.tasks.settings import (
    CheckConfig,
    DownloadConfig,
    ImportConfig,
    MakeConfig,
    RateConfig,
)

if TYPE_CHECKING:
    from trm_interp.runtime.progress import Update
    from trm_interp.runtime.runs import Tell
    from trm_interp.tasks.base import Task

COMMANDS = [
    Command(
        name="data make",
        title="Puzzles",
        config=MakeConfig,
        target="trm_interp.cli.data:make",
        doc="Generate training, validation and test puzzles, no two of them symmetric copies.",
        examples="""
        trm-interp data make sudoku6 --seed 0
        trm-interp data make sudoku9-hard --test 10000
        """,
        unit="puzzles",
        label="drawing",
    ),
    Command(
        name="data check",
        title="Puzzles",
        config=CheckConfig,
        target="trm_interp.cli.data:check",
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
        target="trm_interp.cli.data:import_puzzles",
        doc="Check every puzzle of a file, its uniqueness included, and write plain lines.",
        examples="trm-interp data import sudoku-extreme/test.csv --out data/extreme/test.txt",
        unit="puzzles",
        label="solving",
    ),
    Command(
        name="data rate",
        title="Puzzles",
        config=RateConfig,
        target="trm_interp.cli.data:rate",
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
        target="trm_interp.cli.data:download",
        doc="Fetch a public data set, such as Sudoku-Extreme's CSV files, from where it is kept.",
        examples="trm-interp data download sudoku-extreme",
    ),
]


def make(config: MakeConfig, tell: Tell, progress: Update) -> Shown:
    """Make a data set."""
    from trm_interp.tasks.registry import presets

    card = _family(presets(), config.preset, "preset").make(
        config.preset,
        config.folder,
        config.seed,
        config.overwrite,
        progress,
        config.sizes,
        config.resume,
        config.workers,
    )
    files = [
        f"wrote {config.folder / entry['file']} ({card[split]} puzzles)"
        for split, entry in card["splits"].items()
    ]
    return Shown(parts=[*files, f"wrote {config.folder / 'card.json'}"])


def check(config: CheckConfig, tell: Tell, progress: Update) -> Shown:
    """Compare files as splits of one data set."""
    from trm_interp.cli.tables import check_lines
    from trm_interp.tasks.registry import family_of_file

    if len(config.files) == 1:
        file = config.files[0]
        tell(f"{file}: checked by itself; name two files or more to compare splits")
    report = family_of_file(config.files[0]).check_splits(config.files, tell, progress)
    fault = None if report["clean"] else "these files are no clean splits of one data set"
    return Shown(parts=check_lines(report), json=report, fault=fault)


def import_puzzles(config: ImportConfig, tell: Tell, progress: Update) -> Shown:
    """Write the puzzles of any file as plain lines."""
    from trm_interp.tasks.registry import family_of_file

    card = family_of_file(config.source).import_file(
        config.source, config.out, config.skip_bad, config.overwrite, progress
    )
    for line in card["skipped"]:
        tell(f"skipped {line}")
    card_file = config.out.with_suffix(".json")
    return Shown(parts=[f"wrote {config.out} ({card['n']} puzzles) and {card_file}"])


def rate(config: RateConfig, tell: Tell, progress: Update) -> Shown:
    """Rate the puzzles of a file."""
    import json

    from trm_interp.cli.tables import ratings

    table, skipped = ratings(config.source, config.seed, config.skip_bad, progress)
    for line in skipped:
        tell(f"skipped {line}")
    return Shown(
        parts=[table.to_csv(index=False).rstrip("\n")],
        json=json.loads(table.to_json(orient="records") or "[]"),
    )


def download(config: DownloadConfig, tell: Tell, progress: Update) -> Shown:
    """Fetch a data set."""
    from trm_interp.tasks.registry import downloads

    family = _family(downloads(), config.name, "data set to download")
    return Shown(parts=[f"wrote {path}" for path in family.download(config.name, config.folder)])


def _family(named: dict[str, type[Task]], name: str, kind: str) -> type[Task]:
    """Whose preset or public data set this is."""
    if name not in named:
        raise UserError(f"no {kind} {name!r}; there are {', '.join(named)}")
    return named[name]
