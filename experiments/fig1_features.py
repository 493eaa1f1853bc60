"""Figure 1 of the seed paper: SAE features over time, for solved and failed puzzles.

    python experiments/fig1_features.py                    # default checkpoint, two CPU cores
    python experiments/fig1_features.py --log              # and enter the result into LOG.md
    python experiments/fig1_features.py --train-steps 30 --solve 60 --record 24 --seeds 0  # a trial

Records the residual stream of all layers, positions and cycles, as many failed runs as solved ones
where there are that many; trains a gated SAE at expansion 32 and a topk one for comparison, for
every seed; measures them on held-out puzzles, in the loop as well; draws figure 1 and the dashboard
of the first gated one. What an earlier run into --out has done is kept. Takes
artifacts/trm-sudoku-extreme where it exists; on a CUDA device the batches are larger and the
training longer (512 -> 16 384 for that checkpoint).
"""

import argparse
import datetime
import json
import math
import shutil
import statistics
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from trm_interp.analysis.outcomes import half_failed
from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.recording.collect import record_puzzles
from trm_interp.recording.store import Store
from trm_interp.runtime.artifacts import artifact
from trm_interp.runtime.errors import UserError, in_one_line
from trm_interp.runtime.files import write_json, write_text
from trm_interp.runtime.progress import progress
from trm_interp.runtime.schema import read_json
from trm_interp.sae.evaluate import run as evaluate_sae
from trm_interp.sae.features import run as look_at_features
from trm_interp.sae.results import EVERY_TICK
from trm_interp.sae.settings import EvalSAEConfig, FeaturesConfig, TrainSAEConfig
from trm_interp.sae.train import train_sae
from trm_interp.subjects.evaluate import solve
from trm_interp.subjects.opening import open_both, open_device, test_puzzles
from trm_interp.subjects.settings import CollectConfig, default_checkpoint

SITES = [f"blocks.{block}.hook_resid_{at}" for block in range(2) for at in ("mid", "post")]
SHOWN = SITES[-1]  # the state itself, at every evaluation
LOG = Path(__file__).with_name("LOG.md")
AIM_FVU, AIM_DEAD = 0.1, 0.1
SHIPPED = ("table.csv", "features/summary.json", "features/figure1.png")


def record(args: argparse.Namespace, ckpt: Path, puzzles_file: Path) -> Path:
    """The store: half of its puzzles failed as far as that goes. One of an earlier run is kept."""
    store, note = args.out / "store", args.out / "store.json"
    device = open_device("auto")
    checkpoint, puzzles = open_both(ckpt, puzzles_file, device, args.solve, args.skip_bad)
    identity = {"checkpoint_sha256": checkpoint.sha256, "data_sha256": dict(puzzles.sha256)}
    asked = {"solve": args.solve, "record": args.record}
    noted = read_json(note, dict[str, Any]) if note.exists() else None
    if store.exists() and noted is None:
        raise UserError(f"{store} is not of this script ({note} does not exist): move it away")
    if noted == asked | {"recorded": True} and (store / "store.h5").exists():
        with Store(store) as there:
            recorded = there.meta.get("identity", {})
            if recorded == recorded | identity:
                print(f"{store}: recorded before")
                return store
    with progress("solving", "puzzles") as update:
        solved = solve(checkpoint.model, puzzles, progress=update).solved[:, -1].numpy()
    write_json(note, asked | {"recorded": False})
    config = CollectConfig(
        ckpt=str(ckpt),
        puzzles=puzzles_file,
        out=store,
        sites=",".join(SITES),
        batch_size=8,
        overwrite=store.exists(),
    )
    chosen = puzzles.subset(half_failed(solved, args.record))
    with progress("recording", "puzzles") as update:
        record_puzzles(checkpoint, chosen, config, identity, progress=update)
    write_json(note, asked | {"recorded": True})
    return store


def train_and_measure(
    args: argparse.Namespace, store: Path, ckpt: Path, arch: str, seed: int
) -> dict[str, Any]:
    """One SAE: a row of the table. One that an earlier run trained and measured is kept."""
    config = config_of(args, store, arch, seed)
    out = config.out
    note, row_file = (out.with_name(f"{out.name}-{what}.json") for what in ("asked", "row"))
    asked = json.loads(json.dumps(asdict(config), default=str)) | {"held_out": args.held_out}
    del asked["resume"], asked["overwrite"]
    with Store(store) as opened:
        asked["store_sha256"] = opened.sha256
    is_same = note.exists() and json.loads(note.read_text()) == asked
    if is_same and row_file.exists():
        print(f"{out}: trained and measured before")
        return json.loads(row_file.read_text())
    if is_same and (out / "card.json").exists():
        config = replace(config, resume=True, overwrite=False)
    for stale in (row_file, note):  # the answer to another question
        stale.unlink(missing_ok=True)
    began = time.monotonic()
    with progress(f"training {arch}, seed {seed}", "steps") as update:
        train_sae(config, progress=update)
    write_json(note, asked)
    seconds = None if config.resume else round(time.monotonic() - began)
    row: dict[str, Any] = {"arch": arch, "seed": seed, "train_s": seconds}
    for site in SITES:
        row |= measure(out, store, site, ckpt, args.held_out)
    write_json(row_file, row)
    return row


