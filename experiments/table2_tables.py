"""Tables and the summary of table2_search.py, from the arrays that its parts kept."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from trm_interp.analysis.outcomes import named_share
from trm_interp.search.selection import RULES

STEPS = 16
SHOWN_STEPS = (1, 2, 3, 5, 16)
RATING = "waves"
Part = dict[str, np.ndarray]


@dataclass(frozen=True)
class Sizes:
    """Puzzles and trajectories of each part."""

    plain: int = 400  # puzzles that are asked plainly
    table: int = 200  # of them, in table 2
    k: int = 50
    k_ptrm: int = 16
    failed: int = 32  # of the ablation
    solved: int = 16
    k_ablation: int = 6
    steps_ablation: int = 8
    sigmas: tuple[float, ...] = (0.01, 0.1, 0.3, 0.6, 1.0, 2.0)
    failed_depth: int = 40
    budget: int = 256  # supervision steps a puzzle, breadth against depth
    draws: int = 500  # bootstrap samples


def frame_of(part: Part) -> pd.DataFrame:
    return pd.DataFrame(part["frame"], columns=part["columns"].tolist())


def settings_of_ablation(sizes: Sizes) -> list[dict[str, Any]]:
    """When x target x sigma; the shared vector on the start; symmetric copies without noise."""
    grid = [
        {"kind": "on the start" if when == "init" else "before every step"}
        | {"when": when, "target": target, "sigma": sigma}
        for when, target, sigma in product(("init", "every"), ("z_H", "z_L", "both"), sizes.sigmas)
    ]
    shared = [
        {"kind": "start, one vector", "when": "init", "target": "z_H", "sigma": s, "shared": True}
        for s in sizes.sigmas
    ]
    symmetric = {"kind": "symmetric copies", "when": "init", "target": "none", "sigma": 0.0}
    return [*grid, *shared, symmetric | {"symmetry": True}]


def splits_of(budget: int) -> list[tuple[int, int]]:
    """(K, steps) of equal cost.

    >>> splits_of(256)
    [(1, 256), (4, 64), (16, 16), (64, 4)]
    """
    return [(k, budget // k) for k in (1, 4, 16, 64) if budget // k >= 4]


def ablation_table(part: Part, sizes: Sizes) -> pd.DataFrame:
    n = int(part["n_failed"])
    rows = []
    for setting, right in zip(settings_of_ablation(sizes), part["right"], strict=True):
        row = {k: setting[k] for k in ("kind", "target", "sigma")}
        row |= {"n_failed": n, "n_solved": len(right) - n}
        row |= named_share("recovered", right[:n, 0]) | named_share("kept", right[n:, 0])
        for i, rule in enumerate((*RULES, "pass_at_k")):
            row |= named_share(f"failed_{rule}", right[:n, i])
            row[f"solved_{rule}"] = right[n:, i].mean()
        rows.append(row)
    return pd.DataFrame(rows)


def depth_table(part: Part, per_step: int) -> pd.DataFrame:
    """Depth: every power of two of steps of one run. Breadth: all steps, k' of the K runs."""
    rows = []
    for name in part:
        if not name.endswith("/best_q"):
            continue
        run, few = name.split("/")[:2]
        k, steps = map(int, run.split("x"))
        ends = [2**i for i in range(steps.bit_length())] if k == 1 else [steps]
        for end in ends:
            row: dict[str, Any] = {"curve": f"K to {k}, {steps} steps" if k > 1 else "depth, K 1"}
            row |= {"k": int(few), "steps": end, "evaluations": int(few) * end * per_step}
            for rule in ("best_q", "pass_at_k"):
                row |= named_share(rule, part[f"{run}/{few}/{rule}"][:, end - 1])
            rows.append(row | {"n": len(part[name])})
    return pd.DataFrame(rows)


