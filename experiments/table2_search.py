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
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from table2_tables import (
    RATING,
    SHOWN_STEPS,
    STEPS,
    Sizes,
    ablation_table,
    calibration_table,
    correlation,
    depth_table,
    difference,
    escape_table,
    frame_of,
    log_entry,
    misses,
    settings_of_ablation,
    splits_of,
)

from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.figures.search import (
    ablation_figure,
    breadth_depth_figure,
    calibration_figure,
    escape_figure,
    shares_figure,
)
from trm_interp.figures.style import write_html
from trm_interp.runtime.errors import UserError, in_one_line
from trm_interp.runtime.files import replacing, write_json, write_text
from trm_interp.runtime.outputs import writing
from trm_interp.runtime.parts import DAMAGED
from trm_interp.runtime.progress import progress
from trm_interp.runtime.schema import read_json
from trm_interp.search.config import PRESETS, SearchConfig
from trm_interp.search.engine import Trajectories, search
from trm_interp.search.selection import RULES, choose, outcome_frame, share_table
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
    """A checkpoint, its puzzles, and parts that are computed once and kept in a folder."""

    def __init__(self, args: argparse.Namespace, sizes: Sizes) -> None:
        self.out: Path = args.out
        self.sizes = sizes
        self.checkpoint: Checkpoint
        self.checkpoint, self.puzzles = open_both(
            args.ckpt, args.puzzles, open_device("auto"), sizes.plain
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
            "sizes": json.loads(json.dumps(asdict(sizes))),
        }
        known = self.out / "identity.json"
        if known.exists() and read_json(known, dict[str, Any]) != self.identity:
            raise UserError(f"{known} is of other settings: choose another --out")
        write_json(known, self.identity)

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

    def part(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, np.ndarray]:
        """Arrays of a part: from the folder, or computed and kept there with their time."""
        file = self.out / f"{name}.npz"
        try:
            with np.load(file) as kept:
                return dict(kept)
        except FileNotFoundError:
            pass
        except DAMAGED:
            print(f"{file} is damaged: computing it again", flush=True)
        began = time.monotonic()
        arrays = make()
        took = time.monotonic() - began
        with replacing(file) as to, to.open("wb") as stream:
            np.savez_compressed(stream, seconds=took, **arrays)
        print(f"{name}: {took:.0f} s", flush=True)
        with np.load(file) as kept:
            return dict(kept)


def results(found: Trajectories, puzzles: PuzzleSet) -> dict[str, np.ndarray]:
    """What the tables need of a search."""
    frame = outcome_frame(found, puzzles.labels)
    return {
        "q": found.q,
        "solved": found.solved(puzzles.labels),
        "ran": found.ran,
        "columns": np.array(list(frame.columns)),
        "frame": frame.to_numpy(float),
        "lines": puzzles.lines,
    }


def plain(bench: Bench) -> dict[str, Any]:
    found = bench.search(bench.puzzles, k=1, steps=STEPS, sigma=0.0)
    return results(found, bench.puzzles)


def table_search(bench: Bench, k: int, **noise: Any) -> dict[str, Any]:
    puzzles = bench.puzzles.subset(slice(0, bench.sizes.table))
    return results(bench.search(puzzles, k=k, steps=STEPS, **noise), puzzles)


def ablation(bench: Bench, failed: np.ndarray, solved: np.ndarray) -> dict[str, Any]:
    """right [setting, puzzle, rule] at the last step: best-Q, votes, pass@K; failed ones first."""
    sizes = bench.sizes
    rows = np.concatenate([failed[: sizes.failed], solved[: sizes.solved]])
    puzzles = bench.puzzles.subset(rows)
    right = []
    for setting in settings_of_ablation(sizes):
        noise = {k: v for k, v in setting.items() if k != "kind" and v != "none"}
        found = bench.search(puzzles, k=sizes.k_ablation, steps=sizes.steps_ablation, **noise)
        frame = outcome_frame(found, puzzles.labels)
        last = frame[frame["step"] == sizes.steps_ablation - 1]
        right.append(np.asarray(last[[*RULES, "pass_at_k"]], bool))
    return {"right": np.stack(right), "n_failed": min(len(failed), sizes.failed)}


def depth(bench: Bench, failed: np.ndarray) -> dict[str, Any]:
    """For each split: best-Q and pass@k' of the first k' trajectories at every step."""
    puzzles = bench.puzzles.subset(failed[: bench.sizes.failed_depth])
    made: dict[str, Any] = {}
    for k, steps in splits_of(bench.sizes.budget):
        found = bench.search(puzzles, k=k, steps=steps, **PAPER)
        solved = found.solved(puzzles.labels)
        for few in (2**i for i in range(k.bit_length())):
            at = choose(found, few)["best_q"]
            best = np.take_along_axis(solved, at[:, None], axis=1)[:, 0]
            made[f"{k}x{steps}/{few}/best_q"] = best
            made[f"{k}x{steps}/{few}/pass_at_k"] = solved[:, :few].any(1)
    return made


def escape(bench: Bench, failed: np.ndarray) -> dict[str, Any]:
    """Failed puzzles beyond those of table 2, searched as there, and ratings of all of them."""
    rest = bench.puzzles.subset(failed[failed >= bench.sizes.table])
    ratings = bench.puzzles.task.rate(bench.puzzles.subset(failed))
    if not len(rest):
        return {**ratings, "solved": np.zeros((0, bench.sizes.k), bool)}
    found = bench.search(rest, k=bench.sizes.k, steps=STEPS, **PAPER)
    return {**ratings, "solved": found.solved(rest.labels)[..., -1]}


