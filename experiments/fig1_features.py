"""Figure 1 of the seed paper: SAE features over time, for solved and failed puzzles.

    python experiments/fig1_features.py                    # default checkpoint, two CPU cores
    python experiments/fig1_features.py --log              # and enter the result into LOG.md
    python experiments/fig1_features.py --train-steps 30 --solve 60 --record 24 --seeds 0  # a trial

Records the residual stream of all layers, positions and cycles, as many failed runs as solved ones
where there are that many; trains a gated SAE at expansion 32 and a topk one for comparison, for
every seed, on all sites pooled; measures them on held-out puzzles beside PCA with as many numbers
and as many bits a row (of the first seed also k-means and a random encoder), spliced into the loop
as well, at all sites together and at the last one alone; and three controls of the first gated
one: on within-puzzle residuals, on shuffled ticks, and on the states of a model with random
weights. Draws figure 1 and the dashboard of the first gated one. What an earlier run into --out has
done is kept. Takes artifacts/trm-sudoku-extreme where it exists; on a CUDA device the batches are
larger and the training longer (512 -> 16 384 for that checkpoint).
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
from trm_interp.figures.bands import where
from trm_interp.recording.collect import record_puzzles
from trm_interp.recording.store import Store
from trm_interp.runtime.artifacts import artifact
from trm_interp.runtime.errors import UserError, in_one_line
from trm_interp.runtime.files import write_json, write_text
from trm_interp.runtime.limits import counted
from trm_interp.runtime.progress import progress
from trm_interp.runtime.schema import read_json
from trm_interp.sae.evaluate import run as evaluate_sae
from trm_interp.sae.features import run as look_at_features
from trm_interp.sae.results import EVERY_TICK
from trm_interp.sae.settings import BASELINES, EvalSAEConfig, FeaturesConfig, TrainSAEConfig
from trm_interp.sae.train import train_sae
from trm_interp.subjects.evaluate import solve
from trm_interp.subjects.opening import open_both, open_device, test_puzzles, untrained
from trm_interp.subjects.settings import CollectConfig, default_checkpoint

SITES = [f"blocks.{block}.hook_resid_{at}" for block in range(2) for at in ("mid", "post")]
SHOWN = SITES[-1]  # the state itself, at every evaluation
LOG = Path(__file__).with_name("LOG.md")
MEASURED = "all sites pooled, beside PCA"  # rows of the table that earlier versions kept are not
# of the first gated SAE: what it is trained on, by the name of its row
CONTROLS: dict[str, dict[str, Any]] = {
    "residuals": {"centre": "puzzle"},
    "shuffled ticks": {"shuffle_ticks": True},
    "random weights": {"balance": False},  # which solve nothing
}
RANDOM_SEED = 0  # of the random weights
SHIPPED = ("table.csv", "features/summary.json", "features/figure1.png")


def record(
    args: argparse.Namespace, ckpt: Path, puzzles_file: Path, random_seed: int | None = None
) -> Path:
    """The store: half of its puzzles failed as far as that goes. One of an earlier run is kept.

    With a seed it holds the states of random weights on the same puzzles.
    """
    name = "store" if random_seed is None else "random-store"
    store, note = args.out / name, args.out / f"{name}.json"
    device = open_device("auto")
    checkpoint, puzzles = open_both(ckpt, puzzles_file, device, args.solve, args.skip_bad)
    recorded_model = checkpoint if random_seed is None else untrained(checkpoint, random_seed)
    sha256 = recorded_model.sha256
    identity = {"checkpoint_sha256": sha256, "data_sha256": dict(puzzles.sha256)}
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
        random_weights=random_seed,
        overwrite=store.exists(),
    )
    chosen = puzzles.subset(half_failed(solved, args.record))
    with progress("recording", "puzzles") as update:
        record_puzzles(recorded_model, chosen, config, identity, progress=update)
    write_json(note, asked | {"recorded": True})
    return store


def train_and_measure(
    args: argparse.Namespace, store: Path, ckpt: Path, arch: str, seed: int, control: str = ""
) -> dict[str, Any]:
    """One SAE: a row of the table. One that an earlier run trained and measured is kept."""
    config = config_of(args, store, arch, seed, control)
    out = config.out
    note, row_file = (out.with_name(f"{out.name}-{what}.json") for what in ("asked", "row"))
    asked = json.loads(json.dumps(asdict(config), default=str)) | {"held_out": args.held_out}
    asked["measured"] = MEASURED
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
    title = f"training {arch}, seed {seed}" + (f", {control}" if control else "")
    with progress(title, "steps") as update:
        train_sae(config, progress=update)
    write_json(note, asked)
    seconds = None if config.resume else round(time.monotonic() - began)
    row: dict[str, Any] = {"arch": arch, "seed": seed, "control": control, "train_s": seconds}
    is_first = seed == args.seeds[0] and not control
    on = EvalSAEConfig(
        sae=out,
        store=store,
        limit=args.held_out,
        ckpt=str(ckpt),
        loop=control in ("", "residuals"),  # the others are of rows that the model never has
        baselines="all" if is_first else "pca,pca-bits",
        overwrite=True,
    )
    row |= measure(on)
    if not control:
        alone = replace(on, site=SHOWN, baselines="pca,pca-bits", out=out / "last-site.json")
        row |= {f"last {name}": value for name, value in measure(alone).items()}
    write_json(row_file, row)
    return row


def config_of(
    args: argparse.Namespace, store: Path, arch: str, seed: int, control: str = ""
) -> TrainSAEConfig:
    """How an SAE is trained: longer and in larger batches where there is a CUDA device."""
    cuda = torch.cuda.is_available()
    config = TrainSAEConfig(
        stores=[store],
        site=",".join(SITES),
        out=args.out / "-".join([f"{arch}-seed{seed}", *control.split()]),
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
    return replace(config, **CONTROLS[control]) if control else config


def measure(config: EvalSAEConfig) -> dict[str, Any]:
    """Columns of the table from one `sae-eval`: of the SAE, and of every other code by its name."""
    measures = evaluate_sae(config, lambda line: None)
    columns: dict[str, Any] = {
        "n": measures.n_puzzles,
        "d_sae": measures.d_sae,
        "fvu": measures.fvu.value,
        "fvu_low": measures.fvu.low,
        "fvu_high": measures.fvu.high,
        "l0": measures.l0,
        "bits": measures.bits,
        "dead": measures.dead,
        "dense": measures.dense,
        "twins": measures.decoder.twins,
    }
    for site, fit in (measures.by_site or {}).items():
        columns[f"fvu {site}"] = fit.fvu.value
    for outcome, fit in measures.by_outcome.items():
        if outcome != "all":
            columns[f"fvu_{outcome}"] = fit.fvu.value
    for name, code in (measures.baselines or {}).items():
        columns |= {f"{name} active": code.active, f"{name} bits": code.bits}
        for of, estimate in (("fvu", code.fvu), ("less", code.sae_less)):
            bounds = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
            columns |= {f"{name} {of}{end}": value for end, value in bounds.items()}
    if measures.loop is None:
        return columns
    loop = measures.loop.spliced[EVERY_TICK]
    recovered = loop.recovered_over_zero
    others = [name for name in loop.runs if name in (measures.baselines or {})]
    return columns | {
        "recovered_over_zero": recovered.value,
        "recovered_low": recovered.low,
        "recovered_high": recovered.high,
        "exact_clean": loop.runs["clean"].exact.value,
        "exact_spliced": loop.runs["sae"].exact.value,
        **{f"{name} exact": loop.runs[name].exact.value for name in others},
    }


def spread(values: list[float], digits: int = 3) -> str:
    """Mean, and range over seeds where they differ."""
    mean = f"{statistics.mean(values):.{digits}f}"
    ends = [f"{end:.{digits}f}" for end in (min(values), max(values))]
    return mean if ends == [mean, mean] else f"{mean} ({ends[0]} to {ends[1]})"


def log_entry(
    args: argparse.Namespace, table: pd.DataFrame, summary: dict[str, Any], ckpt: Path, took: float
) -> str:
    """A LOG entry: question, command, numbers with their spread, verdict."""
    own = where(table, table["control"] == "")
    cuda, threads = torch.cuda.is_available(), torch.get_num_threads()
    where_it_ran = "CUDA" if cuda else f"{threads} CPU threads"
    lines = [
        f"## {datetime.date.today()} What does an SAE explain that PCA does not, and do features "
        "recur?",
        "",
        f"`python {' '.join(sys.argv)}`; {ckpt.name}, SAEs trained and measured on "
        f"{', '.join(SITES)} pooled, all evaluations, solved and failed balanced; held-out puzzles "
        f"n = {int(table['n'].iloc[0])}; {counted(len(args.seeds), 'seed')}, mean (range); "
        f"{took / 60:.0f} min on {where_it_ran}. "
        "Spliced in: at all sites of every evaluation.",
        "",
        "| code | numbers a row | bits a row | FVU | dead | exact, clean -> spliced |",
        "|---|---|---|---|---|---|",
    ]
    for arch, rows in own.groupby("arch", sort=False):
        lines += [_row(str(arch), rows), *_others(str(arch), rows)]
        lines.append(_row(f"{arch}, at {SHOWN} alone", rows, "last "))
        lines += _others(f"{arch}, there", rows, "last ")
    for control, rows in where(table, table["control"] != "").groupby("control", sort=False):
        lines += [_row(f"gated, {control}", rows), *_others(f"gated, {control}", rows)]
    median = {name: math.nan if v is None else v for name, v in summary["median"].items()}
    top = summary["most_active"]
    gated = where(own, own["arch"] == "gated")
    lines += [
        "",
        f"Features of the first gated SAE at {SHOWN} ({summary['alive']} fire; "
        f"{summary['solved']} solved and {summary['failed']} failed puzzles), medians, solved / "
        f"failed: transient "
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
        "Verdict: S1 has none, the paper states no quality. Against PCA with as many numbers a row "
        f"the FVU of the gated SAE is {_difference(gated, 'pca')} higher, with as many bits "
        f"{_difference(gated, 'pca-bits')}. Figure and table: {args.out}.",
        "",
    ]
    return "\n".join(lines)


def _difference(rows: pd.DataFrame, name: str) -> str:
    """FVU of the SAE less that of another code: mean, and the widest of the seeds' bounds."""
    mean, low, high = (rows[f"{name} less{end}"] for end in ("", "_low", "_high"))
    return f"{mean.mean():+.3f} [{low.min():.3f}, {high.max():.3f}]"


