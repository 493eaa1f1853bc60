"""Heat layers that are computed when they are looked at: a probe, an SAE feature, patch effects."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from trm_interp.explore.edits import Node
from trm_interp.explore.probes import MARK, states_of
from trm_interp.explore.runs import Run
from trm_interp.patch import Recorded, attribute, last_hook, record, start_hook
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.shapes import Bool, Float
from trm_interp.tasks.base import PuzzleSet, Task, Tokens

if TYPE_CHECKING:
    from trm_interp.explore.session import Session

PROBED = 16  # puzzles of the file that a probe is fitted on
PROBED_STEPS = (0, 1, 2, 3, 5, 8, 15)  # at the ends of these supervision steps
FACTS = ("wrong", "conflict")  # of the guess, of every task; before those of the puzzle


class Layer(NamedTuple):
    """Heat over the board for each run: float32 [moment, cell]; and what it is, in words."""

    heat: Sequence[Float[np.ndarray, "moment cell"]]
    words: str


# A probe


def probe_names(task: Task, puzzles: PuzzleSet) -> list[str]:
    """Facts of cells that a probe can be fitted for: of the guess, and the task's own."""
    if not len(puzzles):
        return list(FACTS)
    return [*FACTS, *task.board_facts(puzzles.inputs[0], puzzles.labels[0])]


def facts_shown(session: "Session") -> list[str]:
    """What probes on the page are for: those that are fitted here, then those that were opened."""
    opened = [] if session.probes is None else session.probes.labels()
    own = probe_names(session.task, session.puzzles)
    return [*own, *(f"{MARK}{label}" for label in opened)]


@dataclass(frozen=True)
class Rows:
    """Asked cells of some puzzles at the ends of steps: states [row, d_model], labels [row]."""

    states: Float[np.ndarray, "row d_model"]
    labels: Bool[np.ndarray, " row"]
    puzzle: np.ndarray


def probe_layer(session: "Session", runs: Sequence[Run], state: str, fact: str) -> Layer:
    """Probability that a linear probe of a state gives to a fact of each cell.

    Fitted on the first puzzles of the file less the one on screen, so that its AUC there is that of
    an unseen puzzle; the control is fitted on labels that were shuffled within puzzles.
    UserError for a fact that there is not, and where the file has no other puzzle.
    """
    if session.probes is not None and fact.startswith(MARK):
        label = fact.removeprefix(MARK)
        heat = [session.probes.chance(session, run, state, label) for run in runs]
        words = f"probe of {state} for {label!r} from {session.probes.path}, at every moment that "
        return Layer(heat, f"{words}of the nearest H-cycle")
    from trm_interp.analysis.probes import probe_scores, shuffled_in_puzzles  # loads for a second

    if fact not in probe_names(session.task, session.puzzles):
        names = ", ".join(facts_shown(session))
        raise UserError(f"no probe for {fact[:40]!r}: choose one of {names}")
    inputs = runs[0].node.root.puzzle.inputs
    train = _training(session, state, fact, inputs.tobytes())
    ends = [session.ends[step] for step in PROBED_STEPS if step < len(session.ends)]
    tests = [states_of(session, run, state) for run in runs]
    rows = np.concatenate([test.reshape(-1, test.shape[-1]) for test in tests])
    traded = shuffled_in_puzzles(train.labels[:, None], train.puzzle, np.random.default_rng(0))
    log_odds = probe_scores(train.states, train.labels[:, None], rows)[:, 0]
    if np.isnan(log_odds).any():
        raise UserError(f"{fact!r} is the same in all cells of other puzzles: choose another probe")
    control = probe_scores(train.states, traded, rows)[:, 0]
    shape = (len(runs), *tests[0].shape[:2])
    at = np.array(ends)
    first = [of.reshape(shape)[0][at] for of in (log_odds, control)]
    auc, by_chance = (_auc(session.task, runs[0], at, fact, of) for of in first)
    words = (
        f"probe of {state} for {fact!r}, fitted on {len(np.unique(train.puzzle))} other puzzles of "
        f"the file; AUC on this one {_number(auc)}, with shuffled labels {_number(by_chance)}"
    )
    heat = (1 / (1 + np.exp(-log_odds))).astype(np.float32).reshape(shape)
    return Layer([heat[at] for at in range(len(runs))], words)


def _number(value: float) -> str:
    return "unknown (of one kind only)" if np.isnan(value) else f"{value:.2f}"


def _auc(task: Task, run: Run, ends: np.ndarray, fact: str, scores: np.ndarray) -> float:
    """Over asked cells at these moments of a run; NaN where they are all of one kind."""
    from trm_interp.analysis.probes import auc_by_puzzle

    labels = np.stack(
        [_labels(task, run.inputs[m], run.labels[m], run.answer.tokens[m], fact) for m in ends]
    )
    asked = task.asked(run.inputs[0])
    if not asked.any():
        return np.nan
    at_asked = scores[:, asked].reshape(-1, 1), labels[:, asked].reshape(-1, 1)
    return float(auc_by_puzzle(*at_asked, np.zeros(len(at_asked[0]), int))[0, 0])


def _labels(task: Task, inputs: Tokens, solution: Tokens, guess: Tokens, fact: str) -> np.ndarray:
    """bool [cell]."""
    if fact == "wrong":
        return (guess != solution) & (solution != 0)
    if fact == "conflict":
        return task.conflicts(guess)
    return task.board_facts(inputs, solution)[fact]


