"""The runs behind `used`: what is taken out of a state, and what becomes of the puzzles.

A removal is one set of directions (or of SAE features) at one moment in one state. They come from
the training puzzles alone; the others are rerun without them, at their asked cells.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trm_interp.analysis.probes import auc_by_puzzle, probe_weights, shuffled_in_puzzles
from trm_interp.patch.patching import OUTCOMES, Cell, Effects, apply
from trm_interp.patch.sources import Edit, Fixed, Source
from trm_interp.runtime.arrays import Arrays
from trm_interp.runtime.errors import UserError
from trm_interp.sae.applied import encode
from trm_interp.sae.steer import matched
from trm_interp.studies.asked_rows import Batch, Moment, Rows, batches, joined, rows_of
from trm_interp.studies.causal_settings import UsedConfig
from trm_interp.studies.sae_of_state import StateSAE
from trm_interp.studies.subject import Subject

PROBE, SHUFFLED = "probes", "probes of shuffled labels"
RANDOM, SPREAD = "random directions", "random mixtures of states"
FEATURE, FEATURES = "best SAE feature", "best SAE features"
OTHER_FEATURE, OTHER_FEATURES = "SAE feature used as much", "SAE features used as much"
NOTHING = "nothing"
CONTROLS = {
    PROBE: (RANDOM, SPREAD, SHUFFLED),
    FEATURE: (OTHER_FEATURE,),
    FEATURES: (OTHER_FEATURES,),
}
Advance = Callable[[int], None]


class Removal(NamedTuple):
    """What is taken out. `label`: a kind of labels or a single one; "" where it is for all of
    `dims` dimensions. `columns`: its labels; `directions` [k, d_model], or numbers of `features`
    with the weights and the offsets of probes of them."""

    moment: Moment
    label: str
    what: str
    dims: int
    columns: tuple[int, ...] = ()
    directions: Tensor | None = None
    features: tuple[int, ...] = ()
    scores: tuple[np.ndarray, np.ndarray] | None = None  # weights [column, number], offsets


class Fitted(NamedTuple):
    """`means` [d_model] by hook point, over the asked cells of training puzzles."""

    removals: list[Removal]
    means: dict[str, Tensor]


def fit(
    subject: Subject,
    config: UsedConfig,
    moments: Sequence[Moment],
    train: np.ndarray,
    sae: StateSAE | None,
    advance: Advance,
) -> Fitted:
    """All removals, from the training puzzles. UserError where these ask for nothing."""
    parts: dict[Moment, list[Rows]] = {moment: [] for moment in moments}
    sums: dict[str, np.ndarray] = {}
    asked = 0
    for _, work in batches(subject, config, moments, train):
        batch = work()
        asked += int(batch.asked.sum())
        for moment in moments:
            parts[moment].append(rows_of(subject, batch, moment))
            for hook in moment.hooks:
                sums.setdefault(hook, np.zeros(subject.model.config.d_model))
        for hook in sums:
            sums[hook] += batch.states(hook).sum(0, dtype=np.float64)
    if not asked:
        raise UserError("probes need blank cells in training puzzles: give more (--limit)")
    removals: list[Removal] = []
    for done, moment in enumerate(moments, 1):
        rows = joined(parts.pop(moment))
        removals += _probes(config, moment, rows)
        if sae is not None and moment.site == sae.site:
            removals += _features(config, moment, rows, sae)
        removals.append(Removal(moment, "", NOTHING, 0))
        advance(done)
    means = {hook: torch.from_numpy(total / asked).float() for hook, total in sums.items()}
    return Fitted(removals, means)


def _rng(config: UsedConfig, moment: Moment, what: str, draw: int = 0) -> np.random.Generator:
    return np.random.default_rng(
        [config.seed, moment.done, draw, *f"{moment.site} {what}".encode()]
    )


def _probes(config: UsedConfig, moment: Moment, rows: Rows) -> Iterator[Removal]:
    """Probes of every kind together and each by itself, the same of shuffled labels, and for every
    number of dimensions random directions."""
    shuffled = shuffled_in_puzzles(rows.labels, rows.puzzle, _rng(config, moment, SHUFFLED))
    dims: set[int] = set()
    for what, labels in ((PROBE, rows.labels), (SHUFFLED, shuffled)):
        weights, offsets = probe_weights(rows.states, labels, config.strength)
        fits = np.flatnonzero(np.isfinite(offsets) & (np.abs(weights).max(1) > 0))
        for label, columns in labels_of(rows, config.singles).items():
            own = tuple(int(column) for column in columns if column in fits)
            if own:
                part = weights[list(own)]
                directions = part / np.linalg.norm(part, axis=1, keepdims=True)
                yield Removal(
                    moment,
                    label,
                    what,
                    len(own),
                    own,
                    torch.from_numpy(directions).float(),
                    scores=(part, offsets[list(own)]),
                )
                dims.add(len(own))
    centred = rows.states - rows.states.mean(0)
    for k in sorted(dims):
        for draw in range(config.random):
            drawn = _rng(config, moment, RANDOM, draw).standard_normal((k, centred.shape[1]))
            mixed = _rng(config, moment, SPREAD, draw).standard_normal((k, len(centred))) @ centred
            for what, directions in ((RANDOM, drawn), (SPREAD, mixed)):
                if np.abs(directions).max() > 0:
                    yield Removal(
                        moment, "", what, k, directions=torch.from_numpy(directions).float()
                    )


def labels_of(rows: Rows, singles: bool) -> dict[str, list[int]]:
    """Columns by name: of whole kinds, then of single labels."""
    alone = {name: [at] for at, name in enumerate(rows.names)} if singles else {}
    return rows.kinds | {name: at for name, at in alone.items() if name not in rows.kinds}


def _features(config: UsedConfig, moment: Moment, rows: Rows, sae: StateSAE) -> Iterator[Removal]:
    """Of every kind of labels the feature that tells the most of one of them, and the best
    together; and for each as many others that fire about as often and as strongly."""
    acts = encode(sae.sae, torch.from_numpy(rows.states).to(sae.device)).cpu().numpy()
    density, mean = (acts > 0).mean(0), acts.mean(0, dtype=np.float64)
    mean /= np.maximum(density, 1e-12)
    fires = np.flatnonzero(density)
    k = config.features
    if len(fires) < 2 * k:
        raise UserError(
            f"--features {k}: {len(fires)} features of {sae.path} fire on {moment.site} after "
            f"step {moment.done}; controls need twice as many: lower it"
        )
    told = _correlations(acts, rows.labels)
    for kind, columns in rows.kinds.items():
        best = np.argsort(-np.abs(told[:, columns]).max(1), kind="stable")[:k]
        for what, other, chosen in (
            (FEATURE, OTHER_FEATURE, best[:1]),
            (FEATURES, OTHER_FEATURES, best),
        ):
            own = tuple(columns)
            scores = probe_weights(acts[:, chosen], rows.labels[:, columns], config.strength)
            features = tuple(map(int, chosen))
            yield Removal(moment, kind, what, len(chosen), own, features=features, scores=scores)
            for draw in range(config.random):
                others = _others(chosen, density, mean, config.seed + draw)
                yield Removal(moment, kind, other, len(chosen), own, features=others)


def _correlations(acts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[feature, label]; 0 where either is constant."""
    a = acts - acts.mean(0)
    b = labels - labels.mean(0)
    size = np.sqrt(np.square(a).sum(0))[:, None] * np.sqrt(np.square(b).sum(0))
    return np.where(size > 0, a.T @ b / np.maximum(size, 1e-30), 0.0)


