"""`trm-interp eval`: how many puzzles a checkpoint has solved after every supervision step."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.table import Table

from trm_interp.analysis.outcomes import outcome_table
from trm_interp.core.infer import Readouts
from trm_interp.core.processes import rank_and_size
from trm_interp.core.ranks import Ranks
from trm_interp.core.when_compiled import compile_where_it_pays
from trm_interp.runtime.file_run import FileRun
from trm_interp.runtime.limits import require_memory
from trm_interp.runtime.outputs import own_table
from trm_interp.runtime.shards import is_shard, noted
from trm_interp.subjects import equilibria
from trm_interp.subjects.evaluate import solve
from trm_interp.subjects.identifiers import with_identifiers
from trm_interp.subjects.opening import open_both, open_device
from trm_interp.subjects.settings import EvalConfig
from trm_interp.tasks.base import PuzzleSet

COLUMNS = tuple(outcome_table(np.zeros((1, 1), bool)).columns)
EARLIER = tuple(name.replace("lost_again", "unsolved") for name in COLUMNS)  # of earlier versions


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
        FileRun(
            config.csv,
            "eval",
            own_table(COLUMNS, EARLIER),
            overwrite=config.overwrite,
            inputs=inputs,
        )
        if config.csv and is_first
        else nullcontext()
    )
    with file as output:
        table, summary = evaluate(config, tell, progress)
        if output is not None:
            output.write_text(table.to_csv(index=False))
            tell(f"wrote {output.out}")
    return Accuracy(table, summary)


def evaluate(
    config: EvalConfig,
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table of `outcome_table`, and the same as lists over steps with what was evaluated.

    The processes of a torchrun share the batches; all of them get the whole table.
    """
    device = open_device(config.device)
    ranks = Ranks(device)
    if ranks.rank:
        tell, progress = (lambda line: None), (lambda done, of: None)
    checkpoint, puzzles = open_both(
        config.ckpt, config.puzzles, device, config.limit, config.skip_bad, tell
    )
    puzzles = with_identifiers(puzzles, config.identifiers, checkpoint.model.config)
    n, cells = len(puzzles), puzzles.task.cells
    answers = n * config.steps * (cells + 9)  # grids, two numbers and a flag
    answers *= not is_shard()  # which keeps none
    require_memory(2 * answers, f"{config.steps} steps of {n} puzzles", "lower --steps or --limit")
    dtype = getattr(torch, config.dtype)
    try:
        compiled = compile_where_it_pays(
            checkpoint.model, config.compile, n * config.steps, dtype, tell
        )
        noted(compiled=compiled)
        how = (config.steps, config.batch_size, dtype, progress, ranks)
        read = solve(checkpoint.model, puzzles, *how, stage="solved")
    finally:
        ranks.close()
    table = outcome_table(read.solved.numpy())
    summary = {
        "ckpt": str(checkpoint.path),
        "checkpoint_sha256": checkpoint.sha256,
        "puzzles": puzzles.source,
        "dtype": config.dtype,
        "compiled": compiled,
        "device": device.type,
        **summarise(table, read, puzzles),
    }
    if config.identifiers != "true":
        summary["identifiers"] = config.identifiers
    if further := further_scores(read, puzzles):
        summary["further_scores_at_step"] = further
    if found := equilibria.convergence(checkpoint.model, read.residual, puzzles.lines):
        summary["fixed_points"] = found
    return table, summary


def further_scores(read: Readouts, puzzles: PuzzleSet) -> dict[str, list[float]]:
    """What the task's benchmark counts, by name: a share for every supervision step."""
    by_name: dict[str, list[float]] = {}
    for step in range(read.q_halt.shape[1]):
        answers, q_halt = read.tokens[:, step].numpy(), read.q_halt[:, step].numpy()
        for name, share in puzzles.task.further_scores(puzzles, answers, q_halt).items():
            by_name.setdefault(name, []).append(share)
    return by_name


def summarise(table: pd.DataFrame, read: Readouts, puzzles: PuzzleSet) -> dict[str, Any]:
    """The outcome table as lists over steps, with which puzzles they are of."""
    return {
        "n": len(puzzles),
        "data_sha256": dict(puzzles.sha256),
        "exact_at_step": table["exact"].tolist(),
        "exact_low": table["exact_low"].tolist(),
        "exact_high": table["exact_high"].tolist(),
        "ever_solved_by": table["ever"].tolist(),
        "lost_again_at_step": [None if pd.isna(v) else v for v in table["lost_again"]],
        "halted": float((read.halt_step >= 0).double().mean()),
    }


def lines(accuracy: Accuracy) -> list[Table | str]:
    """The table for people; what did not converge of a model that solves for fixed points."""
    summary = accuracy.summary
    title = f"{summary['ckpt']} on {summary['puzzles']}"
    if which := summary.get("identifiers"):
        title += f", {which} identifiers"
    tables = [accuracy_table(accuracy.table, title)]
    if further := summary.get("further_scores_at_step"):
        tables.append(scores_table({"exact": summary["exact_at_step"], **further}))
    found = summary.get("fixed_points")
    return [*tables, *([equilibria.line(found, summary["n"])] if found else [])]


def scores_table(shares: Mapping[str, Sequence[float]]) -> Table:
    """Shares by name, one for every supervision step, in per cent."""
    table = Table(caption="as the task's benchmark counts")
    for heading in ("step (from 1)", *(f"{name} %" for name in shares)):
        table.add_column(heading, justify="right")
    for step, row in enumerate(zip(*shares.values(), strict=True), start=1):
        table.add_row(str(step), *(f"{100 * share:.1f}" for share in row))
    return table


def accuracy_table(outcomes: pd.DataFrame, title: str) -> Table:
    """`analysis.outcomes.outcome_table` in per cent."""
    table = Table(title=title, caption="95 % Wilson intervals over puzzles")
    for heading in ("step (from 1)", "exact %", "ever solved %", "lost again %"):
        table.add_column(heading, justify="right")
    for row in outcomes.to_dict("records"):
        cells = [
            "-"
            if pd.isna(row[name])
            else f"{row[name]:6.1%} [{row[f'{name}_low']:.1%}, {row[f'{name}_high']:.1%}]"
            for name in ("exact", "ever", "lost_again")
        ]
        table.add_row(str(row["step"] + 1), *(cell.replace("%", "") for cell in cells))
    return table
