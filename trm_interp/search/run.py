"""Search a file of puzzles: opened, checked, in blocks, resumable, by one process or several."""

from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import torch
from rich.table import Table

from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.core.ranks import Ranks
from trm_interp.core.when_compiled import compile_where_it_pays
from trm_interp.runtime.arrays import Arrays, columns_of
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import counted
from trm_interp.runtime.runs import quiet, silent
from trm_interp.runtime.shards import divided, noted, shard_ends
from trm_interp.search.engine import Trajectories, search
from trm_interp.search.noise import copies_for, require_symmetries, target_states
from trm_interp.search.output import Identity, SearchWork, earlier_compiled, read_table
from trm_interp.search.results import SearchSummary, curves_of, gained_of
from trm_interp.search.selection import outcome_frame, share_table
from trm_interp.search.settings import ALL_STATES, SearchConfig, SearchRun
from trm_interp.subjects.opening import open_both, open_device
from trm_interp.tasks.base import PuzzleSet

OF_TABLE_2 = (1, 2, 3, 5)  # steps from 1
HEADINGS = ("baseline", "best Q", "vote", "vote by Q", "pass@K", "verified")
BLOCK_BYTES = 128e6  # answers of one block


def run(
    config: SearchRun,
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = quiet,
) -> SearchSummary:
    """What the command `search` does."""
    return search_file(config, config.search, tell, progress)[1]


def lines(summary: SearchSummary) -> list[Table | str]:
    """What `search` prints: the table, what is gained, and what it cost."""
    return [search_table(summary), gain_line(summary), cost_line(summary)]


def search_table(summary: SearchSummary) -> Table:
    """Shares of the puzzles after every step, in per cent."""
    table = Table(
        title=f"{summary.ckpt} on {counted(summary.n, 'puzzle')} of {summary.puzzles}, %",
        caption="95 % Wilson intervals over puzzles",
    )
    for heading in ("step (from 1)", *HEADINGS):
        table.add_column(heading, justify="right")
    for step in range(summary.config.steps):
        cells = []
        for curve in summary.curves.values():
            share, low, high = (100 * part[step] for part in (curve.share, curve.low, curve.high))
            cells.append(f"{share:.1f} ({low:.0f}-{high:.0f})")
        table.add_row(str(step + 1), *cells)
    return table


def gain_line(summary: SearchSummary) -> str:
    """What best Q gains over the plain run at the steps of table 2 and at the last one."""
    steps = sorted({step for step in OF_TABLE_2 if step < summary.config.steps})
    steps.append(summary.config.steps)
    gains = [summary.gain[step - 1].text("+.1%") for step in steps]
    told = ", ".join(f"{gain} at step {step}" for gain, step in zip(gains, steps, strict=True))
    return f"best Q less baseline, of the same puzzles: {told}"


def cost_line(summary: SearchSummary) -> str:
    """Network evaluations, and their share of those of K trajectories that all run to the end."""
    spent, full = summary.evaluations, summary.evaluations_of_the_full_grid
    return (
        f"{spent:,} network evaluations, {spent / summary.n:,.0f} a puzzle; "
        f"{spent / full:.1%} of K {summary.config.k} x {summary.config.steps} steps"
    )


def search_file(
    run: SearchRun,
    config: SearchConfig,
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = quiet,
) -> tuple[pd.DataFrame, SearchSummary]:
    """The table (a row per puzzle and step, see `outcome_frame`) and its summary.

    The processes of a torchrun share the blocks of puzzles; all of them get the whole table.
    """
    device = open_device(run.device)
    ranks = Ranks(device)
    tell = silent if ranks.rank else tell
    try:
        checkpoint, puzzles = open_both(
            run.ckpt, run.puzzles, device, run.limit, run.skip_bad, tell
        )
        config = resolved(config, checkpoint, puzzles)
        earlier = earlier_compiled(run) if run.compile == "auto" else None
        steps, dtype = fewest_steps(config, len(puzzles)), getattr(torch, run.dtype)
        how = (checkpoint.model, run.compile, steps, dtype, tell, earlier)
        compiled = compile_where_it_pays(*how) if earlier is None else earlier
        noted(compiled=compiled)
        identity = Identity(
            checkpoint_sha256=checkpoint.sha256,
            data_sha256=dict(puzzles.sha256),
            search=asdict(config),
            batch_size=run.batch_size,
            device=device.type,
            dtype=run.dtype,
            limit=run.limit,
            skip_bad=run.skip_bad,
            compile=compiled,
        )
        with SearchWork.of(run, identity, team=ranks, tell=tell, progress=progress) as work:
            if run.out and work.finished:
                work.tell_complete()
                return read_table(run.out), work.finished.summary
            if earlier:  # not before it is clear that there is work left
                compile_where_it_pays(*how)
            table = _search_blocks(checkpoint, puzzles, config, work, ranks)
            summary = _summary(table, checkpoint, puzzles, run, config, device.type)
            work.finish(table, summary)
            ranks.objects(None)  # no process leaves before the table is written
    finally:
        ranks.close()
    return table, summary


