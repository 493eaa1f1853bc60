"""Linear probes of states for each cell's candidates and rule violations, with controls.

Where a task has no candidates, its facts of cells take their place.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from trm_interp.analysis.auc import FEWEST
from trm_interp.analysis.estimates import Number, with_span
from trm_interp.analysis.probes import (
    Probes,
    auc_by_puzzle,
    fitted_probes,
    probe_scores,
    scores_by_cell,
    shuffled_in_puzzles,
)
from trm_interp.analysis.resample import mean_with_bounds
from trm_interp.core.infer import embedded
from trm_interp.core.models.base import RecursiveModel
from trm_interp.figures.lens import probe_figure
from trm_interp.recording.site_reader import SiteReader, run_clock, spell, split_puzzles
from trm_interp.recording.store import Store
from trm_interp.runtime.arrays import Arrays, columns_of
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import counted
from trm_interp.runtime.records import Record
from trm_interp.runtime.shards import divided, shard_ends
from trm_interp.studies.lens import head_answers
from trm_interp.studies.results import Figures, OnStoreResult, Progress, Tell, records, results_of
from trm_interp.studies.settings import ProbesConfig
from trm_interp.studies.subject import open_model, opening, provenance_of, require
from trm_interp.subjects.settings import parse_indices
from trm_interp.tasks.base import PuzzleTensors, Task

Config = ProbesConfig
DOZEN = 12
WEIGHTS = "weights"  # table of the probes of states, which the explorer opens
NAMES = ("probes", WEIGHTS)
KINDS = {  # what is fitted
    "state": "probe of the state",
    "shuffled": "labels shuffled within puzzles",
    "x": "embedded input of the cell",
    "board": "whole input, one probe per cell",
}
POOLED = {  # labels as a whole, and how the names of single ones begin and end
    "candidates": ("candidate ", ""),
    "facts": ("fact ", ""),
    "violations": ("", " conflict"),
}


@dataclass(frozen=True, kw_only=True)
class ProbeScore(Record):
    """Mean AUC over the `n` test puzzles that have cells of both kinds of a label.

    `site`: "" for the controls on the input; `kind`: see KINDS; `tick`: network evaluation at the
    end of H-cycle `cycle`; `label`: one of POOLED, or a single candidate, fact or rule.
    """

    cycle: int
    site: str
    kind: str
    tick: int
    label: str
    auc: Number
    low: Number
    high: Number
    n: int


@dataclass(frozen=True, kw_only=True)
class ProbesResult(OnStoreResult):
    """`n_rows`: blank cells of all puzzles; `cycles`: the H-cycles that were probed."""

    n_train: int
    n_test: int
    n_rows: int
    cycles: list[int]
    strength: float
    seed: int
    auc: list[ProbeScore]


Result = ProbesResult


class Board(NamedTuple):
    """Rows are blank cells, puzzle by puzzle."""

    puzzle: np.ndarray  # [row]
    cell: np.ndarray
    names: tuple[str, ...]  # of what the puzzle alone decides: candidates or facts
    labels: np.ndarray  # bool [row, name]
    x: np.ndarray  # [row, d_model], the cell's embedded input
    one_hot: np.ndarray  # [row, cell * vocab] of the whole board, which x is a linear image of
    test: np.ndarray  # bool [row]


class Moment(NamedTuple):
    """The end of an H-cycle: the last tick of each site, its states [row, d_model], the labels
    bool [row, label] and their names."""

    cycle: int
    ticks: dict[str, int]
    states: dict[str, np.ndarray]
    labels: np.ndarray
    names: list[str]


def run(config: ProbesConfig, tell: Tell, progress: Progress) -> ProbesResult:
    """Fit probes at the end of some H-cycles, and test them on puzzles that they have not seen."""
    with opening(config, tell) as store:
        require(store, *store.states, whole_boards=True)
        model = open_model(store, config.ckpt, config.device).model
        inputs = store["inputs"][:]
        train, test = split_puzzles(inputs, config.held_out, config.seed)
        ends = _ends(store, config)
        with results_of("probes", config, NAMES, tell=tell, progress=progress) as results:
            board = _board(store.tensors(), test, model, store.task)
            if not board.names:
                lacks = f"{store.task.title} has no candidates and no facts of cells"
                tell(f"{lacks}: probing for broken rules alone")
            table, weights = probe_all(store, model, board, ends, config, progress)
            result = ProbesResult(
                **provenance_of(store),
                n_train=len(train),
                n_test=len(test),
                n_rows=len(board.puzzle),
                cycles=[cycle for cycle, _ in ends],
                strength=config.strength,
                seed=config.seed,
                auc=[ProbeScore.of(row) for row in records(table)],
            )
            results.write(figures(result, table), {WEIGHTS: weights})
            return results.finish(result)


def probe_all(
    store: Store,
    model: RecursiveModel,
    board: Board,
    ends: list[tuple[int, dict[str, int]]],
    config: ProbesConfig,
    progress: Progress,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row for every `ProbeScore`, and one for every probe of a state: its log-odds are
    `offset + w0 * z[0] + w1 * z[1] + ...`. A shard fits those of some H-cycles, and ends here."""
    per_moment = 2 * len(store.states) + 2  # fits

    def compute(i: int) -> Arrays:
        moment = _moment(store, model, board, *ends[i])
        rows: list[dict[str, Any]] = []
        weights: list[pd.DataFrame] = []
        for fits, (site, kind, scores, labels, probes) in enumerate(_fits(moment, board, config)):
            progress(i * per_moment + fits, len(ends) * per_moment)
            auc = auc_by_puzzle(scores, labels, board.puzzle[board.test])
            tick = moment.ticks[site or store.answer]
            fit = {"cycle": moment.cycle, "site": site, "kind": kind, "tick": tick}
            rows += [fit | row for row in _means(auc, moment.names, config.seed)]
            if kind == "state" and probes is not None:
                weights.append(_weights(probes, fit, moment.names))
        tables = {"score": pd.DataFrame(rows), "weight": pd.concat(weights)}
        return {
            f"{kind} {name}": column
            for kind, table in tables.items()
            for name, column in columns_of(table).items()
        }

    parts = [get() for get in divided([f"cycle-{cycle}" for cycle, _ in ends], compute)]
    shard_ends()
    progress(len(ends) * per_moment, len(ends) * per_moment)
    table, weights = (
        pd.concat([_table(part, kind) for part in parts], ignore_index=True)
        for kind in ("score", "weight")
    )
    return table, weights


