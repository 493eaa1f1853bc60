"""Table 2 of the seed paper and what it leaves open: noisy search against one plain, deeper run.

    python experiments/table2_search.py                    # default checkpoint, two CPU cores
    python experiments/table2_search.py --ckpt artifacts/trm-sudoku-extreme
    python experiments/table2_search.py --quick --out runs/quick --tables runs/quick/tables

Parts, each kept in --out as soon as it is there (a second run goes on after the last one):
plain (which puzzles fail), paper and ptrm (table 2), ablation (when x target x sigma), depth
(breadth against depth at equal network evaluations), escape (failed puzzles, trajectory by
trajectory), rounding (what another batch size changes). No trajectory ends early in any of them,
so that all cost what is stated and none is kept from changing its mind. Figures go to --out with
the plotted numbers in --tables, PNGs of them too where there is a browser; log.md has the text for
LOG.md.
"""

import argparse
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from table2_log import log_entry
from table2_tables import (
    RATING,
    STEPS,
    Part,
    Sizes,
    ablation_table,
    calibration_table,
    depth_table,
    escape_table,
    frame_of,
    settings_of_ablation,
    splits_of,
    summary_of,
)

from trm_interp.figures.look import Look
from trm_interp.figures.search import (
    ablation_figure,
    breadth_depth_figure,
    calibration_figure,
    escape_figure,
    shares_figure,
)
from trm_interp.figures.style import write_html
from trm_interp.runtime.errors import UserError, in_one_line
from trm_interp.runtime.files import write_json, write_text
from trm_interp.runtime.progress import progress
from trm_interp.runtime.runs import Run
from trm_interp.search.engine import Trajectories, search
from trm_interp.search.selection import RULES, choose, outcome_frame, share_table
from trm_interp.search.settings import PRESETS, SearchConfig
from trm_interp.subjects.opening import open_both, open_device
from trm_interp.subjects.settings import default_checkpoint
from trm_interp.tasks.base import PuzzleSet

PAPER = {name: PRESETS["paper"][name] for name in ("sigma", "target", "when")}
OWN = ("identity.json", "*.npz", "*.html", "*.png", "*.pdf", "plotly.min.js", "log.md")
SHIPPED_PICTURES = ("table2", "breadth_depth", "escape")
PTRM = {name: PRESETS["ptrm"][name] for name in ("sigma", "target", "when")}


QUICK = Sizes(
    plain=24,
    table=10,
    k=4,
    k_ptrm=2,
    failed=2,
    solved=2,
    k_ablation=2,
    steps_ablation=3,
    sigmas=(0.1, 1.0),
    failed_depth=2,
    budget=16,
    draws=50,
)


class Bench:
    """A checkpoint and its puzzles, searched with the same settings by every part."""

    def __init__(self, args: argparse.Namespace, sizes: Sizes) -> None:
        self.sizes = sizes
        self.checkpoint, self.puzzles = open_both(
            args.ckpt, args.puzzles, open_device("auto"), sizes.plain, args.skip_bad
        )
        self.batch_size: int = args.batch_size
        self.dtype = getattr(torch, args.dtype)
        self.seed: int = args.seed
        self.identity = {
            "checkpoint_sha256": self.checkpoint.sha256,
            "data_sha256": dict(self.puzzles.sha256),
            "batch_size": args.batch_size,
            "dtype": args.dtype,
            "device": next(self.checkpoint.model.parameters()).device.type,
            "seed": args.seed,
            "sizes": asdict(sizes),
        }

    def search(
        self, puzzles: PuzzleSet, batch_size: int | None = None, **settings: Any
    ) -> Trajectories:
        config = SearchConfig(seed=self.seed, stop="never", **settings)
        with progress("searching", "puzzles") as update:
            return search(
                self.checkpoint.model,
                puzzles.task,
                torch.from_numpy(puzzles.inputs),
                config,
                batch_size or self.batch_size,
                self.dtype,
                lambda done: update(done, len(puzzles)),
            )


def results(trajectories: Trajectories, puzzles: PuzzleSet) -> Part:
    """What the tables need of a search."""
    frame = outcome_frame(trajectories, puzzles.labels)
    return {
        "q": trajectories.q,
        "solved": trajectories.solved(puzzles.labels),
        "ran": trajectories.ran,
        "columns": np.array(list(frame.columns)),
        "frame": frame.to_numpy(float),
        "lines": puzzles.lines,
    }


def plain(bench: Bench) -> Part:
    return results(bench.search(bench.puzzles, k=1, steps=STEPS, sigma=0.0), bench.puzzles)


