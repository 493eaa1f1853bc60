"""Basins: where do runs from other starts end? Starts, planes, endings and their shares.

A state is a tuple of tensors [start, pos, d_model]; the answer is read from it by a function, and
another takes it one supervision step further. Nothing here knows the network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from trm_interp.analysis.linkage import linked
from trm_interp.analysis.outcomes import first_solved, solved_from, wilson_bounds
from trm_interp.analysis.spatial import PermutationTest, against_shuffles, morans_i, purity
from trm_interp.core.counter import normal
from trm_interp.runtime.limits import seed32
from trm_interp.runtime.shapes import Float, Int

States = tuple[Tensor, ...]
Advance = Callable[[States], States]
Read = Callable[[States], tuple[Tensor, Tensor]]  # tokens [start, cell], q_halt [start]
SOLVED, STEPS = "solved", "steps of the solved"  # labels of starts, as in tables


def displacements(
    starts: Int[Tensor, " start"],
    radius: Float[Tensor, " start"],
    pos: int,
    d_model: int,
    shared: bool,
    *key: int,
) -> Float[Tensor, "start place d_model"]:
    """Perturbations of a state: a random direction of RMS `radius` for each start.

    Every state that the network writes has RMS 1, so a radius is a relative noise, and its arctan
    about the angle from the model's own start. `shared`: one vector for all positions (place is 1,
    not pos). Start i of a key does not depend on the other starts that are drawn.
    """
    places = 1 if shared else pos
    drawn = normal(places * d_model, *key, starts)
    size = drawn.square().mean(1, keepdim=True).sqrt()
    return (radius[:, None] * drawn / size).unflatten(1, (places, d_model))


def radius_of(starts: Int[Tensor, " start"], radii: Sequence[float]) -> Float[Tensor, " start"]:
    """Of start 0, which is the model's own, nothing; the others take the radii in turn.

    >>> radius_of(torch.arange(4), [0.5, 2.0]).tolist()
    [0.0, 0.5, 2.0, 0.5]
    """
    in_turn = torch.tensor(radii, device=starts.device)[(starts - 1) % len(radii)]
    return torch.where(starts == 0, 0.0, in_turn)


@dataclass(frozen=True)
class Plane:
    """Two directions from `origin` [*state], orthogonal and of RMS 1: distances in the plane are
    RMS distances of states. `corners` [3, 2] is where the three points lie in it."""

    origin: Tensor
    axes: Tensor  # [2, *state]
    corners: np.ndarray

    def at(self, places: Float[np.ndarray, "point 2"]) -> Tensor:
        """The states [point, *state] at these places."""
        along = torch.as_tensor(places, dtype=self.axes.dtype, device=self.axes.device)
        return self.origin + torch.tensordot(along, self.axes, dims=1)


def plane_through(points: Float[Tensor, " 3 *state"]) -> Plane:
    """The plane of three states: the first is its origin, the second lies on its first axis.

    ValueError where they lie on a line.
    """
    origin, toward, other = points.double().flatten(1)
    n = len(origin)
    first, second = toward - origin, other - origin
    length = first.square().mean().sqrt()
    axis = first / length
    along = (second * axis).mean()
    rest = second - along * axis
    height = rest.square().mean().sqrt()
    if not (length > 0 and height > 1e-6 * second.square().mean().sqrt()):
        raise ValueError(f"three states of {n} numbers on a line span no plane")
    axes = torch.stack([axis, rest / height]).view(2, *points.shape[1:])
    corners = np.array([[0.0, 0.0], [float(length), 0.0], [float(along), float(height)]])
    return Plane(points[0], axes.to(points.dtype), corners)


def square(
    corners: Float[np.ndarray, "corner 2"], n: int, margin: float = 0.25
) -> Float[np.ndarray, "point 2"]:
    """Places of an n x n image around the corners, row by row from below; `margin` is added at each
    side, as a share of the longer one.

    >>> square(np.array([[0.0, 0.0], [2.0, 1.0]]), 2, margin=0.0).tolist()
    [[0.0, -0.5], [2.0, -0.5], [0.0, 1.5], [2.0, 1.5]]
    """
    low, high = corners.min(0), corners.max(0)
    half = (0.5 + margin) * (high - low).max()
    x, y = (np.linspace(c - half, c + half, n) for c in (low + high) / 2)
    return np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)


class Endings(NamedTuple):
    """How runs from some starts ended. `moved`: RMS change of the answer state over each step.
    `end`: the states after the last one."""

    answers: Int[np.ndarray, "start step cell"]
    q_halt: Float[np.ndarray, "start step"]
    moved: Float[np.ndarray, "start step"]
    end: States


@torch.no_grad()
def follow(start: States, advance: Advance, read: Read, steps: int, answer: int = 0) -> Endings:
    """Run all starts together for some supervision steps; `answer`: place of the answer state."""
    state, rows = start, []
    for _ in range(steps):
        before, state = state[answer], advance(state)
        moved = (state[answer].float() - before.float()).square().flatten(1).mean(1).sqrt()
        tokens, q_halt = read(state)
        rows.append((tokens.to(torch.uint8).cpu(), q_halt.float().cpu(), moved.cpu()))
    answers, q_halts, moves = (torch.stack(part, 1).numpy() for part in zip(*rows, strict=True))
    return Endings(answers, q_halts, moves, state)


def ending_columns(
    answers: Int[np.ndarray, "start step cell"],
    q_halt: Float[np.ndarray, "start step"],
    moved: Float[np.ndarray, "start step"],
    solution: Int[np.ndarray, " cell"],
) -> dict[str, np.ndarray]:
    """What runs came to, by name: `first_solved` and `solved_from` (steps from 0, -1: never),
    number of the last `answer`, and `q_halt` and `moved` of the last step."""
    solved = (answers == solution).all(-1)
    return {
        "first_solved": first_solved(solved),
        "solved_from": solved_from(solved),
        "answer": same_answer(answers[:, -1]),
        "q_halt": q_halt[:, -1],
        "moved": moved[:, -1],
    }


def cluster_table(
    rows: pd.DataFrame,
    weights: scipy.sparse.csr_matrix,
    among_solved: scipy.sparse.csr_matrix | None,
    seed: int,
    shuffles: int,
) -> pd.DataFrame:
    """Do starts that lie together end alike? Columns measure, label, n, value, chance, p.

    Moran's I of solved or not, and of the steps to solution among the solved starts alone; purity
    of outcome and answer. Against shuffled labels: among starts of the same radius, if they have
    one.
    rows: solved_from, answer and perhaps radius of every start. among_solved: the weights between
    the solved ones, in their order; None where they are too few.
    """
    since, radii = rows["solved_from"].to_numpy(), None
    if "radius" in rows:
        radii = np.unique(rows["radius"], return_inverse=True)[1]
    solved = since >= 0
    groups = None if radii is None else radii[solved]
    steps = (morans_i, since[solved].astype(float), among_solved, groups)
    everywhere = {
        ("Moran's I", SOLVED): (morans_i, solved.astype(float)),
        ("purity", SOLVED): (purity, solved.astype(np.int64)),
        ("purity", "answer"): (purity, rows["answer"].to_numpy()),
    }
    measured = {name: (*of, weights, radii) for name, of in everywhere.items()}
    measured = {("Moran's I", STEPS): steps} | measured
    return pd.DataFrame(
        [
            {"measure": measure, "label": label, "n": len(values)}
            | _tested(of, values, near, seed, groups, shuffles)._asdict()
            for (measure, label), (of, values, near, groups) in measured.items()
        ]
    )


def _tested(
    measure: Callable[..., np.ndarray],
    values: np.ndarray,
    weights: scipy.sparse.csr_matrix | None,
    seed: int,
    groups: np.ndarray | None,
    shuffles: int,
) -> PermutationTest:
    if weights is None:
        return PermutationTest(np.nan, np.nan, np.nan)
    return against_shuffles(measure, values, weights, seed, groups, shuffles)


def by_size(labels: Int[np.ndarray, " start"]) -> Int[np.ndarray, " start"]:
    """The same groups, numbered from the largest; of equal ones the one that comes first.

    >>> by_size(np.array([7, 2, 2, 9])).tolist()
    [1, 0, 0, 2]
    """
    _, first, group, size = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    number = np.empty(len(size), np.int64)
    number[np.lexsort(np.stack([first, -size]))] = np.arange(len(size))
    return number[group]


def same_answer(answers: Int[np.ndarray, "start cell"]) -> Int[np.ndarray, " start"]:
    """Answer basin of every start: equal grids have equal numbers, the most frequent one 0."""
    return by_size(np.unique(answers, axis=0, return_inverse=True)[1].ravel())


def same_state(
    states: Float[np.ndarray, "start number"], tolerance: float
) -> Int[np.ndarray, " start"]:
    """State basin of every start: single linkage, which does not depend on the starts' order.

    Two states are in one group where a chain of states joins them, each link at most `tolerance`
    long in RMS. The largest group is 0.

    Not all pairs are compared (`linkage`): a million starts that end in some dozens of groups take
    seconds.
    """
    z = states.astype(np.float32)
    z -= z.mean(0)  # float32 then tells distances of 1e-3 of a state's size
    return by_size(linked(z, tolerance * np.sqrt(z.shape[1])))


def shares(labels: Int[np.ndarray, " start"]) -> pd.DataFrame:
    """Volume of every basin: share of the starts, with its 95 % Wilson interval over starts.

    >>> shares(np.array([0, 0, 1, 0]))[["basin", "starts", "share"]].to_numpy().tolist()
    [[0.0, 3.0, 0.75], [1.0, 1.0, 0.25]]
    """
    basins, counts = np.unique(labels, return_counts=True)
    low, high = wilson_bounds(counts, np.full(len(counts), len(labels)))
    share = counts / max(len(labels), 1)
    return pd.DataFrame(
        {"basin": basins, "starts": counts, "share": share, "low": low, "high": high}
    )


def principal_plane(
    points: Float[np.ndarray, "start number"], seed: int
) -> tuple[Float[np.ndarray, "start 2"], Float[np.ndarray, "2"]]:
    """Coordinates [start, 2] of points [start, number] along their first two principal axes, in
    RMS distance over the numbers, and the share of the variance that each axis explains."""
    pca = PCA(2, svd_solver="randomized", random_state=seed32(seed))
    places = pca.fit_transform(points.astype(np.float32)) / np.sqrt(points.shape[1])
    return places, pca.explained_variance_ratio_
