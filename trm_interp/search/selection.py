"""Which of a puzzle's answers to take, after every supervision step.

`best_q` takes the trajectory with the highest halting logit (arXiv 2510.04871's practice, and that
of PTRM), `vote` the commonest grid, `vote_q` the grid with the largest sum of sigmoid(q). Equal
scores go to the earlier trajectory, and a grid of pads, which is no answer, has no vote. The rules
of the task take part in none of them, unless a search ended trajectories by them (`stop`).
"""

import numpy as np
import pandas as pd

from trm_interp.analysis.outcomes import wilson
from trm_interp.runtime.shapes import Float, Int
from trm_interp.search.engine import NO_ANSWER, Trajectories
from trm_interp.search.results import RULES as RULES
from trm_interp.search.results import SHARES as SHARES


def votes(
    ids: Int[np.ndarray, "trajectory step"], weights: Float[np.ndarray, "trajectory step"]
) -> Float[np.ndarray, "trajectory step"]:
    """The weight of all trajectories that have the same grid as each one, itself included.

    >>> votes(np.array([[7], [8], [8]]), np.array([[1.0], [0.25], [0.5]])).tolist()
    [[1.0], [0.75], [0.75]]
    """
    same = ids[:, None] == ids[None]  # [trajectory, trajectory, step]
    return (same * weights[None]).sum(1)


def choose(
    trajectories: Trajectories, k: int | None = None
) -> dict[str, Int[np.ndarray, "puzzle step"]]:
    """The trajectory that each rule takes, of the first k (default all)."""
    k = trajectories.k if k is None else k
    q, ran = trajectories.q[:, :k], trajectories.ran[:, :k, None] > 0
    with np.errstate(over="ignore"):  # to infinity, and so to a weight of 0
        weights = {"vote": np.ones_like(q), "vote_q": 1 / (1 + np.exp(-q))}
    chosen = {"best_q": q.argmax(1)}  # q of what never ran is -inf
    ids = trajectories.said[:, :k]
    for rule, weight in weights.items():
        counted = np.where(ran & (ids != NO_ANSWER), weight, 0.0)
        scores = np.stack([votes(i, w) for i, w in zip(ids, counted, strict=True)])
        chosen[rule] = np.where(ran, scores, -1.0).argmax(1)
    return chosen


def outcome_frame(
    trajectories: Trajectories, labels: Int[np.ndarray, "puzzle cell"]
) -> pd.DataFrame:
    """One row per puzzle and step (both from 0, the puzzle of these trajectories).

    `baseline` (the plain run: the first trajectory where that is clean, else an extra one; it ends
    early like any other), `best_q`, `vote`, `vote_q`: that answer is the label. `pass_at_k`: some
    trajectory's is. `verified`: the rules prove some trajectory's grid right, which needs no
    label.
    `trajectories` that ran, `right` of them, and `steps_run`, the supervision steps that they cost
    (a step of the model is `schedule.evaluations` network evaluations). `q` is best_q's halting
    logit, `chosen_*` which trajectory a rule took.
    """
    n, _, steps = trajectories.q.shape
    sampled = trajectories.ran[:, : trajectories.k, None] > 0
    solved = trajectories.solved(labels)
    right = solved[:, : trajectories.k] & sampled
    chosen = choose(trajectories)
    of_step: dict[str, np.ndarray] = {"baseline": solved[:, trajectories.baseline]}
    for rule, at in chosen.items():
        of_step[rule] = np.take_along_axis(right, at[:, None], axis=1)[:, 0]
    of_step["pass_at_k"] = right.sum(1) > 0
    of_step["verified"] = (trajectories.valid[:, : trajectories.k] & sampled).sum(1) > 0
    of_step["right"] = right.sum(1)
    of_step["q"] = trajectories.q[:, : trajectories.k].max(1).astype(np.float64)
    of_step |= {f"chosen_{rule}": at for rule, at in chosen.items()}
    of_puzzle = {"trajectories": sampled[:, :, 0].sum(1), "steps_run": trajectories.steps_run}
    return pd.DataFrame(
        {
            "puzzle": np.repeat(np.arange(n), steps),
            "step": np.tile(np.arange(steps), n),
            **{name: values.ravel() for name, values in of_step.items()},
            **{name: np.repeat(values, steps) for name, values in of_puzzle.items()},
        }
    )


def share_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per step: shares of the puzzles with 95 % Wilson intervals (`_low`, `_high`), and n.

    The columns are SHARES; `frame` is one of `outcome_frame` or several of them joined.
    """
    rows = []
    steps = frame["step"].to_numpy()
    for step in range(int(steps.max()) + 1):
        at = steps == step
        n = int(at.sum())
        row: dict[str, float] = {"step": step, "n": n}
        for name in SHARES:
            hits = int(frame[name].to_numpy()[at].sum())
            row[name] = hits / n
            row[f"{name}_low"], row[f"{name}_high"] = wilson(hits, n)
        rows.append(row)
    return pd.DataFrame(rows)
