"""Search a file of puzzles: opened, checked, in blocks, resumable, by one process or several."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from trm_interp.core.checkpoint import Checkpoint
from trm_interp.core.compiling import compile_network
from trm_interp.core.config import TRMConfig
from trm_interp.core.model import TRM
from trm_interp.core.ranks import Ranks
from trm_interp.errors import UserError
from trm_interp.files import replacing, write_json, write_text
from trm_interp.provenance import git_commit, versions
from trm_interp.search.config import SearchConfig, SearchRun
from trm_interp.search.engine import Found, search
from trm_interp.search.selection import SHARES, outcome_frame, share_table
from trm_interp.sources import open_both, open_device
from trm_interp.tasks.sudoku.dataset import PuzzleSet
from trm_interp.tasks.sudoku.grid import from_tokens, render

BLOCK_BYTES = 128e6  # answers of one block
IDENTITY = "identity.json"


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
    identity = {
        "checkpoint_sha256": checkpoint.sha256,
        "data_sha256": dict(puzzles.sha256),
        "search": asdict(config),
        "batch_size": run.batch_size,
        "device": device.type,
        "dtype": run.dtype,
        "limit": run.limit,
        "skip_bad": run.skip_bad,
        "compile": run.compile,
    }
    try:
        parts, whole = _open_together(run, identity, ranks)
        if whole:
            tell(f"{run.out} is complete")
            return read_table(whole), json.loads(beside(whole).read_text())["summary"]
        if run.compile:
            compile_network(checkpoint.model.net, True, tell)
        table = _search_blocks(checkpoint.model, puzzles, run, config, parts, tell, progress, ranks)
        summary = _summary(table, checkpoint, puzzles, run, config, device.type)
        if run.out and parts and ranks.rank == 0:
            write_table(run.out, table)
            made = {"versions": versions(), "git_commit": git_commit()}
            write_json(beside(run.out), {"summary": summary, "identity": identity, **made})
            shutil.rmtree(parts)
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
    size = block_puzzles(config, puzzles.shape.cells, run.batch_size)
    starts = range(0, len(puzzles), size)
    files = [parts / f"block-{start:08d}.csv" if parts else None for start in starts]
    known = sum(file is not None and file.exists() for file in files)
    if known:
        tell(f"resuming at block {known} of {len(starts)}")
    frames: list[pd.DataFrame] = []
    total = len(puzzles)
    progress(0, total)
    for start, file in list(zip(starts, files, strict=True))[ranks.rank :: ranks.size]:
        if file is None or not file.exists():
            block = puzzles.subset(slice(start, start + size))

            def done(n: int, before: int = ranks.size * sum(_lengths(frames))) -> None:
                progress(min(before + n * ranks.size, total), total)

            dtype = getattr(torch, run.dtype)
            inputs = torch.from_numpy(block.inputs)
            found = search(model, inputs, config, run.batch_size, dtype, done)
            frame = block_table(found, block, config)
            if file is None:
                frames.append(frame)
                continue
            write_text(file, frame.to_csv(index=False))
        frames.append(read_table(file))
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


# files


def beside(out: Path) -> Path:
    """Summary, settings and versions of a table."""
    return out.with_suffix(".json")


def write_table(out: Path, table: pd.DataFrame) -> None:
    with replacing(out) as to:
        if out.suffix == ".csv":
            table.to_csv(to, index=False)
            return
        try:
            table.to_parquet(to, index=False)
        except ImportError:
            raise UserError(
                f"{out}: parquet needs 'pip install pyarrow'; then the same command with --resume"
            ) from None


def read_table(out: Path) -> pd.DataFrame:
    if out.suffix == ".parquet":
        return pd.read_parquet(out)
    return pd.read_csv(out, dtype={"answer": str})


Opened = tuple[Path | None, Path | None]  # folder of finished blocks; the table, if complete


def _open_together(run: SearchRun, identity: dict[str, Any], ranks: Ranks) -> Opened:
    """What the first process finds, or its error, for all of them."""
    mine: Opened | UserError | None = None
    if ranks.rank == 0:
        try:
            mine = _open_output(run, identity)
        except UserError as error:
            mine = error
    opened = ranks.objects(mine)[0]
    if isinstance(opened, UserError):
        raise opened
    return opened


def _open_output(run: SearchRun, identity: dict[str, Any]) -> Opened:
    if run.out is None:
        return None, None
    parts = run.out.with_name(run.out.name + ".parts")
    if run.resume and run.out.exists() and beside(run.out).exists():
        there = json.loads(beside(run.out).read_text())["identity"]
        _require_same(beside(run.out), there, identity)
        shutil.rmtree(parts, ignore_errors=True)  # of a run that was killed at its very end
        return None, run.out
    if run.resume and (parts / IDENTITY).exists():
        _require_same(parts, json.loads((parts / IDENTITY).read_text()), identity)
        return parts, None
    fresh = run.overwrite or (run.resume and not run.out.exists())  # killed before its first block
    if not fresh and (run.out.exists() or parts.exists()):
        place = run.out if run.out.exists() else parts
        raise UserError(f"{place} exists: use --resume to go on or --overwrite to start anew")
    if parts.exists():
        shutil.rmtree(parts)
    for old in (run.out, beside(run.out)):
        old.unlink(missing_ok=True)
    write_json(parts / IDENTITY, identity)
    return parts, None


def _require_same(place: Path, there: dict[str, Any], now: dict[str, Any]) -> None:
    """UserError that names the first setting in which the runs differ."""
    flat_there, flat_now = ({**d, **d["search"]} for d in (there, now))
    for name, value in flat_now.items():
        if name != "search" and flat_there.get(name) != value:
            raise UserError(
                f"{place}: {name} is {flat_there.get(name)} there and {value} now; "
                "give the same settings, or --overwrite to start anew"
            )