def table_search(bench: Bench, k: int, **noise: Any) -> Part:
    puzzles = bench.puzzles.subset(slice(0, bench.sizes.table))
    return results(bench.search(puzzles, k=k, steps=STEPS, **noise), puzzles)


def ablation(bench: Bench, failed: np.ndarray, solved: np.ndarray) -> Part:
    """right [setting, puzzle, rule] at the last step: best-Q, votes, pass@K; failed ones first."""
    sizes = bench.sizes
    rows = np.concatenate([failed[: sizes.failed], solved[: sizes.solved]])
    puzzles = bench.puzzles.subset(rows)
    right = []
    for setting in settings_of_ablation(sizes):
        noise = {k: v for k, v in setting.items() if k != "kind" and v != "none"}
        searched = bench.search(puzzles, k=sizes.k_ablation, steps=sizes.steps_ablation, **noise)
        frame = outcome_frame(searched, puzzles.labels)
        last = frame[frame["step"] == sizes.steps_ablation - 1]
        right.append(np.asarray(last[[*RULES, "pass_at_k"]], bool))
    return {"right": np.stack(right), "n_failed": np.array(min(len(failed), sizes.failed))}


def depth(bench: Bench, failed: np.ndarray) -> Part:
    """For each split: best-Q and pass@k' of the first k' trajectories at every step."""
    puzzles = bench.puzzles.subset(failed[: bench.sizes.failed_depth])
    parts: Part = {}
    for k, steps in splits_of(bench.sizes.budget):
        searched = bench.search(puzzles, k=k, steps=steps, **PAPER)
        solved = searched.solved(puzzles.labels)
        for few in (2**i for i in range(k.bit_length())):
            at = choose(searched, few)["best_q"]
            best = np.take_along_axis(solved, at[:, None], axis=1)[:, 0]
            parts[f"{k}x{steps}/{few}/best_q"] = best
            parts[f"{k}x{steps}/{few}/pass_at_k"] = np.any(solved[:, :few], axis=1)
    return parts


def escape(bench: Bench, failed: np.ndarray) -> Part:
    """Failed puzzles beyond those of table 2, searched as there, and ratings of all of them."""
    rest = bench.puzzles.subset(failed[failed >= bench.sizes.table])
    ratings = bench.puzzles.task.rate(bench.puzzles.subset(failed))
    if not len(rest):
        return {**ratings, "solved": np.zeros((0, bench.sizes.k), bool)}
    searched = bench.search(rest, k=bench.sizes.k, steps=STEPS, **PAPER)
    return {**ratings, "solved": searched.solved(rest.labels)[..., -1]}