def config_of(args: argparse.Namespace, store: Path, arch: str, seed: int) -> TrainSAEConfig:
    """How an SAE is trained: longer and in larger batches where there is a CUDA device."""
    cuda = torch.cuda.is_available()
    return TrainSAEConfig(
        store=store,
        site=",".join(SITES),
        out=args.out / f"{arch}-seed{seed}",
        arch=arch,  # type: ignore[arg-type]
        expansion=args.expansion,
        max_steps=args.train_steps or (20_000 if cuda else 700),
        batch_size=args.batch or (4096 if cuda else 1024),
        seed=seed,
        l1=args.l1,
        k=args.k,
        balance=True,
        buffer_mb=args.buffer_mb,
        autocast=args.autocast,
        save_every=10**9,
        overwrite=True,
    )


def measure(sae: Path, store: Path, site: str, ckpt: Path, held_out: int) -> dict[str, Any]:
    """The FVU at a site; of the shown one all measures, spliced into the loop as well."""
    is_shown = site == SHOWN
    config = EvalSAEConfig(
        sae=sae,
        store=store,
        site=site,
        limit=held_out if is_shown else max(2, held_out // 4),
        ckpt=str(ckpt),
        loop=is_shown,
        overwrite=True,
    )
    measures = evaluate_sae(config, lambda line: None)
    columns: dict[str, Any] = {f"fvu {site}": measures.fvu.value}
    if measures.loop is None:
        return columns
    loop = measures.loop.spliced[EVERY_TICK]
    by_outcome = {
        f"fvu_{outcome}": fit.fvu.value
        for outcome, fit in measures.by_outcome.items()
        if outcome != "all"
    }
    return columns | {
        "n": measures.n_puzzles,
        "d_sae": measures.d_sae,
        "fvu": measures.fvu.value,
        "fvu_low": measures.fvu.low,
        "fvu_high": measures.fvu.high,
        "l0": measures.l0,
        "dead": measures.dead,
        "dense": measures.dense,
        "twins": measures.decoder.twins,
        **by_outcome,
        "recovered_over_zero": loop.recovered_over_zero.value,
        "recovered_low": loop.recovered_over_zero.low,
        "recovered_high": loop.recovered_over_zero.high,
        "exact_clean": loop.runs["clean"].exact.value,
        "exact_spliced": loop.runs["sae"].exact.value,
    }


def spread(values: list[float], digits: int = 3) -> str:
    """Mean and range over seeds."""
    mean = statistics.mean(values)
    return f"{mean:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def log_entry(
    args: argparse.Namespace, table: pd.DataFrame, summary: dict[str, Any], ckpt: Path, took: float
) -> str:
    """A LOG entry: question, command, numbers with their spread, verdict."""
    lines = [
        f"## {datetime.date.today()} Do SAE features settle, recur, and at which cost in FVU?",
        "",
        f"`python {' '.join(sys.argv)}`; {ckpt.name}, {SHOWN} of all evaluations, SAEs trained on "
        f"{', '.join(SITES)} pooled, solved and failed balanced; held-out puzzles n = "
        f"{int(table['n'].iloc[0])}; {len(args.seeds)} seeds, mean (range); {took / 60:.0f} min on "
        f"{'CUDA' if torch.cuda.is_available() else f'{torch.get_num_threads()} CPU threads'}.",
        "",
        "| SAE | FVU | L0 | dead | loss recovered over zero | exact, clean -> spliced |",
        "|---|---|---|---|---|---|",
    ]
    for arch, rows in table.groupby("arch", sort=False):
        exact = f"{rows['exact_clean'].mean():.3f} -> {rows['exact_spliced'].mean():.3f}"
        cells = [
            spread(rows[name].tolist()) for name in ("fvu", "l0", "dead", "recovered_over_zero")
        ]
        lines.append(f"| {arch} | {' | '.join(cells)} | {exact} |")
    median = {name: math.nan if v is None else v for name, v in summary["median"].items()}
    top = summary["most_active"]
    gated = table[table["arch"] == "gated"]
    met = bool((gated["fvu"] < AIM_FVU).all() and (gated["dead"] < AIM_DEAD).all())
    lines += [
        "",
        f"Features of the first gated SAE ({summary['alive']} fire; {summary['solved']} solved and "
        f"{summary['failed']} failed puzzles), medians, solved / failed: transient "
        f"{median['transient_solved']:.0f} / {median['transient_failed']:.0f} evaluations, "
        f"same-phase drift {median['drift_solved']:.2f} / {median['drift_failed']:.2f} (0 schedule "
        f"only, 1 noise). Recurring beyond the schedule, against aperiodic series and at a false "
        f"discovery rate of 5 %: {summary['recurring_solved']} / {summary['recurring_failed']} "
        f"features, {top['recurring_solved']} / {top['recurring_failed']} of the {top['n']} most "
        f"active; periods {median['period_solved']:.1f} / {median['period_failed']:.1f} "
        f"evaluations. "
        f"{summary['separating']} tell outcomes apart at some tick ("
        f"{summary['separating_tests']} tests, {summary['separating_tests_by_chance']} with "
        f"shuffled outcomes); {summary['leading']} fire before a cell is decided.",
        "",
        f"Verdict: the aim (gated, every seed: FVU below {AIM_FVU}, dead below {AIM_DEAD:.0%}) is "
        f"{'met' if met else 'missed'}. Figure and table: {args.out}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ckpt", type=Path, help="default: trm-sudoku-extreme, else trm-sudoku6")
    parser.add_argument("--puzzles", type=Path, help="default: the test puzzles of that size")
    parser.add_argument("--out", type=Path, default=Path("runs/fig1"))
    parser.add_argument("--skip-bad", action="store_true", help="leave out invalid puzzles")
    parser.add_argument("--seeds", type=lambda t: [int(s) for s in t.split(",")], default=[0, 1, 2])
    parser.add_argument("--expansion", type=int, default=32)
    parser.add_argument("--train-steps", "--steps", type=int, help="default 700, on CUDA 20 000")
    parser.add_argument("--batch", type=int, help="rows a step; default 1 024, on CUDA 4 096")
    parser.add_argument("--l1", type=float, default=5.0)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--solve", type=int, default=1000, help="puzzles to choose failures from")
    parser.add_argument("--record", type=int, default=160, help="puzzles in the store")
    parser.add_argument("--held-out", type=int, default=24, help="held-out puzzles to measure on")
    parser.add_argument("--buffer-mb", type=int, default=600)
    parser.add_argument("--no-autocast", dest="autocast", action="store_false")
    parser.add_argument("--ship", type=Path, help="also copy table, summary and figure 1 there")
    parser.add_argument("--log", action="store_true", help="enter the result into LOG.md")
    args = parser.parse_args()
    with in_one_line():
        run(args)