def rounding(bench: Bench, failed: np.ndarray, solved: np.ndarray) -> dict[str, Any]:
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
    parser.add_argument("--quick", action="store_true", help="a trial of a minute: no result")
    args = parser.parse_args()
    args.ckpt = args.ckpt or default_checkpoint()
    name = args.ckpt.name.removeprefix("trm-")
    args.out = args.out or Path("runs") / f"table2-{name}"
    shipped = Path("artifacts") / f"search-{name}"
    args.tables = args.tables or (args.out / "tables" if args.quick else shipped)
    with (
        in_one_line(),
        writing(args.out, "table2_search", OWN, resume=True, unmarked=_is_older_run),
    ):
        run(args)


def _is_older_run(folder: Path) -> bool:
    """Whether it was filled before there were markers."""
    return (folder / "identity.json").is_file() and (folder / "plain.npz").is_file()


def run(args: argparse.Namespace) -> None:
    """All parts, their tables, figures and the LOG entry."""
    bench = Bench(args, QUICK if args.quick else Sizes())
    sizes = bench.sizes

    parts = {"plain": bench.part("plain", lambda: plain(bench))}
    last = parts["plain"]["solved"][:, 0, -1]
    failed, solved = np.flatnonzero(~last), np.flatnonzero(last)
    if len(failed) < 2 or len(solved) < 2:
        raise UserError(f"{len(failed)} puzzles fail and {len(solved)} do not: nothing to compare")
    todo: dict[str, Callable[[], dict[str, Any]]] = {
        "paper": lambda: table_search(bench, sizes.k, **PAPER),
        "ptrm": lambda: table_search(bench, sizes.k_ptrm, **PTRM),
        "ablation": lambda: ablation(bench, failed, solved),
        "depth": lambda: depth(bench, failed),
        "escape": lambda: escape(bench, failed),
        "rounding": lambda: rounding(bench, failed, solved),
    }
    parts |= {name: bench.part(name, make) for name, make in todo.items()}

    inside = failed[failed < sizes.table]
    escaping = np.concatenate([parts["paper"]["solved"][inside, :, -1], parts["escape"]["solved"]])
    escaping = escaping[:, 1:]  # without the plain run
    at5 = frame_of(parts["paper"]).query("step == 4")
    splits = [f"{k}x{steps}" for k, steps in splits_of(sizes.budget)]
    deep, broad = splits[0], splits[len(splits) // 2]
    ends = [parts["depth"][f"{run}/{run.split('x')[0]}/best_q"][:, -1] for run in (broad, deep)]

    searches = {name: parts[name] for name in ("paper", "ptrm")}
    tables = {
        "table2": pd.concat(
            [share_table(frame_of(p)).assign(search=name) for name, p in searches.items()]
        ),
        "ablation": ablation_table(parts["ablation"], sizes),
        "breadth_depth": depth_table(
            parts["depth"], bench.checkpoint.model.config.schedule.evaluations
        ),
        "calibration": calibration_table(searches, sizes.draws),
        "escape": escape_table(bench.puzzles.lines[failed], escaping, parts["escape"]),
    }
    escapes, settled = tables["escape"]["escape"].to_numpy(), parts["rounding"]["settled"]
    changed = parts["rounding"]["changed"]
    summary = {
        **bench.identity,
        "ckpt": str(bench.checkpoint.path),
        "puzzles": bench.puzzles.source,
        "seconds": float(sum(p["seconds"] for p in parts.values())),
        "seconds_by_part": {name: float(p["seconds"]) for name, p in parts.items()},
        "t2": difference(at5["best_q"].to_numpy(), at5["baseline"].to_numpy(), sizes.draws),
        "c1": {"breadth": broad, "depth": deep, **difference(ends[0], ends[1], sizes.draws)},
        "misses": misses(parts["paper"], SHOWN_STEPS),
        "escape": {
            "n": len(escapes),
            "median": float(np.median(escapes)),
            "quartiles": np.quantile(escapes, [0.25, 0.75]).tolist(),
            "never": int((escapes == 0).sum()),
            "rho": correlation(tables["escape"], RATING, sizes.draws),
        },
        "rounding": {
            "settled": int(settled.sum()),
            "settled_changed": int((changed & settled).sum()),
            "wandering": int((~settled).sum()),
            "wandering_changed": int((changed & ~settled).sum()),
        },
    }
    drawn = {
        "table2": shares_figure(tables["table2"], f"Search on {args.ckpt.name}"),
        "ablation": ablation_figure(
            tables["ablation"].query("sigma > 0"), "Which noise recovers failed puzzles"
        ),
        "breadth_depth": breadth_depth_figure(
            tables["breadth_depth"], "Breadth against depth at equal network evaluations"
        ),
        "calibration": calibration_figure(tables["calibration"], "The halting head under noise"),
        "escape": escape_figure(tables["escape"], RATING, "How often noise leads out of a failure"),
    }
    for table_name, table in tables.items():
        write_text(args.tables / f"{table_name}.csv", table.to_csv(index=False))
        page = write_html(drawn[table_name], bench.out / f"{table_name}.html", static=True)
        if page.with_suffix(".png").exists() and table_name in SHIPPED_PICTURES:
            shutil.copy(page.with_suffix(".png"), args.tables / f"{table_name}.png")
    write_json(args.tables / "summary.json", summary)
    entry = log_entry(sizes, tables, summary)
    write_text(bench.out / "log.md", entry)
    print(entry)
    print(f"wrote {args.tables} and {bench.out}")


if __name__ == "__main__":
    main()