def rounding(bench: Bench, failed: np.ndarray, solved: np.ndarray) -> Part:
    """Tokens of the same trajectories in batches of two sizes."""
    n = max(2, bench.sizes.failed // 4)
    puzzles = bench.puzzles.subset(np.concatenate([failed[:n], solved[:n]]))
    how = {"k": 4, "steps": min(STEPS, 2 * bench.sizes.steps_ablation), **PAPER}
    one, other = (
        bench.search(puzzles, batch_size=size, **how).tokens
        for size in (bench.batch_size, max(1, bench.batch_size // 8))
    )
    settled = (one[:, :, -1] == one[:, :, -3]).all(-1)
    return {"changed": (one[:, :, -1] != other[:, :, -1]).any(-1), "settled": settled}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ckpt", type=Path, help="default: the checkpoint that ships")
    parser.add_argument("--puzzles", type=Path, help="default: the test puzzles of that size")
    parser.add_argument("--out", type=Path, help="default runs/table2-NAME")
    parser.add_argument(
        "--tables", type=Path, help="default artifacts/search-NAME; of a trial, in --out"
    )
    parser.add_argument("--batch-size", type=int, default=128, help="trajectories at once")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip-bad", action="store_true", help="leave out invalid puzzles")
    parser.add_argument("--overwrite", action="store_true", help="start over")
    parser.add_argument("--quick", action="store_true", help="a trial of a minute: no result")
    args = parser.parse_args()
    args.ckpt = args.ckpt or default_checkpoint()
    name = args.ckpt.name.removeprefix("trm-")
    args.out = args.out or Path("runs") / f"table2-{name}"
    shipped = Path("artifacts") / f"search-{name}"
    args.tables = args.tables or (args.out / "tables" if args.quick else shipped)
    with in_one_line():
        run(args)


def _is_older_run(folder: Path) -> bool:
    """Whether it was filled before there were markers."""
    return (folder / "identity.json").is_file() and (folder / "plain.npz").is_file()


def run(args: argparse.Namespace) -> None:
    """All parts, their tables, figures and the LOG entry."""
    bench = Bench(args, QUICK if args.quick else Sizes())
    with Run(
        args.out,
        "table2_search",
        OWN,
        identity=bench.identity,
        identity_file="identity.json",
        resume=not args.overwrite,
        overwrite=args.overwrite,
        unmarked=_is_older_run,
    ) as work:
        parts = compute(bench, work)
        tables = tables_of(bench, parts)
        ckpt, puzzles = str(bench.checkpoint.path), bench.puzzles.source
        summary = bench.identity | {"ckpt": ckpt, "puzzles": puzzles}
        summary |= summary_of(parts, tables, bench.sizes)
        for name, figure in figures_of(tables, args.ckpt.name).items():
            write_text(args.tables / f"{name}.csv", tables[name].to_csv(index=False))
            page = write_html(figure, args.out / f"{name}.html", Look(static=True))
            if page.with_suffix(".png").exists() and name in SHIPPED_PICTURES:
                shutil.copy(page.with_suffix(".png"), args.tables / f"{name}.png")
        write_json(args.tables / "summary.json", summary)
        entry = log_entry(bench.sizes, tables, summary)
        work.write_text("log.md", entry)
        print(entry)
    print(f"wrote {args.tables} and {args.out}")


def compute(bench: Bench, work: Run) -> dict[str, Part]:
    """The arrays of every part, with the `seconds` that they took when they were computed."""

    def part(name: str, make: Callable[[], Part]) -> Part:
        def timed() -> Part:
            began = time.monotonic()
            arrays = make()
            seconds = time.monotonic() - began
            print(f"{name}: {seconds:.0f} s", flush=True)
            return {"seconds": np.array(seconds), **arrays}

        return work.part(name, None, timed)

    parts = {"plain": part("plain", lambda: plain(bench))}
    failed, solved = failed_and_solved(parts["plain"])
    if len(failed) < 2 or len(solved) < 2:
        raise UserError(f"{len(failed)} puzzles fail and {len(solved)} do not: nothing to compare")
    todo: dict[str, Callable[[], Part]] = {
        "paper": lambda: table_search(bench, bench.sizes.k, **PAPER),
        "ptrm": lambda: table_search(bench, bench.sizes.k_ptrm, **PTRM),
        "ablation": lambda: ablation(bench, failed, solved),
        "depth": lambda: depth(bench, failed),
        "escape": lambda: escape(bench, failed),
        "rounding": lambda: rounding(bench, failed, solved),
    }
    return parts | {name: part(name, make) for name, make in todo.items()}


def failed_and_solved(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """The puzzles that the plain run fails, and the others."""
    last = part["solved"][:, 0, -1]
    return np.flatnonzero(~last), np.flatnonzero(last)


def tables_of(bench: Bench, parts: dict[str, Part]) -> dict[str, pd.DataFrame]:
    """The published tables by name."""
    sizes = bench.sizes
    failed, _ = failed_and_solved(parts["plain"])
    inside = failed[failed < sizes.table]
    escaping = np.concatenate([parts["paper"]["solved"][inside, :, -1], parts["escape"]["solved"]])
    escaping = escaping[:, 1:]  # without the plain run
    searches = {name: parts[name] for name in ("paper", "ptrm")}
    shares = [share_table(frame_of(p)).assign(search=name) for name, p in searches.items()]
    per_step = bench.checkpoint.model.config.schedule.evaluations
    return {
        "table2": pd.concat(shares),
        "ablation": ablation_table(parts["ablation"], sizes),
        "breadth_depth": depth_table(parts["depth"], per_step),
        "calibration": calibration_table(searches, sizes.draws),
        "escape": escape_table(bench.puzzles.lines[failed], escaping, parts["escape"]),
    }


def figures_of(tables: dict[str, pd.DataFrame], model: str) -> dict[str, go.Figure]:
    """A figure of every table."""
    return {
        "table2": shares_figure(tables["table2"], f"Search on {model}"),
        "ablation": ablation_figure(
            tables["ablation"].query("sigma > 0"), "Which noise recovers failed puzzles"
        ),
        "breadth_depth": breadth_depth_figure(
            tables["breadth_depth"], "Breadth against depth at equal network evaluations"
        ),
        "calibration": calibration_figure(tables["calibration"], "The halting head under noise"),
        "escape": escape_figure(tables["escape"], RATING, "How often noise leads out of a failure"),
    }


if __name__ == "__main__":
    main()
