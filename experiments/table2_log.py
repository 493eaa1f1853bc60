"""The entry of LOG.md that table2_search.py prints."""

import datetime
from typing import Any

import pandas as pd
from table2_tables import RATING, SHOWN_STEPS, STEPS, Sizes


def percent(row: Any, name: str) -> str:
    """A share in percent with its interval."""
    share, low, high = (100 * row[key] for key in (name, f"{name}_low", f"{name}_high"))
    return f"{share:.1f} [{low:.1f}, {high:.1f}]"


def verdict_of(comparison: dict[str, Any]) -> str:
    """The verdict of a `difference`, with the numbers behind it."""
    low, middle, high = (100 * comparison[name] for name in ("low", "difference", "high"))
    return f"{comparison['verdict']} ({middle:+.1f} points [{low:+.1f}, {high:+.1f}])"


def log_entry(sizes: Sizes, tables: dict[str, pd.DataFrame], summary: dict[str, Any]) -> str:
    """Question, command, numbers, verdict; what is undecided is called so."""
    c1, today = summary["c1"], datetime.date.today()
    return "\n".join(
        [
            f"## {today} Does noise, chosen by the halting head, beat a deeper run?",
            "",
            f"`python experiments/table2_search.py`; {summary['ckpt']}, {summary['puzzles']}, "
            f"{summary['dtype']}, seed {summary['seed']}; {summary['seconds'] / 60:.0f} min. "
            "Exact %, 95 % Wilson intervals over puzzles; the first trajectory is the plain one.",
            "",
            *_shares(tables["table2"]),
            "",
            *_ablation(tables["ablation"], sizes),
            "",
            *_breadth_and_depth(tables["breadth_depth"]),
            "",
            _misses_and_escapes(summary),
            "",
            f"Verdict. T2, best-Q above the plain run at 5 steps: {verdict_of(summary['t2'])}. C1, "
            f"failures come from the start and not from too little depth, best Q of "
            f"{c1['breadth']} against {c1['depth']} (K x steps): {verdict_of(c1)}.",
            "",
        ]
    )


def _shares(table: pd.DataFrame) -> list[str]:
    lines = [
        "| search | n | step | plain | best Q | vote | pass@K |",
        "|---|---|---|---|---|---|---|",
    ]
    for _, row in table[table["step"].isin([s - 1 for s in SHOWN_STEPS])].iterrows():
        cells = [percent(row, name) for name in ("baseline", "best_q", "vote", "pass_at_k")]
        lines.append(
            f"| {row['search']} | {row['n']:.0f} | {row['step'] + 1:.0f} | {' | '.join(cells)} |"
        )
    return lines


def _ablation(table: pd.DataFrame, sizes: Sizes) -> list[str]:
    lines = [
        f"Ablation (K {sizes.k_ablation}, {sizes.steps_ablation} steps, best Q; "
        f"{table['n_failed'][0]} puzzles that fail plainly, {table['n_solved'][0]} that do not), "
        "the best six of it:",
        "",
        "| noise | target | sigma | failed, recovered | solved, kept |",
        "|---|---|---|---|---|",
    ]
    best = table.sort_values(["recovered", "kept"], ascending=False).head(6)
    for _, row in best.iterrows():
        cells = (row["kind"], row["target"], row["sigma"], percent(row, "recovered"))
        lines.append(f"| {' | '.join(map(str, cells))} | {percent(row, 'kept')} |")
    return lines


def _breadth_and_depth(table: pd.DataFrame) -> list[str]:
    budget = table.query("evaluations == evaluations.max()")
    lines = [
        f"Breadth against depth, {budget['n'].iloc[0]} puzzles that fail plainly at step {STEPS}, "
        f"{budget['evaluations'].iloc[0]} network evaluations each:",
        "",
        "| K x steps | best Q | pass@K |",
        "|---|---|---|",
    ]
    for _, row in budget.iterrows():
        cells = (percent(row, "best_q"), percent(row, "pass_at_k"))
        lines.append(f"| {row['k']} x {row['steps']} | {' | '.join(cells)} |")
    return lines


def _misses_and_escapes(summary: dict[str, Any]) -> str:
    missed, escapes, rounding = summary["misses"][-1], summary["escape"], summary["rounding"]
    rho = escapes["rho"]
    low, high = escapes["quartiles"]
    return (
        f"At step {missed['step']} best-Q takes a wrong answer in {missed['puzzles']} of "
        f"{missed['of']} puzzles that have a right one. {escapes['n']} puzzles fail plainly: a "
        f"noisy trajectory solves a median share of {escapes['median']:.2f} (quartiles {low:.2f}, "
        f"{high:.2f}), {escapes['never']} were never solved; Spearman's rho with `{RATING}` "
        f"{rho['rho']:.2f} [{rho['low']:.2f}, {rho['high']:.2f}]. Another batch size changes the "
        f"last grid of {rounding['settled_changed']} of {rounding['settled']} trajectories that "
        f"had settled and {rounding['wandering_changed']} of {rounding['wandering']} that had not."
    )
