"""What the runs of ablations.py say: accuracy, and whether the published order holds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from trm_interp.analysis.estimates import with_span
from trm_interp.analysis.many import common_side, over_models
from trm_interp.analysis.outcomes import outcome_table
from trm_interp.figures.latex import booktabs
from trm_interp.report.compare_tables import draws_of, verdict_of_sides
from trm_interp.report.effects import (
    CONTRADICTED,
    INCONCLUSIVE,
    MIXED,
    REPRODUCED,
    About,
    Crossed,
    Effect,
    paired_effect,
)
from trm_interp.runtime.files import write_text

REFERENCE = "trm"  # what all others are below, as published
STOPS = ("steps", "flops")
RULES = {"steps": "As many optimizer steps", "flops": "As many training operations"}
PRINTED = (1, 2, 4, 8, 16)  # supervision steps
WORDS = {REPRODUCED: "holds", CONTRADICTED: "reversed", MIXED: "mixed", INCONCLUSIVE: INCONCLUSIVE}
NO_ORDER, NOT_MEASURED = "none published", "not measured"
HEAD = ("model", "published %", "weights (k)", "steps", "training PFLOP", "seeds")
HEAD_END = ("TRM less it", "published order")
TIDY = ["model", "stop", "seed", "weights", "optimizer_steps", "training_pflop"]
TIDY += ["step", "n", "exact", "exact_low", "exact_high"]
Solved = dict[int, np.ndarray]  # by seed: bool [puzzle], at the supervision step that counts


class Run(NamedTuple):
    """A training run by the rule `stop`, or by both (`shared`). `read_at`: the supervision step,
    from 1, that counts. `flops` of training."""

    model: str
    stop: str
    seed: int
    shared: bool
    read_at: int
    weights: int
    steps: int
    flops: float

    @property
    def name(self) -> str:
        return f"{self.model}-{self.stop}-seed{self.seed}"

    def solved(self, out: Path) -> Path:
        """The table of its test."""
        return out / "solved" / f"{self.name}.csv"


class Order(NamedTuple):
    """Whether a model solves fewer puzzles than the TRM does. `effects`: TRM less it, a seed each,
    with intervals over puzzles; `value`, `low` and `high`: over all seeds, in shares."""

    effects: tuple[Effect, ...]
    value: float | None
    low: float | None
    high: float | None
    verdict: str


def read_solved(file: Path) -> np.ndarray | None:
    """bool [puzzle, step] of the plain run of `trm-interp search`; None where there is none."""
    if not file.exists():
        return None
    table = pd.read_csv(file, usecols=["line", "step", "baseline"])
    return table.pivot(index="line", columns="step", values="baseline").to_numpy(bool)


def order(reference: Solved, other: Solved, name: str) -> Order:
    """TRM less the other on the same puzzles and seeds, and what that says of the published order.

    With several seeds the interval is of a hierarchical bootstrap, and all seeds must lie on one
    side, as in `trm-interp compare`; with one it is over puzzles.
    """
    effects = tuple(
        _paired(reference[seed], other[seed], About(name, f"seed {seed}", 0.0, 1))
        for seed in sorted(reference.keys() & other.keys())
    )
    if not effects:
        return Order((), None, None, None, NOT_MEASURED)
    if len(effects) == 1:
        (one,) = effects
        word = WORDS[verdict_of_sides([one.direction])]
        return Order(effects, one.estimate, one.low, one.high, f"{word}, on one seed only")
    numbers = (
        np.array([getattr(one, part) for one in effects], float)
        for part in ("estimate", "low", "high")
    )
    estimates, low, high = numbers
    about = About(name, "over seeds", 0.0, 1)
    draws = np.stack([draws_of(one, about.seed + i) for i, one in enumerate(effects)])
    over = over_models(estimates, draws, np.arange(len(effects)), about.seed)
    side = common_side(estimates, low, high, 0.0)
    clear = about.effect(over.value, over.low, over.high, over.k).direction
    if side and side != clear and any(one.direction != side for one in effects):
        side = 0  # clear neither on each seed nor over all of them
    return Order(effects, over.value, over.low, over.high, WORDS[verdict_of_sides([side])])


def _paired(first: np.ndarray, second: np.ndarray, about: About) -> Effect:
    gained = int((first & ~second).sum())
    return paired_effect(about, Crossed.of(int(first.sum()), int(second.sum()), len(first), gained))


def accuracy(tested: Mapping[Run, np.ndarray]) -> pd.DataFrame:
    """A row a tested run and supervision step (from 0): exact share with its Wilson interval."""
    parts = []
    for run, solved in tested.items():
        named = {"model": run.model, "stop": run.stop, "seed": run.seed}
        sizes = {"weights": run.weights, "optimizer_steps": run.steps}
        cost = {"training_pflop": round(run.flops / 1e15, 4)}
        table = outcome_table(solved).assign(**named, **sizes, **cost)
        parts.append(table[TIDY])
    return pd.concat(parts) if parts else pd.DataFrame(columns=TIDY)


def orders(tested: Mapping[Run, np.ndarray], models: Mapping[str, Any], stop: str) -> pd.DataFrame:
    """A row a model by this rule: published, ours over seeds at PRINTED, and the order."""
    by_model: dict[str, list[tuple[Run, np.ndarray]]] = {}
    for run, solved in tested.items():
        if run.shared or run.stop == stop:
            by_model.setdefault(run.model, []).append((run, solved))
    reference = _at_the_end(by_model.get(REFERENCE, []))
    rows = []
    for name, own in by_model.items():
        model, run, n = models[name], own[0][0], len(own[0][1])
        found = order({} if name == REFERENCE else reference, _at_the_end(own), name)
        verdict = NO_ORDER if model.published is None else found.verdict
        steps = [s for s in PRINTED if s <= own[0][1].shape[1]]
        curves = {f"exact_{s}": spread([100 * z[:, s - 1].mean() for _, z in own]) for s in steps}
        rows.append(
            {"model": model.title, "published": model.published, "source": model.source}
            | {"stop": stop, "weights": run.weights, "steps": run.steps}
            | {"training_pflop": run.flops / 1e15, "seeds": len(own), "n": n}
            | {"read_at": run.read_at, **curves, "difference": found.value, "low": found.low}
            | {"high": found.high, "verdict": "reference" if name == REFERENCE else verdict}
        )
    return pd.DataFrame(rows)


def _at_the_end(runs: Sequence[tuple[Run, np.ndarray]]) -> Solved:
    return {run.seed: solved[:, run.read_at - 1] for run, solved in runs}


def spread(values: Sequence[float]) -> str:
    """The mean, and with several the least and the greatest.

    >>> spread([50.0]), spread([40.0, 60.0])
    ('50.0', '50.0 (40.0-60.0)')
    """
    mean = f"{np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f}-{max(values):.1f})"


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row of `orders` as it is printed."""
    published = row["published"]
    shown = "-" if pd.isna(published) else f"{published:.1f} ({row['source']})"
    curve = [str(row[f"exact_{s}"]) for s in PRINTED if f"exact_{s}" in row]
    value, low, high = (
        None if pd.isna(row[k]) else 100 * row[k] for k in ("difference", "low", "high")
    )
    sizes = [f"{row['weights'] / 1000:.0f}", str(row["steps"]), f"{row['training_pflop']:.3g}"]
    head = [row["model"] + ("" if row["read_at"] > 1 else " (read at step 1)"), shown, *sizes]
    return [*head, str(row["seeds"]), *curve, with_span(value, low, high, ".1f"), row["verdict"]]


