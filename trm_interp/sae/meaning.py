"""What a feature correlates with on the board: AUC of its activation for facts about cells."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse
from scipy.stats import rankdata

from trm_interp.core.losses import PAD
from trm_interp.runtime.shapes import Bool, Float, Int
from trm_interp.tasks.base import Task

Tokens = Int[np.ndarray, " cell"]


class Facts(NamedTuple):
    """`values` [row, fact] for rows (step, cell) of one puzzle, and which rows are `asked` cells.

    Facts in `of_asked` are looked at in asked cells only: givens are never wrong and have no
    candidates, and a feature for "given" must not pass for one of those.
    """

    names: list[str]
    values: Bool[np.ndarray, "row fact"]
    asked: Bool[np.ndarray, " row"]
    of_asked: Bool[np.ndarray, " fact"]


def facts_of(
    task: Task,
    inputs: Tokens,
    labels: Tokens,
    predictions: Int[np.ndarray, "step cell"],
    steps: list[int],
) -> Facts:
    """Facts at the ends of these supervision steps; boards in tokens.

    Of every cell: whether it is given, where it lies, what it holds in the solution and in the
    guess. Of asked cells: the task's own facts of the puzzle, whether the guess breaks a rule, is
    wrong, or is about to change (the guess after the next step differs; none after the last one).
    """
    asked = task.asked(inputs)
    fixed: dict[str, np.ndarray] = {"given": ~asked}
    for name, place in task.places().items():
        fixed |= {f"{name} {i + 1}": place == i for i in range(int(place.max()) + 1)}
    answers = {task.tokens[token]: token for token in task.answer_tokens}
    fixed |= {f"solution {name}": labels == token for name, token in answers.items()}
    moving: dict[str, Callable[[int], np.ndarray]] = {
        f"guess {name}": lambda s, token=token: predictions[s] == token
        for name, token in answers.items()
    }
    last = len(predictions) - 1
    of_asked: dict[str, Callable[[int], np.ndarray]] = {
        **{
            name: lambda s, values=values: values
            for name, values in task.board_facts(inputs, labels).items()
        },
        "conflict": lambda s: task.conflicts(predictions[s]),
        "about to change": lambda s: predictions[min(s + 1, last)] != predictions[s],
        "wrong": lambda s: (predictions[s] != labels) & (labels != PAD),
    }
    at_step = {**moving, **of_asked}
    per_step = [
        np.stack([*fixed.values(), *(fact(step) for fact in at_step.values())], axis=1)
        for step in steps
    ]
    names = [*fixed, *at_step]
    return Facts(
        names,
        np.concatenate(per_step),
        np.tile(asked, len(steps)),
        np.array([name in of_asked for name in names]),
    )


def shuffled_cells(facts: Facts, n_cells: int, rng: np.random.Generator) -> Facts:
    """The control: cells of a puzzle trade their facts, asked cells with asked ones, givens with
    givens.

    One exchange for all steps: a fact that lasts is one observation, not one a step, and the
    control has to be as lucky.
    """
    asked = facts.asked[:n_cells]
    source = np.arange(n_cells)
    for kind in (np.flatnonzero(asked), np.flatnonzero(~asked)):
        source[kind] = rng.permutation(kind)
    steps = np.arange(0, len(facts.values), n_cells)[:, None]
    return facts._replace(values=facts.values[(steps + source).ravel()])


def sparse_auc(
    acts: scipy.sparse.csc_matrix, facts: Bool[np.ndarray, "row fact"]
) -> Float[np.ndarray, "feature fact"]:
    """AUC of every feature for every fact; activations [row, feature] are non-negative.

    Zeros tie at the bottom, so only what fires is ranked. NaN for facts that are always or never
    true.

    >>> one = scipy.sparse.csc_matrix(np.array([[0.0], [2.0], [0.0], [3.0]]))
    >>> sparse_auc(one, np.array([[False], [False], [True], [True]])).tolist()
    [[0.625]]
    """
    n = facts.shape[0]
    true = facts.sum(0).astype(float)
    as_float = facts.astype(np.float32)
    starts, indices = (np.asarray(part).astype(np.int64) for part in (acts.indptr, acts.indices))
    data = np.asarray(acts.data)
    auc = np.empty((len(starts) - 1, facts.shape[1]))
    for feature in range(len(auc)):
        span = slice(starts[feature], starts[feature + 1])
        rows, values = indices[span], data[span]
        silent = n - len(rows)
        here = as_float[rows]
        ranks = (rankdata(values) + silent) @ here
        auc[feature] = ranks + (true - here.sum(0)) * (silent + 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = (auc - true * (true + 1) / 2) / (true * (n - true))
    return np.where((true > 0) & (true < n), auc, np.nan)


class Meaning(NamedTuple):
    """`auc` [feature, fact], and the same for the shuffled control: NaN for facts that stay where
    they are when cells trade theirs (`given`), which have none."""

    names: list[str]
    auc: Float[np.ndarray, "feature fact"]
    control: Float[np.ndarray, "feature fact"]

    def best(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per feature: the fact that it separates best, its AUC, and |AUC - 0.5| + 0.5 of the
        control at its strongest."""
        gap = np.nan_to_num(np.abs(self.auc - 0.5))
        at = gap.argmax(1)
        strongest = np.nan_to_num(np.abs(self.control - 0.5)).max(1) + 0.5
        return at, self.auc[np.arange(len(at)), at], strongest


def meaning_of(
    acts: scipy.sparse.csc_matrix, facts: list[Facts], n_cells: int, seed: int
) -> Meaning:
    """AUC over all rows, or over the asked ones for facts about asked cells; and its control."""
    rng = np.random.default_rng([seed, 0xFAC7])
    shuffled = [shuffled_cells(one, n_cells, rng) for one in facts]
    asked = np.concatenate([one.asked for one in facts])
    of_asked = facts[0].of_asked
    among_asked = scipy.sparse.csc_matrix(acts.tocsr()[np.flatnonzero(asked)])
    tables = []
    for source in (facts, shuffled):
        values = np.concatenate([one.values for one in source])
        auc = np.empty((len(np.asarray(acts.indptr)) - 1, len(of_asked)))
        auc[:, ~of_asked] = sparse_auc(acts, values[:, ~of_asked])
        auc[:, of_asked] = sparse_auc(among_asked, values[asked][:, of_asked])
        tables.append(auc)
    before, after = (np.concatenate([one.values for one in source]) for source in (facts, shuffled))
    tables[1][:, (before == after).all(0)] = np.nan
    return Meaning(facts[0].names, *tables)


def head_push(
    rows: Float[np.ndarray, "feature d_model"],
    head: Float[np.ndarray, "vocab d_model"],
    answers: Sequence[int],
) -> Float[np.ndarray, "feature answer"]:
    """Logits that a decoder row adds to each of the tokens `answers`, less their mean: which of
    them it pushes.

    Direct only where the site is what the head reads (the answer state at the end of a step);
    elsewhere a lens.
    """
    push = rows @ head[list(answers)].T
    return push - push.mean(1, keepdims=True)