def _others(
    chosen: np.ndarray, density: np.ndarray, mean: np.ndarray, seed: int
) -> tuple[int, ...]:
    """For each of the chosen features another one, all different."""
    taken: list[int] = []
    for feature in chosen:
        free = density.copy()
        free[[*(other for other in chosen if other != feature), *taken]] = 0
        taken += matched(free, mean, int(feature), 1, seed).tolist()
    return tuple(taken)


def measured(
    subject: Subject,
    config: UsedConfig,
    fitted: Fitted,
    batch: Batch,
    sae: StateSAE | None,
    advance: Advance,
) -> Arrays:
    """Of a batch of held-out puzzles `change` [removal, puzzle, outcome], in the order of OUTCOMES;
    `moved` [removal, puzzle], how far the state of asked cells is moved there first, RMS; `auc`
    [removal, puzzle], how well the removal's probes tell its labels, NaN where it has none;
    `unchanged` [puzzle, outcome], of the runs as they are."""
    removals, n = fitted.removals, len(batch.puzzles)
    change = np.full((len(removals), n, len(OUTCOMES)), np.nan)
    moved, auc = (np.full((len(removals), n), np.nan) for _ in range(2))
    for moment in dict.fromkeys(removal.moment for removal in removals):
        rows = rows_of(subject, batch, moment)
        acts = None
        if sae is not None and moment.site == sae.site:
            acts = encode(sae.sae, torch.from_numpy(rows.states).to(sae.device)).cpu().numpy()
        mean = fitted.means[moment.hooks[0]].numpy() if config.to == "mean" else 0.0
        for i, removal in enumerate(removals):
            if removal.moment == moment:
                away = _taken_out(removal, rows.states - mean, acts, sae)
                moved[i] = _by_puzzle(np.square(away).mean(1), rows.puzzle, batch.puzzles) ** 0.5
                auc[i] = _auc(removal, rows, acts, batch.puzzles)
    unchanged: dict[str, Tensor] = {}
    for which, source, cells in _work(config, fitted, batch, sae):
        if not which:
            continue
        before = 0

        def tell(done: int, of: int) -> None:
            nonlocal before
            advance(n * (done - before))
            before = done

        effects = apply(batch.runs, source, cells, batch_size=config.batch_size, progress=tell)
        change[which], unchanged = _stacked(effects), effects.unchanged
    plain = np.stack([unchanged[name].double().numpy() for name in OUTCOMES], -1)
    return {"change": change, "moved": moved, "auc": auc, "unchanged": plain}