def run(args: argparse.Namespace) -> None:
    """Store, SAEs, measures, features, and what they say."""
    began = time.monotonic()
    extreme = artifact("trm-sudoku-extreme")
    ckpt = args.ckpt or (extreme if extreme.exists() else default_checkpoint())
    store = record(args, ckpt, args.puzzles or test_puzzles(load_checkpoint(ckpt)))
    rows = [
        train_and_measure(args, store, ckpt, arch, seed)
        for arch in ("gated", "topk")
        for seed in args.seeds
    ]
    table = pd.DataFrame(rows)
    write_text(args.out / "table.csv", table.to_csv(index=False))
    with progress("encoding", "puzzles") as update:
        files = look_at_features(
            FeaturesConfig(
                sae=args.out / f"gated-seed{args.seeds[0]}",
                store=store,
                out=args.out / "features",
                site=SHOWN,
                limit=args.held_out,
                ckpt=str(ckpt),
                static=True,
                overwrite=True,
            ),
            progress=update,
        )
    summary = json.loads(files["summary"].read_text())
    took = time.monotonic() - began
    entry = log_entry(args, table, summary, ckpt, took)
    write_text(args.out / "log.md", entry)
    write_json(args.out / "run.json", {"seconds": took, "checkpoint": str(ckpt), "rows": rows})
    if args.ship:
        for name in SHIPPED:
            if (args.out / name).exists():
                (args.ship / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(args.out / name, args.ship / name)
    if args.log:
        head, _, rest = LOG.read_text().partition("\n## ")
        write_text(LOG, f"{head}\n{entry}\n## {rest}")
    print(entry)
    print(f"wrote {args.out}: {files['figure 1']}, {files['dashboard']}, table.csv, log.md")


if __name__ == "__main__":
    main()