def note(table: pd.DataFrame) -> str:
    """What the numbers are."""
    return (
        "Published: exact % on Sudoku-Extreme at 5 to 27 M weights (arXiv 2510.04871). Ours: exact "
        f"% of {table['n'].max()} test puzzles (6x6) at supervision steps {PRINTED}, mean (range) "
        "over seeds. TRM less it: points at the last step that each is trained for, 95 % "
        "over puzzles, with several seeds over both. The published order is that the TRM solves "
        "more: it holds, is reversed, or is inconclusive where the interval holds 0."
    )


def write_tables(out: Path, runs: Sequence[Run], models: Mapping[str, Any]) -> str:
    """Write ablations.csv, orders.csv, ablations.md and .tex; the Markdown."""
    read = ((run, read_solved(run.solved(out))) for run in runs)
    tested = {run: solved for run, solved in read if solved is not None}
    write_text(out / "ablations.csv", accuracy(tested).to_csv(index=False))
    stops = [stop for stop in STOPS if any(run.stop == stop for run in tested)]
    tables = [orders(tested, models, stop) for stop in stops]
    if not tables:
        return "no run is tested yet"
    write_text(out / "orders.csv", pd.concat(tables).to_csv(index=False))
    markdown, latex = [], []
    for table in tables:
        steps = [f"exact % at {s}" for s in PRINTED if f"exact_{s}" in table]
        head = [*HEAD, *steps, *HEAD_END]
        rows = [cells(row) for row in table.to_dict("records")]
        rule = RULES[table["stop"].iloc[0]]
        lines = [f"{rule} as the TRM:", "", _line(head), "|" + "---|" * len(head)]
        markdown += [*lines, *map(_line, rows), ""]
        align = "l" + "r" * (len(head) - 2) + "l"
        latex.append(f"% {rule}\n" + booktabs(head, rows, align, note(table)))
    text = "\n".join([*markdown, note(tables[0]), ""])
    write_text(out / "ablations.md", text)
    write_text(out / "ablations.tex", "\n".join(latex))
    return text


def _line(row: Sequence[str]) -> str:
    return f"| {' | '.join(row)} |"
