"""The output head read at every tick (a lens: nothing is trained): what is answered, since when.

`answers` are tokens decoded from a state; the ticks are those of one site, in order.
"""

import numpy as np

from trm_interp.runtime.shapes import Bool, Float, Int


def decided(answers: Int[np.ndarray, "*puzzle tick cell"]) -> Int[np.ndarray, "*puzzle cell"]:
    """First tick from which a cell's answer does not change any more, counted in the series.

    >>> decided(np.array([[1, 2, 3], [4, 2, 3], [4, 2, 5]])).tolist()
    [1, 0, 2]
    """
    final = np.flip(answers == answers[..., -1:, :], -2)
    return np.flip(np.logical_and.accumulate(final, axis=-2), -2).argmax(-2)


def revisions(answers: Int[np.ndarray, "*puzzle tick cell"]) -> Int[np.ndarray, "*puzzle cell"]:
    """How often a cell's answer changes from one tick to the next.

    >>> revisions(np.array([[1, 2, 3], [4, 2, 3], [1, 2, 5]])).tolist()
    [2, 0, 1]
    """
    return (answers[..., 1:, :] != answers[..., :-1, :]).sum(-2)


def agreement(
    answers: Int[np.ndarray, "*puzzle tick cell"],
    target: Int[np.ndarray, "*puzzle cell"],
    among: Bool[np.ndarray, "*puzzle cell"],
) -> Float[np.ndarray, "*puzzle tick"]:
    """Share of the cells in `among` that are answered as in `target`, at every tick; NaN where
    there are none.

    >>> agreement(np.array([[1, 2, 3], [1, 2, 4]]), np.array([1, 2, 4]), np.array([0, 1, 1]) > 0)
    array([0.5, 1. ])
    """
    same = (answers == target[..., None, :]) & among[..., None, :]
    with np.errstate(invalid="ignore"):
        return same.sum(-1) / among.sum(-1)[..., None]


def decided_share(
    decided_at: Int[np.ndarray, "*puzzle cell"], among: Bool[np.ndarray, "*puzzle cell"], ticks: int
) -> Float[np.ndarray, "*puzzle tick"]:
    """Share of the cells in `among` that are decided by each tick; 1 at the last one.

    >>> decided_share(np.array([0, 2, 2]), np.array([True, True, False]), 3).tolist()
    [0.5, 0.5, 1.0]
    """
    by_now = (decided_at[..., None, :] <= np.arange(ticks)[:, None]) & among[..., None, :]
    with np.errstate(invalid="ignore"):
        return by_now.sum(-1) / among.sum(-1)[..., None]


def mean_among(
    values: Int[np.ndarray, "*puzzle cell"], among: Bool[np.ndarray, "*puzzle cell"]
) -> Float[np.ndarray, "*puzzle"]:
    """Mean of a number of each cell over the cells in `among`; NaN where there are none.

    >>> float(mean_among(np.array([4, 1, 3]), np.array([False, True, True])))
    2.0
    """
    with np.errstate(invalid="ignore"):
        return np.asarray((values * among).sum(-1) / among.sum(-1))