def _training(session: "Session", state: str, fact: str, shown: bytes) -> Rows:
    """Of other puzzles than the one on screen."""
    puzzles = session.puzzles
    others = [
        i for i in range(min(len(puzzles), PROBED + 1)) if puzzles.inputs[i].tobytes() != shown
    ][:PROBED]
    if not others:
        raise UserError("a probe is fitted on other puzzles of the file: open one that has more")
    runs = recorded_steps(session, tuple(others))
    task, prefix = session.task, session.model.config.prefix
    states, labels, of_puzzle = [], [], []
    for step in PROBED_STEPS:
        if step >= session.steps:
            break
        hook = last_hook(session.model, session.steps, state, _done(session, step))
        z = runs.values[hook][:, prefix:].float().cpu().numpy()
        for row, i in enumerate(others):
            guess = runs.readouts.tokens[row, step].numpy()
            asked = task.asked(puzzles.inputs[i])
            true = _labels(task, puzzles.inputs[i], puzzles.labels[i], guess, fact)
            states.append(z[row][asked])
            labels.append(true[asked])
            of_puzzle.append(np.full(int(asked.sum()), i))
    return Rows(*(np.concatenate(part) for part in (states, labels, of_puzzle)))


def _done(session: "Session", step: int) -> int:
    """Evaluations that are done at the end of a supervision step."""
    return (step + 1) * session.model.config.schedule.evaluations


def recorded_steps(session: "Session", puzzles: tuple[int, ...]) -> Recorded:
    """Runs of some puzzles of the file, with their states at the ends of `PROBED_STEPS`."""
    return session.recorded.once(puzzles, lambda: _recorded_steps(session, puzzles))


def _recorded_steps(session: "Session", puzzles: tuple[int, ...]) -> Recorded:
    model, steps = session.model, session.steps
    hooks = sorted(
        {
            last_hook(model, steps, state, _done(session, step))
            for state in session.states
            for step in PROBED_STEPS
            if step < steps
        }
    )
    given = session.puzzles.subset(list(puzzles)).tensors
    own = given.identifiers if model.config.n_identifiers else None
    return record(model, given.inputs, given.labels, steps, hooks=hooks, identifiers=own)


# Patch effects


def effect_layer(session: "Session", runs: Sequence[Run], state: str) -> Layer:
    """How much the loss at the end of a fork's parent would change, to first order, if a cell of
    the state were the fork's at that moment: nats per cell, 0 for the plain run.

    Forks of forks have none, and are left at 0: what they follow is no plain run.
    """
    zero = np.zeros((session.last + 1, session.task.cells), np.float32)
    forks = [run.node.parent is not None and run.node.parent.parent is None for run in runs]
    if not any(forks):
        raise UserError("patch effects are between the plain run and its forks: make a fork first")
    heat = [
        patch_effect(session, run.node, state) if forked else zero
        for run, forked in zip(runs, forks, strict=True)
    ]
    words = (
        f"what each cell of the fork's {state}, put into the plain run, does to its loss at the end"
    )
    return Layer(heat, f"{words} (nats per cell, to first order)")


def patch_effect(session: "Session", fork: Node, state: str) -> Float[np.ndarray, "moment cell"]:
    """Of one fork of a plain run, by `patch.attribute`; 0 before its edit."""
    return session.effects.once((fork, state), lambda: _patch_effect(session, fork, state))


def _patch_effect(session: "Session", fork: Node, state: str) -> Float[np.ndarray, "moment cell"]:
    assert fork.parent is not None and fork.edit is not None
    model, steps, puzzle = session.model, session.steps, fork.puzzle
    inputs, labels = (torch.from_numpy(of.copy())[None] for of in (puzzle.inputs, puzzle.labels))
    own = None if puzzle.identifier is None else torch.tensor([puzzle.identifier])
    base = record(model, inputs, labels, steps, hooks=[], identifiers=own)
    written, first = session.run(fork).written[state], fork.edit.at
    spans = base.spans
    hooks = [
        last_hook(model, steps, state, spans[moment - 1].first + len(spans[moment - 1].ticks))
        if moment
        else start_hook(state)
        for moment in written.moments.tolist()
    ]
    values = dict(zip(hooks, written.values[:, None], strict=True))
    donor = Recorded(
        model, base.x, base.labels, steps, base.before, values, base.readouts, base.view
    )
    attributed = attribute(base, donor, list(dict.fromkeys(hooks)))
    prefix = model.config.prefix
    rows = np.stack([attributed[hook][0, prefix:].numpy() for hook in hooks])
    effect = np.zeros((session.last + 1, session.task.cells), np.float32)
    effect[first:] = rows[written.index(session.last)]
    return effect


def feature_layer(session: "Session", runs: Sequence[Run], feature: int | None) -> Layer:
    """Activation of a feature. UserError where no SAE is open, or no feature is chosen."""
    features = session.features
    if features is None:
        raise UserError("no SAE is open: start the explorer with --sae")
    if feature is None:
        raise UserError("choose a feature: click a cell, then one of its features")
    if not 0 <= feature < features.d_sae:
        raise UserError(f"features are 0 to {features.d_sae - 1}, not {feature}")
    heat = [features.course(session, run, feature) for run in runs]
    return Layer(heat, f"activation of feature {feature} of {features.site}")