def _row(name: str, rows: pd.DataFrame, of: str = "") -> str:
    """An SAE, over its seeds."""
    digits = {"l0": 1, "bits": 0, "fvu": 3, "dead": 3}
    values = [spread(rows[of + column].tolist(), n) for column, n in digits.items()]
    return f"| {name} | {' | '.join(values)} | {_exact(rows, of, 'exact_spliced')} |"


def _others(name: str, rows: pd.DataFrame, of: str = "") -> list[str]:
    """The codes beside it, over the seeds that have them."""
    lines = []
    for code in BASELINES:
        if (
            f"{of}{code} fvu" not in rows
            or not (there := rows.dropna(subset=f"{of}{code} fvu")).size
        ):
            continue
        digits = {"active": 0, "bits": 0, "fvu": 3}
        values = [spread(there[f"{of}{code} {what}"].tolist(), n) for what, n in digits.items()]
        exact = _exact(there, of, f"{code} exact")
        lines.append(f"| {code} beside {name} | {' | '.join(values)} | - | {exact} |")
    return lines


def _exact(rows: pd.DataFrame, of: str, spliced: str) -> str:
    """Exact accuracy of the clean and of the spliced run; a dash where nothing was spliced in."""
    clean, changed = (rows.get(of + column) for column in ("exact_clean", spliced))
    if clean is None or changed is None or changed.isna().all():
        return "-"
    return f"{clean.mean():.3f} -> {changed.mean():.3f}"


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
    parser.add_argument("--no-controls", dest="controls", action="store_false")
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
    puzzles = args.puzzles or test_puzzles(load_checkpoint(ckpt))
    store = record(args, ckpt, puzzles)
    rows = [
        train_and_measure(args, store, ckpt, arch, seed)
        for arch in ("gated", "topk")
        for seed in args.seeds
    ]
    for control in CONTROLS if args.controls else ():
        is_random = control == "random weights"
        there = record(args, ckpt, puzzles, RANDOM_SEED) if is_random else store
        rows.append(train_and_measure(args, there, ckpt, "gated", args.seeds[0], control))
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