def _table(part: Arrays, kind: str) -> pd.DataFrame:
    """One of the tables whose columns a part holds."""
    columns = {name.partition(" ")[::2]: column for name, column in part.items()}
    return pd.DataFrame({name: column for (own, name), column in columns.items() if own == kind})


def _weights(probes: Probes, fit: dict[str, Any], names: list[str]) -> pd.DataFrame:
    """A row for every label that has a probe."""
    directions, offsets = probes.directions()
    columns = [f"w{i}" for i in range(directions.shape[1])]
    table = pd.DataFrame(directions, columns=columns)
    own = {**fit, "label": names, "offset": offsets}
    for at, (name, value) in enumerate(own.items()):
        table.insert(at, name, value)
    return pd.DataFrame(table[np.isfinite(offsets)]).drop(columns="kind")


def _ends(store: Store, config: ProbesConfig) -> list[tuple[int, dict[str, int]]]:
    """The H-cycles that are probed, and the index of the tick that writes each site last there."""
    clock = run_clock(store)
    last: dict[int, dict[str, int]] = {}
    h_cycles = store.schedule.h_cycles
    for index, tick in enumerate(clock):
        last.setdefault(tick.step * h_cycles + tick.h_cycle, {})[tick.writes] = index
    wanted = parse_indices(config.cycles, "cycles")
    if wanted is None:
        wanted = sorted({round(at) - 1 for at in np.geomspace(1, len(last), DOZEN)})
    if missing := [cycle for cycle in wanted if cycle not in last]:
        raise UserError(f"no H-cycle {missing[0]}; {store.path} holds {spell(sorted(last))}")
    return [(cycle, last[cycle]) for cycle in wanted]


@torch.no_grad()
def _board(given: PuzzleTensors, test: np.ndarray, model: RecursiveModel, task: Task) -> Board:
    inputs = given.inputs.numpy()
    puzzle, cell = np.nonzero(task.asked(inputs))
    names, true = facts_of(inputs, given.labels.numpy(), task)
    one_hot = (inputs[..., None] == np.arange(1, model.config.vocab)).reshape(len(inputs), -1)
    embedding = embedded(model, given.inputs, identifiers=given.identifiers)
    x = embedding.cpu().numpy()[puzzle, model.config.prefix + cell]
    held_out = np.isin(puzzle, test)
    if held_out.all() or not held_out.any():
        raise UserError("probes need blank cells in training and in held-out puzzles: record more")
    one_hot = one_hot[puzzle].astype(np.float32)
    return Board(puzzle, cell, names, true[puzzle, cell], x, one_hot, held_out)


