"""Claim C1: do failures come from the puzzle, from how it is written, or from the start?

Every puzzle is run under the same symmetric copies from the same starts, all combinations, so that
the variance of the outcome splits into shares. The same evaluations are spent on one deep run from
the model's own start, of every puzzle: breadth against depth without a choice of puzzles.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from trm_interp.analysis.estimates import Estimate, Number, Share
from trm_interp.analysis.outcomes import share_with_bounds
from trm_interp.analysis.resample import mean_estimate
from trm_interp.analysis.variance import Factors, grouped_draws, shares_with_bounds
from trm_interp.core.counter import hash64
from trm_interp.core.infer import run_batch
from trm_interp.figures.origins import origins_figure
from trm_interp.patch.pairs import noisy_starts
from trm_interp.runtime.arrays import Arrays
from trm_interp.runtime.limits import counted
from trm_interp.runtime.runs import Run
from trm_interp.runtime.shards import divided, shard_ends
from trm_interp.search.noise import has_symmetries, target_states
from trm_interp.studies.memory import for_origins
from trm_interp.studies.results import Figures, OnCheckpointResult, Progress, Tell, results_of
from trm_interp.studies.settings import OriginsConfig
from trm_interp.studies.subject import Subject, finite, open_subject

Config = OriginsConfig
APART = (
    "out",
    "static",
    "style",
    "width",
    "overwrite",
    "resume",
    "ckpt",
    "puzzles",
    "device",
    "limit",
)
COPY = 1  # stands in a name of a draw where the noise of a start has the number of its state
PUZZLE, WRITING, START = 0, 1, 2  # axes of the table of outcomes
SETS: dict[str, tuple[Factors, ...]] = {
    "puzzle": ((PUZZLE,),),
    "copy": ((WRITING,), (PUZZLE, WRITING)),
    "start": ((START,), (PUZZLE, START)),
    "copy and start": ((WRITING, START), (PUZZLE, WRITING, START)),
}

SIDES = {"puzzle": -1, "copy": -1, "start": 1, "copy and start": 1}  # of the input; of the start


@dataclass(frozen=True, kw_only=True)
class OriginsResult(OnCheckpointResult):
    """`shares`: of the variance of solved or not over puzzle x copy x start, which sum to 1: what
    differs between puzzles; what the symmetric copy changes, alike in all puzzles or in each
    otherwise; the same of the start; and what only the two together decide. Estimates are unbiased,
    so a small share may be below 0. Intervals are a bootstrap over puzzles.

    `solved`: of all runs; `plain`: of the model's own start on the puzzle as it stands.
    `recovered_by_starts`, `recovered_by_copies`: of the puzzles that this run fails, those that
    some other start or copy solves. `breadth_by_starts`, `breadth_by_copies`: solved by the run
    whose halting logit is largest; `any_start`, `any_copy`: by any. `depth`: by the own start after
    `deep_steps`, which cost as much as the starts. `gain`: breadth by starts minus depth, over the
    same puzzles.

    `outcomes`: a text a puzzle, `1` for a solved run: a word a copy, a letter a start. `gains`: 1,
    0 or -1 a puzzle, what `gain` is the mean of.
    """

    settings: dict[str, Any]
    deep_steps: int
    solved: Estimate
    plain: Share
    shares: dict[str, Estimate]
    recovered_by_starts: Share
    recovered_by_copies: Share
    breadth_by_starts: Share
    breadth_by_copies: Share
    any_start: Share
    any_copy: Share
    depth: Share
    gain: Estimate
    outcomes: list[str]
    gains: list[int]

    @property
    def start_over_input(self) -> Number:
        """Share of what the start decides, alone or with the input, less that of the input alone.

        The input is the puzzle as it is written. None where all runs end alike.
        """
        value = sum((one.value or 0) * SIDES[name] for name, one in self.shares.items())
        return value if all(one.value is not None for one in self.shares.values()) else None

    def start_over_input_draws(self, seed: int) -> np.ndarray:
        """Its bootstrap replicates over puzzles."""
        drawn = grouped_draws(table_of(self.outcomes).astype(np.float64), SETS, seed)
        return sum((SIDES[name] * draws for name, draws in drawn.items()), np.zeros(1))


Result = OriginsResult


def texts_of(solved: np.ndarray) -> list[str]:
    """`outcomes` of a table, bool [puzzle, copy, start].

    >>> texts_of(np.array([[[True, False], [True, True]]]))
    ['10 11']
    """
    return [
        " ".join("".join("01"[int(run)] for run in copy) for copy in puzzle) for puzzle in solved
    ]


def table_of(outcomes: list[str]) -> np.ndarray:
    """The other way round.

    >>> table_of(["10 11"]).tolist()
    [[[True, False], [True, True]]]
    """
    return np.array([[[run == "1" for run in copy] for copy in text.split()] for text in outcomes])


class Runs(NamedTuple):
    """Bool and float32 [puzzle, copy, start] after the last step, and bool [puzzle] of the deep
    runs. Copy 0 is the puzzle as it stands, start 0 the model's own."""

    solved: np.ndarray
    q_halt: np.ndarray
    deep: np.ndarray