def fewest_steps(config: SearchConfig, n_puzzles: int) -> int:
    """Supervision steps that the search takes at least, or if no trajectory ends early: an adaptive
    one may be done with a puzzle after its first."""
    return n_puzzles * config.steps * (1 if config.adaptive else config.k)


def resolved(config: SearchConfig, checkpoint: Checkpoint, puzzles: PuzzleSet) -> SearchConfig:
    """The settings with the role of a state replaced by its name.

    UserError if the model or the task lacks what they need: a state, a trained halting head,
    symmetries.
    """
    if config.uses_q and not checkpoint.model.halting_is_trained:
        raise UserError(
            f"{checkpoint.path}: no trained halting head (its weights are zero), "
            "so q says nothing: give --select vote and --stop never or rules"
        )
    if config.symmetry:
        require_symmetries(puzzles)
    if config.stop == "rules" and not puzzles.task.can_prove:
        raise UserError(
            f"the rules of {puzzles.task.title} prove no answer: give --stop never or q"
        )
    states = target_states(checkpoint.model, config.target)
    return config if config.target in ALL_STATES else replace(config, target=states[0])


def _search_blocks(
    checkpoint: Checkpoint,
    puzzles: PuzzleSet,
    config: SearchConfig,
    work: SearchWork,
    ranks: Ranks,
) -> pd.DataFrame:
    """All blocks: those of this process are searched or read, those of the others received."""
    run, total = work.run, len(puzzles)
    copies = copies_for(config, puzzles)
    size = block_puzzles(config, puzzles.task.cells, run.batch_size)
    starts = range(0, total, size)
    names = [f"block-{start:08d}.csv" for start in starts]
    if saved := work.n_saved(names):
        work.tell(f"resuming at block {saved} (from 0) of {len(starts)}")
    frames: list[pd.DataFrame] = []
    work.advance(0, total)
    mine = list(zip(starts, names, strict=True))[ranks.rank :: ranks.size]

    def compute(i: int) -> Arrays:
        block = block_at(mine[i][0])
        inputs, _, identifiers = block.tensors

        def progress(n: int) -> None:
            work.advance(min((i * size + n) * ranks.size, total), total)

        how = (config, run.batch_size, getattr(torch, run.dtype), progress, identifiers)
        own = None if copies is None else copies.at(rows_at(mine[i][0]))
        trajectories = search(checkpoint.model, block.task, inputs, *how, copies=own)
        return columns_of(block_table(trajectories, block, config))

    def rows_at(start: int) -> slice:
        return slice(start, start + size)

    def block_at(start: int) -> PuzzleSet:
        return puzzles.subset(rows_at(start))

    stems = [name.removesuffix(".csv") for _, name in mine]
    for (start, name), get in zip(mine, divided(stems, compute), strict=False):
        block = block_at(start)
        frames.append(work.block(name, block, config.steps, lambda get=get: pd.DataFrame(get())))
    shard_ends()
    everyone = ranks.objects(frames)
    order = [everyone[i % ranks.size][i // ranks.size] for i in range(len(starts))]
    work.advance(total, total)
    return pd.concat(order, ignore_index=True)


def block_puzzles(config: SearchConfig, cells: int, batch_size: int) -> int:
    """Puzzles of a block: four batches of them, or as many as their answers leave room for.

    >>> block_puzzles(SearchConfig(k=100, steps=64), cells=81, batch_size=128)
    230
    """
    bytes_each = (config.k + 1) * config.steps * (cells + 5)  # grids, logits and flags
    return max(1, min(4 * batch_size, int(BLOCK_BYTES // bytes_each)))


def block_table(
    trajectories: Trajectories, puzzles: PuzzleSet, config: SearchConfig
) -> pd.DataFrame:
    """`outcome_frame` with each puzzle's line and the grid that `--select` answers."""
    frame = outcome_frame(trajectories, puzzles.labels)
    at = frame["puzzle"], frame[f"chosen_{config.select}"], frame["step"]
    answers = trajectories.tokens[tuple(part.to_numpy() for part in at)]
    frame["puzzle"] = puzzles.lines[frame["puzzle"]]
    frame["answer"] = [puzzles.task.text(answer) for answer in answers]
    return frame.rename(columns={"puzzle": "line"})


def _summary(
    table: pd.DataFrame,
    checkpoint: Checkpoint,
    puzzles: PuzzleSet,
    run: SearchRun,
    config: SearchConfig,
    device: str,
) -> SearchSummary:
    """Shares as lists over steps, with what was searched and what it cost."""
    per_step = checkpoint.model.config.schedule.evaluations
    first = table["step"].to_numpy() == 0
    steps_run = int(np.asarray(table["steps_run"])[first].sum())
    return SearchSummary(
        ckpt=str(checkpoint.path),
        checkpoint_sha256=checkpoint.sha256,
        puzzles=puzzles.source,
        data_sha256=dict(puzzles.sha256),
        dtype=run.dtype,
        device=device,
        n=len(puzzles),
        config=config,
        **curves_of(share_table(table)),
        gained=gained_of(table),
        evaluations=steps_run * per_step,
        evaluations_of_the_full_grid=len(puzzles) * config.k * config.steps * per_step,
    )