def facts_of(
    inputs: np.ndarray, labels: np.ndarray, task: Task
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names, and bool [puzzle, cell, name]: candidates, or the facts of a task without them."""
    each = [task.candidates(one) for one in inputs]
    there = [one for one in each if one is not None]
    if there and len(there) == len(each):
        names = tuple(f"candidate {name}" for name in there[0][0])
        return names, np.stack([possible for _, possible in there])
    facts = [task.board_facts(*one) for one in zip(inputs, labels, strict=True)]
    if not facts or not facts[0]:
        return (), np.zeros((*inputs.shape, 0), bool)
    names = tuple(f"fact {name}" for name in facts[0])
    return names, np.stack([np.stack([*of.values()], axis=-1) for of in facts])


def _moment(
    store: Store, model: RecursiveModel, board: Board, cycle: int, ticks: dict[str, int]
) -> Moment:
    """The end of an H-cycle. Violations are those of the guess that it ends with."""
    at = model.config.prefix + board.cell
    states: dict[str, np.ndarray] = {}
    guesses = []
    for site in store.states:
        reader = SiteReader(store, site, [ticks[site]])
        kept = np.empty((len(board.puzzle), reader.d_model), np.float16)
        for puzzle in range(store.n_puzzles):
            state = reader.read(puzzle)
            mine = board.puzzle == puzzle
            kept[mine] = state[0, at[mine]]
            if site == store.answer:
                guesses.append(head_answers(model, state)[0])
        states[site] = kept
    rules = store.task.violations(np.stack(guesses))
    broken = [cells[board.puzzle, board.cell] for cells in rules.values()]
    labels = np.column_stack([board.labels, *broken])
    names = [*board.names, *(f"{rule} conflict" for rule in rules)]
    return Moment(cycle, ticks, states, labels, names)


def _fits(
    moment: Moment, board: Board, config: ProbesConfig
) -> Iterator[tuple[str, str, np.ndarray, np.ndarray, Probes | None]]:
    """Site, kind, scores and labels of the test rows, and the probes of states.

    x is the same vector at every blank cell. Shuffled labels train the control, which the true
    ones of the test puzzles judge.
    """
    test, train, labels = board.test, ~board.test, moment.labels
    rng = np.random.default_rng([config.seed, 0x9B0B])
    traded = shuffled_in_puzzles(labels, board.puzzle, rng)
    for site, rows in moment.states.items():
        for kind, wanted in (("state", labels), ("shuffled", traded)):
            probes = fitted_probes(rows[train], wanted[train], config.strength)
            yield site, kind, probes.scores(rows[test]), labels[test], probes
    scores = probe_scores(board.x[train], labels[train], board.x[test], config.strength)
    yield "", "x", scores, labels[test], None
    cells = board.cell[train], board.one_hot[test], board.cell[test]
    scores = scores_by_cell(board.one_hot[train], labels[train], *cells, config.strength)
    yield "", "board", scores, labels[test], None


def _means(auc: np.ndarray, names: list[str], seed: int) -> Iterator[dict[str, Any]]:
    """Mean AUC over test puzzles that have cells of both kinds, with its 95 % bootstrap interval:
    those of POOLED (mean over single labels first), and each."""
    pooled = {
        kind: [i for i, name in enumerate(names) if name.startswith(begin) and name.endswith(end)]
        for kind, (begin, end) in POOLED.items()
    }
    pooled = {name: columns for name, columns in pooled.items() if columns}
    for name, columns in (pooled | {name: [i] for i, name in enumerate(names)}).items():
        there = np.isfinite(auc[:, columns])
        count = there.sum(1)
        total = np.where(there, auc[:, columns], 0.0).sum(1)
        values = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        mean, low, high = map(float, mean_with_bounds(values, seed))
        yield {"label": name, "auc": mean, "low": low, "high": high, "n": int((count > 0).sum())}


def figures(result: ProbesResult, table: pd.DataFrame) -> Figures:
    """AUC over network evaluations, of candidates or facts and of violations; and controls."""
    title = f"Linear probes of single blank cells, {result.n_test} unseen puzzles"
    return {"probes": (probe_figure(table, KINDS, title), table)}


def lines(result: ProbesResult) -> list[str]:
    """The first, the best and the last moment of each probe, and its controls; of both kinds of
    labels as a whole. The best is one of FEWEST puzzles or more, where there is one."""
    scores: dict[tuple[str, str, str], list[ProbeScore]] = {}
    for score in result.auc:
        if score.label in POOLED and score.auc is not None:
            scores.setdefault((score.label, score.site, score.kind), []).append(score)
    text = [f"{counted(result.n_train, 'puzzle')} to train on, {result.n_test} to test; AUC"]
    for (label, site, kind), each in scores.items():
        enough = [score for score in each if score.n >= FEWEST] or each
        best = max(enough, key=lambda score: score.auc or 0.0)
        moments = {score.tick: score for score in (each[0], best, each[-1])}.values()
        spans = (
            f"{with_span(one.auc, one.low, one.high)} at tick {one.tick} (n = {one.n})"
            for one in moments
        )
        text.append(f"{label}, {site or 'input'}, {KINDS[kind]}: {'; '.join(spans)}")
    return text