def _work(
    config: UsedConfig, fitted: Fitted, batch: Batch, sae: StateSAE | None
) -> Iterator[tuple[list[int], Source, list[Cell]]]:
    """Which removals are rerun together, with what is put in where."""
    positions, removals = batch.positions, fitted.removals
    linear = [i for i, removal in enumerate(removals) if removal.directions is not None]
    left = fitted.means
    if config.to == "zero":
        left = {hook: torch.zeros_like(vector) for hook, vector in left.items()}
    cells = [
        Cell(removals[i].moment.hooks, positions, directions=removals[i].directions) for i in linear
    ]
    yield linear, Fixed(left), cells
    same = [i for i, removal in enumerate(removals) if removal.what == NOTHING]
    yield same, Edit(lambda z: z), [Cell(removals[i].moment.hooks, positions) for i in same]
    for i, removal in enumerate(removals):
        if removal.features and sae is not None:
            yield [i], Edit(sae.without(removal.features)), [Cell(removal.moment.hooks, positions)]


def _taken_out(
    removal: Removal, centred: np.ndarray, acts: np.ndarray | None, sae: StateSAE | None
) -> np.ndarray:
    """[row, d_model]: by how much the states are moved."""
    if removal.directions is not None:
        rows = torch.from_numpy(centred).float()
        return Cell("", directions=removal.directions).along(rows).numpy()
    if removal.features and acts is not None and sae is not None:
        chosen = list(removal.features)
        return acts[:, chosen] @ sae.rows[chosen].cpu().numpy()
    return np.zeros_like(centred)


def _auc(removal: Removal, rows: Rows, acts: np.ndarray | None, puzzles: np.ndarray) -> np.ndarray:
    """[puzzle], mean over the removal's labels that have cells of both kinds."""
    if removal.scores is None or not len(rows.puzzle):
        return np.full(len(puzzles), np.nan)
    weights, offsets = removal.scores
    seen: Any = (
        rows.states if acts is None or not removal.features else acts[:, list(removal.features)]
    )
    each = auc_by_puzzle(
        seen @ weights.T + offsets, rows.labels[:, list(removal.columns)], rows.puzzle
    )
    there = np.isfinite(each)
    mean = np.where(there, each, 0).sum(1) / np.where(there.any(1), there.sum(1), np.nan)
    own = np.full(len(puzzles), np.nan)
    own[np.searchsorted(puzzles, np.unique(rows.puzzle))] = mean
    return own


def _by_puzzle(values: np.ndarray, puzzle: np.ndarray, puzzles: np.ndarray) -> np.ndarray:
    """Means of values of rows; NaN for a puzzle without rows."""
    at = np.searchsorted(puzzles, puzzle)
    count = np.bincount(at, minlength=len(puzzles))
    total = np.bincount(at, values, minlength=len(puzzles))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _stacked(effects: Effects) -> np.ndarray:
    return np.stack([effects.change(name).double().numpy() for name in OUTCOMES], -1)