def calibration_table(parts: dict[str, Part], draws: int) -> pd.DataFrame:
    """Ten bins of confidence of the last step's answers; bootstrap intervals over puzzles."""
    rng = np.random.default_rng(0)
    rows = []
    for name, part in parts.items():
        stated = 1 / (1 + np.exp(-part["q"][:, :, -1].astype(float)))  # [puzzle, trajectory]
        right = part["solved"][:, :, -1]
        edges = np.unique(np.quantile(stated, np.linspace(0, 1, 11)))
        of = np.clip(np.searchsorted(edges, stated, side="right") - 1, 0, len(edges) - 2)
        picks = rng.integers(0, len(right), (draws, len(right)))
        for i in range(len(edges) - 1):
            inside = of == i
            if not inside.any():
                continue
            hits, n = (right & inside).sum(1), inside.sum(1)
            resampled = hits[picks].sum(1) / np.maximum(n[picks].sum(1), 1)
            low, high = np.quantile(resampled, [0.025, 0.975])
            row = {"search": name, "confidence": stated[inside].mean(), "n": int(n.sum())}
            rows.append(row | {"right": hits.sum() / n.sum(), "right_low": low, "right_high": high})
    return pd.DataFrame(rows)


def misses(part: Part, steps: tuple[int, ...]) -> list[dict[str, Any]]:
    """Puzzles where best-Q takes a wrong answer although a right one is among them, by step."""
    frame = frame_of(part)
    table = []
    for step in steps:
        rows = frame.query("step == @step - 1")
        there = rows["pass_at_k"].to_numpy() > 0
        missed = there & (rows["best_q"].to_numpy() == 0)
        row = {"step": step, "puzzles": int(missed.sum()), "of": int(there.sum())}
        table.append(row | named_share("share", missed[there]))
    return table


def escape_table(lines: np.ndarray, solved: np.ndarray, ratings: Part) -> pd.DataFrame:
    """A row for each puzzle that fails plainly: how often its noisy trajectories solve it."""
    names = ("clues", "waves", "tier", "guesses_all", "effort")
    return pd.DataFrame(
        {
            "line": lines,
            "escape": solved.mean(1),
            "trajectories": solved.shape[1],
            **{name: ratings[name] for name in names},
        }
    )


def correlation(table: pd.DataFrame, rating: str, draws: int) -> dict[str, float]:
    """Spearman's rho of escape and rating; bootstrap over puzzles. NaN where one is constant."""
    x, y = table[rating].to_numpy(float), table["escape"].to_numpy(float)

    def rho(at: np.ndarray) -> float:
        if len(np.unique(x[at])) < 2 or len(np.unique(y[at])) < 2:
            return float("nan")
        return float(spearmanr(x[at], y[at]).statistic)  # type: ignore[attr-defined]

    picks = np.random.default_rng(0).integers(0, len(x), (draws, len(x)))
    sampled = np.array([rho(at) for at in picks])
    sampled = sampled[~np.isnan(sampled)]
    low, high = np.quantile(sampled, [0.025, 0.975]) if len(sampled) else (np.nan, np.nan)
    return {"rho": rho(np.arange(len(x))), "low": float(low), "high": float(high)}


def difference(one: np.ndarray, other: np.ndarray, draws: int) -> dict[str, Any]:
    """Share of `one` minus that of `other`, same puzzles; 95 % bootstrap interval over puzzles."""
    paired = one.astype(float) - other.astype(float)
    picks = np.random.default_rng(0).integers(0, len(paired), (draws, len(paired)))
    low, high = np.quantile(paired[picks].mean(1), [0.025, 0.975]).tolist()
    verdict = "supported" if low > 0 else "refuted" if high < 0 else "undecided at this n"
    return {"difference": float(paired.mean()), "low": low, "high": high, "verdict": verdict}


def summary_of(
    parts: dict[str, Part], tables: dict[str, pd.DataFrame], sizes: Sizes
) -> dict[str, Any]:
    """The numbers behind the claims: T2, C1, misses of the halting head, escapes, rounding."""
    at5 = frame_of(parts["paper"]).query("step == 4")
    splits = [f"{k}x{steps}" for k, steps in splits_of(sizes.budget)]
    deep, broad = splits[0], splits[len(splits) // 2]
    ends = [parts["depth"][f"{run}/{run.split('x')[0]}/best_q"][:, -1] for run in (broad, deep)]
    escapes, settled = tables["escape"]["escape"].to_numpy(), parts["rounding"]["settled"]
    changed = parts["rounding"]["changed"]
    return {
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