class Tables(NamedTuple):
    """origins: shares with their intervals; runs: a row a run; puzzles: a row a puzzle."""

    origins: pd.DataFrame
    runs: pd.DataFrame
    puzzles: pd.DataFrame


def run(config: OriginsConfig, tell: Tell, progress: Progress) -> OriginsResult:
    """All combinations, and the deep runs. `resume` continues a run that was killed."""
    subject = open_subject(config, tell)
    target_states(subject.model, config.target)
    copies = config.copies
    if not has_symmetries(subject.task) and copies > 1:
        tell(f"{subject.task.title} puzzles have no symmetric copies: puzzles and starts alone")
        copies = 1
    for_origins(subject, config)
    identity = {k: v for k, v in asdict(config).items() if k not in APART} | {
        "copies": copies,
        "device": subject.device.type,
        "checkpoint_sha256": subject.checkpoint.sha256,
        "data_sha256": dict(subject.puzzles.sha256),
    }
    names = Tables._fields
    with results_of(
        "origins", config, names, identity=identity, tell=tell, progress=progress
    ) as results:
        runs = run_all(subject, config, copies, results.run)
        result, tables = measure(subject, config, runs)
        results.write(figures(result, tables), tables._asdict())
        return results.finish(result)


def run_all(subject: Subject, config: OriginsConfig, copies: int, run: Run) -> Runs:
    """Of every puzzle, saved one by one; the deep runs batch by batch."""
    shape, n = (copies, config.starts), len(subject.puzzles)
    each, deep = copies * config.starts, config.starts  # a deep run costs as much as the starts
    solved, q_halt, at_depth = [], [], []
    names = [f"line-{line}" for line in subject.puzzles.lines]
    pieces = divided(names, lambda i: _of_puzzle(subject, config, copies, i))
    for puzzle, get in enumerate(pieces):
        saved = run.part(names[puzzle], {"solved": shape, "q_halt": shape}, get)
        solved.append(saved["solved"] != 0)
        q_halt.append(saved["q_halt"])
        run.advance((puzzle + 1) * each, n * (each + deep))
    batches = list(subject.batches())
    names = [f"deep-{subject.puzzles.lines[b.start]}-{b.stop - b.start}" for b in batches]
    pieces = divided(names, lambda i: _deep(subject, config, batches[i]))
    for rows, name, get in zip(batches, names, pieces, strict=False):
        saved = run.part(name, {"solved": (rows.stop - rows.start,)}, get)
        at_depth.append(saved["solved"] != 0)
        run.advance(n * each + rows.stop * deep, n * (each + deep))
    shard_ends()
    return Runs(np.stack(solved), np.stack(q_halt), np.concatenate(at_depth))


def _of_puzzle(subject: Subject, config: OriginsConfig, copies: int, puzzle: int) -> Arrays:
    """Its combinations of copies and starts, in batches."""
    model, n = subject.model, copies * config.starts
    given, parts = subject.puzzles.tensors.at(slice(puzzle, puzzle + 1)), []
    for first in range(0, n, subject.batch_size):
        at = torch.arange(first, min(first + subject.batch_size, n))
        copy, start = at // config.starts, at % config.starts
        inputs, labels = (t.expand(len(at), -1) for t in (given.inputs, given.labels))
        symmetry = subject.task.symmetry(hash64(config.seed, COPY, copy)) if copies > 1 else None
        if symmetry is not None:
            symmetry = symmetry.keep_plain(copy == 0)
            inputs, labels = symmetry.apply(inputs), symmetry.apply(labels)
        own = None if given.identifiers is None else given.identifiers.expand(len(at))
        read = run_batch(
            model,
            inputs,
            labels,
            config.steps,
            before_step=lambda step, state, start=start: (
                state if step else moved(subject, config, start, state)
            ),
            identifiers=own,
        )
        parts.append((read.solved[:, -1].numpy(), read.q_halt[:, -1].numpy()))
    solved, q_halt = map(np.concatenate, zip(*parts, strict=True))
    shape = (copies, config.starts)
    return {"solved": solved.reshape(shape).astype(np.uint8), "q_halt": q_halt.reshape(shape)}


def moved(subject: Subject, config: OriginsConfig, start: Tensor, state: Any) -> Any:
    """The states with the noise of each row's start added to the targets; start 0 stays.

    The noise is named by seed, start and state alone: the same for all puzzles and copies.
    """
    targets = target_states(subject.model, config.target)
    return noisy_starts(state, start, targets, config.sigma, config.shared, config.seed)


