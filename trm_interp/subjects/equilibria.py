"""What is told of models that solve for fixed points: which puzzles reach them."""

from typing import Any

import numpy as np
from torch import Tensor

from trm_interp.core.models.base import RecursiveModel
from trm_interp.runtime.limits import counted


def notice(model: RecursiveModel, name: str) -> str | None:
    """A line for whoever runs such a model; None for any other."""
    if model.tolerance is None:
        return None
    return (
        f"{name} solves for {model.latent} in every H-cycle, to a residual of {model.tolerance:g} "
        f"with {_cap(model)} evaluations at most; eval, outcomes and collect say which puzzles do "
        "not get there"
    )


def _cap(model: RecursiveModel) -> int:
    """Evaluations of a solve."""
    return model.config.schedule.writes_per_cycle(model.latent)


def converged(model: RecursiveModel, residual: np.ndarray) -> np.ndarray:
    """bool [puzzle, step]: whether all H-cycles of a step have reached their fixed points.

    `residual` [puzzle, step, h_cycle] as in `Readouts`; NaN has not.
    """
    assert model.tolerance is not None
    return np.asarray((residual <= model.tolerance).all(-1))


def convergence(
    model: RecursiveModel, residual: Tensor | None, lines: np.ndarray
) -> dict[str, Any] | None:
    """Which of the puzzles of a run have converged; None of a model that solves for nothing.

    `residual` [puzzle, step, h_cycle] as in `Readouts`.

    `solves`: H-cycles of all puzzles, `share` of which have; `at_step`: share of the puzzles all of
    whose H-cycles have at a step; `unconverged`: the puzzles (`lines` in their file) that have not
    at the last step; `residual`: the median over these puzzles of the worst H-cycle there.
    """
    if residual is None or model.tolerance is None:
        return None
    remains = residual.numpy()
    there = converged(model, remains)
    last = ~there[:, -1]
    worst = remains[last, -1].max(-1)
    return {
        "tolerance": model.tolerance,
        "evaluations": _cap(model),
        "solves": remains.size,
        "share": float((remains <= model.tolerance).mean()),
        "at_step": there.mean(0).tolist(),
        "unconverged": lines[last].tolist(),
        "residual": float(np.median(worst)) if last.any() and np.isfinite(worst).all() else None,
    }


def line(found: dict[str, Any], n: int) -> str:
    """`convergence` of n puzzles in words."""
    told = (
        f"fixed points: {found['share']:.1%} of {found['solves']} solves converged (residual at "
        f"most {found['tolerance']:g}, {found['evaluations']} evaluations)"
    )
    some = found["unconverged"]
    if not some:
        return f"{told}; all of {counted(n, 'puzzle')} at the last step"
    first = ", ".join(map(str, some[:5])) + (", ..." if len(some) > 5 else "")
    median = "" if found["residual"] is None else f", median residual {found['residual']:.2g}"
    return f"{told}; not at the last step: {len(some)} of {counted(n, 'puzzle')}{median} ({first})"
