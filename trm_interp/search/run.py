"""Search a file of puzzles: opened, checked, in blocks, resumable, by one process or several."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.core.compiling import compile_network
from trm_interp.core.config import TRMConfig
from trm_interp.core.models.trm import TRM
from trm_interp.core.ranks import Ranks
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.outputs import by_the_first
from trm_interp.search.config import SearchConfig, SearchRun
from trm_interp.search.engine import Found, search
from trm_interp.search.output import (
    Identity,
    finish,
    output,
    read_block,
    read_table,
    write_block,
)
from trm_interp.search.selection import SHARES, outcome_frame, share_table
from trm_interp.subjects.opening import open_both, open_device
from trm_interp.tasks.base import PuzzleSet
from trm_interp.tasks.sudoku.grid import from_tokens, render

BLOCK_BYTES = 128e6  # answers of one block


def search_file(
    run: SearchRun,
    config: SearchConfig,
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table (a row per puzzle and step, see `outcome_frame`) and its summary.

    The processes of a torchrun share the blocks of puzzles; all of them get the whole table.
    """
    device = open_device(run.device)
    ranks = Ranks(device)
    if ranks.rank:
        tell, progress = (lambda line: None), (lambda done, of: None)
    checkpoint, puzzles = open_both(run.ckpt, run.puzzles, device, run.limit, run.skip_bad, tell)
    require_halting_head(checkpoint, config)
    identity = Identity(
        checkpoint_sha256=checkpoint.sha256,
        data_sha256=dict(puzzles.sha256),
        search=asdict(config),
        batch_size=run.batch_size,
        device=device.type,
        dtype=run.dtype,
        limit=run.limit,
        skip_bad=run.skip_bad,
        compile=run.compile,
    )
    try:
        with by_the_first(ranks, output(run, identity)) as (parts, done):
            if run.out and done:
                tell(f"{run.out} is complete")
                return read_table(run.out), done.summary
            if run.compile:
                compile_network(checkpoint.model.net, True, tell)
            table = _search_blocks(
                checkpoint.model, puzzles, run, config, parts, tell, progress, ranks
            )
            summary = _summary(table, checkpoint, puzzles, run, config, device.type)
            if run.out and ranks.rank == 0:
                finish(run.out, table, summary, identity)
            ranks.objects(None)  # nobody leaves before the table is there
    finally:
        ranks.close()
    return table, summary


def evaluations_per_step(config: TRMConfig) -> int:
    """Network evaluations of one supervision step.

    >>> evaluations_per_step(TRMConfig())
    21
    """
    return config.h_cycles * (config.l_cycles + 1)


def require_halting_head(checkpoint: Checkpoint, config: SearchConfig) -> None:
    """UserError where the search needs q_halt and the checkpoint's head gives every state one q."""
    head = checkpoint.model.q_head
    if config.uses_q and not bool(head.weight[0].any()):
        raise UserError(
            f"{checkpoint.path}: no trained halting head (its weights are zero), "
            "so q says nothing: give --select vote and --stop never or rules"
        )


def _search_blocks(
    model: TRM,
    puzzles: PuzzleSet,
    run: SearchRun,
    config: SearchConfig,
    parts: Path | None,
    tell: Callable[[str], None],
    progress: Callable[[int, int], None],
    ranks: Ranks,
) -> pd.DataFrame:
    """All blocks: those of this process are searched or read, those of the others received."""
    size = block_puzzles(config, puzzles.task.cells, run.batch_size)
    starts = range(0, len(puzzles), size)
    files = [parts / f"block-{start:08d}.csv" if parts else None for start in starts]
    if known := sum(file is not None and file.exists() for file in files):
        tell(f"resuming at block {known} of {len(starts)}")
    frames: list[pd.DataFrame] = []
    total = len(puzzles)
    progress(0, total)
    for start, file in list(zip(starts, files, strict=True))[ranks.rank :: ranks.size]:
        block = puzzles.subset(slice(start, start + size))
        frame = read_block(file, block, config.steps) if file else None
        if frame is None:
            if file and file.exists():
                tell(f"{file} is damaged: searching its puzzles again")

            def done(n: int, before: int = ranks.size * sum(_lengths(frames))) -> None:
                progress(min(before + n * ranks.size, total), total)

            dtype = getattr(torch, run.dtype)
            inputs = torch.from_numpy(block.inputs)
            found = search(model, inputs, config, run.batch_size, dtype, done)
            frame = block_table(found, block, config)
            if run.out and file:
                write_block(run.out, file, frame)
                frame = read_table(file)  # as a resumed run reads it
        frames.append(frame)
    everyone = ranks.objects(frames)
    order = [everyone[i % ranks.size][i // ranks.size] for i in range(len(starts))]
    progress(total, total)
    return pd.concat(order, ignore_index=True)


def _lengths(frames: list[pd.DataFrame]) -> list[int]:
    return [len(np.unique(frame["line"])) for frame in frames]


def block_puzzles(config: SearchConfig, cells: int, batch_size: int) -> int:
    """Puzzles of a block: four batches of them, or as many as their answers leave room for.

    >>> block_puzzles(SearchConfig(k=100, steps=64), cells=81, batch_size=128)
    230
    """
    bytes_each = (config.k + 1) * config.steps * (cells + 5)
    return max(1, min(4 * batch_size, int(BLOCK_BYTES // bytes_each)))


def block_table(found: Found, puzzles: PuzzleSet, config: SearchConfig) -> pd.DataFrame:
    """`outcome_frame` with each puzzle's line and the grid that `--select` answers."""
    frame = outcome_frame(found, puzzles.labels)
    at = frame["puzzle"], frame[f"chosen_{config.select}"], frame["step"]
    grids = from_tokens(found.tokens[tuple(part.to_numpy() for part in at)])
    frame["puzzle"] = puzzles.lines[frame["puzzle"]]
    frame["answer"] = [render(grid) for grid in grids]
    return frame.rename(columns={"puzzle": "line"})


def _summary(
    table: pd.DataFrame,
    checkpoint: Checkpoint,
    puzzles: PuzzleSet,
    run: SearchRun,
    config: SearchConfig,
    device: str,
) -> dict[str, Any]:
    """Shares as lists over steps, with what was searched and what it cost."""
    shares = share_table(table)
    per_step = evaluations_per_step(checkpoint.model.config)
    first = table["step"].to_numpy() == 0
    steps_run = int(np.asarray(table["steps_run"])[first].sum())
    names = [f"{name}{end}" for name in SHARES for end in ("", "_low", "_high")]
    return {
        "ckpt": str(checkpoint.path),
        "checkpoint_sha256": checkpoint.sha256,
        "puzzles": puzzles.source,
        "data_sha256": dict(puzzles.sha256),
        "dtype": run.dtype,
        "device": device,
        "n": len(puzzles),
        **asdict(config),
        **{name: shares[name].tolist() for name in names},
        "evaluations": steps_run * per_step,
        "evaluations_of_the_full_grid": len(puzzles) * config.k * config.steps * per_step,
    }
