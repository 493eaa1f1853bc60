"""Every figure of the seed paper but the first, and the measurements that decide about its claims.

    python experiments/landscape.py                       # default checkpoint, two CPU cores
    python experiments/landscape.py --ckpt artifacts/trm-sudoku-extreme --out runs/extreme
    python experiments/landscape.py --only fig5,settling --scale 0.05 --out runs/trial
    python experiments/landscape.py --judge artifacts/landscape-sudoku6    # claims.csv anew, no run

Table 1 (outcomes, halting head), figures 2 (paths), 3 (basins), 4 (losses) and 5 (divergence),
settling, stability, origins, lens and probes: each a command of its own, two at a time, in a folder
of its own under --out with figures and the plotted numbers next to them. Jobs that are done are
skipped, and the failure of one stops only those that need it. Then the claims table, with the
results of experiments/table2_search.py and experiments/fig1_features.py where they are given.
`--ship` copies the small tables into a folder.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from trm_interp.analysis.estimates import Estimate
from trm_interp.figures.bands import where
from trm_interp.figures.look import Look
from trm_interp.report.claims import claims_table, effects_table
from trm_interp.report.evidence import SAEQuality, SearchShares
from trm_interp.report.plan import LANDSCAPE, Plan, read_result
from trm_interp.report.recipes import Request
from trm_interp.runtime.errors import UserError, in_one_line
from trm_interp.runtime.files import write_text
from trm_interp.runtime.progress import progress
from trm_interp.runtime.records import Record
from trm_interp.sae.results import Baseline, FeaturesSummary
from trm_interp.sae.settings import BASELINES
from trm_interp.search.results import curves_of
from trm_interp.search.settings import PRESETS
from trm_interp.studies.results import OnCheckpointResult, OnStoreResult

SMALL = 120_000  # bytes of a table that ships


@dataclass(frozen=True, kw_only=True)
class Sizes(Record):
    """Trajectories and puzzles of table 2."""

    k: int
    table: int


@dataclass(frozen=True, kw_only=True)
class SearchTables(Record):
    """The summary next to the tables of table2_search.py."""

    checkpoint_sha256: str
    sizes: Sizes


def of_search(tables: Path, plan: Plan) -> dict[str, Any]:
    """Results for claim T2 from the tables of table2_search.py, on the same checkpoint."""
    summary = SearchTables.read(tables / "summary.json")
    _require_checkpoint(summary.checkpoint_sha256, tables, plan)
    table2 = pd.read_csv(tables / "table2.csv")
    paper = where(table2, table2["search"] == "paper").sort_values("step")
    if paper.empty:
        raise ValueError("table2.csv has no row of the search 'paper'")
    curves = curves_of(paper)
    search = SearchShares(
        n=summary.sizes.table,
        k=summary.sizes.k,
        steps=len(paper),
        sigma=PRESETS["paper"]["sigma"],
        target=plan.checkpoint.model.answer,
        baseline=curves["baseline"],
        best_q=curves["best_q"],
        pass_at_k=curves["pass_at_k"],
    )
    return {"table2": search}


def of_features(run: Path, plan: Plan) -> dict[str, Any]:
    """Results for claims F1 and S1 from fig1_features.py, on the same checkpoint."""
    features = FeaturesSummary.read(run / "features" / "summary.json")
    _require_checkpoint(features.checkpoint_sha256, run, plan)
    table = pd.read_csv(run / "table.csv")
    if "control" in table:
        table = where(table, table["control"].isna())
    gated, topk = (where(table, table["arch"] == arch) for arch in ("gated", "topk"))
    means: dict[str, Any] = gated.mean(numeric_only=True).to_dict()
    sae = SAEQuality(
        n=int(means["n"]),
        seeds=len(gated),
        d_in=features.d_in,
        d_sae=int(means["d_sae"]),
        recovered=means["recovered_over_zero"],
        **{name: means[name] for name in ("fvu", "fvu_low", "fvu_high", "l0", "dead")},
        topk=f"FVU {topk['fvu'].mean():.3f}" if len(topk) else "not run",
        baselines=_baselines(means) or None,
        exact={"clean": means["exact_clean"], "sae": means["exact_spliced"]}
        | {name: means[f"{name} exact"] for name in BASELINES if f"{name} exact" in means},
    )
    return {"sae": sae, "fig1": features}


def _baselines(means: dict[str, Any]) -> dict[str, Baseline]:
    """Means over seeds of the codes beside an SAE; none in tables of earlier versions."""

    def estimate(column: str) -> Estimate:
        ends = {"value": "", "low": "_low", "high": "_high"}
        return Estimate(**{name: means[column + end] for name, end in ends.items()})

    return {
        name: Baseline(
            active=means[f"{name} active"],
            bits=means[f"{name} bits"],
            fvu=estimate(f"{name} fvu"),
            sae_less=estimate(f"{name} less"),
        )
        for name in BASELINES
        if f"{name} fvu" in means
    }


def _require_checkpoint(sha256: str | None, folder: Path, plan: Plan) -> None:
    if sha256 != plan.checkpoint.sha256:
        raise UserError(f"{folder} is of another checkpoint than {plan.checkpoint.path}")


def read(
    of: Callable[[Path, Plan], dict[str, Any]], folder: Path | None, plan: Plan
) -> dict[str, Any]:
    """Results that the other experiment left in a folder; UserError names one that is not whole."""
    if folder is None:
        return {}
    try:
        return of(folder, plan)
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder} is not whole ({error}): run its experiment again") from None


def log_entry(plan: Plan, claims: pd.DataFrame, took: float, failed: dict[str, str]) -> str:
    """A LOG entry: command, claims, verdicts."""
    name = plan.checkpoint.path.name
    lines = [
        f"What does {name} say of the seed paper's claims?",
        "",
        f"`python {' '.join(sys.argv)}`; {took / 60:.0f} min; failed jobs: "
        f"{', '.join(failed) or 'none'}.",
        "",
        "| claim | ours | interval | n | verdict |",
        "|---|---|---|---|---|",
    ]
    shown = claims.astype(object)
    for row in shown.where(shown.notna(), "").to_dict("records"):
        cells = (row["id"], row["ours"], row["interval"], row["n"], row["verdict"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, ""])


def ship(plan: Plan, to: Path) -> None:
    """Small tables and summaries of every job, and the claims."""
    for job in plan.jobs:
        for file in sorted(job.out.glob("*.csv")) + sorted(job.out.glob("summary.json")):
            if file.stat().st_size <= SMALL:
                write_text(to / job.name / file.name, file.read_text())
    for name in ("claims.csv", "effects.csv"):
        write_text(to / name, (plan.request.out / name).read_text())


def judge(folder: Path, extra: dict[str, Any], plan: Plan) -> pd.DataFrame:
    """Claims and effects of results that were shipped to a folder, written there again; no job
    runs. Table 2, features and SAE are those of `extra`."""
    results = {
        job.name: result
        for job in plan.all
        if (folder / job.name / job.done).exists()
        if (result := read_result(replace(job, out=folder / job.name)))
    }
    for name, result in results.items():
        if isinstance(result, OnCheckpointResult | OnStoreResult):
            _require_checkpoint(result.checkpoint_sha256, folder / name, plan)
    evidence = plan.evidence(results | extra)
    claims = claims_table(evidence)
    write_text(folder / "claims.csv", claims.to_csv(index=False))
    write_text(folder / "effects.csv", effects_table(evidence).to_csv(index=False))
    return claims


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ckpt", default="", help="default: the one that ships")
    parser.add_argument("--puzzles", type=Path, help="default: the test puzzles of that size")
    parser.add_argument("--skip-bad", action="store_true", help="leave out invalid puzzles")
    parser.add_argument("--out", type=Path, default=Path("runs/landscape"))
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(LANDSCAPE))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="of puzzles and starts")
    parser.add_argument("--workers", type=int, default=2, help="jobs at a time")
    parser.add_argument("--no-static", dest="static", action="store_false", help="HTML only")
    parser.add_argument("--search", type=Path, help="tables of table2_search.py")
    parser.add_argument("--features", type=Path, help="folder of fig1_features.py")
    parser.add_argument("--judge", type=Path, help="a folder of shipped results: runs nothing")
    parser.add_argument("--ship", type=Path, help="also copy the small tables there")
    args = parser.parse_args()
    if args.workers < 1 or not 0 < args.scale < float("inf") or args.seed < 0:
        parser.error("--workers must be at least 1, --scale above 0 and finite, --seed at least 0")
    began = time.monotonic()
    request = Request(
        args.ckpt,
        args.puzzles,
        args.out,
        args.seed,
        look=Look(static=args.static),
        scale=args.scale,
        skip_bad=args.skip_bad,
    )
    with in_one_line():
        plan = Plan(request, args.only)
        extra = read(of_search, args.search, plan) | read(of_features, args.features, plan)
        if args.judge:
            print(judge(args.judge, extra, plan)[["id", "ours", "n", "verdict"]].to_string())
            return
        print("\n".join(plan.lines()), flush=True)
        with progress("expected work", "s") as update:
            failed = plan.run(lambda line: print(line, flush=True), update, args.workers, extra)
    claims = pd.read_csv(args.out / "claims.csv")
    entry = log_entry(plan, claims, time.monotonic() - began, failed)
    write_text(args.out / "log.md", entry)
    if args.ship:
        ship(plan, args.ship)
    print(entry)
    if failed:
        for name, why in failed.items():
            print(f"error: {name}: {why}", file=sys.stderr)
        raise SystemExit(2)


if __name__ == "__main__":
    main()
