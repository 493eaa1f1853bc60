"""`trm-interp data check`: compare files as splits of one data set."""

from typing import Any

from trm_interp.runtime.limits import counted
from trm_interp.runtime.progress import Update
from trm_interp.runtime.runs import Tell, quiet
from trm_interp.tasks.registry import family_of_file
from trm_interp.tasks.settings import CheckConfig


def run(config: CheckConfig, tell: Tell = print, progress: Update = quiet) -> dict[str, Any]:
    """The report of `Task.check_splits`."""
    if len(config.files) == 1:
        file = config.files[0]
        tell(f"{file}: checked by itself; name two files or more to compare splits")
    return family_of_file(config.files[0]).check_splits(config.files, tell, progress)


def lines(report: dict[str, Any]) -> list[str]:
    """A line for every file and every pair; not every task knows neighbours and lineages."""
    lines = [
        f"{entry['file']}: {counted(entry['puzzles'], 'puzzle')}, "
        f"{counted(entry['invalid'], 'invalid line')}, {entry['repeated']} repeated"
        for entry in report["files"]
    ]
    for pair in report["pairs"]:
        shared = ["1 copy" if pair["copies"] == 1 else f"{pair['copies']} copies"]
        if "neighbours" in pair:
            shared.append(counted(pair["neighbours"], "neighbour"))
        if "lineages" in pair:
            n = pair["lineages"]
            shared.append("lineages unknown" if n is None else f"{counted(n, 'lineage')} in both")
        lines.append(f"{pair['files'][0]} and {pair['files'][1]}: {', '.join(shared)}")
    return lines


def fault(report: dict[str, Any]) -> str | None:
    """That the files are not disjoint or not valid, where that is so."""
    return None if report["clean"] else "these files are not clean splits of one data set"