def _deep(subject: Subject, config: OriginsConfig, rows: slice) -> Arrays:
    read = subject.run(rows, config.steps * config.starts)
    return {"solved": read.solved[:, -1].numpy().astype(np.uint8)}


def measure(subject: Subject, config: OriginsConfig, runs: Runs) -> tuple[OriginsResult, Tables]:
    """The numbers and the tables of these runs."""
    solved, deep = runs.solved, runs.deep
    q_halt = finite(runs.q_halt, "the halting logit", subject.puzzles.lines)
    plain = solved[:, 0, 0]
    shares = shares_with_bounds(solved.astype(np.float64), SETS, config.seed)
    if solved.shape[1] == 1:
        shares = {name: one for name, one in shares.items() if "copy" not in name}
    by_starts, by_copies = solved[:, 0], solved[:, :, 0]
    best_start = np.take_along_axis(by_starts, q_halt[:, 0].argmax(1)[:, None], 1)[:, 0]
    best_copy = np.take_along_axis(by_copies, q_halt[:, :, 0].argmax(1)[:, None], 1)[:, 0]
    means = {"solved": solved.mean((1, 2)), "gain": best_start.astype(np.float64) - deep}
    counted_shares = {
        "plain": plain,
        "recovered_by_starts": by_starts[~plain].any(1),
        "recovered_by_copies": by_copies[~plain].any(1),
        "breadth_by_starts": best_start,
        "breadth_by_copies": best_copy,
        "any_start": by_starts.any(1),
        "any_copy": by_copies.any(1),
        "depth": deep,
    }
    estimates: dict[str, Any] = {
        name: mean_estimate(each, config.seed) for name, each in means.items()
    }
    counts: dict[str, Any] = {
        name: Share.of(share_with_bounds(hits)) for name, hits in counted_shares.items()
    }
    result = OriginsResult(
        **subject.provenance,
        settings=asdict(config) | {"copies": solved.shape[1]},
        deep_steps=config.steps * config.starts,
        shares={name: Estimate.of(one) for name, one in shares.items()},
        outcomes=texts_of(solved),
        gains=means["gain"].astype(int).tolist(),
        **estimates,
        **counts,
    )
    puzzles = pd.DataFrame(
        {
            "line": subject.puzzles.lines,
            "plain": plain,
            "share_solved": means["solved"],
            "best_start": best_start,
            "best_copy": best_copy,
            "deep": deep,
        }
    )
    origins = pd.DataFrame([{"origin": name, **one} for name, one in shares.items()])
    return result, Tables(origins, pd.DataFrame(_rows(subject, runs)), puzzles)


def _rows(subject: Subject, runs: Runs) -> Iterator[dict[str, Any]]:
    for (puzzle, copy, start), is_solved in np.ndenumerate(runs.solved):
        yield {
            "line": subject.puzzles.lines[puzzle],
            "copy": copy,
            "start": start,
            "solved": is_solved,
            "q_halt": runs.q_halt[puzzle, copy, start],
        }


def figures(result: OriginsResult, tables: Tables) -> Figures:
    """Shares of the variance, and what the same evaluations solve in breadth and in depth."""
    settings = result.settings
    title = (
        f"{result.model_name}: {counted(result.n, 'puzzle')} x {settings['copies']} copies x "
        f"{settings['starts']} starts, {settings['steps']} steps"
    )
    spent = {
        "own start": result.plain,
        f"own start, {result.deep_steps} steps": result.depth,
        f"best of {settings['starts']} starts": result.breadth_by_starts,
        f"any of {settings['starts']} starts": result.any_start,
    }
    if settings["copies"] > 1:
        spent |= {
            f"best of {settings['copies']} copies": result.breadth_by_copies,
            f"any of {settings['copies']} copies": result.any_copy,
        }
    solved = pd.DataFrame(
        [{"way": way, "share": s.share, "low": s.low, "high": s.high} for way, s in spent.items()]
    )
    return {"origins": (origins_figure(tables.origins, solved, title), tables.origins)}


def lines(result: OriginsResult) -> list[str]:
    """The result in words."""
    shares = ", ".join(f"{name} {one.text('.0%')}" for name, one in result.shares.items())
    starts, copies = result.recovered_by_starts, result.recovered_by_copies
    told = [
        f"{counted(result.n, 'puzzle')} x {result.settings['copies']} copies x "
        f"{result.settings['starts']} starts: {result.solved.text('.1%')} solved",
        f"variance of solved or not: {shares}",
        f"of {starts.n} puzzles that the plain run fails, other starts solve {starts.hits}"
        + (f", symmetric copies {copies.hits}" if result.settings["copies"] > 1 else ""),
        f"at {result.deep_steps} steps: best of {result.settings['starts']} starts "
        f"{result.breadth_by_starts.share:.1%}, one deep run {result.depth.share:.1%}; "
        f"difference {result.gain.text('+.1%')}",
    ]
    return told
