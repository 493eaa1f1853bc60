"""The runs behind `robustness`: ends of runs, directions at them, and what pushes do to them."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from trm_interp.analysis.lyapunov import lyapunov
from trm_interp.analysis.robustness import (
    Leading,
    leading_directions,
    random_directions,
    returns,
)
from trm_interp.analysis.settling import distance
from trm_interp.core.joint import CycleMap, joined
from trm_interp.core.losses import PAD, is_solved
from trm_interp.figures.robustness import LEADING, RANDOM
from trm_interp.patch.pairs import noisy_starts
from trm_interp.runtime.arrays import Arrays, columns_of, concatenated
from trm_interp.runtime.shards import shard_ends
from trm_interp.studies.by_outcome import named, subset_of
from trm_interp.studies.results import Progress
from trm_interp.studies.settings import RobustnessConfig
from trm_interp.studies.stages import Stages
from trm_interp.studies.subject import Subject, finite

ANSWER, STATE, SOLVED = "answer", "state", "solved"  # what is asked of a pushed run
MEASURES = (ANSWER, STATE, SOLVED)


class Ends:
    """The ends of the model's own starts of some puzzles, and what becomes of them undisturbed.

    States are [run, dim], all states of a run as one vector. `chosen`: places of the subject's
    puzzles in the file, which name the random numbers.
    """

    def __init__(self, subject: Subject, chosen: np.ndarray, config: RobustnessConfig) -> None:
        self.subject, self.config, self.model = subject, config, subject.model
        self.x = subject.embedded()
        self.labels = subject.labels.to(subject.device)
        self.cycle = CycleMap(self.model, self.x)
        self.chosen = chosen
        own = self.model.initial_state(self.x)
        self.states = self.batched(lambda run: self.later(joined(own)[run], run, config.steps))
        finite(self.states.cpu().numpy(), "the last state", chosen)
        self.undisturbed = self.batched(lambda run: self.later(self.states[run], run, config.then))

    def batched(self, of: Callable[[Tensor], Tensor]) -> Tensor:
        """A function of the numbers of runs, for all runs, some at a time."""
        runs = torch.arange(len(self.x), device=self.x.device)
        return torch.cat([of(part) for part in runs.split(self.config.batch_size)])

    def later(self, z: Tensor, run: Tensor, steps: int) -> Tensor:
        """States so many supervision steps later; `run`: which run each continues."""
        state = self.cycle.split(z)
        for _ in range(steps):
            state = self.model.advance(state, self.x[run])[0]
        return joined(state)

    def tokens(self, z: Tensor, run: Tensor) -> Tensor:
        """What the states decode to, pad in cells that are not judged."""
        decoded = self.model.readout(self.cycle.answer(z)).logits.argmax(-1)
        return decoded.where(self.labels[run] != PAD, PAD)

    @cached_property
    def answers(self) -> Tensor:
        """Of the undisturbed runs in the end."""
        return self.batched(lambda run: self.tokens(self.undisturbed[run], run))

    def judge(self, z: Tensor, run: Tensor) -> Tensor:
        """bool [row, measure]: same answer and same state as undisturbed, and solved."""
        decoded = self.tokens(z, run)
        same_answer = (decoded == self.answers[run]).all(1)
        same_state = distance(z, self.undisturbed[run]) <= self.config.tolerance
        return torch.stack([same_answer, same_state, is_solved(decoded, self.labels[run])], 1)

    def push_step(self, z: Tensor, tangents: Tensor, run: Tensor) -> tuple[Tensor, Tensor]:
        """One supervision step and its derivative."""
        cycle = self.cycle.rows(run)
        for _ in range(self.model.config.schedule.h_cycles):
            z, tangents = cycle.push(z, tangents)
        return z, tangents

    def leading(self, progress: Progress) -> Leading:
        """Of the Jacobian of one supervision step at every end."""
        k, parts, n = self.config.leading, [], len(self.x)
        for run in torch.arange(n, device=self.x.device).split(self.config.batch_size):
            parts.append(
                leading_directions(
                    lambda z, tangents, run=run: self.push_step(z, tangents, run),
                    self.states[run],
                    k,
                    self.config.iterations,
                    self.config.seed,
                )
            )
            progress(int(run[-1]) + 1, n)
        values, directions = zip(*parts, strict=True)
        return Leading(np.concatenate(values), torch.cat(directions))

    def lambda_1(self) -> np.ndarray:
        """The leading exponent along the undisturbed continuation, over its later half, in nats
        per network evaluation."""
        maps = self.config.then * self.model.config.schedule.h_cycles
        parts = []
        for run in torch.arange(len(self.x), device=self.x.device).split(self.config.batch_size):
            cycle = self.cycle.rows(run)
            grown = lyapunov(cycle.push, self.states[run], 1, maps, seed=self.config.seed)
            parts.append(grown.exponents(cycle.evaluations, first=maps // 2)[:, 0])
        return np.concatenate(parts)

    def shares_of_starts(self, progress: Progress) -> dict[str, np.ndarray]:
        """Of every end the share of random starts that come to it in as many steps, by its answer
        and by its state. They have noise on all states."""
        own, steps = self.model.initial_state(self.x), self.config.steps
        answers = self.batched(lambda run: self.tokens(self.states[run], run))
        same = []
        for start in range(1, self.config.starts + 1):
            which = torch.full((len(self.x),), start)
            names, seed = self.model.state_names, self.config.seed
            begun = joined(noisy_starts(own, which, names, self.config.sigma, seed=seed))
            z = self.batched(lambda run, begun=begun: self.later(begun[run], run, steps))
            there = (self.batched(lambda run, z=z: self.tokens(z[run], run)) == answers).all(1)
            near = distance(z, self.states) <= self.config.tolerance
            same.append(torch.stack([there, near], 1))
            progress(start, self.config.starts)
        shares = torch.stack(same).double().mean(0).cpu().numpy()
        return {ANSWER: shares[:, 0], STATE: shares[:, 1]}

    def table(self, leading: Leading | None, progress: Progress) -> pd.DataFrame:
        """A row an end, without what pushes do to it."""
        z = self.states
        solved = is_solved(self.batched(lambda run: self.tokens(z[run], run)), self.labels)
        q_halt = self.batched(lambda run: self.model.readout(self.cycle.answer(z[run])).q_halt)
        moved = distance(self.batched(lambda run: self.later(z[run], run, 1)), z)
        table = pd.DataFrame(
            {
                "puzzle": self.chosen,
                "line": self.subject.puzzles.lines,
                "outcome": named(solved.cpu().numpy()),
                "solved_later": is_solved(self.answers, self.labels).cpu().numpy(),
                "moved": moved.cpu().numpy(),
                "q_halt": q_halt.float().cpu().numpy(),
                "lambda_1": self.lambda_1(),
            }
        )
        if self.config.starts:
            shares = self.shares_of_starts(progress)
            table = table.assign(**{f"starts_{name}": of for name, of in shares.items()})
        return table if leading is None else table.assign(modulus=np.abs(leading.values[:, 0]))


def push_ends(
    subject: Subject, chosen: np.ndarray, config: RobustnessConfig, work: Stages, progress: Progress
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """A row an end, and by kind of direction bool [end, epsilon, direction, measure]; a batch of
    ends at a time, of which a shard does its own and ends."""
    n = -(-len(chosen) // config.batch_size)

    def compute(rows: slice) -> Arrays:
        i = rows.start // config.batch_size

        def within(done: int, of: int) -> None:
            progress(i * of + done, n * of)

        batch = subset_of(subject, np.arange(rows.start, rows.stop))
        table, back = _push_batch(batch, chosen[rows], config, work, within)
        return {**back, **{f"ends {name}": of for name, of in columns_of(table).items()}}

    parts = list(subject.in_pieces("ends", compute))
    shard_ends()
    joined = concatenated(parts)
    table = {k.removeprefix("ends "): of for k, of in joined.items() if k.startswith("ends ")}
    back = {k: of for k, of in joined.items() if not k.startswith("ends ")}
    return pd.DataFrame(table), back


@torch.no_grad()
def _push_batch(
    subject: Subject, chosen: np.ndarray, config: RobustnessConfig, work: Stages, progress: Progress
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """`push_ends` of some ends together.

    Along leading eigenvectors ends are pushed both ways: their sign says nothing.
    """
    ends = Ends(subject, chosen, config)
    leading = ends.leading(work.stage(1, progress)) if config.leading else None
    table = ends.table(leading, work.stage(2, progress))
    runs, dim = torch.from_numpy(chosen).to(subject.device), ends.states.shape[1]
    kinds = {RANDOM: random_directions(runs, config.draws, dim, config.seed).to(ends.states)}
    if leading is not None:
        kinds[LEADING] = torch.cat([leading.directions, -leading.directions], 1)
    done, total, back = 0, sum(of.shape[1] for of in kinds.values()), {}
    stage = work.stage(3, progress)
    for kind, directions in kinds.items():
        pushes = len(config.sizes) * len(chosen)

        def watch(rows: int, done: int = done, pushes: int = pushes) -> None:
            stage(done * pushes + rows, total * pushes)

        back[kind] = returns(
            ends.states,
            directions,
            config.sizes,
            lambda z, run: ends.later(z, run, config.then),
            ends.judge,
            config.batch_size,
            watch,
        )
        done += directions.shape[1]
    return table, back
