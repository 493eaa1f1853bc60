"""`trm-interp eval`: how many puzzles a checkpoint has solved after every supervision step."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.table import Table

from trm_interp.core.processes import rank_and_size
from trm_interp.runtime.outputs import own_table
from trm_interp.runtime.runs import FileRun
from trm_interp.subjects.evaluate import COLUMNS, evaluate
from trm_interp.subjects.settings import EvalConfig


@dataclass(frozen=True)
class Accuracy:
    """`table`: a row a supervision step (`analysis.outcomes.outcome_table`); `summary`: the same as
    lists, with what was evaluated."""

    table: pd.DataFrame
    summary: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """What `trm-interp eval --json` prints."""
        return self.summary


def run(
    config: EvalConfig,
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Accuracy:
    """Evaluate the checkpoint; the table also goes to `config.csv`, where it is given.

    Of a torchrun the first process writes.
    """
    inputs = {"puzzles": config.puzzles, "ckpt": config.ckpt}
    is_first = rank_and_size()[0] == 0
    file = (
        FileRun(config.csv, "eval", own_table(COLUMNS), overwrite=config.overwrite, inputs=inputs)
        if config.csv and is_first
        else nullcontext()
    )
    with file as output:
        table, summary = evaluate(config, tell, progress)
        if output is not None:
            output.write_text(table.to_csv(index=False))
            tell(f"wrote {output.out}")
    return Accuracy(table, summary)


def lines(accuracy: Accuracy) -> list[Table]:
    """The table for people."""
    summary = accuracy.summary
    return [accuracy_table(accuracy.table, f"{summary['ckpt']} on {summary['puzzles']}")]


def accuracy_table(outcomes: pd.DataFrame, title: str) -> Table:
    """`analysis.outcomes.outcome_table` in per cent."""
    table = Table(title=title, caption="95 % Wilson intervals over puzzles; steps count from 1")
    for heading in ("step", "exact %", "ever solved %", "lost again %"):
        table.add_column(heading, justify="right")
    for row in outcomes.to_dict("records"):
        cells = [
            "-"
            if pd.isna(row[name])
            else f"{row[name]:6.1%} [{row[f'{name}_low']:.1%}, {row[f'{name}_high']:.1%}]"
            for name in ("exact", "ever", "unsolved")
        ]
        table.add_row(str(row["step"] + 1), *(cell.replace("%", "") for cell in cells))
    return table
